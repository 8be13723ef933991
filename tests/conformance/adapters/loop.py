"""A small event loop: coroutines that wait for sockets, without threads.

Rule: this module does not interpret SMTP. An adapter is started for each transcript, and importing
asyncio would take longer than starting many of the programs.

A coroutine awaits `Loop.wait`, which returns when one of its conditions may be true. The coroutine
then checks its own condition again.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass, field
from types import coroutine

from .command_line import Address

READ, WRITE = select.POLLIN, select.POLLOUT
#: The size of one read, and the maximum length of a line, in octets.
CHUNK = 65536
#: The interval between connection attempts while a Unix-domain socket's backlog is full, in
#: seconds.
_AGAIN = 0.01
_LINGER_NEVER = struct.pack("ii", 1, 0)

Steps = Coroutine["Wait", None, None]
#: A function that changes relayed octets.
Edit = Callable[[bytes], bytes]


class ResetError(Exception):
    """The peer has reset the connection, or this process has closed it."""


@dataclass(eq=False)
class Signal:
    """A condition without a socket. `set` wakes every coroutine that is waiting for it."""

    loop: Loop
    waiting: set[Task] = field(default_factory=set)

    def set(self) -> None:
        """Wake the waiting coroutines."""
        for task in list(self.waiting):
            self.loop.wake(task)


@dataclass(frozen=True)
class Wait:
    """The conditions that a coroutine is waiting for."""

    sockets: tuple[tuple[int, int], ...]
    signals: tuple[Signal, ...]
    deadline: float | None


@dataclass(eq=False)
class Task:
    """A coroutine and its current wait."""

    steps: Steps
    wait: Wait | None = None


class Loop:
    """Runs coroutines until a descriptor becomes readable."""

    def __init__(self) -> None:
        self._tasks: set[Task] = set()
        self._ready: deque[Task] = deque()

    def start(self, steps: Steps) -> None:
        """Start a coroutine."""
        task = Task(steps)
        self._tasks.add(task)
        self._ready.append(task)

    @coroutine
    def wait(
        self,
        *sockets: tuple[int, int],
        signals: tuple[Signal, ...] = (),
        seconds: float | None = None,
    ) -> Generator[Wait, None, None]:
        """Wait until a socket is ready, a signal was set or time has passed. It may return early.

        A socket is specified by its descriptor and READ or WRITE.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        yield Wait(sockets, signals, deadline)

    def wake(self, task: Task) -> None:
        """Let *task* check its condition again."""
        if task.wait is not None:
            for signal in task.wait.signals:
                signal.waiting.discard(task)
            task.wait = None
            self._ready.append(task)

    def wake_all_of(self, descriptor: int) -> None:
        """Let each coroutine that is waiting for *descriptor* check its condition again."""
        for task in list(self._tasks):
            if task.wait is not None and any(fd == descriptor for fd, _ in task.wait.sockets):
                self.wake(task)

    def run(self, until: int) -> None:
        """Run until the descriptor *until* is readable."""
        while True:
            while self._ready:
                self._step(self._ready.popleft())
            if until in self._poll(until):
                return

    def _step(self, task: Task) -> None:
        try:
            wait = task.steps.send(None)
        except (StopIteration, ResetError):
            self._tasks.discard(task)
            return
        task.wait = wait
        for signal in wait.signals:
            signal.waiting.add(task)

    def _poll(self, until: int) -> set[int]:
        """Wait for an event, and wake the coroutines whose condition may be true."""
        poll, now = select.poll(), time.monotonic()
        masks: dict[int, int] = {until: READ}
        deadlines = []
        for task in self._tasks:
            assert task.wait is not None
            for descriptor, events in task.wait.sockets:
                masks[descriptor] = masks.get(descriptor, 0) | events
            if task.wait.deadline is not None:
                deadlines.append(task.wait.deadline)
        for descriptor, events in masks.items():
            poll.register(descriptor, events)
        timeout = max(0.0, min(deadlines) - now) * 1000 + 1 if deadlines else None
        found = dict(poll.poll(timeout))
        now = time.monotonic()
        for task in list(self._tasks):
            wait = task.wait
            assert wait is not None
            expired = wait.deadline is not None and wait.deadline <= now
            # An error or a hangup wakes both readers and writers.
            if expired or any(
                found.get(fd, 0) & (events | ~(READ | WRITE)) for fd, events in wait.sockets
            ):
                self.wake(task)
        return set(found)


