"""A small, correct SMTP server that sends the planned replies and records its input.

Rule: this module is sans-I/O. Its parser is strict: only CRLF ends a line, and only CRLF.CRLF ends
the data. `rules` considers other interpretations of the same octets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from .plan import Answer, Command, Plan, verb

GREETING = b"220 up.example ESMTP\r\n"
_END_OF_DATA = b"\r\n.\r\n"


@dataclass
class Asked:
    """A command line that upstream received, without CRLF, and its reply."""

    line: bytes
    reply: bytes

    @property
    def verb(self) -> bytes:
        """The command's name."""
        return verb(self.line)


@dataclass
class Delivery:
    """A message that upstream received and either accepted or refused."""

    mail: bytes
    recipients: tuple[bytes, ...]
    #: The octets after the 354, without the final dot.
    wire: bytes
    reply: bytes


@dataclass
class UpstreamSession:
    """One connection from the implementation."""

    asked: list[Asked] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    #: Octets that are not a complete command or message yet.
    rest: bytes = b""


class Ledger:
    """Upstream's replies in one client's session, over all upstream connections."""

    def __init__(self, plan: Plan) -> None:
        self.keywords = plan.keywords
        self.visits: list[UpstreamSession] = []
        self._planned: dict[bytes, list[Command]] = {}
        self._asked: Counter[bytes] = Counter()
        for item in plan.items:
            if isinstance(item, Command):
                self._planned.setdefault(item.verb, []).append(item)

    def asked(self, name: bytes) -> tuple[Command, bytes]:
        """Return the planned reply to the next command *name*, with a unique text."""
        number = self._asked[name]
        self._asked[name] += 1
        planned = self._planned.get(name, [])
        command = planned[number] if number < len(planned) else Command(name)
        return command, b"%s %d" % (name, number + 1)

    def greets(self, line: bytes) -> bytes:
        """Return the reply to EHLO or HELO."""
        lines = [b"up.example greets " + line[5:]]
        if verb(line) == b"EHLO":
            lines += self.keywords
        last = lines.pop()
        return b"".join(b"250-" + one + b"\r\n" for one in lines) + b"250 " + last + b"\r\n"


class Server:
    """One connection. *books* maps a client's HELO to its session, and b"" to the default."""

    def __init__(self, books: Mapping[bytes, Ledger]) -> None:
        self._books = books
        self.visit = UpstreamSession()
        self._book: Ledger | None = None
        self._held = b""
        self._mail: Command | None = None
        self._recipients: list[bytes] = []
        self._in_data = False
        self.closes = False
        self._belongs_to(books.get(b""))

    @property
    def book(self) -> Ledger:
        """The session of this connection."""
        return self._book or _NOBODYS

    def _belongs_to(self, book: Ledger | None) -> None:
        if book is not None and book is not self._book:
            self._book = book
            book.visits.append(self.visit)

    def feed(self, octets: bytes) -> list[tuple[bytes, bytes]]:
        """Yield each complete command or message with its reply."""
        self._held += octets
        said = []
        while not self.closes and (taken := self._taken()) is not None:
            answer = self._delivered(taken) if self._in_data else self._command(taken[:-2])
            said.append((taken, answer))
        self.visit.rest = self._held
        return said

    def _taken(self) -> bytes | None:
        """Return the next complete command with its line end, or the message with its final dot."""
        if self._in_data:
            end = (b"\r\n" + self._held).find(_END_OF_DATA) + len(_END_OF_DATA) - 2
            complete = end > len(_END_OF_DATA) - 3
        else:
            end = self._held.find(b"\r\n") + 2
            complete = end > 1
        if not complete:
            return None
        taken, self._held = self._held[:end], self._held[end:]
        return taken

    def _command(self, line: bytes) -> bytes:
        name = verb(line)
        if name in (b"EHLO", b"HELO"):
            self._belongs_to(self._books.get(line[5:]))
        command, words = self.book.asked(name)
        reply = self._reply(name, line, command, words)
        self.visit.asked.append(Asked(line, reply))
        return reply

    def _reply(self, name: bytes, line: bytes, command: Command, words: bytes) -> bytes:
        match name:
            case b"EHLO" | b"HELO":
                self._forget()
                return self.book.greets(line)
            case b"RSET":
                self._forget()
            case b"QUIT":
                self.closes = True
                return b"221 " + words + b"\r\n"
            case b"DATA":
                return self._data_reply(words)
            case b"MAIL" if self._mail is None and command.answer.positive:
                self._mail = command
            case b"RCPT" if self._mail is not None and command.answer.positive:
                self._recipients.append(line)
            case b"MAIL" | b"RCPT" if (name == b"MAIL") == (self._mail is not None):
                return b"503 " + words + b" out of order\r\n"
            case b"MAIL" | b"RCPT" | b"XFORWARD" | b"NOOP":
                pass
            case _:
                return b"500 " + words + b" not known\r\n"
        return command.answer.octets(words)

    def _data_reply(self, words: bytes) -> bytes:
        if self._mail is None or not self._recipients:
            return b"503 " + words + b" out of order\r\n"
        answer = self._mail.data_answer
        self._in_data = answer.code == 354
        return answer.octets(words)

    def _delivered(self, message: bytes) -> bytes:
        assert self._mail is not None
        answer: Answer = self._mail.final_answer
        reply = answer.octets(b"message %d" % (1 + len(self.visit.deliveries)))
        self.visit.deliveries.append(
            Delivery(self._mail.line, tuple(self._recipients), message[:-3], reply)
        )
        self._in_data = False
        self._forget()
        return reply

    def _forget(self) -> None:
        self._mail = None
        self._recipients = []


_NOBODYS = Ledger(Plan(()))
