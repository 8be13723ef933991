"""python3 -m tests.faults.sessions: run seeded random sessions with several messages.

Rule: the number determines the session completely. The ledger checks each message. A message may be
in doubt only if upstream accepts it and closes the connection without a reply.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import filters
from tests.faults.ledger import IN_DOUBT, VIOLATED, Message, judge
from tests.faults.proxies import SPEED, Place, Server, spawn
from tests.faults.scenario import MODES, Scenario
from tests.faults.stage import Client, GoneError, Stage, Upstream

#: Late filters would take too long. The cross product tests them.
KINDS = [name for name, kind in filters.KINDS.items() if not kind.late and not kind.outlives]
SIZES = (0, 1, 70, 5_000, 65_536, 200_000)
LONGEST_SESSION = 6

#: The actions of the client and of upstream for a message. Most messages have no fault.
CLIENTS = (*["sends"] * 12, "resets", "leaves in it", "leaves behind it")
UPSTREAMS = (
    *[("", "")] * 20,
    *(("MAIL", "4yz"), ("RCPT", "5yz"), ("DATA", "4yz"), ("DATA", "5yz")),
    *(("end", "4yz"), ("end", "5yz"), ("DATA", "421"), ("DATA", "closes"), ("end", "closes")),
)


@dataclass(frozen=True)
class Course:
    """The course of one message.

    pipelines: True if the client sends the envelope in one write.
    """

    kind: str
    size: int
    client: str
    step: str
    deed: str
    pipelines: bool


@dataclass(frozen=True)
class Plan:
    """The plan of a session."""

    mode: str
    rejecting: bool
    courses: list[Course]


def planned(number: int) -> Plan:
    """Return the session with this number."""
    chance = random.Random(number)  # noqa: S311 - the same each time
    courses = [
        Course(
            chance.choice(KINDS),
            chance.choice(SIZES),
            chance.choice(CLIENTS),
            *chance.choice(UPSTREAMS),
            pipelines=chance.random() < 0.5,
        )
        for _ in range(chance.randint(1, LONGEST_SESSION))
    ]
    return Plan(chance.choice(MODES), chance.random() < 0.5, courses)


def content(size: int, token: str) -> bytes:
    """Return a unique message of about `size` octets."""
    lines = size // 62
    return b"".join(b"%060d\r\n" % number for number in range(lines)) + f"..{token}\r\n".encode()


class LongStage(Stage):
    """The stage of a session with several messages."""

    def __init__(self, plan: Plan, token: str, place: Place) -> None:
        super().__init__(Scenario(plan.mode, "accepts", "nobody", "", ""), token, place)
        self.acts = [
            (course, Message(f"{token}m{number}", course.kind, content(course.size, token)))
            for number, course in enumerate(plan.courses)
        ]
        self.under_way: Course | None = None

    def upstreams_deed(self, step: str) -> str:
        """Return upstream's fault at this step for the current message, but only once."""
        course = self.under_way
        if course is None or course.step != step:
            return ""
        self.under_way = None
        return course.deed

    def message_of(self, line: bytes) -> Message | None:
        """Return the message that a MAIL command announces."""
        return next((message for _, message in self.acts if message.address in line), None)