class Stream:
    """A connection with a buffer for lines and replies. Octets are written in order."""

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        self._loop = loop
        self._sock = sock
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._read = b""
        self._unsent = b""
        self.is_closed = False

    @property
    def readable(self) -> tuple[int, int]:
        """The condition for `Loop.wait` that the connection is readable."""
        return (self._sock.fileno(), READ)

    @property
    def has_buffered(self) -> bool:
        """Whether the buffer contains unread octets."""
        return bool(self._read)

    async def octets(self) -> bytes:
        """Return the next octets, or b"" at EOF."""
        if self._read:
            octets, self._read = self._read, b""
            return octets
        while True:
            self._check_open()
            # Let the other coroutines run, even if octets are always available.
            await self._loop.wait(self.readable)
            self._check_open()
            try:
                return self._sock.recv(CHUNK)
            except BlockingIOError:
                pass
            except OSError as error:
                raise ResetError(str(error)) from error

    async def line(self) -> bytes:
        """Return a line, an incomplete line (after CHUNK octets or at EOF), or b""."""
        while b"\n" not in self._read and len(self._read) < CHUNK:
            before, self._read = self._read, b""
            octets = await self.octets()
            self._read = before + octets
            if not octets:
                break
        at = self._read.find(b"\n") + 1 or CHUNK
        line, self._read = self._read[:at], self._read[at:]
        return line

    async def reply(self) -> bytes:
        """Return a complete reply, or b"" if the connection ends before that."""
        whole = b""
        while (line := await self.line()).endswith(b"\n"):
            whole += line
            if line[3:4] != b"-":
                return whole
        return b""

    def unread(self, octets: bytes) -> None:
        """Put octets back at the beginning of the buffer."""
        self._read = octets + self._read

    def is_ready(self) -> bool:
        """Whether `octets` would return immediately, with octets or at EOF."""
        if self._read or self.is_closed:
            return True
        poll = select.poll()
        poll.register(*self.readable)
        return bool(poll.poll(0))

    async def ready(self) -> None:
        """Wait for octets or EOF, without reading them."""
        while not self.is_ready():
            await self._loop.wait(self.readable)

    async def send(self, octets: bytes) -> None:
        """Send all octets."""
        self._unsent += octets
        while self._unsent:
            self._check_open()
            try:
                sent = self._sock.send(self._unsent)
                self._unsent = self._unsent[sent:]
            except BlockingIOError:
                await self._loop.wait((self._sock.fileno(), WRITE))
            except OSError as error:
                raise ResetError(str(error)) from error

    def _check_open(self) -> None:
        if self.is_closed:
            raise ResetError("closed")

    def finish(self) -> None:
        """Shut down the sending direction. The other direction stays open."""
        if not self.is_closed:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close both directions."""
        if not self.is_closed:
            self.is_closed = True
            self._loop.wake_all_of(self._sock.fileno())
            self._sock.close()

    def reset(self) -> None:
        """Close both directions so that the peer of a TCP connection sees a reset."""
        if not self.is_closed and self._sock.family != socket.AF_UNIX:
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NEVER)
        self.close()


async def accept(loop: Loop, server: socket.socket) -> Stream:
    """Return the next connection to the non-blocking listening socket *server*."""
    while True:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            return Stream(loop, server.accept()[0])
        await loop.wait((server.fileno(), READ))


async def connect(loop: Loop, address: Address) -> Stream | None:
    """Return a connection to *address*, or None if the connection fails."""
    with contextlib.suppress(OSError):
        for family, name in address.resolved():
            if stream := await _connect(loop, family, name):
                return stream
    return None


async def _connect(loop: Loop, family: int, name: str | tuple[str, int]) -> Stream | None:
    sock = socket.socket(family)
    sock.setblocking(False)
    while (error := sock.connect_ex(name)) == errno.EAGAIN:
        await loop.wait(seconds=_AGAIN)
    if error == errno.EINPROGRESS:
        await loop.wait((sock.fileno(), WRITE))
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        sock.close()
        return None
    return Stream(loop, sock)


async def relay(source: Stream, target: Stream, edit: Edit | None = None) -> None:
    """Relay all octets from *source* to *target*, and then EOF or a reset."""
    try:
        while octets := await source.octets():
            await target.send(octets if edit is None else edit(octets))
        target.finish()
    except ResetError:
        source.reset()
        target.reset()


async def join(loop: Loop, one: Stream, other: Stream, *directions: Steps) -> None:
    """Run coroutines that use two connections. Close both connections after all coroutines end."""
    ended, left = Signal(loop), len(directions)

    async def run(steps: Steps) -> None:
        nonlocal left
        with contextlib.suppress(ResetError):
            await steps
        left -= 1
        ended.set()

    for steps in directions:
        loop.start(run(steps))
    while left:
        await loop.wait(signals=(ended,))
    one.close()
    other.close()
