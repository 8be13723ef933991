"""The proxy as a process, which runs for one client as under spawn(8), or as a server."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tests.support.peers import TIMEOUT, Peer, connected, listening

ROOT = Path(__file__).resolve().parents[2]
# When a process exits, it may leave its open sockets and files for the kernel to close.
_STRICT = ("-bb", "-W", "error", "-W", "ignore::ResourceWarning")
PYTHON = (sys.executable, *_STRICT)
#: The interpreter as the installed launcher starts it.
ISOLATED_PYTHON = (sys.executable, "-I", "-S", *_STRICT)
POSTPROX = (*PYTHON, "-m", "postprox")

#: Passes standard input to a command as systemd passes the socket of a socket unit.
_ACTIVATE = 'export LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES=smtp; exec "$@" 3<&0 </dev/null'


def environment(**more: str) -> dict[str, str]:
    # Import the package in ROOT, even if the tests were started in another directory.
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PYTHONSAFEPATH": "1",
        **more,
    }


def activated(*command: str) -> list[str]:
    """Return a command that passes its standard input to `command` as a socket unit's socket."""
    return ["/bin/sh", "-c", _ACTIVATE, "sh", *command]


class Spawned:
    """A proxy with its client on descriptors 0, 1 and 2.

    command: the program.
    how: more arguments for subprocess.Popen.
    """

    def __init__(
        self,
        *arguments: str,
        command: Sequence[str] = POSTPROX,
        prelude: Sequence[str] = (),
        variables: dict[str, str] | None = None,
        **how: Any,
    ) -> None:
        ours, theirs = socket.socketpair()
        self.client = Peer(ours)
        with theirs:
            self.process: subprocess.Popen[bytes] = subprocess.Popen(
                [*prelude, *command, *arguments],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                env=environment(**(variables or {})),
                **{"stderr": theirs.fileno(), **how},
            )

    def exit_status(self) -> int:
        return self.process.wait(TIMEOUT)

    def closes(self) -> None:
        self.client.leaves()
        self.process.kill()
        self.process.wait()


class Serving:
    """A proxy that listens in the foreground on an inherited socket."""

    def __init__(
        self,
        *arguments: str,
        command: Sequence[str] = POSTPROX,
        prelude: Sequence[str] = (),
        variables: dict[str, str] | None = None,
    ) -> None:
        with listening() as listener:
            self.address = listener.getsockname()
            self.process: subprocess.Popen[bytes] = subprocess.Popen(
                [*prelude, *activated(*command, *arguments, "-l1", "--foreground")],
                stdin=listener.fileno(),
                env=environment(**(variables or {})),
            )
        self._clients: list[Peer] = []

    def client(self) -> Peer:
        self._clients.append(connected(self.address))
        return self._clients[-1]

    def stop(self) -> None:
        self.process.terminate()

    def exit_status(self) -> int:
        return self.process.wait(TIMEOUT)

    def closes(self) -> None:
        for client in self._clients:
            client.leaves()
        self.process.kill()
        self.process.wait()


Proxy = TypeVar("Proxy", Spawned, Serving)


def starting(kind: Callable[..., Proxy]) -> Iterator[Callable[..., Proxy]]:
    """Yield a function that starts proxies, for a fixture. End the proxies after the test."""
    started: list[Proxy] = []

    def start(*arguments: str, **how: object) -> Proxy:
        started.append(kind(*arguments, **how))
        return started[-1]

    yield start
    for proxy in started:
        proxy.closes()


def wait_for_end(pid: int) -> None:
    """Wait until a process that is not a child has exited."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], TIMEOUT)[0]
    finally:
        os.close(descriptor)
