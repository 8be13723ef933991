"""Sessions of a proxy whose operating system fails once, at every call of the session in turn.

Rule: the promise is judged by the ledger, as anywhere. A message is in doubt only if the call that
failed was the one that would have carried upstream's answer (`DOUBTFUL`).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.failing import ERRORS
from tests.faults.ledger import KEPT, Message, judge
from tests.faults.proxies import RUN, Place, Server, spawn
from tests.faults.scenario import Scenario
from tests.faults.stage import INTERNAL, Client, Stage, Upstream

#: Calls whose failure loses a peer: what upstream answered, or what the client was to be told. The
#: client cannot know then (RFC 1047).
DOUBTFUL = (
    *("read ECONNRESET upstream", "read EIO upstream"),
    *("read ECONNRESET client", "read EIO client"),
    *("write EPIPE client", "write ENOSPC client", "write ENOBUFS client"),
)

#: As the launcher begins: what comes before descriptor 2 is silent cannot be silent.
_RUN = RUN.replace(
    "from postprox",
    "from tests.faults import failing\nfailing.launch()\nfailing.install()\nfrom postprox",
)
_SPEED = 20  # a session whose peer was lost to it waits for its limits


@dataclass
class Findings:
    """What came of all sessions: which calls failed, which doubts there were, what was wrong."""

    calls: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)


@dataclass
class Failing:
    """Runs sessions with a message whose filter is of one kind.

    kinds: the filter's kind.
    directory: where the proxy works.
    """

    kind: str
    directory: Path
    findings: Findings = field(default_factory=Findings)

    def __post_init__(self) -> None:
        self.place = Place(self.directory)
        self._control = self.directory / "failing"
        self._log = self.directory / "failing.log"
        self._upstream = Upstream()
        self._numbers = itertools.count()

    async def spawned(self) -> None:
        """Let every call of a spawned proxy fail, from its start to its end, in every way."""
        address = await self._upstream.start()
        arguments = self._arguments(address)
        for number, way in self._plan():
            self._arm(number, way)
            stage = self._stage("spawned")
            process, client = spawn(arguments, self._environment(address), _RUN)
            await self._converse(stage, client)
            await process.exit_status()
            process.end()
            await self._judge(stage, f"{number}.{way}")
        self._upstream.stop()

    async def listening(self) -> None:
        """Let every call of a listening proxy fail, from a client's coming to its going.

        A bystander is in the middle of a message all the while, and ends it afterwards.
        """
        address = await self._upstream.start()
        stderr = self.place.stderr
        server = Server(self._arguments(address), self._environment(address), stderr, _RUN)
        for number, way in self._plan():
            bystander = Bystander(self._stage("listening"))
            self._upstream.stage = bystander.stage
            await bystander.begins(server)
            self._arm(number, way)
            stage = self._stage("listening")
            await self._converse(stage, server.client())
            await stage.left()
            self._control.unlink(missing_ok=True)
            self._upstream.stage = bystander.stage
            told = await bystander.ends()
            if told[:3] != b"250":
                call = self._called()
                self.findings.violations.append(f"{number}.{way} {call}: bystander told {told!r}")
            await self._judge(stage, f"{number}.{way}")
            if server.process.ended():
                self.findings.violations.append(f"{number}.{way}: the server has ended")
                break
        server.process.end()
        self._upstream.stop()
        if said := stderr.read_bytes():
            self.findings.violations.append(f"standard error: {said[-2000:]!r}")

    def _plan(self) -> Iterator[tuple[int, int]]:
        """Number the calls, and the ways of each, until the session has no more calls."""
        for number in itertools.count(1):
            yield number, 0
            call = self._called()
            if not call:
                return
            self.findings.calls.append(call)
            for way in range(1, len(ERRORS[call.split()[0]])):
                yield number, way

    def _arm(self, number: int, way: int) -> None:
        self._log.unlink(missing_ok=True)
        self._control.unlink(missing_ok=True)
        self._control.symlink_to(f"{number}.{way}")

    def _called(self) -> str:
        return self._log.read_text().strip() if self._log.exists() else ""

    def _arguments(self, address: str) -> list[str]:
        return self.place.arguments(address, _SPEED, rejecting=True, late=False)

    def _environment(self, address: str) -> dict[str, str]:
        ours = {"FAILING": str(self._control), "FAILING_UPSTREAM": address}
        return self.place.environment(_SPEED) | ours

    def _stage(self, mode: str) -> Stage:
        scenario = Scenario(mode, self.kind, "nobody", "", "")
        return Stage(scenario, f"f{next(self._numbers)}", self.place)

    async def _converse(self, stage: Stage, client: object) -> None:
        self._upstream.stage = stage
        reader, writer = await asyncio.open_connection(sock=client)
        await Client(stage, reader, writer).session()
        stage.over.set()

    async def _judge(self, stage: Stage, name: str) -> None:
        call = self._called()
        if not stage.greeted:  # a proxy that cannot begin says so
            stage.violations = [what for what in stage.violations if what != INTERNAL]
        for message in (stage.message, stage.second):
            message.seen = [found for _, found in self.place.seen(message.token)]
            judgement = judge(message, rejecting=True)
            if judgement.outcome == KEPT:
                continue
            if call in DOUBTFUL and unknowable(message):
                self.findings.doubts.append(call)
            else:
                stage.violations.append(f"{judgement.reason}, told {message.told!r}")
        if left := await self.place.left_over():
            stage.violations.append(f"left in the spool: {left}")
            self.place.empty_spool()
        self.findings.violations += [f"{name} {call}: {what}" for what in stage.violations]


def unknowable(message: Message) -> bool:
    """Whether all that is wrong is that the client was not told what upstream has taken."""
    delivered = [delivery for delivery in message.deliveries if delivery.whole]
    return len(delivered) <= 1 and message.told[:1] != b"2"


class Bystander:
    """Another client of the same server, in the middle of its message."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    async def begins(self, server: Server) -> None:
        """Come as far as the message."""
        self._reader, self._writer = await asyncio.open_connection(sock=server.client())
        await self._reader.readline()
        sender = b"MAIL FROM:<" + self.stage.second.address + b">"
        for command in (b"HELO bystander", sender, b"RCPT TO:<a@b>", b"DATA"):
            await self._says(command + b"\r\n")

    async def ends(self) -> bytes:
        """Send the message; return what was answered."""
        try:
            answer = await self._says(b"Subject: x\r\n\r\nx\r\n.\r\n")
        except (OSError, TimeoutError) as error:
            answer = repr(error).encode()
        self._writer.close()
        return answer

    async def _says(self, octets: bytes) -> bytes:
        self._writer.write(octets)
        return await asyncio.wait_for(self._reader.readline(), 20)


def every_call(mode: str, kind: str, directory: Path) -> Findings:
    """Let every call of a session fail, in every way."""
    failing = Failing(kind, directory)
    asyncio.run(failing.spawned() if mode == "spawned" else failing.listening())
    return failing.findings
