"""The event loop: descriptors, deadlines, child processes and signals.

Rule: it knows no SMTP and no session; it calls back who asked for an event. One thread, and
nothing in it blocks.
"""

import select
import time

from .. import TYPE_CHECKING
from ..core import limits
from .system import posix, signal

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Timed(Protocol):
        """Something with a deadline on the loop's clock."""

        @property
        def deadline(self) -> float:
            """When `timer` is to be called; infinity for never."""

        def timer(self) -> None:
            """Act on the deadline, which has passed."""


READABLE = select.POLLIN
WRITABLE = select.POLLOUT


class Loop:
    """The one loop of a process; its clock runs `speed` times faster than the wall's."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._poll = select.poll()
        self._watched: dict[int, tuple[int, Callable[[], None]]] = {}
        self._children: dict[int, Callable[[int], None]] = {}
        self._signals: dict[int, Callable[[], None]] = {}
        self._timed: list[Timed] = []
        self._wakeup, wakeup = posix.pipe()
        posix.set_blocking(self._wakeup, False)
        posix.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        self.watch(self._wakeup, READABLE, self._woken)
        self.on_signal(signal.SIGCHLD, self._reap)

    def clock(self) -> float:
        """Return the present time in seconds."""
        return time.monotonic() * self._speed

    def watch(self, descriptor: int, events: int, handler: "Callable[[], None]") -> None:
        """Call `handler` whenever one of `events` is there, or an error; 0 events: never."""
        watched = self._watched.get(descriptor)
        if watched is not None and watched[0] == events:
            return
        if events:
            self._poll.register(descriptor, events)
            self._watched[descriptor] = (events, handler)
        elif watched is not None:
            self._poll.unregister(descriptor)
            del self._watched[descriptor]

    def on_signal(self, number: int, handler: "Callable[[], None]") -> None:
        """Call `handler` after signal `number`, from the loop."""
        self._signals[number] = handler
        signal.signal(number, _noted)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (number,))  # whoever started us may block it

    def on_exit(self, pid: int, handler: "Callable[[int], None]") -> None:
        """Call `handler` with the wait status of child `pid` when it has ended."""
        self._children[pid] = handler

    def add(self, timed: "Timed") -> None:
        """Call `timed.timer` at its deadlines from now on."""
        self._timed.append(timed)

    def remove(self, timed: "Timed") -> None:
        """Call `timed.timer` no more."""
        self._timed.remove(timed)

    def run_once(self) -> None:
        """Wait for the next event or deadline, and handle what is there."""
        deadline = min((timed.deadline for timed in self._timed), default=limits.NEVER)
        ready = self._poll.poll(self._milliseconds(deadline))
        for descriptor, watched in [(number, self._watched.get(number)) for number, _ in ready]:
            # An earlier event may have ended this one's interest, or given its number to another.
            if watched is not None and watched is self._watched.get(descriptor):
                watched[1]()
        now = self.clock()
        for timed in [timed for timed in self._timed if timed.deadline <= now]:
            timed.timer()

    def _milliseconds(self, deadline: float) -> int | None:
        if deadline == limits.NEVER:
            return None
        seconds = (deadline - self.clock()) / self._speed
        return max(0, int(min(seconds, limits.LONGEST_WAIT) * 1000) + 1)

    def _woken(self) -> None:
        for number in set(posix.read(self._wakeup, 4096)):
            self._signals.get(number, _nothing)()

    def _reap(self) -> None:
        for pid in list(self._children):
            ended, wait_status = posix.waitpid(pid, posix.WNOHANG)
            if ended:
                self._children.pop(pid)(wait_status)


def _noted(number: int, frame: object) -> None:
    """Let the signal write to the wake-up descriptor, which is all that is needed."""


def _nothing() -> None:
    """Ignore a signal that nobody asked for."""
