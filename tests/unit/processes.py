"""The whole program, started as spawn(8) starts it, or as an administrator does."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.unit.peers import PATIENCE, Peer, address

ROOT = Path(__file__).resolve().parents[2]
PYTHON = (sys.executable, "-bb", "-W", "error")
MESSAGE = (b"Subject: x", b"", b"body", b".")


def environment(**more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **more}


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
