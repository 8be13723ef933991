"""The event loop: descriptors, deadlines, child processes and signals.

Rule: the loop knows nothing about SMTP or sessions. The loop has a single thread, and callbacks
must not block. If a callback raises an exception, the exception is logged, and the other callbacks
still run. The loop checks a timer's deadline, then handles all events that happened before the
check, and then runs the timer.

The loop does not check all deadlines in each iteration. Instead, the loop stores a lower bound for
all deadlines, and checks them only after this bound has passed. If a deadline becomes earlier, the
timer source must report it (`note_deadline`).

Logs: internal errors, and errors of the loop's system calls.
"""

import select
import time

from .. import TYPE_CHECKING
from ..core import limits
from .system import posix, signal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Protocol

    class TimerSource(Protocol):
        """An object with a deadline on the loop's clock."""

        @property
        def deadline(self) -> float:
            """The time at which to call `timer`, or infinity."""

        def timer(self) -> None:
            """Handle a deadline that has passed."""

    Poller = tuple[Callable[[], select.poll | select.epoll], int]


READABLE = select.POLLIN
WRITABLE = select.POLLOUT

#: Each poller, with the number of its timeout units per second. poll(2) accepts every kind of
#: descriptor. The cost of epoll(7) does not depend on the number of descriptors, but not every
#: system has epoll(7). Both pollers use the same event masks.
POLL = (select.poll, 1000)
EPOLL = (select.epoll, 1) if hasattr(select, "epoll") else POLL

#: Ignored signals. Scripts send these signals to make a server reopen its log.
IGNORED = (signal.SIGUSR1, signal.SIGUSR2)

