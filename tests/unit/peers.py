"""Peers on the proxy's own event loop, for tests of the modules that use sockets.

Rule: nothing here sleeps, because the octets of a peer are events of the loop.
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
from tests.support.peers import TIMEOUT, Peer

if TYPE_CHECKING:
    from postprox.shell.loop import Poller


class _Watchdog:
    """Ends a test in which nothing happens any more."""

    def __init__(self, loop: Loop) -> None:
        self.deadline = loop.clock() + TIMEOUT
        self.barks = False

    def timer(self) -> None:
        self.deadline = limits.NEVER
        self.barks = True


class BoundedLoop(Loop):
    """A loop that checks before each iteration that no deadline is earlier than its bound."""

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
    # A child may exit in between, and Python would receive its signal without a handler.
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


class LoopPeer(Peer):
    """One end of a connection, on the loop that also serves the proxy's end."""

    def __init__(self, loop: Loop, connection: socket.socket) -> None:
        super().__init__(connection, timeout=0)
        self._loop = loop
        self.ended = False
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

    def line(self) -> bytes:
        run_until(self._loop, lambda: self.ended or b"\n" in self.received)
        return self._next_line()

    def sees_end(self) -> None:
        run_until(self._loop, lambda: self.ended)
        super().sees_end()

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
