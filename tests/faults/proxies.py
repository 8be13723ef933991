"""The proxy under test, which runs for one client as under spawn(8), or as a server.

Rule: this module starts proxies, waits for their exit, and finds their leftover files.
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

#: The factor by which the proxy's time limits are shortened. It is smaller in scenarios with
#: signals, because a session ends within seconds after a signal.
SPEED, SPEED_WITH_SIGNALS = 100, 10

#: The filter's time limits in real seconds. No filter exceeds the first, and late filters exceed
#: the second.
_ON_TIME, _LATE = 30, 0.4

RUN = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from postprox.__main__ import main
sys.exit(main())
"""


class Place:
    """A directory with the spool, the ledger and the filter script of one proxy at a time."""

    def __init__(self, directory: Path) -> None:
        self.spool = directory / "spool"
        self.ledger = directory / "ledger"
        self.stderr = directory / "stderr"
        self.spool.mkdir(parents=True)
        self.ledger.mkdir()
        filters.write_script(directory)

    def environment(self, speed: int) -> dict[str, str]:
        """Return the environment of a proxy in this directory."""
        ours = {"LEDGER": str(self.ledger), "POSTPROX_CLOCK_SPEED": str(speed)}
        return {"PATH": os.environ["PATH"], **ours}

    def arguments(self, upstream: str, speed: int, *, rejecting: bool, late: bool) -> list[str]:
        """Return the command-line arguments of a proxy in this directory."""
        filtered = ["-c", filters.COMMAND, "-t", str(speed * (_LATE if late else _ON_TIME))]
        return [upstream, "-d", str(self.spool), *filtered, *(["-r"] if rejecting else [])]

    def seen(self, token: str) -> list[tuple[int, bytes]]:
        """Return the process ID and the contents of EMAIL for each filter run of a message."""
        runs = [path for path in self.ledger.glob(f"{token}.*") if path.suffix[1:].isdigit()]
        return [(int(path.suffix[1:]), path.read_bytes()) for path in runs]

    async def left_over(self) -> list[str]:
        """Wait briefly for the removal of the spool's files. Return the remaining file names."""
        for _ in range(500):
            if not any(self.spool.iterdir()):
                break
            await asyncio.sleep(0.01)
        return [path.name for path in self.spool.iterdir()]

    def empty_spool(self) -> None:
        """Remove leftover files so that they do not affect the next scenario."""
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
        self._end = os.pidfd_open(self.pid)  # readable when the process has exited

    def send(self, *names: str) -> None:
        """Send the process signals."""
        for name in names:
            self._process.send_signal(signal.Signals[f"SIG{name}"])

    @contextmanager
    def held(self) -> Iterator[None]:
        """Suspend the process, so that it receives all events from this period at once."""
        self.send("STOP")
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        try:
            yield
        finally:
            self.send("CONT")

    async def waits(self) -> None:
        """Wait until the process is waiting for events."""
        state = Path(f"/proc/{self.pid}/stat")
        while state.read_text().rpartition(") ")[2][0] not in "SZ":
            await asyncio.sleep(0.001)

    async def exit_status(self) -> int | None:
        """Wait for the process to exit. Return its status, or None after a timeout."""
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
        """Return whether the process has exited without being killed."""
        return self._process.poll() is not None

    def end(self) -> None:
        """Kill the process if it is still running."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._end)


def spawn(
    arguments: list[str], environment: dict[str, str], run: str = RUN
) -> tuple[Process, socket.socket]:
    """Start a proxy as spawn(8) does, with the client on descriptors 0, 1 and 2.

    run: the Python program, which imports the proxy and calls its `main`.
    """
    ours, theirs = connected_pair()
    with theirs:
        command = [*ISOLATED_PYTHON, "-c", run, *arguments]
        return Process(command, environment, *[theirs.fileno()] * 3), ours


class Server:
    """A listening proxy in the foreground, which inherits its listening socket."""

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
