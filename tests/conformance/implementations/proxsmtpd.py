"""The adapter for proxsmtpd(8) from Debian's proxsmtp package.

Rule: proxsmtpd itself handles every session and message. It sends DATA to the upstream server after
it has received the message, so the delivery mode is `Direct`.

- HOST:PORT, -d, -t and -c become OutAddress, TempDirectory, FilterTimeout and FilterCommand of
  proxsmtpd.conf(5). The kit runs the filter according to the contract of -c and -r.
- proxsmtpd sends its own name in the greeting and the EHLO reply. The adapter restores the upstream
  server's name, because every transcript expects it. The program removes PIPELINING, so its
  description does not declare this capability.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from postprox_conformance.adapters import Adapter, Direct, Message, OwnName, Place, Program

CONFIGURATION = """\
OutAddress: {upstream}
Listen: {entrance}
FilterType: file
FilterTimeout: {timeout}
TempDirectory: {directory}
"""


def program(place: Place) -> Program:
    """Write proxsmtpd's configuration, and return its command."""
    text = CONFIGURATION.format(
        upstream=place.upstream,
        entrance=place.entrance,
        timeout=place.options.timeout,
        directory=place.options.directory,
    )
    if script := place.filter_script():
        text += f"FilterCommand: exec {script}\n"
    configuration = place.write("proxsmtpd.conf", text)
    argv = ["/usr/sbin/proxsmtpd", "-f", str(configuration), "-p", f"{place.files}/pid"]
    if place.options.foreground:
        return Program([*argv, "-d", "0"])
    return Program(argv, detaches=True)


def message(_arguments: Sequence[str]) -> Message:
    """Return the message that the environment of FilterCommand describes."""
    values = os.environ
    return Message(
        email=Path(values["EMAIL"]),
        sender=values.get("SENDER", ""),
        recipient=values.get("RECIPIENTS", "").partition("\n")[0],
        remote_ip=values.get("REMOTE", ""),
        helo=values.get("REMOTE_HELO", ""),
    )


ADAPTER = Adapter(
    program,
    Direct(rewriter=partial(OwnName, b"smtp.passthru")),
    unix=True,
    message=message,
)
