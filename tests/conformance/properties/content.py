"""A message at its four places: with the client, in EMAIL, in OUTFILE, with upstream.

Rule: written from the specification, line by line and as plainly as can be, with nothing taken
from an implementation; what is slow here is fast enough for a test.
"""

from __future__ import annotations

import re

_SMTP_LINE_END = b"\r\n"
#: What some server takes for the end of a line.
LINE_ENDS = {
    "CRLF": re.compile(rb"\r\n"),
    "LF": re.compile(rb"\r?\n"),
    "CR": re.compile(rb"\r\n?"),
    "any": re.compile(rb"[\r\n]"),
}


def legal_body(octets: bytes) -> bytes:
    """*octets* as a client may send them behind the 354: whole lines, none of them a mere dot."""
    if not octets:
        return b""
    lines = octets.removesuffix(_SMTP_LINE_END).split(_SMTP_LINE_END)
    return b"".join((b".." if line == b"." else line) + _SMTP_LINE_END for line in lines)


def unstuffed(body: bytes) -> bytes:
    """What *body* means (RFC 5321 section 4.5.2): a dot at the start of a line is not content."""
    return _SMTP_LINE_END.join(line.removeprefix(b".") for line in body.split(_SMTP_LINE_END))


def in_email(body: bytes) -> bytes:
    """What the filter finds in EMAIL (filter.email)."""
    return unstuffed(body).replace(_SMTP_LINE_END, b"\n")


def passed_on(body: bytes) -> bytes:
    """What upstream is to understand of *body* (data.faithful, data.no-smuggling)."""
    return _upstream(in_email(body))


def replaced_by(outfile: bytes) -> bytes:
    """What upstream is to understand if the filter wrote *outfile* (filter.outfile-text)."""
    text = outfile.replace(_SMTP_LINE_END, b"\n")
    return _upstream(text if text.endswith(b"\n") else text + b"\n")


def _upstream(text: bytes) -> bytes:
    """LF becomes CRLF; a dot behind a bare CR is doubled, the one thing that is not faithful."""
    return text.replace(b"\r.", b"\r..").replace(b"\n", _SMTP_LINE_END)


def early_ends(wire: bytes) -> list[str]:
    """The kinds of line end by which *wire*, read before its end, holds an end of data."""
    return [name for name, line_end in LINE_ENDS.items() if b"." in line_end.split(wire)]


def rejection(words: bytes) -> bytes | None:
    """The reply made of a filter's last words; None: the implementation's own.

    Whether a line of control characters alone is blank, is left open (filter.reject-empty).
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
    """The value of an environment variable: 99 octets, whole characters, no controls."""
    harmless = bytes(octet for octet in value if octet >= 32 and octet != 127)
    return harmless[:99].decode("utf-8", "ignore").encode()
