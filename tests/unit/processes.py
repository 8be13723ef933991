"""The whole program, started as spawn(8) starts it, or as an administrator does."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from tests.unit.peers import PATIENCE, Peer, address, listening

ROOT = Path(__file__).resolve().parents[2]
# A process that ends may leave closing to the system.
PYTHON = (sys.executable, "-bb", "-W", "error", "-W", "ignore::ResourceWarning")
MESSAGE = (b"Subject: x", b"", b"body", b".")


def environment(**more: str) -> dict[str, str]:
    # The package of ROOT it is, and not one that lies where the tests happen to be started.
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PYTHONSAFEPATH": "1",
        **more,
    }


class Spawned:
    """A proxy with its client on one socket: descriptors 0, 1 and, unless told otherwise, 2."""

    def __init__(
        self,
        *arguments: str,
        stderr: int | None = None,
        prelude: Sequence[str] = (),
        variables: dict[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        ours, theirs = socket.socketpair()
        self.client = Peer(ours)
        with theirs:
            self.process: subprocess.Popen[bytes] = subprocess.Popen(
                [*prelude, *PYTHON, "-m", "postprox", *arguments],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=theirs.fileno() if stderr is None else stderr,
                env=environment(**(variables or {})),
                pass_fds=pass_fds,
            )

    def exit_status(self) -> int:
        return self.process.wait(PATIENCE)

    def closes(self) -> None:
        self.client.leaves()
        self.process.kill()
        self.process.wait()


# What systemd does for a socket unit: the socket is descriptor 3, and the variables say so.
HAND_OVER = """
import os, sys
given = int(sys.argv[1])
if given != 3:
    os.dup2(given, 3)
    os.close(given)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="smtp")
os.execv(sys.argv[2], sys.argv[2:])
"""


class Serving:
    """A proxy that listens in the foreground on a socket that was made for it."""

    def __init__(
        self,
        *arguments: str,
        prelude: Sequence[str] = (),
        variables: dict[str, str] | None = None,
    ) -> None:
        with listening() as listener:
            self.address = listener.getsockname()
            passing = [sys.executable, "-I", "-S", "-c", HAND_OVER, str(listener.fileno())]
            self.process: subprocess.Popen[bytes] = subprocess.Popen(
                [*prelude, *passing, *PYTHON, "-m", "postprox", *arguments, "-l1", "--foreground"],
                stdin=subprocess.DEVNULL,
                env=environment(**(variables or {})),
                pass_fds=(listener.fileno(),),
            )
        self._clients: list[Peer] = []

    def client(self) -> Peer:
        self._clients.append(Peer(socket.create_connection(self.address, PATIENCE)))
        return self._clients[-1]

    def stop(self) -> None:
        self.process.terminate()

    def exit_status(self) -> int:
        return self.process.wait(PATIENCE)

    def closes(self) -> None:
        for client in self._clients:
            client.leaves()
        self.process.kill()
        self.process.wait()


Proxy = TypeVar("Proxy", Spawned, Serving)


def starting(kind: Callable[..., Proxy]) -> Iterator[Callable[..., Proxy]]:
    """For a fixture: give a function that starts proxies of this kind; all end with the test."""
    started: list[Proxy] = []

    def start(*arguments: str, **how: object) -> Proxy:
        started.append(kind(*arguments, **how))
        return started[-1]

    yield start
    for proxy in started:
        proxy.closes()


class Upstream:
    """Where the proxy under test connects to."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._peers: list[Peer] = []
        self.address = address(listener)

    def accepts(self) -> Peer:
        """Take the next connection."""
        accepted, _ = self._listener.accept()
        self._peers.append(Peer(accepted))
        return self._peers[-1]

    def greets(self) -> Peer:
        """Take the next connection, and greet it."""
        peer = self.accepts()
        peer.says(b"220 up")
        return peer

    def closes(self) -> None:
        for peer in self._peers:
            peer.leaves()


def greeted(client: Peer, upstream: Upstream) -> Peer:
    """Begin a session; return upstream's end of it."""
    peer = upstream.greets()
    client.sees(b"220 up")
    return peer


def relays(client: Peer, peer: Peer, command: bytes, reply: bytes = b"250 ok") -> None:
    client.says(command)
    peer.sees(command)
    peer.says(reply)
    client.sees(reply)


def in_data(client: Peer, upstream: Upstream) -> Peer:
    """Begin a session and go on to the 354."""
    peer = greeted(client, upstream)
    for command in (b"EHLO client", b"MAIL FROM:<a@example>", b"RCPT TO:<b@example>"):
        relays(client, peer, command)
    client.asks(b"DATA", b"354 ")
    return peer


def takes_message(client: Peer, peer: Peer, *texts: bytes) -> None:
    """Let upstream take a message that has passed."""
    peer.sees(b"DATA")
    peer.says(b"354 go on")
    peer.sees(*texts)
    peer.says(b"250 queued")
    client.sees(b"250 queued")


def quits(client: Peer, peer: Peer) -> None:
    relays(client, peer, b"QUIT", b"221 bye")
    client.sees_end()


def wait_for_end(pid: int) -> None:
    """Wait until a process that is not a child has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], PATIENCE)[0]
    finally:
        os.close(descriptor)
