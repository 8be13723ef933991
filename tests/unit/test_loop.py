"""Tests of the event loop: descriptors, timers, child processes and signals."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import pytest

from postprox.core import limits
from postprox.shell import loop as module
from postprox.shell.loop import READABLE, WRITABLE, Loop
from tests.unit.peers import fresh_loop, run_until


class Alarm:
    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self.rang = 0

    @property
    def deadline(self) -> float:
        return self._deadline

    def timer(self) -> None:
        self.rang += 1
        self._deadline = float("inf")


def raising(error: type[Exception] | Exception) -> Callable[..., NoReturn]:
    def fails(*_: object) -> NoReturn:
        raise error  # An exception class is instantiated for each call.

    return fails


def test_readable_descriptor_triggers_handler(loop: Loop) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        seen: list[bytes] = []
        loop.watch(ours.fileno(), READABLE, lambda: seen.append(ours.recv(10)))
        theirs.send(b"x")
        loop.run_once()
        loop.watch(ours.fileno(), 0, lambda: None)
        assert seen == [b"x"]


def test_writable_descriptor_triggers_handler(loop: Loop) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        seen: list[str] = []
        loop.watch(ours.fileno(), WRITABLE, lambda: seen.append("room"))
        loop.run_once()
        loop.watch(ours.fileno(), 0, lambda: None)
        assert seen == ["room"]


def test_hangup_triggers_handler(loop: Loop) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        seen: list[bytes] = []
        loop.watch(ours.fileno(), READABLE, lambda: seen.append(ours.recv(10)))
        theirs.close()
        loop.run_once()
        loop.watch(ours.fileno(), 0, lambda: None)
        assert seen == [b""]


def test_unwatched_descriptor_does_not_trigger_handler(loop: Loop) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        seen: list[str] = []
        loop.watch(ours.fileno(), READABLE, lambda: seen.append("readable"))
        loop.watch(ours.fileno(), 0, lambda: None)
        theirs.send(b"x")
        alarm = Alarm(loop.clock())
        loop.add(alarm)
        loop.run_once()
        assert seen == []


def test_unwatching_during_iteration_takes_effect_immediately(loop: Loop) -> None:
    one, other = socket.socketpair(), socket.socketpair()
    seen: list[int] = []

    def end_both() -> None:
        seen.append(1)
        for ours, _ in (one, other):
            loop.watch(ours.fileno(), 0, end_both)

    for ours, theirs in (one, other):
        theirs.send(b"x")
        loop.watch(ours.fileno(), READABLE, end_both)
    loop.run_once()
    assert seen == [1]
    for connection in (*one, *other):
        connection.close()


def test_stale_events_are_not_passed_to_reused_descriptor(
    loop: Loop,
) -> None:
    gc.collect()  # Earlier tests may have left garbage with lower descriptor numbers.
    one, other = socket.socketpair(), socket.socketpair()
    heirs: list[socket.socket] = []
    seen: list[str] = []

    def replace() -> None:
        """Close both sockets and create others with the same descriptor numbers."""
        for ours, _ in (one, other):
            loop.watch(ours.fileno(), 0, replace)
            ours.close()
        heirs.extend(socket.socketpair())
        for heir in heirs:
            loop.watch(heir.fileno(), READABLE, lambda: seen.append("heir"))

    for ours, theirs in (one, other):
        theirs.send(b"x")
        loop.watch(ours.fileno(), READABLE, replace)
    numbers = {one[0].fileno(), other[0].fileno()}
    loop.run_once()
    assert {heir.fileno() for heir in heirs} == numbers
    assert seen == []
    for connection in (*heirs, one[1], other[1]):
        connection.close()


def test_handler_can_read_number_of_ready_descriptors(loop: Loop) -> None:
    pairs = [socket.socketpair() for _ in range(3)]
    crowds: list[int] = []

    def serve(ours: socket.socket) -> None:
        ours.recv(1)
        crowds.append(loop.ready_count)

    for ours, _ in pairs:
        loop.watch(ours.fileno(), READABLE, partial(serve, ours))
    for _ in range(2):  # The exit of an earlier child may add to the first count.
        for _, theirs in pairs:
            theirs.send(b"x")
        loop.run_once()
    assert [3, 3, 3] in (crowds[:3], crowds[3:])
    for ours, theirs in pairs:
        loop.watch(ours.fileno(), 0, lambda: None)
        ours.close()
        theirs.close()


def test_ready_count_is_one_if_only_timer_expires(loop: Loop) -> None:
    assert loop.ready_count == 1
    alarm = Alarm(loop.clock())
    loop.add(alarm)
    loop.run_once()
    assert alarm.rang
    assert loop.ready_count == 1


def test_watched_events_can_be_replaced(loop: Loop) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        seen: list[str] = []
        loop.watch(ours.fileno(), READABLE, lambda: seen.append("readable"))
        loop.watch(ours.fileno(), WRITABLE, lambda: seen.append("writable"))
        loop.run_once()
        loop.watch(ours.fileno(), 0, lambda: None)
        assert seen == ["writable"]


def test_unwatching_unknown_descriptor_has_no_effect(loop: Loop) -> None:
    loop.watch(12345, 0, lambda: None)


def test_deadline_triggers_timer(loop: Loop) -> None:
    alarm = Alarm(loop.clock() + 0.02)
    loop.add(alarm)
    run_until(loop, lambda: alarm.rang)
    assert alarm.rang == 1


def test_timer_is_not_called_before_deadline(loop: Loop) -> None:
    deadline = loop.clock() + 0.02
    alarm = Alarm(deadline)
    loop.add(alarm)
    run_until(loop, lambda: alarm.rang)
    assert loop.clock() >= deadline


def test_every_expired_deadline_triggers_its_timer(loop: Loop) -> None:
    alarms = [Alarm(loop.clock() - age) for age in (0, 0.1, 0.2)]
    for alarm in alarms:
        loop.add(alarm)
    loop.run_once()
    assert [alarm.rang for alarm in alarms] == [1, 1, 1]


def test_failing_timer_is_logged_and_next_timer_runs(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[Exception] = []
    monkeypatch.setattr("postprox.shell.log.write_fault", faults.append)
    failing, alarm = Alarm(loop.clock()), Alarm(loop.clock())
    monkeypatch.setattr(failing, "timer", raising(ZeroDivisionError))
    loop.add(failing)
    loop.add(alarm)
    loop.run_once()
    assert alarm.rang == 1
    assert [type(fault) for fault in faults] == [ZeroDivisionError]


def test_removed_timer_is_not_called(loop: Loop) -> None:
    alarm, other = Alarm(loop.clock() - 0.1), Alarm(loop.clock())
    loop.add(alarm)
    loop.add(other)
    loop.remove(alarm)
    loop.run_once()
    assert (alarm.rang, other.rang) == (0, 1)


@pytest.mark.parametrize("deadline", [1e300, float("inf")])
def test_timer_with_infinite_deadline_is_never_called(loop: Loop, deadline: float) -> None:
    never, alarm = Alarm(deadline), Alarm(loop.clock())
    loop.add(never)
    loop.add(alarm)
    loop.run_once()
    assert (never.rang, alarm.rang) == (0, 1)


def test_loop_without_deadline_waits_indefinitely(loop: Loop) -> None:
    alarm = Alarm(loop.clock())
    loop.add(alarm)
    loop.remove(alarm)
    loop.run_once()
    assert loop._patience(loop.clock()) is None


@pytest.mark.parametrize(("poller", "timeout"), [("POLL", 60_001), ("EPOLL", 60.001)])
def test_poller_gets_timeout_in_its_own_unit(poller: str, timeout: float) -> None:
    with fresh_loop(getattr(module, poller)) as loop:
        now = loop.clock()
        loop.add(Alarm(now + 60.0005))
        assert loop._patience(now) == timeout


def test_clock_speed_can_be_set() -> None:
    loop = object.__new__(Loop)
    loop._speed, loop._lost_time = 1000, 0
    before = time.monotonic()
    assert before * 1000 <= loop.clock() <= time.monotonic() * 1000


def test_faster_clock_triggers_timer_sooner(loop: Loop) -> None:
    loop._speed = 1000
    alarm = Alarm(loop.clock() + 20)
    before = time.monotonic()
    loop.add(alarm)
    while not alarm.rang:
        loop.run_once()
    assert time.monotonic() - before < 10


def spawn(*arguments: str) -> int:
    return os.posix_spawn("/bin/sh", ("sh", *arguments), {})


def test_child_exit_triggers_handler(loop: Loop) -> None:
    ended: list[int | None] = []
    loop.on_child_exit(spawn("-c", "exit 3"), ended.append)
    run_until(loop, lambda: ended)
    assert ended == [3]


def test_exits_of_many_children_are_distinguished(loop: Loop) -> None:
    ended: dict[int, int] = {}
    for number in range(20):

        def note(code: int | None, number: int = number) -> None:
            assert code is not None
            ended[number] = code

        loop.on_child_exit(spawn("-c", f"exit {number}"), note)
    run_until(loop, lambda: len(ended) == 20)
    assert ended == {number: number for number in range(20)}


def test_child_exit_before_registration_triggers_handler(loop: Loop) -> None:
    pid = spawn("-c", "exit 0")
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    ended: list[int | None] = []
    loop.on_child_exit(pid, ended.append)
    run_until(loop, lambda: ended)
    assert ended == [0]


def test_unknown_child_is_reaped(loop: Loop) -> None:
    known, unknown = spawn("-c", "exit 0"), spawn("-c", "exit 5")
    os.waitid(os.P_PID, unknown, os.WEXITED | os.WNOWAIT)
    ended: list[int | None] = []
    loop.on_child_exit(known, ended.append)
    run_until(loop, lambda: ended)
    assert ended == [0]
    with pytest.raises(ChildProcessError):
        os.waitpid(unknown, 0)


def test_unknown_child_is_reaped_if_no_child_is_registered(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[Exception] = []
    monkeypatch.setattr("postprox.shell.log.write_fault", faults.append)
    unknown = spawn("-c", "exit 5")
    os.waitid(os.P_PID, unknown, os.WEXITED | os.WNOWAIT)
    loop.run_once()
    with pytest.raises(ChildProcessError):
        os.waitpid(unknown, 0)
    assert faults == []


ENDS = [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", -signal.SIGKILL), ("kill -6 $$", -6)]


@pytest.mark.parametrize(("command", "code"), ENDS)
def test_exit_code_is_passed_to_handler(loop: Loop, command: str, code: int) -> None:
    ended: list[int | None] = []
    loop.on_child_exit(spawn("-c", command), ended.append)
    run_until(loop, lambda: ended)
    assert ended == [code]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.ECHILD])
@pytest.mark.parametrize(("command", "code"), ENDS)
def test_failing_waitpid_falls_back_to_waitid(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, command: str, code: int, number: int
) -> None:
    pid, ended = spawn("-c", command), list[int | None]()
    monkeypatch.setattr("posix.waitpid", raising(OSError(number, "injected")))
    loop.on_child_exit(pid, ended.append)
    run_until(loop, lambda: ended)
    assert ended == [code]
    monkeypatch.undo()
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)


def has_no_waitid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("posix.waitid")


def cannot_waitid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posix.waitid", raising(OSError(errno.ENOSYS, "injected")))


@pytest.mark.parametrize("lack", [has_no_waitid, cannot_waitid])
def test_exit_code_is_none_if_waitpid_and_waitid_fail(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, lack: Callable[[pytest.MonkeyPatch], None]
) -> None:
    pid, ended = spawn("-c", "exit 1"), list[int | None]()
    with monkeypatch.context() as patched:
        patched.setattr("posix.waitpid", raising(OSError(errno.ENOSYS, "injected")))
        lack(patched)
        loop.on_child_exit(pid, ended.append)
        run_until(loop, lambda: ended)
    assert ended == [None]
    os.waitpid(pid, 0)


def test_child_exit_is_handled_without_waitid(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("posix.waitid")
    ended: list[int | None] = []
    loop.on_child_exit(spawn("-c", "exit 1"), ended.append)
    run_until(loop, lambda: ended)
    assert ended == [1]


# Events that are handled before timers


class Clock:
    """A clock that the test sets."""

    def __init__(self, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
        # If all times are whole seconds, their sums and differences are exact.
        self.now = float(int(loop.clock()) + 1)
        monkeypatch.setattr(loop, "clock", lambda: self.now)


@pytest.fixture
def clock(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(loop, monkeypatch)


class TimeLimit:
    """A timer whose deadline is cancelled by an event."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.history: list[str] = []

    def event(self, *_: object) -> None:
        self.history.append("event")
        self.deadline = limits.NEVER

    def timer(self) -> None:
        self.history.append("timer")
        self.deadline = limits.NEVER


