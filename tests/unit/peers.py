"""Clients and upstreams for tests of what touches sockets: on the proxy's own loop, or blocking.

Nothing here sleeps: a peer on the loop is an event like any other, and a blocking one waits for
octets with a limit that only a failing test reaches.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from postprox.core import limits
from postprox.shell.loop import IGNORED, POLL, READABLE, STOPPING, Loop

if TYPE_CHECKING:
    from postprox.shell.loop import Poller

PATIENCE = 20.0


class _Watchdog:
    """Ends a test in which nothing happens any more."""

    def __init__(self, loop: Loop) -> None:
        self.deadline = loop.clock() + PATIENCE
        self.barks = False

    def timer(self) -> None:
        self.deadline = limits.NEVER
        self.barks = True


class BoundedLoop(Loop):
    """A loop that insists, before each turn, that nobody's deadline is earlier than its bound."""

    def run_once(self) -> None:
        true = min((timed.deadline for timed in self._timer_sources), default=limits.NEVER)
        assert self._earliest <= true, "somebody has an earlier deadline, and has not said so"
        super().run_once()


@contextmanager
def fresh_loop(poller: Poller = POLL) -> Iterator[Loop]:
    """A loop that leaves no trace in the process of the tests."""
    numbers = (signal.SIGCHLD, *IGNORED, *STOPPING)
    handlers = [(number, signal.getsignal(number)) for number in numbers]
    loop = BoundedLoop(1, poller)
    yield loop
    os.close(signal.set_wakeup_fd(-1))
    os.close(loop._wakeup)
    # A child may end in between; Python would have its signal, and nobody to tell.
    blocked_before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    for number, handler in handlers:
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked_before)


def run_until(loop: Loop, done: Callable[[], object]) -> None:
    watchdog = _Watchdog(loop)
    loop.add(watchdog)
    try:
        while not done():
            assert not watchdog.barks, "what the test waits for does not happen"
            loop.run_once()
    finally:
        loop.remove(watchdog)


class LoopPeer:
    """One end of a connection, served by the loop that the proxy's end is served by too."""

    def __init__(self, loop: Loop, connection: socket.socket) -> None:
        self._loop = loop
        self.socket = connection
        self.received = bytearray()
        self.ended = False
        connection.setblocking(False)
        self.reads()

    def reads(self) -> None:
        self._loop.watch(self.socket.fileno(), READABLE, self._read)

    def stops_reading(self) -> None:
        self._loop.watch(self.socket.fileno(), 0, self._read)

    def sends(self, octets: bytes) -> None:
        while octets:
            try:
                octets = octets[self.socket.send(octets) :]
            except BlockingIOError:
                self._loop.run_once()

    def says(self, *texts: bytes) -> None:
        self.sends(b"".join(text + b"\r\n" for text in texts))

    def sees(self, *texts: bytes) -> None:
        """Wait for exactly these lines."""
        expected = b"".join(text + b"\r\n" for text in texts)
        run_until(self._loop, lambda: self.ended or len(self.received) >= len(expected))
        assert self.received.startswith(expected), bytes(self.received)
        del self.received[: len(expected)]

    def sees_reply(self, beginning: bytes) -> None:
        """Wait for one line that begins so."""
        run_until(self._loop, lambda: self.ended or b"\n" in self.received)
        line, _, rest = bytes(self.received).partition(b"\n")
        assert line.startswith(beginning), line
        self.received[:] = rest

    def sees_end(self) -> None:
        run_until(self._loop, lambda: self.ended)
        assert bytes(self.received) == b""

    def ends(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def leaves(self) -> None:
        if self.socket.fileno() >= 0:
            self.stops_reading()
            self.socket.close()

    def _read(self) -> None:
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        self.received += data
        if not data:
            self.ended = True
            self.stops_reading()


class Peer:
    """One end of a connection to another process."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        connection.settimeout(PATIENCE)
        self._held = b""

    def sends(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def says(self, *texts: bytes) -> None:
        self.sends(b"".join(text + b"\r\n" for text in texts))

    def line(self) -> bytes:
        """Wait for one line; what there is of it if the connection ends."""
        while b"\n" not in self._held and (data := self.socket.recv(65536)):
            self._held += data
        line, end, self._held = self._held.partition(b"\n")
        return line + end

    def sees(self, *texts: bytes) -> None:
        for text in texts:
            line = self.line()
            assert line == text + b"\r\n", line

    def sees_reply(self, beginning: bytes) -> None:
        line = self.line()
        assert line.startswith(beginning), line
        assert line.endswith(b"\r\n")

    def sees_end(self) -> None:
        line = self.line()
        assert line == b"", line

    def asks(self, command: bytes, reply: bytes) -> None:
        self.says(command)
        self.sees_reply(reply)

    def ends(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def leaves(self) -> None:
        self.socket.close()


def listening() -> socket.socket:
    """A socket that an upstream listens on, at an address that is its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(PATIENCE)
    return listener


def deaf_listener() -> tuple[socket.socket, list[socket.socket]]:
    """A listener whose backlog is full, so that further clients wait for an answer."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    waiting = []
    for _ in range(3):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(listener.getsockname())
        waiting.append(client)
    return listener, waiting


def address(listener: socket.socket) -> str:
    host, port = listener.getsockname()
    return f"{host}:{port}"
