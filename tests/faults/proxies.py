"""The proxy under test, as its users start it: by spawn(8) for one client, or listening.

Rule: a proxy is started here and its end is awaited here; what is left of it is counted here.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults import filters
from tests.support.peers import TIMEOUT, connected_pair, listening
from tests.support.proxies import ISOLATED_PYTHON, ROOT, activated

#: Every time limit of the proxy is so many times shorter; where signals are sent less so, because
#: what is left of a session after one is a matter of seconds.
SPEED, SPEED_WITH_SIGNALS = 100, 10

#: The filter's time limit, in seconds of the wall: none is late, all are.
_ON_TIME, _LATE = 30, 0.4

RUN = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from postprox.__main__ import main
sys.exit(main())
"""


class Place:
    """A directory for one proxy at a time: its spool, its ledger, and the filters' script."""

    def __init__(self, directory: Path) -> None:
        self.spool = directory / "spool"
        self.ledger = directory / "ledger"
        self.stderr = directory / "stderr"
        self.spool.mkdir(parents=True)
        self.ledger.mkdir()
        filters.write_script(directory)

    def environment(self, speed: int) -> dict[str, str]:
        """Return the environment of a proxy in this place."""
        ours = {"LEDGER": str(self.ledger), "POSTPROX_CLOCK_SPEED": str(speed)}
        return {"PATH": os.environ["PATH"], **ours}

    def arguments(self, upstream: str, speed: int, *, rejecting: bool, late: bool) -> list[str]:
        """Return the command line of a proxy in this place, without the program."""
        filtered = ["-c", filters.COMMAND, "-t", str(speed * (_LATE if late else _ON_TIME))]
        return [upstream, "-d", str(self.spool), *filtered, *(["-r"] if rejecting else [])]

    def seen(self, token: str) -> list[tuple[int, bytes]]:
        """Return which filters ran for a message, and what each found in EMAIL."""
        runs = [path for path in self.ledger.glob(f"{token}.*") if path.suffix[1:].isdigit()]
        return [(int(path.suffix[1:]), path.read_bytes()) for path in runs]

    async def left_over(self) -> list[str]:
        """Return what is left in the spool, after a moment for it to go."""
        for _ in range(500):
            if not any(self.spool.iterdir()):
                break
            await asyncio.sleep(0.01)
        return [path.name for path in self.spool.iterdir()]

    def empty_spool(self) -> None:
        """Remove what is left, so that the next scenario is not blamed for it."""
        shutil.rmtree(self.spool)
        self.spool.mkdir()


class Process:
    """A running proxy."""

    def __init__(
        self, command: list[str], environment: dict[str, str], stdin: int, stdout: int, stderr: int
    ) -> None:
        self._process = subprocess.Popen(
            command, env=environment, stdin=stdin, stdout=stdout, stderr=stderr
        )
        self.pid = self._process.pid
        self._end = os.pidfd_open(self.pid)  # readable when it has ended

    def send(self, *names: str) -> None:
        """Send the process signals."""
        for name in names:
            self._process.send_signal(signal.Signals[f"SIG{name}"])

    @contextmanager
    def held(self) -> Iterator[None]:
        """Stop it for a while: what happens meanwhile has for it happened all at once."""
        self.send("STOP")
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        try:
            yield
        finally:
            self.send("CONT")

    async def waits(self) -> None:
        """Return when it has nothing to do but wait for events."""
        state = Path(f"/proc/{self.pid}/stat")
        while state.read_text().rpartition(") ")[2][0] not in "SZ":
            await asyncio.sleep(0.001)

    async def exit_status(self) -> int | None:
        """Wait until it has ended, or None if it does not."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(self._end, ended.set)
        try:
            await asyncio.wait_for(ended.wait(), TIMEOUT)
        except TimeoutError:
            return None
        finally:
            loop.remove_reader(self._end)
        return self._process.wait()

    def ended(self) -> bool:
        """Whether it has ended by itself."""
        return self._process.poll() is not None

    def end(self) -> None:
        """Kill it, if it is still there."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._end)


def spawn(
    arguments: list[str], environment: dict[str, str], run: str = RUN
) -> tuple[Process, socket.socket]:
    """Start a proxy as spawn(8) does: its client is on descriptors 0, 1 and 2.

    run: the program, which imports the proxy and calls its `main`.
    """
    ours, theirs = connected_pair()
    with theirs:
        command = [*ISOLATED_PYTHON, "-c", run, *arguments]
        return Process(command, environment, *[theirs.fileno()] * 3), ours


class Server:
    """A listening proxy in the foreground, on a passed socket."""

    def __init__(
        self, arguments: list[str], environment: dict[str, str], stderr: Path, run: str = RUN
    ) -> None:
        with listening() as listener, stderr.open("ab") as log:
            self.address = listener.getsockname()
            options = ["-l1", "--foreground", "--log", "syslog"]
            command = activated(*ISOLATED_PYTHON, "-c", run, *arguments, *options)
            descriptors = (listener.fileno(), subprocess.DEVNULL, log.fileno())
            self.process = Process(command, environment, *descriptors)

    def client(self) -> socket.socket:
        """Connect a client."""
        return socket.create_connection(self.address, TIMEOUT)
