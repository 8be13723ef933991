#!/usr/bin/python3
"""Reject messages with a program attached, however its name is encoded."""

import email
import email.errors
import email.header
import os
import sys
import traceback
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

# Names ending so are rejected; lower case.
PROGRAMS = (".bat", ".cmd", ".com", ".exe", ".js", ".lnk", ".msi", ".pif", ".scr", ".vbs")


def names(message: Message) -> Iterator[str]:
    """Yield the names of all attachments, in lower case."""
    for part in message.walk():
        name = part.get_filename()
        if name:
            yield decoded(name).lower()


def decoded(name: str) -> str:
    """Return a name in plain text; as it is, if it is encoded wrongly."""
    try:
        return str(email.header.make_header(email.header.decode_header(name)))
    except (LookupError, UnicodeError, email.errors.HeaderParseError):
        return name


def main() -> int:
    """Return the exit status: 0 to let the message pass, 1 to reject it."""
    message = email.message_from_bytes(Path(os.environ["EMAIL"]).read_bytes())
    for name in names(message):
        # Windows ignores blanks and dots at the end of a name.
        if name.rstrip(" .").endswith(PROGRAMS):
            print("550 5.7.1 We take no programs as attachments", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    try:
        STATUS = main()
    except Exception:
        # Python's own status after a traceback is 1, which would reject the message.
        traceback.print_exc()
        STATUS = 2
    sys.exit(STATUS)
