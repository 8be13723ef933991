"""Logging to syslog, with facility mail, ident postprox and the process ID (log.syslog).

Rule: the log never blocks and never raises. Input from clients cannot forge or garble a line. A
missing syslog daemon is not an error.

If the daemon is not reading, its socket buffer fills up. While the daemon is restarting, there is
no socket. While a line cannot be sent, informational lines are dropped, and a later line reports
their number. Errors and warnings are buffered, up to a limit. A server can log to standard error
instead (`stderr`).

Logs: the number of dropped lines, and internal errors with a traceback.
"""

import time

from .. import TYPE_CHECKING
from ..core import limits, log_levels
from .system import posix, socket

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Destination(Protocol):
        """A destination for log lines."""

        dropped: int

        def write(self, level: int, text: str) -> None:
            """Write a line."""

        def flush_and_close(self) -> None:
            """Write the buffered lines before the process exits."""


_SOCKET = "/dev/log"
_FACILITY_MAIL = 2 << 3


class Syslog:
    """The connection to the syslog daemon."""

    def __init__(self) -> None:
        self._daemon: socket.socket | None = None
        self._daemon_seen = False  # true if this process has ever reached a daemon
        self._waiting: list[bytes] = []
        self._room = limits.LOG_BACKLOG
        self._dropped = 0
        #: The number of dropped lines since the start.
        self.dropped = 0
        self._clock: Callable[[], float] | None = None
        self._due: Callable[[float], None] | None = None
        #: The time on the loop's clock at which to call `timer`.
        self.deadline = limits.NEVER

    def attach(self, clock: "Callable[[], float]", due: "Callable[[float], None]") -> None:
        """Let a loop call `timer`, which tries again to write the buffered lines.

        Without a loop, buffered lines are retried with the next line and at exit.
        """
        self._clock, self._due = clock, due

    @property
    def is_there(self) -> bool:
        """Whether a daemon can be reached.

        The result is True if the daemon's presence cannot be checked.
        """
        from errno import EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM

        try:
            _connected().close()
        except OSError as error:
            return error.errno in (EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM)
        return True

    @property
    def has_backlog(self) -> bool:
        """Whether some lines or some reports of dropped lines are still unwritten."""
        return bool(self._waiting or self._dropped)

    def timer(self) -> None:
        """Retry the buffered lines."""
        self.deadline = limits.NEVER
        self.flush()
        self._try_later()

    def write(self, level: int, text: str) -> None:
        """Write a line at `level` (see `log_levels`), or buffer it for the daemon."""
        self.flush()
        datagram = _datagram(level, text)
        if self.has_backlog or not self._sent(datagram):
            self._keep(level, datagram)

    def flush(self) -> None:
        """Write as many buffered lines as the daemon accepts."""
        while self._waiting and self._sent(self._waiting[0]):
            self._room += len(self._waiting.pop(0))
        if self._dropped and not self._waiting:
            report = _datagram(log_levels.WARNING, dropped(self._dropped))
            if self._sent(report):
                self._dropped = 0

    def flush_and_close(self) -> None:
        """Write the buffered lines within `limits.LOG_EXIT_FLUSH` seconds, then disconnect."""
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
        """Send a datagram. Return False if the datagram must be retried.

        If no daemon has ever been available, the datagram is lost.
        """
        for _ in range(2):  # the second attempt reaches a restarted daemon
            try:
                self._daemon = self._daemon or _connected()
            except (FileNotFoundError, PermissionError):
                return not self._daemon_seen
            except OSError:
                return False  # the daemon is restarting, or there is no free descriptor
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
        OSError: there is no daemon, or no free descriptor.
    """
    daemon = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        daemon.connect(_SOCKET)
    except OSError:
        daemon.close()
        raise
    return daemon


def _datagram(level: int, text: str) -> bytes:
    """Return the datagram for the daemon: the priority and the line."""
    return b"<%d>%b" % (_FACILITY_MAIL | level, line(text))


def line(text: str) -> bytes:
    """Return a log line with the time, ident, process ID and `text`."""
    when = time.strftime("%b %e %H:%M:%S")
    return f"{when} postprox[{posix.getpid()}]: {printable(text)}".encode("ascii")


def dropped(count: int) -> str:
    """Return the text of the line that reports `count` dropped lines."""
    return f"{count} log lines were dropped"


def printable(text: str) -> str:
    """Return the beginning of `text` as printable ASCII, with other characters escaped.

    `text` is truncated first, because a client may have sent a megabyte.
    """
    return "".join(
        character if " " <= character <= "~" else ascii(character)[1:-1]
        for character in text[: limits.LOG_LINE]
    )[: limits.LOG_LINE]


#: This process's connection to the syslog daemon.
syslog = Syslog()

#: The destination for all log lines. Only a server changes this destination, before it logs its
#: first line.
destination: "Destination" = syslog


def write(level: int, text: str) -> None:
    """Write a line at `level` (see `log_levels`) without blocking or raising."""
    destination.write(level, text)


def write_fault(error: Exception) -> None:
    """Write the traceback of an internal error without raising."""
    try:
        import traceback

        text = "".join(traceback.format_exception(error))
    except Exception:  # the imports need more memory or descriptors than are free
        text = type(error).__name__
    write(log_levels.ERROR, f"internal error: {text}")
