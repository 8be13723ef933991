"""One run of the filter command.

Rule: only this module starts the child process and manages its descriptors, signals, standard error
and exit code.
"""

from .. import TYPE_CHECKING
from ..core import limits, verdict
from .system import STDERR, close, posix, signal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

SHELL = "/bin/sh"

#: The characters allowed in the words of a plain command. sh(1) would only split such a command at
#: its spaces and leave the words unchanged. `~`, `=` and `#` are excluded, because sh(1) interprets
#: them in some positions within a word.
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:,@%")
#: The errors of execve(2) that indicate a lack of resources (filter.no-resources): EIO, E2BIG,
#: EAGAIN, ENOMEM, ENFILE, EMFILE. sh(1) would report these errors as exit status 126.
_OUT_OF_RESOURCES = (5, 7, 11, 12, 23, 24)


def _changeable_signals() -> "Collection[int]":
    """Return the signals whose disposition can be changed. The C library reserves some signals."""
    return signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


_SIGNALS = _changeable_signals()

#: This many descriptors are checked if the system cannot list the open ones. The number equals the
#: usual limit on open files.
_DESCRIPTORS = 1024


class Filter:
    """A running filter, started as if by `sh -c command`, in its own process group (filter.stdio).

    A command that consists of plain words is executed without sh(1), which saves one process per
    message.

    environment: the complete environment. An entry without a name, which execve(2) allows, is
        omitted.

    Raises:
        OSError: the process cannot be started.
    """

    _descriptors_are_private = False

    def __init__(self, command: str, environment: dict[bytes, bytes]) -> None:
        if not Filter._descriptors_are_private:
            _keep_descriptors_private()
            Filter._descriptors_are_private = True
        self.stderr, child_stderr = posix.pipe()
        try:
            posix.set_blocking(self.stderr, False)
            variables = {**environment}
            variables.pop(b"", None)
            self.pid = _start(command, variables, child_stderr)
        except OSError:
            close(self.stderr)
            raise
        finally:
            close(child_stderr)
        self._last_line = verdict.LastLine()

    def read_stderr(self) -> bytes | None:
        """Read from standard error.

        Return b"" at the end of the stream, or None if no data is available yet.
        """
        try:
            data = posix.read(self.stderr, limits.READ_SIZE)
        except BlockingIOError:
            return None
        except OSError:
            return b""
        self._last_line.feed(data)
        return data

    def outcome(self, code: int | None) -> verdict.Outcome:
        """Return the outcome that corresponds to an exit code from `Loop.on_child_exit`."""
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
        """The last non-blank line of standard error so far, or b"" if all lines are blank."""
        for _ in range(limits.STDERR_DRAIN // limits.READ_SIZE):
            if not self.read_stderr():
                break
        return self._last_line.value

    def kill(self) -> None:
        """Kill the process group of a filter that has not been reaped yet.

        The filter itself is also killed by its ID, because it may have left the group (setpgid(2)).
        """
        for kill in (posix.killpg, posix.kill):
            try:
                kill(self.pid, signal.SIGKILL)
            except OSError:
                pass  # the process group is empty or now belongs to another user

    def close(self) -> None:
        """Close the pipe from standard error."""
        close(self.stderr)


def _start(command: str, environment: dict[bytes, bytes], stderr: int) -> int:
    """Start the filter and return its process ID.

    If the program cannot be executed, sh(1) is started instead. The exit status (126 or 127) and
    the error message then come from sh(1), which also runs scripts without `#!`.
    """
    if words := _plain_words(command):
        try:
            return _spawn(words[0], words, _with_working_directory(environment), stderr)
        except OSError as error:
            if error.errno in _OUT_OF_RESOURCES:
                raise
    return _spawn(SHELL, ["sh", "-c", command], environment, stderr)


def _plain_words(command: str) -> list[str]:
    """Return the words of a plain command, or [] for a command that requires sh(1)."""
    words = command.split(" ")
    plain = command.startswith("/") and all(words) and _PLAIN.issuperset("".join(words))
    return words if plain else []


def _with_working_directory(environment: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Set PWD to the working directory.

    If the inherited PWD already refers to this directory, it is kept, as in sh(1).
    """
    here = posix.stat(".")
    try:
        named = posix.stat(environment.get(b"PWD", b""))
        is_current = (named.st_dev, named.st_ino) == (here.st_dev, here.st_ino)
    except OSError:
        is_current = False
    if is_current and environment[b"PWD"].startswith(b"/"):
        return environment
    return {**environment, b"PWD": posix.getcwdb()}


def _spawn(path: str, words: list[str], environment: dict[bytes, bytes], stderr: int) -> int:
    return posix.posix_spawn(
        path,
        words,
        environment,
        file_actions=(
            (posix.POSIX_SPAWN_OPEN, 0, "/dev/null", posix.O_RDONLY, 0),
            (posix.POSIX_SPAWN_OPEN, 1, "/dev/null", posix.O_WRONLY, 0),
            (posix.POSIX_SPAWN_DUP2, stderr, 2),
        ),
        setpgroup=0,
        setsigmask=(),
        setsigdef=_SIGNALS,
    )


def _keep_descriptors_private() -> None:
    """Make all inherited descriptors above 2 close-on-exec.

    One call is enough, because Python opens its own descriptors as close-on-exec (PEP 446).
    """
    for descriptor in _open_descriptors():
        if descriptor > STDERR:
            try:
                posix.set_inheritable(descriptor, False)
            except OSError:
                continue  # this descriptor was used to list /dev/fd, or is closed


def _open_descriptors() -> "Iterable[int]":
    try:
        return [int(name) for name in posix.listdir("/dev/fd")]
    except OSError:  # there is no /proc, as in most chroots
        return range(_DESCRIPTORS)
