"""The event loop: descriptors, deadlines, child processes and signals.

Rule: it knows no SMTP and no session; it calls back who asked for an event. One thread, and
nothing in it blocks. Whatever a callback raises ends here: it is logged, and the others go on.
A timer runs only after every event that happened before its deadline was found to have passed.

The loop does not ask everybody for his deadline at every turn. It keeps a lower bound of them all:
a timer source with an earlier deadline reports it (`note_deadline`), and the loop asks all of them
only after the bound has passed.
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
        """Something with a deadline on the loop's clock."""

        @property
        def deadline(self) -> float:
            """When `timer` is to be called; infinity for never."""

        def timer(self) -> None:
            """Act on the deadline, which has passed."""

    Poller = tuple[Callable[[], select.poll | select.epoll], int]


READABLE = select.POLLIN
WRITABLE = select.POLLOUT

#: How descriptors are waited for, with how many of its units of time are in a second. poll(2)
#: takes every kind of descriptor; epoll(7), where there is one, costs the same however many there
#: are. Their numbers for events are the same.
POLL = (select.poll, 1000)
EPOLL = (select.epoll, 1) if hasattr(select, "epoll") else POLL

#: Signals without a meaning here. Scripts send them to servers that open their log anew.
IGNORED = (signal.SIGUSR1, signal.SIGUSR2)

