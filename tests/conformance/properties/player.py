"""Executes plans, with clients that follow a plan and an upstream server that replies.

Rule: this module neither sleeps nor evaluates results. Every wait has a time limit. Timeouts are
recorded in `Run.trouble`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from ..format.header import Header
from ..format.nodes import Transcript
from ..format.payload import visible
from ..play.connections import Connection, Fragment
from ..play.harness import Harness, Settings
from ..play.leftovers import files, processes, still_left
from ..play.procfs import command_line, descendants, sleeps
from .plan import Message, Plan, may_be_followed, pieces
from .run import Exchange, NoReplyError, Run, Utterance, next_reply
from .upstream import GREETING, Ledger, Server

_LOOK_AGAIN = 0.001
#: The time limit in seconds without an event while the implementation and all its descendants are
#: sleeping. An implementation that is computing or waiting for a processor gets the full timeout.
_ASLEEP = 3.0
#: The filter reads its verdict from a file that the client writes just before the message.
_FILTER = '. "$suite_tmp/../verdict{whose}"\n'


class _LostError(Exception):
    """A conversation cannot continue. The error message contains the reason."""


@dataclass
class _Write:
    """The octets of one write, and the exchanges that await replies to it."""

    octets: bytes = b""
    answered: list[Exchange] = field(default_factory=list)
    last: bytes = b""

    def add(self, octets: bytes, exchange: Exchange, last: bytes) -> None:
        self.octets += octets
        self.answered.append(exchange)
        self.last = last


class Conversation:
    """A client that executes its plan. `go_on` returns whether the client is still waiting."""

    def __init__(self, harness: Harness, client: Connection, plan: Plan, whose: str) -> None:
        self.run = Run(plan)
        self.finished = False
        self._harness = harness
        self._client = client
        self._verdict = harness.directory / f"verdict{whose}"
        self._cuts = iter(plan.cuts)
        self._steps = self._whole()

    def go_on(self) -> None:
        """Continue until the client must wait."""
        if self.finished:
            return
        try:
            next(self._steps)
        except (_LostError, NoReplyError) as error:
            self.give_up(str(error) or "the connection was lost")
        except StopIteration:
            self._end()

    def give_up(self, why: str) -> None:
        """Abandon the plan."""
        self.run.trouble = why
        self._end()

    def _end(self) -> None:
        self.finished = True
        self.run.extra = bytes(self._client.received)
        self._client.close()

    def _whole(self) -> Iterator[None]:
        greeting = Exchange(Message(b""))
        yield from self._reply(greeting)
        self.run.greeting = greeting.replies[0]
        write = _Write()
        for item in self.run.plan.items:
            if not (item.joined and may_be_followed(write.last)):
                yield from self._say(write)
                write = _Write()
            exchange = Exchange(item)
            self.run.exchanges.append(exchange)
            if not isinstance(item, Message):
                write.add(item.line + b"\r\n", exchange, item.verb)
                continue
            write.add(b"DATA\r\n", exchange, b"")
            yield from self._say(write)
            write = _Write()
            if exchange.codes == [354]:
                self._verdict.write_text(item.verdict.script)
                write.add(item.body + b".\r\n", exchange, b"")
        yield from self._say(write)
        yield from self._goodbye()

    def _say(self, write: _Write) -> Iterator[None]:
        """Send all octets in fragments, and await the replies."""
        if not write.octets:
            return
        if self._client.received:
            raise _LostError(f"a reply without a command: {visible(bytes(self._client.received))}")
        for piece in pieces(write.octets, next(self._cuts, ())):
            self.run.said.append(Utterance("C>", piece))
            self._client.send(piece)
            if piece is not write.octets:
                fragment = Fragment(self._client)
                while not fragment.over:
                    yield
        if self.run.plan.half_closes and write.last == b"QUIT":
            yield from self._half_close()
        for exchange in write.answered:
            yield from self._reply(exchange)

    def _reply(self, exchange: Exchange) -> Iterator[None]:
        while (reply := next_reply(self._client.received)) is None:
            if self._client.ended or self._client.closed:
                raise _LostError(f"the connection was closed before {_due(exchange)}")
            yield
        self._client.take(len(reply))
        self.run.said.append(Utterance("C<", reply))
        exchange.replies.append(reply)

    def _half_close(self) -> Iterator[None]:
        while not self._client.sent:
            yield
        self.run.said.append(Utterance("C>", event="@eof"))
        self._client.end_writing()

    def _goodbye(self) -> Iterator[None]:
        if not self.run.plan.quits:
            yield from self._half_close()
        while not self._client.ended:
            yield
        self.run.said.append(Utterance("C<", event="@eof"))


def _due(exchange: Exchange) -> str:
    if isinstance(exchange.item, Message):
        return "the reply to a message" if exchange.replies else "the 354 reply to DATA"
    return f"the reply to {visible(exchange.item.line)}"


class _Performance:
    """All peers of one run."""

    def __init__(
        self, harness: Harness, conversations: Mapping[bytes, Conversation], asleep: float
    ) -> None:
        self._harness = harness
        self._asleep = asleep
        self._conversations = conversations
        self._books = {
            name: Ledger(conversation.run.plan) for name, conversation in conversations.items()
        }
        self._servers: list[tuple[Connection, Server]] = []
        self._unclaimed: dict[int, list[Utterance]] = {}
        self._events = 0

    def whole(self) -> None:
        """Run until every client has finished or no more events occur."""
        if not self._until(lambda: all(one.finished for one in self._conversations.values())):
            for one in self._conversations.values():
                if not one.finished:
                    one.give_up("silence")

    def goodbye(self) -> None:
        """Wait for the process to exit, if it must exit."""
        process = self._harness.process
        assert process is not None
        if not self._in_trouble():
            self._until(lambda: not process.alive)

    def record(self) -> None:
        """Record leftovers, and output that does not belong to a conversation."""
        leftovers = [] if self._in_trouble() else still_left(self._harness, self._left)
        process = self._harness.process
        for name, one in self._conversations.items():
            run = one.run
            run.visits = self._books[name].visits
            run.filter_runs = [
                filter_run
                for filter_run in self._harness.filter.runs
                if name in (b"", filter_run.environment.get("HELO"))
            ]
            run.status = process.status if process else None
            run.stderr = self._on_standard_error()
            run.leftovers = leftovers

    def _on_standard_error(self) -> bytes:
        """Return forbidden output on standard error. Only a server may log there (log.stderr)."""
        written = self._harness.output("stderr")
        permitted = self._harness.mode == "listen" and b"Traceback" not in written
        return b"" if permitted else written

    def _until(self, done: Callable[[], bool]) -> bool:
        last = time.monotonic()
        while not done():
            before = self._events
            self._harness.loop.turn(_LOOK_AGAIN)
            self._go_on()
            silence = time.monotonic() - last
            if self._events != before:
                last = time.monotonic()
            elif silence > self._harness.timeout or (silence > self._given() and self._all_sleep()):
                return False
        return True

    def _given(self) -> float:
        """The time limit for a sleeping implementation, in seconds."""
        return self._harness.settings.timeouts.at_least(self._asleep)

    def _all_sleep(self) -> bool:
        process = self._harness.process
        assert process is not None
        return all(sleeps(pid) for pid in descendants(process.pid))

    def _go_on(self) -> None:
        """Let every peer continue."""
        while self._harness.listener.arrived:
            self._welcome(self._harness.listener.arrived.popleft())
        self._hear_filters()
        for connection, server in self._servers:
            self._serve(connection, server)
        for conversation in self._conversations.values():
            conversation.go_on()
        self._events = sum(len(one.run.said) for one in self._conversations.values())

    def _welcome(self, connection: Connection) -> None:
        server = Server(self._books)
        self._harness.retired.append(connection)  # the harness closes it in any case
        self._servers.append((connection, server))
        self._hear(server, "U<", event="@connect")
        self._hear(server, "U>", GREETING)
        connection.send(GREETING)

    def _serve(self, connection: Connection, server: Server) -> None:
        octets = bytes(connection.received)
        connection.take(len(octets))
        for said, answer in server.feed(octets):
            self._hear(server, "U<", said)
            self._hear(server, "U>", answer)
            connection.send(answer)
        if server.closes and connection.sent and not connection.half_closed:
            self._hear(server, "U>", event="@eof")
            connection.end_writing()
        if connection.ended and not connection.closed:
            connection.close()

    def _hear(self, server: Server, mark: str, octets: bytes = b"", event: str = "") -> None:
        number = 1 + [one for _, one in self._servers].index(server)
        said = Utterance(mark, octets, event, connection=number)
        for name, book in self._books.items():
            if server.book is book:
                log = self._conversations[name].run.said
                # Before HELO, a connection's session is unknown. The first session is assumed.
                place = len(log) if any(one.connection for one in log) else 0
                log[place:place] = self._unclaimed.pop(number, [])
                log.append(said)
                return
        self._unclaimed.setdefault(number, []).append(said)

    def _hear_filters(self) -> None:
        while self._harness.filter.new_runs:
            filter_run = self._harness.filter.new_runs.popleft()
            whose = filter_run.environment.get("HELO", b"")
            one = self._conversations.get(whose) or self._conversations.get(b"")
            if one is not None:
                one.run.said.append(Utterance("F<", event="run", filter_run=filter_run))

    def _in_trouble(self) -> bool:
        return any(one.run.trouble for one in self._conversations.values())

    def _left(self) -> list[str]:
        process = self._harness.process
        assert process is not None
        running = processes(self._harness) + ([command_line(process.pid)] if process.alive else [])
        return [
            *(f"left in the temporary directory: {name}" for name in files(self._harness)),
            *(f"left running: {line}" for line in running),
            *self._connected(),
        ]

    def _connected(self) -> list[str]:
        return [
            f"{connection.name}: the upstream connection was left open"
            for connection, _ in self._servers
            if not connection.ended and not connection.closed
        ]


def perform(plan: Plan, settings: Settings, asleep: float = _ASLEEP) -> Run:
    """Execute one session in mode stdio."""
    harness = Harness(_transcript(plan.arguments, ""), "stdio", settings)
    try:
        harness.prepare()
        harness.start_session()
        conversation = Conversation(harness, harness.clients["C"], plan, "")
        performance = _Performance(harness, {b"": conversation}, asleep)
        performance.whole()
        performance.goodbye()
        performance.record()
    finally:
        harness.close()
    return conversation.run


def perform_together(plans: Mapping[bytes, Plan], settings: Settings) -> list[Run]:
    """Execute concurrent sessions of one server. The clients' HELO identifies them."""
    arguments = next(iter(plans.values())).arguments
    harness = Harness(_transcript(arguments, "$HELO"), "listen", settings)
    try:
        harness.prepare()
        harness.start_server()
        conversations = {
            name: _connected(harness, plan, name.decode()) for name, plan in plans.items()
        }
        performance = _Performance(harness, conversations, _ASLEEP)
        performance.whole()
        assert harness.process is not None
        harness.process.send("SIGTERM")
        performance.goodbye()
        performance.record()
    finally:
        harness.close()
    return [conversation.run for conversation in conversations.values()]


def _transcript(arguments: tuple[str, ...], whose: str) -> Transcript:
    header = Header(
        "A random session",
        (),
        argv=arguments,
        filter=_FILTER.format(whose=whose) if "{filter}" in arguments else None,
    )
    return Transcript("drawn", header, ())


def _connected(harness: Harness, plan: Plan, whose: str) -> Conversation:
    actor = f"C({whose})"
    if not harness.connect(actor):
        raise AssertionError(f"the server cannot be reached: {visible(harness.output('stderr'))}")
    return Conversation(harness, harness.clients[actor], plan, whose)
