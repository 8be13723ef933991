"""The messages of a rehearsal.

Rule: a message is what a client would send: lines that end in CRLF, whatever the file has.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import getaddresses

SENDER = b"sender@example.net"
RECIPIENT = b"recipient@example.org"
#: A header is looked at up to this size; what Postfix takes (header_size_limit).
_HEADER = 102400
# What can stand in an envelope as it is; anything else is left to --sender and --recipient.
_MAILBOX = re.compile(r"[!#-;=?-~]+@[!#-;=?-~]+")
#: The longest address of SMTP (RFC 5321 section 4.5.3.1.3, without the angle brackets).
_LONGEST = 254
# A header field (RFC 5322 section 2.2), or the empty line of an empty header.
_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:|\r?\n")


@dataclass(frozen=True)
class Mail:
    """A message.

    name: as it was given.
    content: with CRLF line ends, the last line's too.
    subject: as it stands in its header.
    notes: what the user should know about how it was read.
    sender: whom its header names as the sender, b"" for a bounce.
    recipients: whom its header names.
    """

    name: str
    content: bytes
    subject: str
    notes: tuple[str, ...]
    sender: bytes
    recipients: tuple[bytes, ...]


def from_octets(name: str, text: bytes) -> Mail:
    """Make a message of a file's octets."""
    notes = []
    if text.startswith(b"From "):
        text = text.partition(b"\n")[2]
        notes.append("the line 'From ...' of an mbox at its top is left out")
    if text and not _FIELD.match(text):
        notes.append("it does not begin with a header field: is this a message?")
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
        # The parser recurses, and lets any of its own errors out: RecursionError, IndexError ...
        return []
    return [
        address.encode("ascii")
        for address in found
        if len(address) <= _LONGEST and _MAILBOX.fullmatch(address)
    ]


def _field(header: bytes, name: str) -> str:
    """Return a field's body, unfolded; "" if there is none."""
    pattern = rb"(?im)^%b[ \t]*:(.*(?:\n[ \t].*)*)" % re.escape(name.encode())
    found = re.search(pattern, header)
    return found[1].decode("utf-8", "replace").replace("\r\n", "") if found else ""
