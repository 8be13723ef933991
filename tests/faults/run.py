"""Runs scenarios in parallel and collects their results.

Rule: after every scenario, this module checks that the ledger has no violation, that no file,
process or connection is left, and that standard error is empty.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.filters import KINDS
from tests.faults.ledger import IN_DOUBT, KEPT, VIOLATED, judge
from tests.faults.proxies import SPEED, SPEED_WITH_SIGNALS, Place, Process, Server, spawn
from tests.faults.scenario import Scenario
from tests.faults.stage import Client, NarrowUpstream, Stage, Upstream

_DOUBTFUL = Path(__file__).with_name("doubtful.txt")


@dataclass
class Account:
    """The results of all scenarios."""

    outcomes: Counter[str] = field(default_factory=Counter)
    messages: int = 0
    violations: list[str] = field(default_factory=list)
    #: How often each fault left a message in doubt.
    doubts: Counter[str] = field(default_factory=Counter)

    def enter(self, stage: Stage) -> None:
        """Add a finished scenario."""
        scenario = stage.scenario
        outcomes = {KEPT}
        if stage.undone and not may_be_undone(scenario):
            stage.violations.append("the planned fault did not occur")
        for message in (stage.message, stage.second):
            self.messages += message.ended
            # The filter accepts the second message, and no fault affects it.
            judgement = judge(
                message, rejecting=scenario.rejecting, hurried=KINDS[scenario.kind].late
            )
            outcomes.add(judgement.outcome)
            if judgement.outcome == VIOLATED:
                stage.violations.append(f"{judgement.reason} ({_entry(message.told)})")
        if stage.violations:
            outcomes.add(VIOLATED)
            self.violations += [f"{scenario.name}: {reason}" for reason in stage.violations]
        elif IN_DOUBT in outcomes:
            self.doubts[scenario.fault] += 1
        worst = next(word for word in (VIOLATED, IN_DOUBT, KEPT) if word in outcomes)
        self.outcomes[worst] += 1

    @property
    def unforeseen(self) -> list[str]:
        """The faults that left messages in doubt but are not in doubtful.txt."""
        return sorted(self.doubts.keys() - doubtful().keys())

    def __str__(self) -> str:
        counts = ", ".join(f"{self.outcomes[word]} {word}" for word in (KEPT, IN_DOUBT, VIOLATED))
        return f"{self.outcomes.total()} scenarios, {self.messages} messages: {counts}"


def _entry(told: bytes) -> str:
    return f"got {told[:60]!r}" if told else "got no reply"


def doubtful() -> dict[str, str]:
    """Return the faults after which the client cannot know the outcome, with the reasons."""
    lines = [line for line in _DOUBTFUL.read_text().splitlines() if line[:1] not in ("", "#")]
    return {name: reason.strip() for name, _, reason in (line.partition(" ") for line in lines)}


def may_be_undone(scenario: Scenario) -> bool:
    """Return whether the scenario's moment may be skipped.

    On a busy machine, a late filter may be killed before it reaches its gate.
    """
    return scenario.moment == "filtering" and KINDS[scenario.kind].late


class Worker:
    """Runs scenarios one after another in its own directory."""

    def __init__(self, number: int, directory: Path, account: Account) -> None:
        self._number = number
        self._directory = directory
        self._account = account
        self._upstreams = {False: Upstream(), True: NarrowUpstream()}  # by `narrow`
        self._addresses: dict[bool, str] = {}
        self._place = Place(directory / "spawned")
        self._servers: dict[tuple[bool, ...], tuple[Server, Place]] = {}
        self._count = 0

    async def run(self, scenarios: Iterable[Scenario]) -> None:
        """Run scenarios until none is left."""
        for narrow, upstream in self._upstreams.items():
            self._addresses[narrow] = await upstream.start()
        try:
            for scenario in scenarios:
                self._count += 1
                if scenario.mode == "spawned":
                    await self._spawned(scenario)
                else:
                    await self._listening(scenario)
        finally:
            for upstream in self._upstreams.values():
                upstream.stop()
            for server, place in self._servers.values():
                server.process.end()
                if said := place.stderr.read_bytes():
                    self._account.violations.append(f"standard error: {said[-2000:]!r}")

    async def _spawned(self, scenario: Scenario) -> None:
        stage = Stage(scenario, f"{self._number}x{self._count}", self._place)
        process, client = spawn(*self._started(self._place, scenario))
        await self._perform(stage, process, client)
        status = await process.exit_status()
        if status not in (0, 1) and not _ended_while_starting(scenario, status):
            stage.violations.append(f"the proxy exited with status {status}")
        process.end()
        await self._close(stage)

    async def _listening(self, scenario: Scenario) -> None:
        signalled = scenario.who == "signal"
        key = (scenario.rejecting, KINDS[scenario.kind].late, signalled, scenario.narrow)
        if key not in self._servers:
            place = Place(self._directory / f"listening-{self._count}")
            self._servers[key] = Server(*self._started(place, scenario), place.stderr), place
        server, place = self._servers[key]
        stage = Stage(scenario, f"{self._number}x{self._count}", place)
        await self._perform(stage, server.process, server.client())
        if signalled:
            del self._servers[key]
            status = await server.process.exit_status()
            early = _ended_while_starting(scenario, status)
            if status != 0 and not early:
                stage.violations.append(f"the server exited with status {status}")
            server.process.end()
            if (said := place.stderr.read_bytes()) and not early:
                stage.violations.append(f"standard error: {said[-2000:]!r}")
        await self._close(stage)

    def _started(self, place: Place, scenario: Scenario) -> tuple[list[str], dict[str, str]]:
        """Return the command line and environment of a scenario's proxy."""
        speed = SPEED_WITH_SIGNALS if scenario.who == "signal" else SPEED
        late = KINDS[scenario.kind].late
        address = self._addresses[scenario.narrow]
        arguments = place.arguments(address, speed, rejecting=scenario.rejecting, late=late)
        return arguments, place.environment(speed)

    async def _perform(self, stage: Stage, process: Process, client: object) -> None:
        self._upstreams[stage.scenario.narrow].stage = stage
        stage.process = process

        async def signalled() -> None:
            process.send(*stage.scenario.deed.split("-"))

        stage.deeds["signal"] = signalled
        reader, writer = await asyncio.open_connection(sock=client)
        await Client(stage, reader, writer).session()
        stage.over.set()

    async def _close(self, stage: Stage) -> None:
        """Check for leftovers and add the scenario."""
        runs = []
        for message in (stage.message, stage.second):
            runs += stage.place.seen(message.token)
            message.seen = [found for _, found in stage.place.seen(message.token)]
        if not await stage.left():
            stage.violations.append("the upstream connection is still open")
        if left := await stage.place.left_over():
            stage.violations.append(f"left in the spool: {left}")
            stage.place.empty_spool()
        if not KINDS[stage.scenario.kind].outlives:
            for pid, _ in runs:
                if not await _group_ends(pid):
                    stage.violations.append(f"the filter is still running (process group {pid})")
        self._account.enter(stage)


