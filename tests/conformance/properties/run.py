"""The result of a plan, which contains all observations of one client's session.

Rule: this module contains observations and does not evaluate them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..play.filter_stub import FilterRun
from .plan import Command, Item, Message, Plan
from .upstream import Asked, Delivery, UpstreamSession


@dataclass
class Exchange:
    """One command of the client and its reply, or its two replies if the first one is 354."""

    item: Item
    replies: list[bytes] = field(default_factory=list)

    @property
    def codes(self) -> list[int]:
        """The codes of the replies."""
        return [code(reply) for reply in self.replies]

    @property
    def accepted(self) -> bool:
        """Whether the last reply is a 2yz reply."""
        return bool(self.replies) and 200 <= self.codes[-1] < 300


@dataclass(eq=False)
class Utterance:
    """A write, reply, command or event that the suite has observed."""

    #: The mark as in a transcript (C> C< U> U<), or the text of an event.
    mark: str
    octets: bytes = b""
    event: str = ""
    filter_run: FilterRun | None = None
    #: The number of the upstream connection, starting at 1.
    connection: int = 0


@dataclass
class Run:
    """The observations of one client's session."""

    plan: Plan
    greeting: bytes = b""
    exchanges: list[Exchange] = field(default_factory=list)
    #: Octets that the client received while no command was pending.
    extra: bytes = b""
    #: The reason why the plan was not completed, such as a timeout, a lost connection or an invalid
    #: reply.
    trouble: str = ""
    visits: list[UpstreamSession] = field(default_factory=list)
    filter_runs: list[FilterRun] = field(default_factory=list)
    #: The exit status of the process, or of the server in mode listen.
    status: int | None = None
    stderr: bytes = b""
    #: Temporary files, processes and connections that have outlived the session.
    leftovers: list[str] = field(default_factory=list)
    said: list[Utterance] = field(default_factory=list)

    @property
    def asked(self) -> list[Asked]:
        """Every command that upstream received, over all connections."""
        return [asked for visit in self.visits for asked in visit.asked]

    @property
    def deliveries(self) -> list[Delivery]:
        """Every message that upstream received."""
        return [delivery for visit in self.visits for delivery in visit.deliveries]

    def commands(self, *verbs: bytes) -> list[tuple[Command, Exchange]]:
        """Return the exchanges whose command is one of *verbs*."""
        return [
            (exchange.item, exchange)
            for exchange in self.exchanges
            if isinstance(exchange.item, Command) and exchange.item.verb in verbs
        ]

    def messages(self) -> list[tuple[Message, Exchange]]:
        """Return the exchanges that begin with DATA."""
        return [
            (exchange.item, exchange)
            for exchange in self.exchanges
            if isinstance(exchange.item, Message)
        ]


def code(reply: bytes) -> int:
    """Return the code of a well-formed reply."""
    return int(reply[:3])


class NoReplyError(Exception):
    """The input is not an SMTP reply."""


def next_reply(octets: bytes | bytearray) -> bytes | None:
    """Return the complete reply at the beginning of *octets*, or None if it is incomplete."""
    start = 0
    while (end := octets.find(b"\r\n", start)) >= 0:
        line = bytes(octets[start:end])
        if not (line[:3].isdigit() and line[:3] == octets[:3] and line[3:4] in (b"", b" ", b"-")):
            raise NoReplyError(line.decode("latin-1"))
        if line[3:4] != b"-":
            return bytes(octets[: end + 2])
        start = end + 2
    return None