class LongClient(Client):
    """A client with several messages."""

    def __init__(
        self, stage: LongStage, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        super().__init__(stage, reader, writer)
        self._acts = stage

    async def _converse(self) -> None:
        await self._reply()
        await self._ask(b"EHLO client.example")
        for course, message in self._acts.acts:
            self._acts.under_way = course
            if await self._begins(course, message):
                await self._goes_on(course, message)
            self._acts.under_way = None
        await self._ask(b"QUIT")
        await self._drain()

    async def _begins(self, course: Course, message: Message) -> bool:
        """Send the envelope. Return whether the message may follow."""
        commands = [b"MAIL FROM:<%b>" % message.address, b"RCPT TO:<somebody@example.com>"]
        if course.client == "resets":
            commands += [b"RSET"]
        else:
            commands += [b"DATA"]
        if course.pipelines:
            await self._say(b"".join(command + b"\r\n" for command in commands))
            replies = [await self._reply() for _ in commands]
        else:
            replies = [await self._ask(command) for command in commands]
        if replies[-1][:3] == b"354":
            return True
        await self._ask(b"RSET")
        return False

    async def _goes_on(self, course: Course, message: Message) -> None:
        if course.client == "leaves in it":
            await self._say(message.content[: len(message.content) // 2])
            message.left_at = "content"
            raise GoneError
        if course.client == "leaves behind it":
            await self._say(message.content + b".\r\n")
            message.ended, message.left_at = True, "ended"
            raise GoneError
        await self._transmit(message)


@dataclass
class Account:
    """The results of all sessions."""

    outcomes: Counter[str] = field(default_factory=Counter)
    sessions: int = 0
    violations: list[str] = field(default_factory=list)

    def enter(self, number: int, stage: LongStage, plan: Plan) -> None:
        """Add a finished session."""
        self.sessions += 1
        self.violations += [f"session {number}: {what}" for what in stage.violations]
        for course, message in stage.acts:
            message.seen = [found for _, found in stage.place.seen(message.token)]
            judgement = judge(message, rejecting=plan.rejecting)
            self.outcomes[judgement.outcome] += 1
            foreseen = (course.step, course.deed) == ("end", "closes")
            if judgement.outcome == VIOLATED or (judgement.outcome == IN_DOUBT and not foreseen):
                about = f"{judgement.reason}, got {message.told[:60]!r}, {course}"
                self.violations.append(f"session {number}: {about}")

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {word}" for word, count in sorted(self.outcomes.items()))
        return f"{self.sessions} sessions, {self.outcomes.total()} messages: {counts}"


class Player:
    """Runs sessions one after another."""

    def __init__(self, directory: Path, account: Account) -> None:
        self._directory = directory
        self._account = account
        self._upstream = Upstream()
        self._address = ""
        self._servers: dict[bool, tuple[Server, Place]] = {}
        self._place = Place(directory / "spawned")

    async def play(self, numbers: Iterator[int]) -> None:
        """Run sessions until none is left."""
        self._address = await self._upstream.start()
        try:
            for number in numbers:
                await self._play(number, planned(number))
        finally:
            self._upstream.stop()
            for server, place in self._servers.values():
                server.process.end()
                if said := place.stderr.read_bytes():
                    self._account.violations.append(f"standard error: {said[-2000:]!r}")

    async def _play(self, number: int, plan: Plan) -> None:
        if plan.mode == "spawned":
            place = self._place
            process, client = spawn(*self._started(place, plan))
        else:
            server, place = self._server(plan)
            client = server.client()
        stage = LongStage(plan, f"s{number}", place)
        self._upstream.stage = stage
        reader, writer = await asyncio.open_connection(sock=client)
        await LongClient(stage, reader, writer).session()
        stage.over.set()
        if plan.mode == "spawned":
            if (status := await process.exit_status()) not in (0, 1):
                stage.violations.append(f"the proxy exited with status {status}")
            process.end()
        if not await stage.left():
            stage.violations.append("the upstream connection is still open")
        if left := await place.left_over():
            stage.violations.append(f"left in the spool: {left}")
            place.empty_spool()
        self._account.enter(number, stage, plan)

    def _server(self, plan: Plan) -> tuple[Server, Place]:
        if plan.rejecting not in self._servers:
            place = Place(self._directory / f"listening-{plan.rejecting}")
            self._servers[plan.rejecting] = Server(*self._started(place, plan), place.stderr), place
        return self._servers[plan.rejecting]

    def _started(self, place: Place, plan: Plan) -> tuple[list[str], dict[str, str]]:
        arguments = place.arguments(self._address, SPEED, rejecting=plan.rejecting, late=False)
        return arguments, place.environment(SPEED)


def play(numbers: Iterator[int], at_once: int) -> Account:
    """Run the sessions with these numbers in parallel."""
    account = Account()

    async def all_of_them() -> None:
        async with asyncio.TaskGroup() as group:
            for player in range(at_once):
                group.create_task(Player(Path(directory) / str(player), account).play(numbers))

    with tempfile.TemporaryDirectory(prefix="sessions-") as directory:
        asyncio.run(all_of_them())
    return account


def main() -> int:
    """Run the selected sessions. Return exit status 0 if all guarantees hold."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.faults.sessions", description=__doc__)
    parser.add_argument("number", nargs="*", type=int, help="run only these sessions")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 20))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=8)
    wanted = parser.parse_args()
    first = wanted.seed * 1_000_000
    numbers = wanted.number or range(first, first + wanted.count)
    account = play(iter(numbers), wanted.at_once)
    print(*account.violations, f"seed {wanted.seed}: {account}", sep="\n")
    return bool(account.violations)


if __name__ == "__main__":
    sys.exit(main())
