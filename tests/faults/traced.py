"""Makes system calls of a running proxy fail with strace(1).

Rule: the program is unchanged. Unlike `failing`, this method covers memory allocation and the calls
of the interpreter and the C library. strace is attached after the greeting, and the count of calls
starts at that point. close(2) is omitted, because an injected failure leaves the descriptor open,
unlike a real failure.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.calls import Bystander, unknowable
from tests.faults.ledger import KEPT, judge
from tests.faults.proxies import Place, Server, spawn
from tests.faults.scenario import Scenario
from tests.faults.stage import INTERNAL, Client, Stage, Upstream

#: The calls that fail, with realistic errors.
ERRORS: dict[str, tuple[str, ...]] = {
    "openat": ("EMFILE", "ENOSPC"),
    "read": ("ECONNRESET", "EIO"),
    "write": ("EPIPE", "ENOSPC"),
    "writev": ("EPIPE",),
    "pread64": ("EIO",),
    "newfstatat": ("EIO",),
    "linkat": ("ENOSPC",),
    "unlink": ("EIO",),
    "fcntl": ("ENOLCK",),
    "pipe2": ("EMFILE",),
    "vfork": ("EAGAIN",),
    "clone": ("EAGAIN",),
    "clone3": ("EAGAIN",),
    "mmap": ("ENOMEM",),
    "poll": ("ENOMEM",),
    "epoll_wait": ("ENOMEM",),
    "epoll_ctl": ("ENOMEM", "ENOSPC"),
    "socket": ("EMFILE",),
    "connect": ("ENETUNREACH",),
    "shutdown": ("ENOTCONN",),
    "wait4": ("EINTR", "ENOSYS"),
}

#: Calls whose failure loses a peer's data. The client then cannot know the outcome (RFC 1047).
_DOUBTFUL = ("read", "write", "writev")

#: Calls whose failure ends the session with 421. Without the first, the proxy cannot wait for
#: events. Without the second, it cannot load a module.
_ENDS_THE_SESSION = ("epoll_ctl", "newfstatat")

#: Unlike a real kernel, strace can make a signal number's write to the wake-up pipe fail. The
#: interpreter then loses the signal and prints an error.
_SIGNAL_REFUSED = re.compile(r'^write\(\d+, "\\\d+", 1\) .*\(INJECTED\)$', re.MULTILINE)
_SIGNAL_LOST = re.compile(rb"Exception ignored when .* signal wakeup fd:\n(?:.*\n)*?\w+Error: .*\n")

_SPEED = 20  # shortens the timeout of a session that has lost its peer
_CALL = re.compile(r"^([a-z0-9_]+)\(", re.MULTILINE)


@dataclass(frozen=True)
class Injection:
    """The `number`-th call of `name` fails with `error`."""

    name: str
    error: str
    number: int

    def __str__(self) -> str:
        return f"{self.name}:error={self.error}:when={self.number}"


@dataclass
class Findings:
    """The results of all sessions: the calls of a session, the failed calls and the violations."""

    calls: Counter[str] = field(default_factory=Counter)
    injected: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)


class Strace:
    """Runs strace(1), which records the calls of a process and can make some fail.

    log: the output file.
    expressions: the options, such as `-e`.
    """

    def __init__(self, log: Path, *expressions: str) -> None:
        self._command = ["strace", "-o", str(log), *expressions]
        self._process: subprocess.Popen[bytes] | None = None

    async def attach(self, pid: int) -> None:
        """Start tracing a process."""
        command = [*self._command, "-p", str(pid)]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE)
        assert self._process.stderr is not None
        said = await asyncio.to_thread(self._process.stderr.readline)
        assert b"attached" in said, said

    async def detach(self) -> None:
        """Stop tracing if it was started."""
        if self._process is not None:
            self._process.terminate()
            await asyncio.to_thread(self._process.communicate)


class Traced:
    """Uses strace to trace sessions with one message, which the filter replaces."""

    def __init__(self, directory: Path) -> None:
        self._place = Place(directory)
        self._log = directory / "calls"
        self._upstream = Upstream()
        self._tokens = itertools.count()
        self.findings = Findings()

    async def spawned(self, indexes: int) -> None:
        """Make each kind of call fail at several points of a spawned proxy's session."""
        started = await self._started()
        for injection in self._plan(indexes):
            stage = self._upstream.stage = self._stage("spawned")
            process, connection = spawn(*started)
            reader, writer = await asyncio.open_connection(sock=connection)
            client = Client(stage, reader, writer)
            strace = self._strace(injection)
            stage.deeds["client"] = functools.partial(strace.attach, process.pid)
            await client.session()
            stage.over.set()
            await process.exit_status()
            await strace.detach()
            process.end()
            await self._judge(stage, injection)
        self._upstream.stop()

    async def listening(self, indexes: int) -> None:
        """Make calls of a server fail while another client is in the middle of a message."""
        server = Server(*await self._started(), self._place.stderr)
        for injection in self._plan(indexes):
            bystander = Bystander(self._stage("listening"))
            self._upstream.stage = bystander.stage
            await bystander.begins(server)
            stage = self._upstream.stage = self._stage("listening")
            strace = self._strace(injection)
            await strace.attach(server.process.pid)
            reader, writer = await asyncio.open_connection(sock=server.client())
            client = Client(stage, reader, writer)
            stage.deeds.clear()
            await client.session()
            stage.over.set()
            await stage.left()
            await strace.detach()
            self._upstream.stage = bystander.stage
            if (told := await bystander.ends())[:3] != b"250":
                stage.violations.append(f"the bystander got {told!r}")
            if server.process.ended():
                stage.violations.append("the server has exited")
            await self._judge(stage, injection)
        server.process.end()
        self._upstream.stop()
        if said := _SIGNAL_LOST.sub(b"", self._place.stderr.read_bytes()):
            self.findings.violations.append(f"standard error: {said[-2000:]!r}")

    def _plan(self, indexes: int) -> Iterator[Injection | None]:
        """Record the calls in a session in which none fails, and then yield failures for them."""
        yield None
        calls = _CALL.findall(self._log.read_text())
        self.findings.calls = Counter(calls)
        for name, count in self.findings.calls.items():
            step = max(1, count // indexes)
            for error, number in itertools.product(ERRORS[name], range(1, count + 1, step)):
                yield Injection(name, error, number)

    def _strace(self, injection: Injection | None) -> Strace:
        calls = ",".join(f"?{name}" for name in ERRORS)  # `?` makes strace ignore unknown calls
        failing = ["-e", f"inject={injection}"] if injection else []
        return Strace(self._log, "-e", f"trace={calls}", *failing)

    async def _started(self) -> tuple[list[str], dict[str, str]]:
        """Return the command line and environment for a proxy."""
        address = await self._upstream.start()
        arguments = self._place.arguments(address, _SPEED, rejecting=True, late=False)
        return arguments, self._place.environment(_SPEED)

    def _stage(self, mode: str) -> Stage:
        scenario = Scenario(mode, "replaces", "client", "greeted", "is traced")
        return Stage(scenario, f"t{next(self._tokens)}", self._place)

    async def _judge(self, stage: Stage, injection: Injection | None) -> None:
        log = self._log.read_text()
        failed = [line for line in log.splitlines() if "(INJECTED)" in line]
        self.findings.injected.update(_CALL.findall("\n".join(failed)))
        if injection and injection.name in _ENDS_THE_SESSION:
            stage.violations = [what for what in stage.violations if what != INTERNAL]
        for message in (stage.message, stage.second):
            message.seen = [found for _, found in self._place.seen(message.token)]
            judgement = judge(message, rejecting=True)
            in_doubt = injection and injection.name in _DOUBTFUL and unknowable(message)
            if judgement.outcome != KEPT and not in_doubt:
                stage.violations.append(f"{judgement.reason}, got {message.told!r}")
        if left := await self._place.left_over():
            stage.violations.append(f"left in the spool: {left}")
            self._place.empty_spool()
        if _SIGNAL_REFUSED.search(log):
            return
        self.findings.violations += [f"{injection}: {what} {failed}" for what in stage.violations]


def some_calls(mode: str, indexes: int, directory: Path) -> Findings:
    """Make every kind of call fail at several points of a session."""
    traced = Traced(directory)
    asyncio.run(traced.spawned(indexes) if mode == "spawned" else traced.listening(indexes))
    return traced.findings
