"""The adapter for clamsmtpd(8), of Debian's package clamsmtp.

Rule: clamsmtpd itself handles every session and message. It sends DATA to the upstream server when
it has the message, so the passage is `Direct`.

- clamsmtpd has each message scanned by clamd(8). The scanner is clamd.py next to this file, which
  finds no virus.
- HOST:PORT and -d become OutAddress and TempDirectory of clamsmtpd.conf(5). `Header:` without a
  value suppresses the header field that clamsmtpd adds.
- In the greeting and the EHLO reply clamsmtpd sends its own name, and it removes PIPELINING. The
  passage restores both, because every transcript contains them.
"""

from __future__ import annotations

import sys
from functools import partial

from postprox_conformance.adapters import Adapter, Direct, OwnName, Place, Program

CLAMSMTPD = "/usr/sbin/clamsmtpd"

CONFIGURATION = """\
OutAddress: {upstream}
Listen: {entrance}
ClamAddress: {scanner}
TempDirectory: {directory}
Header:
"""


def program(place: Place) -> Program:
    """Return the command of clamsmtpd and its scanner."""
    scanner = place.files / "clamd"
    text = CONFIGURATION.format(
        upstream=place.upstream,
        entrance=place.entrance,
        scanner=scanner,
        directory=place.options.directory,
    )
    configuration = place.write("clamsmtpd.conf", text)
    helper = [sys.executable, "-S", str(place.adapter.with_name("clamd.py")), str(scanner)]
    return Program([*helper, CLAMSMTPD, "-f", str(configuration), "-d", "0"])


ADAPTER = Adapter(
    program,
    Direct(rewriter=partial(OwnName, b"smtp.passthru", removed=b"PIPELINING")),
    unix=True,
    version=[CLAMSMTPD, "-v"],
)