class Polls:
    """A poll object that records its timeouts.

    missed: the number of initial waits that return no events, as after SIGSTOP and SIGCONT.
    """

    def __init__(self, poll: Any, missed: int) -> None:
        self._poll = poll
        self._missed = missed
        self.timeouts: list[float | None] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poll, name)

    def poll(self, timeout: float | None) -> Any:
        self.timeouts.append(timeout)
        return self._poll.poll(timeout) if len(self.timeouts) > self._missed else []


def ended_child(loop: Loop, limit: TimeLimit) -> None:
    """Start a child process, and return after it has exited but before the loop waits for it."""
    pid = spawn("-c", "exit 1")
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    loop.on_child_exit(pid, limit.event)


def test_missed_input_is_handled_before_timer(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        limit = TimeLimit(loop.clock())
        loop.add(limit)
        loop.watch(ours.fileno(), READABLE, lambda: limit.event(ours.recv(1)))
        theirs.send(b"x")
        monkeypatch.setattr(loop, "_poll", Polls(loop._poll, 1))
        loop.run_once()
        loop.watch(ours.fileno(), 0, lambda: None)
    assert limit.history == ["event"]


def test_missed_child_exit_is_handled_before_timer(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = TimeLimit(loop.clock())
    ended_child(loop, limit)
    loop.add(limit)
    monkeypatch.setattr(loop, "_poll", Polls(loop._poll, 1))
    loop.run_once()
    assert limit.history == ["event"]


def test_child_exit_during_handler_is_handled_before_timer(loop: Loop, clock: Clock) -> None:
    limit = TimeLimit(clock.now + 3)
    loop.add(limit)
    ours, theirs = socket.socketpair()

    def long_handler() -> None:
        ours.recv(1)
        ended_child(loop, limit)
        clock.now += 3.1

    with ours, theirs:
        loop.watch(ours.fileno(), READABLE, long_handler)
        theirs.send(b"x")
        for _ in range(2):  # The handler delayed the loop.
            loop.run_once()
        loop.watch(ours.fileno(), 0, lambda: None)
    assert limit.history == ["event"]


def test_input_arriving_while_handler_runs_is_handled_before_timer(
    loop: Loop, clock: Clock
) -> None:
    limit = TimeLimit(clock.now + 3)
    loop.add(limit)
    (slow, slow_peer), (ours, theirs) = socket.socketpair(), socket.socketpair()

    def long_handler() -> None:
        slow.recv(1)
        theirs.send(b"x")
        clock.now += 3.1

    with slow, slow_peer, ours, theirs:
        loop.watch(slow.fileno(), READABLE, long_handler)
        loop.watch(ours.fileno(), READABLE, lambda: limit.event(ours.recv(1)))
        slow_peer.send(b"x")
        for _ in range(2):
            loop.run_once()
        for descriptor in (slow.fileno(), ours.fileno()):
            loop.watch(descriptor, 0, lambda: None)
    assert limit.history == ["event"]


def test_child_exit_without_sigchld_is_handled_before_timer(loop: Loop) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:
        limit = TimeLimit(loop.clock())
        ended_child(loop, limit)
        loop.add(limit)
        loop.run_once()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert limit.history == ["event"]


def test_child_exit_is_handled_before_timer_if_poll_fails(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = TimeLimit(loop.clock())
    ended_child(loop, limit)
    loop.add(limit)
    monkeypatch.setattr(loop, "_patience", raising(MemoryError))
    loop.run_once()
    assert limit.history == ["event"]


def test_deadline_expiring_while_timers_run_is_handled_in_next_iteration(
    loop: Loop, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Alarm(clock.now), Alarm(clock.now + 3)
    for alarm in (first, second):
        loop.add(alarm)
    begin, readings = clock.now, list[float]()

    def long_timer() -> None:
        first._deadline = limits.NEVER
        clock.now += 3.1
        readings.append(loop.now)

    monkeypatch.setattr(first, "timer", long_timer)
    loop.run_once()
    assert (second.rang, readings) == (0, [begin])
    loop.run_once()
    assert (second.rang, loop.now) == (1, begin + 3.1)


class Held:
    """A clock, and a wait function that advances it once by `late` seconds."""

    def __init__(self, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.monotonic()
        self.late = 0.0
        monkeypatch.setattr("postprox.shell.loop.time", self)
        monkeypatch.setattr(loop, "_wait", self.wait)

    def monotonic(self) -> float:
        return self.now

    def wait(self, _now: float) -> list[tuple[int, int]]:
        self.now, self.late = self.now + self.late, 0.0
        return []


@pytest.fixture
def held(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> Held:
    return Held(loop, monkeypatch)


def test_suspended_time_does_not_count_towards_timeout(loop: Loop, held: Held) -> None:
    before, alarm = loop.clock(), Alarm(loop.clock() + 3)
    loop.add(alarm)
    held.late = 10
    loop.run_once()
    assert (alarm.rang, loop.clock()) == (0, before)


def test_time_limit_continues_after_suspended_process_resumes(loop: Loop, held: Held) -> None:
    alarm = Alarm(loop.clock() + 3)
    loop.add(alarm)
    for held.late in (10, 3):
        loop.run_once()
    assert alarm.rang == 1


def test_time_limit_expires_despite_repeated_suspension(loop: Loop, held: Held) -> None:
    alarm = Alarm(loop.clock() + 3)
    loop.add(alarm)
    for held.late in (10, 10):
        loop.run_once()
    assert alarm.rang == 1


def test_deadline_in_past_triggers_timer(
    loop: Loop, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    alarm = Alarm(loop.clock() + 2)

    def wait(_now: float) -> list[tuple[int, int]]:
        held.now += 3  # The wait takes three seconds.
        loop.add(alarm)
        return []

    monkeypatch.setattr(loop, "_wait", wait)
    loop.run_once()
    assert alarm.rang == 1


def test_slightly_late_wakeup_does_not_postpone_timer(loop: Loop, held: Held) -> None:
    alarm = Alarm(loop.clock() + 3)
    loop.add(alarm)
    held.late = 3 + limits.HELD_UP / 2
    loop.run_once()
    assert alarm.rang == 1


@pytest.mark.parametrize(("seconds", "timeouts"), [(60, [60_001]), (0, [0, 0])])
def test_loop_polls_again_only_if_deadline_has_passed(
    loop: Loop, clock: Clock, monkeypatch: pytest.MonkeyPatch, seconds: int, timeouts: list[int]
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        loop.watch(ours.fileno(), READABLE, lambda: TimeLimit(0).event(ours.recv(1)))
        theirs.send(b"x")
        loop.add(Alarm(clock.now + seconds))
        polls = Polls(loop._poll, 0)
        monkeypatch.setattr(loop, "_poll", polls)
        loop.run_once()
        loop.watch(ours.fileno(), 0, lambda: None)
    assert polls.timeouts == timeouts


def test_signal_handler_runs_in_loop(loop: Loop) -> None:
    seen: list[str] = []
    loop.on_signal(signal.SIGUSR1, lambda: seen.append("signal"))
    os.kill(os.getpid(), signal.SIGUSR1)
    assert seen == []
    run_until(loop, lambda: seen)
    assert seen == ["signal"]


def test_repeated_signal_triggers_handler_once(loop: Loop) -> None:
    seen: list[str] = []
    loop.on_signal(signal.SIGUSR1, lambda: seen.append("signal"))
    for _ in range(1000):
        os.kill(os.getpid(), signal.SIGUSR1)
    loop.run_once()
    assert seen == ["signal"]


def test_full_wakeup_pipe_does_not_lose_signal(
    loop: Loop, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []
    loop.on_signal(signal.SIGUSR1, lambda: seen.append("signal"))
    size = fcntl.fcntl(loop._wakeup, fcntl.F_SETPIPE_SZ, 4096)
    for _ in range(size + 1):
        os.kill(os.getpid(), signal.SIGUSR1)
    run_until(loop, lambda: seen)
    assert capfd.readouterr().err == ""


def test_reading_empty_wakeup_pipe_does_not_block(loop: Loop) -> None:
    loop._woken()


@pytest.mark.parametrize("error", [OSError, MemoryError])
def test_handler_is_called_despite_failed_wakeup_read(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    seen: list[str] = []
    loop.on_signal(signal.SIGUSR1, lambda: seen.append("signal"))
    os.kill(os.getpid(), signal.SIGUSR1)
    with monkeypatch.context() as patched:
        patched.setattr("posix.read", raising(error))
        loop.run_once()
    assert seen == []
    run_until(loop, lambda: seen)
    assert seen == ["signal"]


@pytest.mark.parametrize("part", ["_patience", "clock"])
def test_failing_iteration_is_retried_after_pause(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    pauses: list[float] = []
    loop.add(Alarm(loop.clock()))
    monkeypatch.setattr(time, "sleep", pauses.append)
    with monkeypatch.context() as patched:
        patched.setattr(loop, part, raising(MemoryError))
        loop.run_once()
    assert set(pauses) == {limits.LOOP_PAUSE}


@pytest.mark.parametrize("error", [OSError, MemoryError])
def test_timer_runs_on_time_if_wait_for_events_fails(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    alarm = Alarm(loop.clock())
    loop.add(alarm)
    with monkeypatch.context() as patched:
        patched.setattr(loop, "_patience", raising(error))
        loop.run_once()
    assert alarm.rang == 1


def test_log_failure_does_not_end_loop(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    alarm = Alarm(loop.clock())
    loop.add(alarm)
    monkeypatch.setattr("postprox.shell.log.write", raising(MemoryError))
    monkeypatch.setattr(loop, "_patience", raising(MemoryError))
    loop.run_once()
    assert alarm.rang == 1
