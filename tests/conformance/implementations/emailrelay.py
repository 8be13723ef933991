"""The adapter for E-MailRelay, a relay in C++, with --immediate and --filter.

Rule: E-MailRelay replies to every command itself. With --immediate, it sends the message to the
upstream server before it replies to the end of data, so the delivery mode is `Deferred`.

- -d becomes --spool-dir, and -t becomes --filter-timeout. The adapter removes the Received field
  that E-MailRelay prepends to a message.
- E-MailRelay passes a content file and an envelope file to its filter, and reads `<<reply>>` from
  the filter's standard output. A script creates this reply from the last line of standard error. It
  also restores CRLF in content that the filter has changed.
- EMAIL is a copy of the content with LF line ends and without the Received field.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from postprox_conformance.adapters import Adapter, Deferred, Message, Place, Program

EMAILRELAY = "/opt/emailrelay/src/main/emailrelay"

SCRIPT = """\
#!/bin/sh
cp "$1" "$1.before"
{filter} "$@" 2>"$1.errors"
status=$?
[ $status = 0 ] || printf '<<%s>>\\n' "$(tail -n 1 "$1.errors")"
cmp -s "$1" "$1.before" || sed -i 's/\\r*$/\\r/' "$1"
rm -f "$1.before" "$1.errors" "$1.email"
exit $status
"""
#: The field that E-MailRelay prepends to the content.
RECEIVED = re.compile(rb"\AReceived:.*\n(?:[ \t].*\n)*")
#: The fields in an envelope file.
SENDER, RECIPIENTS = "X-MailRelay-From", ("X-MailRelay-To-Remote", "X-MailRelay-To-Local")


def program(place: Place) -> Program:
    """Return E-MailRelay's command."""
    options = place.options
    argv = [EMAILRELAY, "--no-daemon", "--no-syslog", "--immediate", "--user", "root"]
    argv += ["--interface", place.entrance.host, "--port", str(place.entrance.port)]
    argv += ["--forward-to", str(place.upstream), "--domain", "client.example"]
    argv += ["--spool-dir", str(options.directory)]
    argv += ["--filter-timeout", str(math.ceil(float(options.timeout)))]
    if script := place.filter_script():
        text = SCRIPT.format(filter=script)
        argv += ["--filter", str(place.write("emailrelay-filter", text, 0o755))]
    return Program(argv)


def message(arguments: Sequence[str]) -> Message:
    """Return the message in the content and envelope files specified by *arguments*."""
    content, envelope = map(Path, arguments[:2])
    lines = envelope.read_text("utf-8", "surrogateescape").splitlines()
    fields = [line.partition(": ") for line in lines]
    octets = RECEIVED.sub(b"", content.read_bytes(), count=1)
    email = content.with_name(content.name + ".email")
    email.write_bytes(octets.replace(b"\r\n", b"\n"))
    email.chmod(0o600)
    return Message(
        email=email,
        sender=next((value for name, _, value in fields if name == SENDER), ""),
        recipient=next((value for name, _, value in fields if name in RECIPIENTS), ""),
        outfile=content,
    )


ADAPTER = Adapter(program, Deferred(), message=message, version=[EMAILRELAY, "--version"])