def _ended_while_starting(scenario: Scenario, status: int | None) -> bool:
    """Return whether a signal killed the proxy before it could handle signals."""
    starting = scenario.who == "signal" and scenario.moment == "connected"
    return starting and status is not None and status < 0


async def _group_ends(number: int) -> bool:
    for _ in range(50):
        try:
            os.killpg(number, 0)
        except ProcessLookupError:
            return True
        await asyncio.sleep(0.01)
    return not any(_lives_in(number, path) for path in Path("/proc").glob("[0-9]*/stat"))


def _lives_in(group: int, path: Path) -> bool:
    """Return whether the process belongs to the group and is not a zombie."""
    try:
        state, _, its_group = path.read_text().rpartition(") ")[2].split()[:3]
    except (OSError, ValueError):  # the process has exited
        return False
    return its_group == str(group) and state != "Z"


def run(scenarios: Iterable[Scenario], at_once: int) -> Account:
    """Run scenarios in parallel."""
    for number in (signal.SIGINT, signal.SIGHUP):  # ignored under nohup or in the background
        if signal.getsignal(number) == signal.SIG_IGN:  # the proxies would inherit SIG_IGN
            signal.signal(number, signal.SIG_DFL)
    account = Account()
    queue = iter(scenarios)

    async def all_of_them() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(at_once):
                worker = Worker(number, Path(directory) / str(number), account)
                group.create_task(worker.run(queue))

    with tempfile.TemporaryDirectory(prefix="faults-") as directory:
        asyncio.run(all_of_them())
    return account
