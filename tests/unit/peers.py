"""Peers on the proxy's event loop, for tests of modules that use sockets.

Rule: no function sleeps. Only the loop waits for input from the peers.
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
    """A timer that ends a test after a time limit."""

    def __init__(self, loop: Loop) -> None:
        self.deadline = loop.clock() + TIMEOUT
        self.barks = False

    def timer(self) -> None:
        self.deadline = limits.NEVER
        self.barks = True


class BoundedLoop(Loop):
    """A loop that checks before each iteration that no deadline precedes `_earliest`."""

    def run_once(self) -> None:
        true = min((timed.deadline for timed in self._timer_sources), default=limits.NEVER)
        assert self._earliest <= true, "an earlier deadline was not noted with note_deadline()"
        super().run_once()


@contextmanager
def fresh_loop(poller: Poller = POLL) -> Iterator[Loop]:
    """Yield a loop, and then restore the test process's signal handlers."""
    numbers = (signal.SIGCHLD, *IGNORED, *STOPPING)
    handlers = [(number, signal.getsignal(number)) for number in numbers]
    loop = BoundedLoop(1, poller)
    yield loop
    os.close(signal.set_wakeup_fd(-1))
    os.close(loop._wakeup)
    # If a child exits while the handlers are being replaced, Python must not receive SIGCHLD.
    blocked_before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    for number, handler in handlers:
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked_before)


def run_until(loop: Loop, done: Callable[[], object]) -> None:
    watchdog = _Watchdog(loop)
    loop.add(watchdog)
    try:
        while not done():
            assert not watchdog.barks, "the expected event did not occur in time"
            loop.run_once()
    finally:
        loop.remove(watchdog)


class LoopPeer(Peer):
    """A peer whose socket is watched by the proxy's loop."""

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
    """Return a listener with a full backlog, and the sockets that fill it."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    waiting = []
    for _ in range(3):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(listener.getsockname())
        waiting.append(client)
    return listener, waiting
