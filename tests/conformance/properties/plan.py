"""What everybody will say in one session: drawn as a whole, before anything is said.

Rule: a plan is only what is intended. What came of it is a `run.Run`, whether that is right is the
business of `model` and `invariants`.
"""

from __future__ import annotations

import string
from dataclasses import dataclass, field
from itertools import pairwise

#: The last commands of a pipelined group (RFC 2920 section 3.1); HELO belongs to them in spirit.
_ENDS_A_GROUP = (b"EHLO", b"HELO", b"NOOP", b"DATA", b"QUIT")
#: What a shell, and its printf, takes for nothing but itself.
_PLAIN = (string.ascii_letters + string.digits + " .,:-<>@").encode()


@dataclass(frozen=True)
class Answer:
    """A reply of upstream: its code, and whether it has two lines."""

    code: int
    long: bool = False

    @property
    def positive(self) -> bool:
        """Whether upstream takes what it was offered."""
        return self.code < 300

    def octets(self, words: bytes) -> bytes:
        """The reply in the words given."""
        code = b"%d" % self.code
        before = code + b"-" + words + b" at length\r\n" if self.long else b""
        return before + code + b" " + words + b"\r\n"


OK = Answer(250)
GO_ON = Answer(354)


@dataclass(frozen=True)
class Command:
    """A command line of the client, and what upstream answers if it is in order."""

    line: bytes
    #: Sent together with what stands before it, if RFC 2920 lets it.
    joined: bool = False
    answer: Answer = OK
    #: MAIL and RCPT: the address, as the filter is told it.
    address: bytes = b""
    #: XFORWARD: names in upper case and the values that are meant.
    attributes: tuple[tuple[bytes, bytes], ...] = ()
    #: MAIL: what upstream answers to DATA, and to the message, of the transaction it begins.
    data_answer: Answer = GO_ON
    final_answer: Answer = OK

    @property
    def verb(self) -> bytes:
        """The command's name."""
        return verb(self.line)


@dataclass(frozen=True)
class Verdict:
    """What the filter does with a message."""

    status: int = 0
    #: What it writes into OUTFILE.
    outfile: bytes = b""
    #: What it says on standard error.
    words: bytes = b""

    @property
    def script(self) -> str:
        """The verdict in sh."""
        lines = [f"exit {self.status}\n"]
        if self.words:
            lines.insert(0, f"{_printf(self.words)} >&2\n")
        if self.outfile:
            lines.insert(0, f'{_printf(self.outfile)} >"$OUTFILE"\n')
        return "".join(lines)


@dataclass(frozen=True)
class Message:
    """DATA and, if it gets its 354, a message."""

    #: As it goes over the wire, without the dot at its end.
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
    #: The client closes its side, with its QUIT if that is the last it says.
    half_closes: bool = False
    #: For each write of the client where it is cut into pieces, counted from its start or, if
    #: negative, from its end.
    cuts: tuple[tuple[int, ...], ...] = ()
    #: What upstream offers.
    keywords: tuple[bytes, ...] = ()
    filtering: bool = True
    #: -r
    rejects_failures: bool = False

    @property
    def quits(self) -> bool:
        """Whether the client's last word is QUIT."""
        return bool(self.items) and self.items[-1].verb == b"QUIT"

    @property
    def arguments(self) -> tuple[str, ...]:
        """The implementation's."""
        filtering = ("-c", "{filter}") if self.filtering else ()
        rejecting = ("-r",) if self.rejects_failures else ()
        return (*filtering, *rejecting, "-d", "{tmp}", "{upstream}")


def verb(line: bytes) -> bytes:
    """The name of the command in *line*."""
    return line.split(b" ")[0].upper()


def may_be_followed(name: bytes) -> bool:
    """Whether more commands may be pipelined behind the command *name*."""
    return name not in _ENDS_A_GROUP


def pieces(octets: bytes, cuts: tuple[int, ...]) -> list[bytes]:
    """*octets*, cut at the places of *cuts* that lie within."""
    places = {cut if cut > 0 else len(octets) + cut for cut in cuts}
    inside = [0, *sorted(place for place in places if 0 < place < len(octets)), len(octets)]
    return [octets[start:end] for start, end in pairwise(inside)]


def _printf(octets: bytes) -> str:
    text = "".join(chr(octet) if octet in _PLAIN else f"\\0{octet:03o}" for octet in octets)
    return f"printf '%b' '{text}'"
