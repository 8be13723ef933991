"""The plan of one session, which contains all input from client, upstream server and filter.

Rule: a plan is generated before the session and contains no results. A `run.Run` contains the
results, which `model` and `rules` evaluate.
"""

from __future__ import annotations

import string
from dataclasses import dataclass, field
from itertools import pairwise

#: Commands that must end a pipelined group (RFC 2920 section 3.1). HELO is treated the same way.
_ENDS_A_GROUP = (b"EHLO", b"HELO", b"NOOP", b"DATA", b"QUIT")
#: Characters that have no special meaning in the shell and its printf.
_PLAIN = (string.ascii_letters + string.digits + " .,:-<>@").encode()


@dataclass(frozen=True)
class Answer:
    """A reply from upstream, which has one or two lines with the same code."""

    code: int
    long: bool = False

    @property
    def positive(self) -> bool:
        """Whether upstream accepts the command or message."""
        return self.code < 300

    def octets(self, words: bytes) -> bytes:
        """Return the reply with a text."""
        code = b"%d" % self.code
        before = code + b"-" + words + b" at length\r\n" if self.long else b""
        return before + code + b" " + words + b"\r\n"


OK = Answer(250)
GO_ON = Answer(354)


@dataclass(frozen=True)
class Command:
    """A client command, and upstream's reply if the command is in the correct order."""

    line: bytes
    #: Whether the command is sent together with the preceding command, if RFC 2920 permits it.
    joined: bool = False
    answer: Answer = OK
    #: For MAIL and RCPT, the address as the filter receives it.
    address: bytes = b""
    #: For XFORWARD, the names in upper case and their decoded values.
    attributes: tuple[tuple[bytes, bytes], ...] = ()
    #: For MAIL, upstream's replies to DATA and to the message of this transaction.
    data_answer: Answer = GO_ON
    final_answer: Answer = OK

    @property
    def verb(self) -> bytes:
        """The command's name."""
        return verb(self.line)


@dataclass(frozen=True)
class Verdict:
    """The filter's action on a message."""

    status: int = 0
    #: The content of OUTFILE.
    outfile: bytes = b""
    #: The text on standard error.
    words: bytes = b""

    @property
    def script(self) -> str:
        """Return the verdict as a shell script."""
        lines = [f"exit {self.status}\n"]
        if self.words:
            lines.insert(0, f"{_printf(self.words)} >&2\n")
        if self.outfile:
            lines.insert(0, f'{_printf(self.outfile)} >"$OUTFILE"\n')
        return "".join(lines)


@dataclass(frozen=True)
class Message:
    """The command DATA, followed by a message if the reply is 354."""

    #: The content as on the wire, without the final dot.
    body: bytes
    verdict: Verdict = field(default_factory=Verdict)
    joined: bool = False

    @property
    def verb(self) -> bytes:
        """The command's name."""
        return b"DATA"


Item = Command | Message


@dataclass(frozen=True)
class Plan:
    """One session."""

    items: tuple[Item, ...]
    #: True if the client closes its sending direction together with a final QUIT.
    half_closes: bool = False
    #: For each write of the client, the positions at which to split it. Negative positions count
    #: from its end.
    cuts: tuple[tuple[int, ...], ...] = ()
    #: The extensions that upstream offers.
    keywords: tuple[bytes, ...] = ()
    filtering: bool = True
    #: True if the option -r is given.
    rejects_failures: bool = False

    @property
    def quits(self) -> bool:
        """Whether the client's last command is QUIT."""
        return bool(self.items) and self.items[-1].verb == b"QUIT"

    @property
    def arguments(self) -> tuple[str, ...]:
        """Return the arguments of the implementation."""
        filtering = ("-c", "{filter}") if self.filtering else ()
        rejecting = ("-r",) if self.rejects_failures else ()
        return (*filtering, *rejecting, "-d", "{tmp}", "{upstream}")


def verb(line: bytes) -> bytes:
    """Return the name of the command in *line*."""
    return line.split(b" ")[0].upper()


def may_be_followed(name: bytes) -> bool:
    """Whether other commands may be pipelined after the command *name*."""
    return name not in _ENDS_A_GROUP


def pieces(octets: bytes, cuts: tuple[int, ...]) -> list[bytes]:
    """Split *octets* at all positions in *cuts* that are inside it."""
    places = {cut if cut > 0 else len(octets) + cut for cut in cuts}
    inside = [0, *sorted(place for place in places if 0 < place < len(octets)), len(octets)]
    return [octets[start:end] for start, end in pairwise(inside)]


def _printf(octets: bytes) -> str:
    text = "".join(chr(octet) if octet in _PLAIN else f"\\0{octet:03o}" for octet in octets)
    return f"printf '%b' '{text}'"