#: Signals that ask the process to end (files.term): all whose default action ends it, except those
#: that report a fault of the process itself. The interpreter ignores SIGPIPE and SIGXFSZ.
STOPPING = signal.valid_signals() - {
    *IGNORED,
    *(signal.SIGKILL, signal.SIGSTOP),  # cannot be handled
    *(signal.SIGCHLD, signal.SIGCONT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
    *(signal.SIGURG, signal.SIGWINCH, signal.SIGPIPE, signal.SIGXFSZ),
    *(signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV),
    *(signal.SIGSYS, signal.SIGTRAP),
}


class Loop:
    """The one loop of a process; its clock runs `speed` times faster than the wall's.

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
        self._earliest = limits.NEVER  # no deadline is earlier
        self._lost_time = 0.0  # seconds on the clock that do not count, see `_stop_clock`
        self._was_held_up = False  # the iteration before this one
        #: How many descriptors the turn under way serves: each waits for all others.
        self.ready_count = 1
        #: The reading of the clock that decides which deadlines have passed, while timers run.
        self.now = -limits.NEVER
        self._wakeup, wakeup = posix.pipe()
        posix.set_blocking(self._wakeup, False)
        posix.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        self.watch(self._wakeup, READABLE, self._woken)
        self.on_signal(signal.SIGCHLD, self._reap)
        self.on_signals(IGNORED, ignore)

    def clock(self) -> float:
        """Return the present time in seconds."""
        return time.monotonic() * self._speed - self._lost_time

    def watch(self, descriptor: int, events: int, handler: "Callable[[], None]") -> None:
        """Call `handler` whenever one of `events` is there, or an error; 0 events: never.

        Raises:
            OSError: the system cannot watch one more descriptor.
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
                pass  # it is closed, which ends the system's interest too

    def on_signal(self, number: int, handler: "Callable[[], None]") -> None:
        """Call `handler` after signal `number`, from the loop."""
        self.on_signals((number,), handler)

    def on_signals(self, numbers: "Collection[int]", handler: "Callable[[], None]") -> None:
        """Call `handler` after each of the signals `numbers`, from the loop."""
        for number in numbers:
            self._signals[number] = handler
            signal.signal(number, _wake)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)  # whoever started us may block them

    def on_child_exit(self, pid: int, handler: "Callable[[int | None], None]") -> None:
        """Call `handler` with the exit code of child `pid` when it has ended.

        A negative code is the number of the signal that ended the child. None means that the system
        does not report the end of any child; this one may still run.
        """
        self._children[pid] = handler

    def add(self, timed: "TimerSource") -> None:
        """Call `timed.timer` at its deadlines from now on."""
        self._timer_sources[timed] = None
        self.note_deadline(timed.deadline)

    def note_deadline(self, deadline: float) -> None:
        """Take note of a deadline that may be earlier than it was; a later one needs no note."""
        self._earliest = min(self._earliest, deadline)

    def remove(self, timed: "TimerSource") -> None:
        """Call `timed.timer` no more."""
        self._timer_sources.pop(timed, None)

    def run_once(self) -> None:
        """Wait for the next event or deadline, and handle what is there; it never raises."""
        try:
            self._turn()
        except Exception as error:  # no memory mostly: what was there is there again next time
            _pause(error)

    def _turn(self) -> None:
        began = self.clock()
        self._serve(self._wait())
        now = self.clock()
        if self._stop_clock(began, now):
            return
        if now >= self._earliest:
            # The wait may have ended without its events (EINTR), and the handlers may have taken
            # long. An event from before `now` comes before the timers that are due at `now`.
            self._serve(self._wait())  # returns at once, because a deadline has passed
            self._reap()  # a SIGCHLD may still be under way
            self._run_timers(now)

    def _stop_clock(self, began: float, now: float) -> bool:
        """Take back the time of an iteration in which the process was held up.

        Peers and filters that wait for the proxy cannot go on while it is stopped (SIGSTOP), so
        this time counts for no limit. Two iterations in a row are not taken back: otherwise no
        limit would end in a process that is always late.

        began, now: when the iteration began, and the present time, in seconds on the clock.
        """
        late = (now - self._earliest) / self._speed
        self._was_held_up = late > limits.HELD_UP and not self._was_held_up
        if self._was_held_up:
            self._lost_time += now - began
        return self._was_held_up

    def _serve(self, ready: list[tuple[int, int]]) -> None:
        self.ready_count = max(1, len(ready))
        for descriptor, watched in [(number, self._watched.get(number)) for number, _ in ready]:
            # An earlier event may have ended this one's interest, or given its number to another.
            if watched is not None and watched is self._watched.get(descriptor):
                self._call_watcher(descriptor, watched[1])

    def _run_timers(self, now: float) -> None:
        self.now = now
        for timed in [timed for timed in self._timer_sources if timed.deadline <= now]:
            _call(timed.timer)
        self._earliest = min(
            (timed.deadline for timed in self._timer_sources), default=limits.NEVER
        )

    def _wait(self) -> list[tuple[int, int]]:
        try:
            return self._poll.poll(self._patience())
        except (OSError, MemoryError) as error:  # deadlines are kept all the same
            _pause(error)
            return []

    def _patience(self) -> float | None:
        """Return how long to wait at the most, in the poller's units; None for ever."""
        if self._earliest == limits.NEVER:
            return None
        seconds = (self._earliest - self.clock()) / self._speed
        if seconds <= 0:
            return 0
        milliseconds = int(min(seconds, limits.LONGEST_WAIT) * 1000) + 1
        return milliseconds * self._units / 1000

    def _call_watcher(self, descriptor: int, handler: "Callable[[], None]") -> None:
        """Call it; one that raises would do so at every turn, and is not asked again."""
        try:
            handler()
        except Exception as error:
            report(error)
            self._forget(descriptor)

    def _woken(self) -> None:
        try:
            numbers = set(posix.read(self._wakeup, 4096))
        except BlockingIOError:
            return
        except (OSError, MemoryError) as error:  # without it no signal would be heard any more
            _pause(error)
            return
        for number in numbers:
            _call(self._signals.get(number, ignore))

    def _reap(self) -> None:
        """Reap every child that has ended, and call back for those that somebody waits for.

        The others are orphans of filters, which become children of process 1.
        """
        try:
            self._reap_by(_next_ended)
        except OSError:
            if self._children:  # otherwise the process has no child left
                self._reap_otherwise()

    def _reap_otherwise(self) -> None:
        """Reap by another system call; if that fails too, report that no end can be learnt."""
        try:
            self._reap_by(_next_ended_by_waitid)
        except (OSError, AttributeError) as error:  # not every system has waitid(2)
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
    """Reap one child; return its process id and its exit code, None if no child has ended."""
    pid, status = posix.waitpid(-1, posix.WNOHANG)
    return (pid, posix.waitstatus_to_exitcode(status)) if pid else None


def _next_ended_by_waitid() -> tuple[int, int] | None:
    """Reap one child as `_next_ended` does, without wait4(2)."""
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
    """Report what will be tried again, but not at once."""
    report(error)
    time.sleep(limits.LOOP_PAUSE)


def report(error: Exception) -> None:
    """Tell the log of what should not happen, if there are means left for that; it never raises."""
    try:
        from . import log

        log.write_fault(error)
    except Exception:
        pass


def _wake(number: int, frame: object) -> None:
    """Let the signal write to the wake-up descriptor, which is all that is needed."""


def ignore() -> None:
    """Ignore a signal."""
