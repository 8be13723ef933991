"""The log: syslog, facility mail, ident postprox, with the pid (log.syslog).

Rule: the log makes nobody wait and stops nothing. What comes from outside cannot forge or garble a
line; a missing syslog is no failure.

A daemon that does not read lets its socket fill up, and one that starts anew is away for a moment.
Then information is dropped and counted, and the count is said when it goes on; errors and warnings
wait, up to a bound. A server may write to standard error instead: `stderr`.
"""

import time

from .. import TYPE_CHECKING
from ..core import limits, log_levels
from .system import posix, socket

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Destination(Protocol):
        """Something that takes lines."""

        dropped: int

        def write(self, level: int, text: str) -> None:
            """Write a line."""

        def flush_and_close(self) -> None:
            """Write the rest before the process ends."""


_SOCKET = "/dev/log"
_FACILITY_MAIL = 2 << 3


class Syslog:
    """The connection to the syslog daemon."""

    def __init__(self) -> None:
        self._daemon: socket.socket | None = None
        self._daemon_seen = False  # there is a daemon, even if it should be gone
        self._waiting: list[bytes] = []
        self._room = limits.LOG_BACKLOG
        self._dropped = 0
        #: How many lines were dropped in all.
        self.dropped = 0
        self._clock: Callable[[], float] | None = None
        self._due: Callable[[float], None] | None = None
        #: When `timer` is to be called, on the loop's clock.
        self.deadline = limits.NEVER

    def attach(self, clock: "Callable[[], float]", due: "Callable[[float], None]") -> None:
        """Let a loop see to what waits: what waits is tried again when `timer` is called.

        Without one it is tried at the next line, and at the end.
        """
        self._clock, self._due = clock, due

    @property
    def is_there(self) -> bool:
        """Whether a daemon can be reached, as far as this process has the means to find out."""
        from errno import EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM

        try:
            _connected().close()
        except OSError as error:
            return error.errno in (EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM)
        return True

    @property
    def has_backlog(self) -> bool:
        """Whether anything waits to be written."""
        return bool(self._waiting or self._dropped)

    def timer(self) -> None:
        """Try again to write what waits."""
        self.deadline = limits.NEVER
        self.flush()
        self._try_later()

    def write(self, level: int, text: str) -> None:
        """Write a line at `level` (see `log_levels`), now or when the daemon reads again."""
        self.flush()
        datagram = _datagram(level, text)
        if self.has_backlog or not self._sent(datagram):
            self._keep(level, datagram)

    def flush(self) -> None:
        """Write what waits, as far as the daemon takes it."""
        while self._waiting and self._sent(self._waiting[0]):
            self._room += len(self._waiting.pop(0))
        if self._dropped and not self._waiting:
            report = _datagram(log_levels.WARNING, dropped(self._dropped))
            if self._sent(report):
                self._dropped = 0

    def flush_and_close(self) -> None:
        """Write what waits, before the process ends, but do not wait for long."""
        end = time.monotonic() + limits.LOG_EXIT_FLUSH
        self.flush()
        while self.has_backlog and time.monotonic() < end:
            time.sleep(0.01)
            self.flush()
        self._disconnect()

    def _disconnect(self) -> None:
        if self._daemon is not None:
            self._daemon.close()
            self._daemon = None

    def _keep(self, level: int, datagram: bytes) -> None:
        if level <= log_levels.WARNING and len(datagram) <= self._room:
            self._waiting.append(datagram)
            self._room -= len(datagram)
        else:
            self._dropped += 1
            self.dropped += 1
        self._try_later()

    def _try_later(self) -> None:
        if self._clock and self._due and self.has_backlog and self.deadline == limits.NEVER:
            self.deadline = self._clock() + limits.LOG_RETRY
            self._due(self.deadline)

    def _sent(self, datagram: bytes) -> bool:
        """Send it; return whether it is done with: on a machine without syslog, it is lost."""
        for _ in range(2):  # the second time to a daemon that has started anew
            try:
                self._daemon = self._daemon or _connected()
            except (FileNotFoundError, PermissionError):
                return not self._daemon_seen
            except OSError:
                return False  # the daemon is about to start anew, or there is no descriptor left
            self._daemon_seen = True
            try:
                self._daemon.send(datagram)
            except BlockingIOError:
                return False
            except OSError:
                self._disconnect()
            else:
                return True
        return False


def _connected() -> socket.socket:
    """Return a connection to the daemon.

    Raises:
        OSError: there is no daemon, or no descriptor to be had.
    """
    daemon = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        daemon.connect(_SOCKET)
    except OSError:
        daemon.close()
        raise
    return daemon


def _datagram(level: int, text: str) -> bytes:
    """Return what the daemon is sent: the line with its priority before it."""
    return b"<%d>%b" % (_FACILITY_MAIL | level, line(text))


def line(text: str) -> bytes:
    """Return a line of the log: time, ident and pid before `text`."""
    when = time.strftime("%b %e %H:%M:%S")
    return f"{when} postprox[{posix.getpid()}]: {printable(text)}".encode("ascii")


def dropped(count: int) -> str:
    """Return the text of the line that follows `count` dropped lines."""
    return f"{count} lines were dropped: the log could not take them"


def printable(text: str) -> str:
    """Return the beginning of `text` in printable ASCII; all else is written as an escape.

    It is cut before it is looked at: a client may have chosen a megabyte of it.
    """
    return "".join(
        character if " " <= character <= "~" else ascii(character)[1:-1]
        for character in text[: limits.LOG_LINE]
    )[: limits.LOG_LINE]


#: The connection of this process.
syslog = Syslog()

#: Where lines go. Only a server sets it, before its first line.
destination: "Destination" = syslog


def write(level: int, text: str) -> None:
    """Write a line at `level` (see `log_levels`); it makes nobody wait and never raises."""
    destination.write(level, text)


def write_fault(error: Exception) -> None:
    """Write where an error of the program itself happened; it never raises."""
    try:
        import traceback

        text = "".join(traceback.format_exception(error))
    except Exception:  # no memory, or no descriptor to read the modules with
        text = type(error).__name__
    write(log_levels.ERROR, f"internal error: {text}")
