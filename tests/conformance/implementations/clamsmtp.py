"""The adapter for clamsmtpd(8) from Debian's package clamsmtp.

Rule: clamsmtpd itself handles every session and message. It sends DATA to the upstream server after
it has received the message, so the delivery mode is `Direct`.

- clamsmtpd sends each message to clamd(8) for a scan. Here, clamd.py in this directory replaces
  clamd(8) and finds no virus.
- HOST:PORT and -d become OutAddress and TempDirectory of clamsmtpd.conf(5). `Header:` without a
  value suppresses the header field that clamsmtpd adds.
- clamsmtpd sends its own name in the greeting and the EHLO reply. The adapter restores the upstream
  server's name, because every transcript expects it. The program removes PIPELINING, so its
  description does not declare this capability.
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
    """Write clamsmtpd's configuration. Return the command that runs clamsmtpd and its scanner."""
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
    Direct(rewriter=partial(OwnName, b"smtp.passthru")),
    unix=True,
    version=[CLAMSMTPD, "-v"],
)
