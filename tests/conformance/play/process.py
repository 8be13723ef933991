"""Starts, observes and kills the implementation's process and its descendants.

Rule: signals are sent only to processes started by this module and to their descendants.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from .dialogue import Dialogue
from .loop import READ, Loop
from .procfs import (
    children,
    descendants,
    is_alive,
    listens,
    peak_memory,
    processor_time,
    resident_memory,
    sleeps,
)

_PR_SET_CHILD_SUBREAPER = 36
#: The signals that `subprocess` resets in every child process.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
#: The time that `close` waits for processes that cannot be killed, in seconds.
_KILLING_ROUNDS = 500
_KILLING_PAUSE = 0.002
_REAPING_TIMEOUT = 1.0


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent exits."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def start_children_with_default_signals() -> None:
    """Pass neither inherited signal dispositions nor the signal mask to child processes.

    A background job of a script inherits an ignored SIGINT, and nohup(1) passes on an ignored
    SIGHUP. execve(2) keeps an ignored signal ignored, but resets a handled one to its default. This
    process therefore handles these signals with a function that does nothing, so its children
    behave as on a terminal.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
    for number in signal.valid_signals():
        if number not in _IGNORED_BY_PYTHON and signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, _take_no_notice)


def _take_no_notice(_number: int, _frame: object) -> None:
    """Do nothing (see `start_children_with_default_signals`)."""


def kill_children_since(before: set[int]) -> None:
    """Kill the children of this process other than *before*, with their descendants."""
    for _ in range(_KILLING_ROUNDS):
        if not _kill_once(before):
            break
        time.sleep(_KILLING_PAUSE)


def _kill_once(before: set[int]) -> bool:
    """Send SIGKILL once for `kill_children_since`. Return False if there are no such processes."""
    living = {pid for pid in children() - before if is_alive(pid)}
    for root in living:
        for pid in descendants(root):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
    return bool(living)


@dataclass
class Command:
    """The settings of a process before its start."""

    argv: Sequence[str]
    env: Mapping[str, str]
    stdin: IO[bytes] | int
    stdout: IO[bytes] | int
    stderr: IO[bytes] | int
    limits: Mapping[str, int] = field(default_factory=dict)
    #: The file descriptors to inherit, which are open on /dev/null.
    inherits: Sequence[int] = ()
    #: True if standard input is a listening socket, which is passed as systemd passes it
    #: (sd_listen_fds(3)).
    hands_over_listener: bool = False

    @property
    def words(self) -> list[str]:
        """Return argv, preceded by a shell for settings that only the process itself can make."""
        before = _limit_commands(self.limits)
        before += "".join(f" exec {number}</dev/null;" for number in self.inherits)
        if self.hands_over_listener:
            before += _HAND_OVER
        return ["sh", "-c", f'{before} exec "$@"', "sh", *self.argv] if before else [*self.argv]


_HAND_OVER = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1; export LISTEN_PID LISTEN_FDS;"


_LIMIT_COMMANDS = {
    "fsize": "ulimit -f {}",
    "nofile": "ulimit -n {}",
    "as": "ulimit -v {}",
    "stack": "ulimit -s {}",
    # The option is -u in bash and -p in dash.
    "nproc": "{{ ulimit -u {0} 2>/dev/null || ulimit -p {0}; }}",
}
#: The number of octets per ulimit unit. For -f, POSIX uses blocks of 512 octets.
_LIMIT_UNITS = {"fsize": 512, "as": 1024, "stack": 1024}


def _limit_commands(limits: Mapping[str, int]) -> str:
    return " ".join(
        _LIMIT_COMMANDS[name].format(number // _LIMIT_UNITS.get(name, 1)) + " &&"
        for name, number in limits.items()
    )


class Process:
    """A started command. `status` is its exit status (negative for a signal) or None."""

    def __init__(self, loop: Loop, command: Command, dialogue: Dialogue) -> None:
        self._loop = loop
        self._dialogue = dialogue
        self.status: int | None = None
        self.in_background = (
            False  # True if this is a server that the command has left in the background
        )
        self._before = children()
        self._popen: subprocess.Popen[bytes] | None = subprocess.Popen(
            command.words,
            env=dict(command.env),
            cwd="/",
            start_new_session=True,
            stdin=command.stdin,
            stdout=command.stdout,
            stderr=command.stderr,
        )
        self.pid = self._popen.pid
        self._watch()

    def _watch(self) -> None:
        self._pidfd = os.pidfd_open(self.pid)
        self._loop.watch(self._pidfd, READ, self._ended)

    def _ended(self, _events: int) -> None:
        self._forget()
        if self._popen is not None:
            self.status = self._popen.wait()
        else:
            _, status = os.waitpid(self.pid, 0)
            self.status = os.waitstatus_to_exitcode(status)
        self._dialogue.event("P<", f"exit {self.status}")

    def _forget(self) -> None:
        if self._pidfd >= 0:
            self._loop.forget(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    @property
    def alive(self) -> bool:
        """Whether the process is still running, according to the event loop."""
        return self.status is None

    def follow_to_background(self) -> bool:
        """From now on, watch the server that the command has left in the background."""
        servers = sorted(pid for pid in self.orphans() if is_alive(pid))
        if not servers:
            return False
        self.pid, self._popen, self.status = servers[0], None, None
        self.in_background = True
        self._watch()
        return True

    def send(self, name: str) -> None:
        """Send the signal *name* to the process."""
        self._dialogue.event("P>", name)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.Signals[name])

    def orphans(self) -> set[int]:
        """Return descendants that have outlived their parent process. Reap zombies."""
        found = children() - self._before - {self.pid}
        for pid in list(found):
            if not is_alive(pid):
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
                found.discard(pid)
        return found

    def peak_memory(self) -> int:
        """Return the largest peak resident memory of the process and its children, in octets."""
        return max((peak_memory(pid) for pid in descendants(self.pid)), default=0)

    def resident_memory(self) -> int:
        """Return the resident memory of the process and its descendants, in octets."""
        return sum(resident_memory(pid) for pid in descendants(self.pid))

    def processor_time(self) -> float:
        """Return the processor time of the process and its descendants, in seconds."""
        return sum(processor_time(pid) for pid in descendants(self.pid))

    def sleeps(self) -> bool:
        """Whether the process and all its descendants are waiting for an event."""
        return all(sleeps(pid) for pid in descendants(self.pid))

    def listens(self) -> set[str]:
        """Return the addresses on which the process or a descendant accepts TCP connections."""
        return set().union(*(listens(pid) for pid in descendants(self.pid)))

    def kill_all(self) -> None:
        """Kill the process and its descendants. The watchdog's thread can call this safely."""
        _kill_once(self._before)

    def close(self) -> None:
        """Kill and reap all processes."""
        kill_children_since(self._before)
        self._reap()
        self._forget()

    def _reap(self) -> None:
        if self._popen is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(_REAPING_TIMEOUT)
        for pid in children() - self._before:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


class Watchdog:
    """A thread that kills a hanging process, so that every run ends."""

    def __init__(self, kill: Callable[[], None], seconds: float) -> None:
        self.barked = False
        self._kill = kill
        self._timer = threading.Timer(seconds, self._bark)
        self._timer.daemon = True
        self._timer.start()

    def _bark(self) -> None:
        self.barked = True
        self._kill()

    def close(self) -> None:
        """Stop the watchdog."""
        self._timer.cancel()
