"""Runs sessions in which one system call fails, for every system call of the session in turn.

Rule: the ledger checks the guarantees. A message may be in doubt only if the failed call would have
transferred upstream's reply (`DOUBTFUL`).
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.failing import ERRORS, EVERY
from tests.faults.filters import KINDS
from tests.faults.ledger import KEPT, Message, judge
from tests.faults.proxies import RUN, Place, Server, spawn
from tests.faults.scenario import Scenario
from tests.faults.stage import INTERNAL, Client, GoneError, Stage, Upstream, read_reply
from tests.support.peers import TIMEOUT

#: Calls whose failure loses upstream's reply, or the reply to the client. The client then cannot
#: know the outcome (RFC 1047).
DOUBTFUL = (
    *("read ECONNRESET upstream", "read EIO upstream"),
    *("read ECONNRESET client", "read EIO client"),
    *("write EPIPE client", "write ENOSPC client", "write ENOBUFS client"),
    "modify ENOMEM upstream",  # upstream cannot be watched after the whole message was sent
)

#: If a descriptor cannot be watched, only its session ends, with 421.
_ENDS_THE_SESSION = ("register", "modify")

#: If a file that a filter has created as OUTFILE cannot be removed, it stays and this is logged.
_STAYS = ("chmod", "scandir", "rmdir")

#: The first calls of the launcher. Descriptor 2 is not silent until they have succeeded.
_RUN = RUN.replace(
    "from postprox",
    "from tests.faults import failing\nfailing.launch()\nfailing.install()\nfrom postprox",
)
_SPEED = 20  # a session that has lost its peer waits for a timeout


@dataclass
class Findings:
    """The results of all sessions: failed calls, messages in doubt, violations.

    logged: the lines that reached the log.
    """

    calls: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    logged: list[bytes] = field(default_factory=list)


class _Syslog(asyncio.DatagramProtocol):
    def __init__(self, findings: Findings) -> None:
        self._findings = findings

    def datagram_received(self, data: bytes, _: object) -> None:
        self._findings.logged.append(data)


@dataclass
class Failing:
    """Runs sessions with a message and one kind of filter.

    kinds: the kind of the filter.
    directory: the working directory of the proxy.
    names: the calls that are counted and fail. If empty, all calls.
    """

    kind: str
    directory: Path
    names: tuple[str, ...] = ()
    findings: Findings = field(default_factory=Findings)

    def __post_init__(self) -> None:
        self.place = Place(self.directory)
        self._control = self.directory / "failing"
        self._log = self.directory / "failing.log"
        self._syslog = self.directory / "log"
        self._upstream = Upstream()
        self._numbers = itertools.count()

    async def spawned(self, plan: Iterable[tuple[int, int]]) -> None:
        """Let calls of a spawned proxy fail, counted from its start to its exit."""
        address = await self._start()
        arguments = self._arguments(address)
        for number, way in plan:
            self._arm(number, way)
            stage = self._stage("spawned")
            process, client = spawn(arguments, self._environment(address), _RUN)
            await self._converse(stage, client)
            await process.exit_status()
            process.end()
            await self._judge(stage, f"{number}.{way}")
        self._stop()

    async def listening(self, plan: Iterable[tuple[int, int]]) -> None:
        """Let calls of a listening proxy fail, counted while a client is connected.

        Meanwhile, another client is in the middle of a message, which it completes afterwards.
        """
        address = await self._start()
        stderr = self.place.stderr
        server = Server(self._arguments(address), self._environment(address), stderr, _RUN)
        for number, way in plan:
            bystander = Bystander(self._stage("listening"))
            self._upstream.stage = bystander.stage
            await bystander.begins(server)
            await server.process.waits()
            self._arm(number, way)
            stage = self._stage("listening")
            await self._converse(stage, server.client())
            await stage.left()
            self._control.unlink(missing_ok=True)
            self._upstream.stage = bystander.stage
            told = await bystander.ends()
            if told[:3] != b"250":
                call = self.called()
                self.findings.violations.append(f"{number}.{way} {call}: bystander told {told!r}")
            await self._judge(stage, f"{number}.{way}")
            if server.process.ended():
                self.findings.violations.append(f"{number}.{way}: the server has ended")
                break
        server.process.end()
        self._stop()
        if said := stderr.read_bytes():
            self.findings.violations.append(f"standard error: {said[-2000:]!r}")

    def every_call(self) -> Iterator[tuple[int, int]]:
        """Yield the number of each call and of each of its errors."""
        for number in itertools.count(1):
            yield number, 0
            call = self.called()
            if not call:
                return
            self.findings.calls.append(call)
            for way in range(1, len(ERRORS[call.split()[0]])):
                yield number, way

    async def _start(self) -> str:
        """Start the upstream server and the log. Return the address of upstream."""
        loop = asyncio.get_running_loop()
        self._log_endpoint, _ = await loop.create_datagram_endpoint(
            lambda: _Syslog(self.findings), local_addr=str(self._syslog), family=socket.AF_UNIX
        )
        return await self._upstream.start()

    def _stop(self) -> None:
        self._upstream.stop()
        self._log_endpoint.close()

    def _arm(self, number: int, way: int) -> None:
        self._log.unlink(missing_ok=True)
        self._control.unlink(missing_ok=True)
        self._control.symlink_to(".".join([f"{number}.{way}", *self.names]))

    def called(self) -> str:
        """Return the calls that failed in the last session, or that were recorded."""
        return self._log.read_text().strip() if self._log.exists() else ""

    def _arguments(self, address: str) -> list[str]:
        late = KINDS[self.kind].late
        return [*self.place.arguments(address, _SPEED, rejecting=True, late=late), "-v"]

    def _environment(self, address: str) -> dict[str, str]:
        ours = {"FAILING": str(self._control), "FAILING_UPSTREAM": address}
        log = {"FAILING_SYSLOG": str(self._syslog)}
        return self.place.environment(_SPEED) | ours | log

    def _stage(self, mode: str) -> Stage:
        scenario = Scenario(mode, self.kind, "nobody", "", "")
        return Stage(scenario, f"f{next(self._numbers)}", self.place)

    async def _converse(self, stage: Stage, client: object) -> None:
        self._upstream.stage = stage
        reader, writer = await asyncio.open_connection(sock=client)
        await Client(stage, reader, writer).session()
        stage.over.set()

    async def _judge(self, stage: Stage, name: str) -> None:
        call = self.called()
        # A proxy that cannot start logs an error as well.
        if not stage.greeted or call.partition(" ")[0] in _ENDS_THE_SESSION:
            stage.violations = [what for what in stage.violations if what != INTERNAL]
        for message in (stage.message, stage.second):
            message.seen = [found for _, found in self.place.seen(message.token)]
            judgement = judge(message, rejecting=True, hurried=KINDS[self.kind].late)
            if judgement.outcome == KEPT:
                continue
            if call in DOUBTFUL and unknowable(message):
                self.findings.doubts.append(call)
            else:
                stage.violations.append(f"{judgement.reason}, told {message.told!r}")
        if left := await self._left_over(call):
            stage.violations.append(f"left in the spool: {left}")
        self.place.empty_spool()
        self.findings.violations += [f"{name} {call}: {what}" for what in stage.violations]

    async def _left_over(self, call: str) -> list[str]:
        """Return the files left in the spool, except those that were reported in the log."""
        if call.partition(" ")[0] not in _STAYS:
            return await self.place.left_over()
        told = b"".join(self.findings.logged)
        names = [path.name for path in self.place.spool.iterdir()]
        return [name for name in names if name.encode() not in told]


def unknowable(message: Message) -> bool:
    """Whether the client cannot know the outcome of a message that was delivered at most once."""
    delivered = [delivery for delivery in message.deliveries if delivery.whole]
    return len(delivered) <= 1 and message.told[:1] != b"2"


class Bystander:
    """Another client of the same server, in the middle of a message."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    async def begins(self, server: Server) -> None:
        """Start a message."""
        self._reader, self._writer = await asyncio.open_connection(sock=server.client())
        await read_reply(self._reader)
        sender = b"MAIL FROM:<" + self.stage.second.address + b">"
        for command in (b"HELO bystander", sender, b"RCPT TO:<a@b>", b"DATA"):
            await self._says(command + b"\r\n")

    async def ends(self) -> bytes:
        """Send the message and return the reply."""
        try:
            answer = await self._says(b"Subject: x\r\n\r\nx\r\n.\r\n")
        except (GoneError, OSError, TimeoutError) as error:
            answer = repr(error).encode()
        self._writer.close()
        return answer

    async def _says(self, octets: bytes) -> bytes:
        self._writer.write(octets)
        return await asyncio.wait_for(read_reply(self._reader), TIMEOUT)


def every_call(mode: str, kind: str, directory: Path, names: tuple[str, ...] = ()) -> Findings:
    """Let every call of a session fail, or every call with these names, with every error."""
    failing = Failing(kind, directory, names)
    play = failing.spawned if mode == "spawned" else failing.listening
    asyncio.run(play(failing.every_call()))
    return failing.findings


def calls_of(mode: str, kind: str, directory: Path) -> set[str]:
    """Return the names of all calls in a session without failures."""
    failing = Failing(kind, directory)
    play = failing.spawned if mode == "spawned" else failing.listening
    asyncio.run(play([(EVERY, 0)]))
    assert not failing.findings.violations
    return {line.split()[0] for line in failing.called().splitlines()}
