"""The messages of a rehearsal.

Rule: each line of a message ends with CRLF, as a client sends it, even if the file uses LF.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import getaddresses

SENDER = b"sender@example.net"
RECIPIENT = b"recipient@example.org"
#: The maximum size of a parsed header in octets, which is Postfix's default for header_size_limit.
_HEADER = 102400
# Matches addresses that can be used in an envelope unchanged. For other addresses, use --sender and
# --recipient.
_MAILBOX = re.compile(r"[!#-;=?-~]+@[!#-;=?-~]+")
#: The maximum length of an address in SMTP (RFC 5321 section 4.5.3.1.3, without the angle
#: brackets).
_LONGEST = 254
# Matches a header field (RFC 5322 section 2.2), or the empty line after an empty header.
_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:|\r?\n")


@dataclass(frozen=True)
class Mail:
    """A message."""

    #: The name given on the command line.
    name: str
    #: The message with CRLF at the end of each line.
    content: bytes
    #: The Subject field.
    subject: str
    #: Remarks about the file.
    notes: tuple[str, ...]
    #: The sender from the header, or b"" for a bounce.
    sender: bytes
    #: The recipients from the header.
    recipients: tuple[bytes, ...]


def from_octets(name: str, text: bytes) -> Mail:
    """Parse the contents of a file."""
    notes = []
    if text.startswith(b"From "):
        text = text.partition(b"\n")[2]
        notes.append("the first line, an mbox separator ('From ...'), is omitted")
    if text and not _FIELD.match(text):
        notes.append("the file does not begin with a header field and might not be a message")
    content = re.sub(rb"\r?\n", b"\r\n", text)
    if content and not content.endswith(b"\n"):
        content += b"\r\n"
    header = (b"\r\n" + content[:_HEADER]).partition(b"\r\n\r\n")[0]
    return Mail(
        name=name,
        content=content,
        subject=_field(header, "Subject").strip(),
        notes=tuple(notes),
        sender=_sender(header),
        recipients=_recipients(header),
    )


def _sender(header: bytes) -> bytes:
    if _field(header, "Return-Path").strip() == "<>":
        return b""
    found = _addresses(header, "Return-Path") or _addresses(header, "From")
    return found[0] if found else SENDER


def _recipients(header: bytes) -> tuple[bytes, ...]:
    return tuple(dict.fromkeys(_addresses(header, "To"))) or (RECIPIENT,)


def _addresses(header: bytes, name: str) -> list[bytes]:
    try:
        found = [address for _, address in getaddresses([_field(header, name)])]
    except Exception:
        # The parser can raise any type of error, such as RecursionError and IndexError.
        return []
    return [
        address.encode("ascii")
        for address in found
        if len(address) <= _LONGEST and _MAILBOX.fullmatch(address)
    ]


def _field(header: bytes, name: str) -> str:
    """Return the unfolded body of a field, or "" if the field is missing."""
    pattern = rb"(?im)^%b[ \t]*:(.*(?:\n[ \t].*)*)" % re.escape(name.encode())
    found = re.search(pattern, header)
    return found[1].decode("utf-8", "replace").replace("\r\n", "") if found else ""
