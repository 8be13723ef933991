"""The filter command: one run of it.

Rule: everything about the child process is here: how it is started, what it inherits, what it
said, and its end.
"""

from .. import TYPE_CHECKING
from ..core import limits, verdict
from .system import STDERR, close, posix, signal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

SHELL = "/bin/sh"


def _changeable_signals() -> "Collection[int]":
    """Return the signals whose disposition a process may set; the C library keeps some."""
    return signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


_SIGNALS = _changeable_signals()

#: How many descriptors are looked at where nobody tells which are open: the usual limit.
_DESCRIPTORS = 1024


class Filter:
    """A running filter: `sh -c command` in a process group of its own (filter.stdio).

    environment: its whole environment; an entry without a name, which exec allows, is left out.

    Raises:
        OSError: it cannot be started.
    """

    _descriptors_are_private = False

    def __init__(self, command: str, environment: dict[bytes, bytes]) -> None:
        if not Filter._descriptors_are_private:
            _keep_descriptors_private()
            Filter._descriptors_are_private = True
        self.stderr, child_stderr = posix.pipe()
        try:
            posix.set_blocking(self.stderr, False)
            self.pid = posix.posix_spawn(
                SHELL,
                ("sh", "-c", command),
                {name: value for name, value in environment.items() if name},
                file_actions=(
                    (posix.POSIX_SPAWN_OPEN, 0, "/dev/null", posix.O_RDONLY, 0),
                    (posix.POSIX_SPAWN_OPEN, 1, "/dev/null", posix.O_WRONLY, 0),
                    (posix.POSIX_SPAWN_DUP2, child_stderr, 2),
                ),
                setpgroup=0,
                setsigmask=(),
                setsigdef=_SIGNALS,
            )
        except OSError:
            close(self.stderr)
            raise
        finally:
            close(child_stderr)
        self._last_line = verdict.LastLine()

    def read_stderr(self) -> bytes | None:
        """Read some of what the filter said; b"" at its end, None if there is nothing yet."""
        try:
            data = posix.read(self.stderr, limits.READ_SIZE)
        except BlockingIOError:
            return None
        except OSError:
            return b""
        self._last_line.feed(data)
        return data

    def outcome(self, code: int | None) -> verdict.Outcome:
        """Return how it ended; `code` is its exit code, see `Loop.on_child_exit`."""
        if code is None:
            reason = "the system does not report its exit status"
            return verdict.Outcome(
                failure=reason, last_stderr_line=self.said, out_of_resources=True
            )
        if code < 0:
            return verdict.Outcome(failure=f"killed by signal {-code}", last_stderr_line=self.said)
        return verdict.Outcome(code, self.said)

    @property
    def said(self) -> bytes:
        """The last line of what it said so far that says something, b"" if there is none."""
        for _ in range(limits.STDERR_DRAIN // limits.READ_SIZE):
            if not self.read_stderr():
                break
        return self._last_line.value

    def kill(self) -> None:
        """Kill it with all of its process group; it must not have been waited for.

        Its leader is killed by itself too: it may have left the group (setpgid(2)).
        """
        for kill in (posix.killpg, posix.kill):
            try:
                kill(self.pid, signal.SIGKILL)
            except OSError:
                pass  # the group is empty, or it has become another user's

    def close(self) -> None:
        """Let go of its standard error."""
        close(self.stderr)


def _keep_descriptors_private() -> None:
    """Keep what this process was given beyond 0, 1 and 2 from every filter.

    Once is enough: whatever Python itself opens is private from the start (PEP 446).
    """
    for descriptor in _open_descriptors():
        if descriptor > STDERR:
            try:
                posix.set_inheritable(descriptor, False)
            except OSError:
                continue  # the one that listed the directory, or none


def _open_descriptors() -> "Iterable[int]":
    try:
        return [int(name) for name in posix.listdir("/dev/fd")]
    except OSError:  # no /proc, as in many a chroot
        return range(_DESCRIPTORS)
