"""One side of a dialogue: the client's previous input, and the replies that the client awaits.

Rule: a state is a plain value. `sent` and `replied` return the next state.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

GREETING, DATA, END_OF_DATA, QUIT = b"greeting", b"DATA", b".", b"QUIT"
#: Matches one complete reply and its code.
_REPLY = re.compile(rb"(?:[2-5][0-9]{2}-[^\n]*\n)*([2-5][0-9]{2})(?: [^\n]*)?\r?\n")
_LINE_END = b"\r\n"
_END = b"\r\n.\r\n"


@dataclass(frozen=True)
class ClientSide:
    """The client side of one connection."""

    #: The verbs of the commands that await replies, oldest first.
    due: tuple[bytes, ...] = (GREETING,)
    is_content: bool = False
    #: The incomplete last command, or the last octets of content.
    rest: bytes = b""

    @property
    def awaits_final_reply(self) -> bool:
        """Whether the next reply is the reply to the end of data."""
        return self.due[:1] == (END_OF_DATA,)

    def sent(self, octets: bytes) -> ClientSide:
        """Return the state after the client has sent *octets*."""
        received = self.rest + octets
        if not self.is_content:
            *lines, rest = received.split(b"\n")
            return replace(self, due=(*self.due, *map(_verb, lines)), rest=rest)
        content, end, commands = received.partition(_END)
        if end:
            return ClientSide((*self.due, END_OF_DATA)).sent(commands)
        return replace(self, rest=content[1 - len(_END) :])

    def content_in(self, octets: bytes) -> bytes:
        """Return the part of *octets* that is content, up to the end of data."""
        content, end, _ = (self.rest + octets).partition(_END)
        return (content + end)[len(self.rest) :]

    def replied(self, *codes: bytes) -> ClientSide:
        """Return the state after the client has received replies with *codes*."""
        answered = self.due[: len(codes)]
        due = self.due[len(codes) :]
        if (DATA, b"354") not in zip(answered, codes, strict=False):
            return replace(self, due=due)
        if END_OF_DATA in due:  # The client has already sent the message.
            return replace(self, due=due[due.index(END_OF_DATA) :])
        return ClientSide((), is_content=True, rest=_LINE_END + self.rest)


def reply_codes(octets: bytes) -> tuple[bytes, ...]:
    """Return the codes of the replies in *octets*, or nothing if they are not complete replies."""
    codes: list[bytes] = []
    at = 0
    while found := _REPLY.match(octets, at):
        codes.append(found[1])
        at = found.end()
    return tuple(codes) if at == len(octets) else ()


def _verb(line: bytes) -> bytes:
    return line.strip().upper().partition(b" ")[0]
