"""Runs a session repeatedly. Each time, a different system call of the proxy fails.

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

#: Calls whose failure loses the upstream reply or the client reply. The client then cannot
#: know the outcome (RFC 1047).
DOUBTFUL = (
    *("read ECONNRESET upstream", "read EIO upstream"),
    *("read ECONNRESET client", "read EIO client"),
    *("write EPIPE client", "write ENOSPC client", "write ENOBUFS client"),
    "modify ENOMEM upstream",  # the proxy cannot wait for the final reply
)

#: If the proxy cannot wait for a descriptor, only the descriptor's session ends, with 421.
_ENDS_THE_SESSION = ("register", "modify")

#: If the proxy cannot remove a file that a filter created as OUTFILE, it logs the file's name.
_STAYS = ("chmod", "scandir", "rmdir")

#: The program calls `launch` first, because descriptor 2 is silent only after these calls succeed.
_RUN = RUN.replace(
    "from postprox",
    "from tests.faults import failing\nfailing.launch()\nfailing.install()\nfrom postprox",
)
_SPEED = 20  # shortens the timeout of a session that has lost its peer


@dataclass
class Findings:
    """The results of all sessions: failed calls, messages in doubt and violations.

    logged: the log lines that syslog received.
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
    """Runs sessions with one kind of filter.

    kind: the kind of the filter.
    directory: the proxy's working directory.
    names: the names of the calls that can fail. If empty, every call can fail.
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
        """Make calls of a spawned proxy fail, counted from its start to its exit."""
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
        """Make calls of a listening proxy fail, counted while a client is connected.

        Meanwhile, another client is in the middle of a message, which it then completes.
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
                self.findings.violations.append(f"{number}.{way} {call}: bystander got {told!r}")
            await self._judge(stage, f"{number}.{way}")
            if server.process.ended():
                self.findings.violations.append(f"{number}.{way}: the server has exited")
                break
        server.process.end()
        self._stop()
        if said := stderr.read_bytes():
            self.findings.violations.append(f"standard error: {said[-2000:]!r}")

    def every_call(self) -> Iterator[tuple[int, int]]:
        """Yield the number of each call, combined with the number of each possible error."""
        for number in itertools.count(1):
            yield number, 0
            call = self.called()
            if not call:
                return
            self.findings.calls.append(call)
            for way in range(1, len(ERRORS[call.split()[0]])):
                yield number, way

    async def _start(self) -> str:
        """Start the upstream server and the syslog server. Return upstream's address."""
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
        """Return the calls that failed or were recorded in the last session."""
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
        # A proxy that cannot start reports an internal error, too.
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
                stage.violations.append(f"{judgement.reason}, got {message.told!r}")
        if left := await self._left_over(call):
            stage.violations.append(f"left in the spool: {left}")
        self.place.empty_spool()
        self.findings.violations += [f"{name} {call}: {what}" for what in stage.violations]

    async def _left_over(self, call: str) -> list[str]:
        """Return the files left in the spool, except those that the proxy has logged."""
        if call.partition(" ")[0] not in _STAYS:
            return await self.place.left_over()
        told = b"".join(self.findings.logged)
        names = [path.name for path in self.place.spool.iterdir()]
        return [name for name in names if name.encode() not in told]


def unknowable(message: Message) -> bool:
    """Return whether the message was not delivered twice and the client received no 2yz reply."""
    delivered = [delivery for delivery in message.deliveries if delivery.whole]
    return len(delivered) <= 1 and message.told[:1] != b"2"


class Bystander:
    """Another client of the same server, which is in the middle of a message."""

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
    """Make every call in a session fail with each error. If `names` is set, only these fail."""
    failing = Failing(kind, directory, names)
    play = failing.spawned if mode == "spawned" else failing.listening
    asyncio.run(play(failing.every_call()))
    return failing.findings


def calls_of(mode: str, kind: str, directory: Path) -> set[str]:
    """Return the names of all calls in a session in which no call fails."""
    failing = Failing(kind, directory)
    play = failing.spawned if mode == "spawned" else failing.listening
    asyncio.run(play([(EVERY, 0)]))
    assert not failing.findings.violations
    return {line.split()[0] for line in failing.called().splitlines()}
