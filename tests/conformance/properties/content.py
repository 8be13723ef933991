"""Defines the forms of a message at the client, in EMAIL, in OUTFILE and at the upstream server.

Rule: this module implements the specification line by line, without code from any implementation.
Simplicity is more important than speed.
"""

from __future__ import annotations

import re

_SMTP_LINE_END = b"\r\n"
#: The octets that some servers accept as a line end.
LINE_ENDS = {
    "CRLF": re.compile(rb"\r\n"),
    "LF": re.compile(rb"\r?\n"),
    "CR": re.compile(rb"\r\n?"),
    "any": re.compile(rb"[\r\n]"),
}


def legal_body(octets: bytes) -> bytes:
    """Return *octets* in a form that is legal after 354: complete lines without a lone dot."""
    if not octets:
        return b""
    lines = octets.removesuffix(_SMTP_LINE_END).split(_SMTP_LINE_END)
    return b"".join((b".." if line == b"." else line) + _SMTP_LINE_END for line in lines)


def unstuffed(body: bytes) -> bytes:
    """Return the content of *body* (RFC 5321 section 4.5.2), without the dots added in transfer."""
    return _SMTP_LINE_END.join(line.removeprefix(b".") for line in body.split(_SMTP_LINE_END))


def in_email(body: bytes) -> bytes:
    """Return the content of EMAIL (filter.email)."""
    return unstuffed(body).replace(_SMTP_LINE_END, b"\n")


def passed_on(body: bytes) -> bytes:
    """Return the content that upstream must get for *body* (data.faithful, data.no-smuggling)."""
    return _upstream(in_email(body))


def replaced_by(outfile: bytes) -> bytes:
    """Return the content that upstream must receive for *outfile* (filter.outfile-text)."""
    text = outfile.replace(_SMTP_LINE_END, b"\n")
    return _upstream(text if text.endswith(b"\n") else text + b"\n")


def _upstream(text: bytes) -> bytes:
    """Replace LF with CRLF and double each dot after a bare CR. Change no other octets."""
    return text.replace(b"\r.", b"\r..").replace(b"\n", _SMTP_LINE_END)


def early_ends(wire: bytes) -> list[str]:
    """Return the types of line end with which *wire* contains an early end of data."""
    return [name for name, line_end in LINE_ENDS.items() if b"." in line_end.split(wire)]


def rejection(words: bytes) -> bytes | None:
    """Return the reply that a filter's output requires, or None for the implementation's own reply.

    The specification does not define whether a line that contains only control characters is blank
    (filter.reject-empty).
    """
    lines = [line for line in words.split(b"\n") if line.strip()]
    if not lines or not lines[-1].strip(bytes(range(33))):
        return None
    line = lines[-1].removesuffix(b"\r")
    if not re.match(rb"[0-9]{3} ", line):
        line = b"554 " + line
    printable = bytes(octet if 32 <= octet < 127 else ord("?") for octet in line)
    return printable[:510] + b"\r\n"


def variable(value: bytes) -> bytes:
    """Return the value of a variable, at most 99 octets without control or partial characters."""
    harmless = bytes(octet for octet in value if octet >= 32 and octet != 127)
    return harmless[:99].decode("utf-8", "ignore").encode()