#: Signals that cause an orderly termination (files.term). The set contains every signal that
#: terminates the process by default, except the signals that indicate a program error. The
#: interpreter ignores SIGPIPE and SIGXFSZ.
STOPPING = signal.valid_signals() - {
    *IGNORED,
    *(signal.SIGKILL, signal.SIGSTOP),  # these signals cannot be handled
    *(signal.SIGCHLD, signal.SIGCONT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
    *(signal.SIGURG, signal.SIGWINCH, signal.SIGPIPE, signal.SIGXFSZ),
    *(signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV),
    *(signal.SIGSYS, signal.SIGTRAP),
}


class Loop:
    """The process's event loop, with a clock that is `speed` times as fast as real time.

    poller: `POLL` or `EPOLL`.
    """

    def __init__(self, speed: float, poller: "Poller" = POLL) -> None:
        self._speed = speed
        make, self._units = poller
        self._poll = make()
        self._watched: dict[int, tuple[int, Callable[[], None]]] = {}
        self._children: dict[int, Callable[[int | None], None]] = {}
        self._signals: dict[int, Callable[[], None]] = {}
        self._timer_sources: dict[TimerSource, None] = {}
        self._earliest = limits.NEVER  # a lower bound for all deadlines
        self._lost_time = 0.0  # seconds that the clock does not count (see `_is_held_up`)
        self._was_held_up = False  # true if the previous iteration's time was not counted
        #: The number of ready descriptors in this iteration, which are served one after another.
        self.ready_count = 1
        #: The time that deadlines are compared with while the loop calls the expired timers.
        self.now = -limits.NEVER
        self._wakeup, wakeup = posix.pipe()
        posix.set_blocking(self._wakeup, False)
        posix.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        self.watch(self._wakeup, READABLE, self._woken)
        self.on_signal(signal.SIGCHLD, self._reap)
        self.on_signals(IGNORED, ignore)

    def clock(self) -> float:
        """Return the current time in seconds."""
        return time.monotonic() * self._speed - self._lost_time

    def watch(self, descriptor: int, events: int, handler: "Callable[[], None]") -> None:
        """Call `handler` for each of `events` and for each error. If `events` is 0, stop watching.

        Raises:
            OSError: the system cannot watch any more descriptors.
        """
        watched = self._watched.get(descriptor)
        if watched is not None and watched[0] == events:
            return
        if not events:
            self._forget(descriptor)
            return
        if watched is None:
            self._poll.register(descriptor, events)
        else:
            self._poll.modify(descriptor, events)
        self._watched[descriptor] = (events, handler)

    def _forget(self, descriptor: int) -> None:
        if self._watched.pop(descriptor, None) is not None:
            try:
                self._poll.unregister(descriptor)
            except (OSError, KeyError):
                pass  # the descriptor was closed, so the system has removed it

    def on_signal(self, number: int, handler: "Callable[[], None]") -> None:
        """Call `handler` from the loop each time signal `number` arrives."""
        self.on_signals((number,), handler)

    def on_signals(self, numbers: "Collection[int]", handler: "Callable[[], None]") -> None:
        """Call `handler` from the loop each time a signal in `numbers` arrives."""
        for number in numbers:
            self._signals[number] = handler
            signal.signal(number, _wake)
        signal.pthread_sigmask(
            signal.SIG_UNBLOCK, numbers
        )  # the parent process may have blocked these signals

    def on_child_exit(self, pid: int, handler: "Callable[[int | None], None]") -> None:
        """Call `handler` with the exit code of child process `pid` when it exits.

        A negative code -N means that signal N killed the child process. None means that the system
        does not report exit codes. If the value is None, the child process may still be running.
        """
        self._children[pid] = handler

    def add(self, timed: "TimerSource") -> None:
        """Add a timer source."""
        self._timer_sources[timed] = None
        self.note_deadline(timed.deadline)

    def note_deadline(self, deadline: float) -> None:
        """Update the earliest deadline if this timer source's deadline is earlier.

        A later deadline need not be noted.
        """
        self._earliest = min(self._earliest, deadline)

    def remove(self, timed: "TimerSource") -> None:
        """Remove a timer source."""
        self._timer_sources.pop(timed, None)

    def run_once(self) -> None:
        """Wait for the next event or deadline and handle it without raising."""
        try:
            self._iterate()
        except Exception as error:  # usually out of memory; the events are reported again
            _pause(error)

    def _iterate(self) -> None:
        began, earliest = self.clock(), self._earliest
        ready = self._wait(began)
        waited = self.clock()
        self._serve(ready)
        now = self.clock()
        if now >= self._earliest and self._is_held_up(max(waited - earliest, now - waited)):
            self._lost_time += now - began
            return
        if now >= self._earliest:
            # The wait may have ended without events (EINTR), and the handlers may have been slow.
            # Events before `now` must be handled before the timers that are due at `now`.
            self._serve(self._wait(now))  # this returns at once, because a deadline has passed
            self._reap()  # a SIGCHLD may still be pending
            self._run_timers(now)

    def _is_held_up(self, late: float) -> bool:
        """Return whether the process was suspended or delayed.

        If so, this iteration's time is not counted.

        Peers and filters that are waiting for the proxy cannot continue while it is stopped
        (SIGSTOP). Such a pause therefore does not count towards any limit. The clock always counts
        at least one of two consecutive iterations. Otherwise, time limits would never expire in a
        process that is always late.

        late: the delay after the earliest deadline or the run time of the handlers, whichever is
            longer, in seconds of the loop's clock.
        """
        self._was_held_up = late > limits.HELD_UP * self._speed and not self._was_held_up
        return self._was_held_up

    def _serve(self, ready: list[tuple[int, int]]) -> None:
        self.ready_count = max(1, len(ready))
        for descriptor, watched in [(number, self._watched.get(number)) for number, _ in ready]:
            # An earlier handler may have removed this descriptor, and its number may have been
            # reused.
            if watched is not None and watched is self._watched.get(descriptor):
                try:
                    watched[1]()
                except Exception as error:
                    report(error)
                    self._forget(descriptor)  # the error would recur

    def _run_timers(self, now: float) -> None:
        self.now = now
        for timed in [timed for timed in self._timer_sources if timed.deadline <= now]:
            _call(timed.timer)
        self._earliest = min(
            (timed.deadline for timed in self._timer_sources), default=limits.NEVER
        )

    def _wait(self, now: float) -> list[tuple[int, int]]:
        try:
            return self._poll.poll(self._patience(now))
        except (OSError, MemoryError) as error:  # timers still run
            _pause(error)
            return []

    def _patience(self, now: float) -> float | None:
        """Return the timeout in the poller's units, or None if there is no deadline."""
        if self._earliest == limits.NEVER:
            return None
        seconds = (self._earliest - now) / self._speed
        if seconds <= 0:
            return 0
        milliseconds = int(min(seconds, limits.LONGEST_WAIT) * 1000) + 1
        return milliseconds * self._units / 1000

    def _woken(self) -> None:
        try:
            numbers = set(posix.read(self._wakeup, 4096))
        except BlockingIOError:
            return
        except (OSError, MemoryError) as error:  # removing the handler would lose all signals
            _pause(error)
            return
        for number in numbers:
            _call(self._signals.get(number, ignore))

    def _reap(self) -> None:
        """Reap all exited child processes and call their handlers.

        If the proxy is process 1, it adopts orphaned child processes of filters. Such processes
        have no handler.
        """
        try:
            self._reap_by(_next_ended)
        except OSError:
            if self._children:  # the call also fails if there are no child processes
                self._reap_otherwise()

    def _reap_otherwise(self) -> None:
        """Reap exited child processes with waitid(2).

        If this system call also fails, call all handlers with None.
        """
        try:
            self._reap_by(_next_ended_by_waitid)
        except (OSError, AttributeError) as error:  # some systems have no waitid(2)
            report(error)
            children, self._children = self._children, {}
            for handler in children.values():
                _call(handler, None)

    def _reap_by(self, next_ended: "Callable[[], tuple[int, int] | None]") -> None:
        while ended := next_ended():
            pid, code = ended
            if handler := self._children.pop(pid, None):
                _call(handler, code)


def _next_ended() -> tuple[int, int] | None:
    """Reap one child process.

    Return the ID and exit code, or None if no child process has exited.
    """
    pid, status = posix.waitpid(-1, posix.WNOHANG)
    return (pid, posix.waitstatus_to_exitcode(status)) if pid else None


def _next_ended_by_waitid() -> tuple[int, int] | None:
    """Reap one child process with waitid(2), for systems on which waitpid(2) fails."""
    ended = posix.waitid(posix.P_ALL, 0, posix.WEXITED | posix.WNOHANG)
    if ended is None:
        return None
    code = ended.si_status if ended.si_code == posix.CLD_EXITED else -ended.si_status
    return ended.si_pid, code


def _call(handler: "Callable[..., None]", *arguments: object) -> None:
    try:
        handler(*arguments)
    except Exception as error:
        report(error)


def _pause(error: Exception) -> None:
    """Log an error and pause before the retry."""
    report(error)
    time.sleep(limits.LOOP_PAUSE)


def report(error: Exception) -> None:
    """Log an internal error without raising, if memory and descriptors allow it."""
    try:
        from . import log

        log.write_fault(error)
    except Exception:
        pass


def _wake(number: int, frame: object) -> None:
    """Do nothing. The interpreter itself writes to the wake-up descriptor."""


def ignore() -> None:
    """Ignore a signal."""
