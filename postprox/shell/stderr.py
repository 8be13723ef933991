"""The log on standard error, for a server in the foreground (log.stderr).

Rule: only a thread of its own writes to descriptor 2, so a reader that stops reading delays no
mail. The flags of the descriptor are shared with other processes and stay as they are; without
O_NONBLOCK, write(2) waits for the reader.

Lines that the thread has not written wait in memory, up to a bound. Further lines are dropped and
counted, and a line reports the count when the reader goes on. Errors and warnings have twice the
space of information.
"""

import os
import select
import threading
from collections import deque

from ..core import limits, log_levels
from . import log
from .system import STDERR, signal


class StandardError:
    """The queue of lines, and the thread that writes them.

    Raises:
        OSError: there is no thread to be had.
    """

    def __init__(self) -> None:
        #: Lines, each with the number of dropped lines that it reports.
        self._lines: deque[tuple[bytes, int]] = deque()
        self._waiting = 0  # octets that are not written, those of the thread's line included
        self._unreported = 0
        #: How many lines were dropped in all.
        self.dropped = 0
        self._changed = threading.Condition()
        try:
            threading.Thread(target=self._run, daemon=True).start()
        except RuntimeError as error:
            raise OSError(0, str(error)) from None

    def write(self, level: int, text: str) -> None:
        """Write a line at `level` (see `log_levels`), as soon as the thread can; do not wait."""
        line = log.line(text) + b"\n"
        with self._changed:
            self._report()
            if self._has_space(level, len(line)):
                self._add(line, 0)
            else:
                self._unreported += 1
                self.dropped += 1

    def flush_and_close(self) -> None:
        """Let the thread write the rest before the process ends, but do not wait for long."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, limits.LOG_EXIT_FLUSH)

    def _has_space(self, level: int, size: int) -> bool:
        if level <= log_levels.WARNING:
            return self._waiting + size <= limits.LOG_BACKLOG
        # No information overtakes the report of dropped lines.
        return not self._unreported and self._waiting + size <= limits.LOG_BACKLOG // 2

    def _report(self) -> None:
        """Report dropped lines, if no line waits that is older."""
        if self._unreported and not self._waiting:
            self._add(log.line(log.dropped(self._unreported)) + b"\n", self._unreported)
            self._unreported = 0

    def _add(self, line: bytes, reported: int) -> None:
        self._lines.append((line, reported))
        self._waiting += len(line)
        self._changed.notify_all()

    def _run(self) -> None:
        # A terminal with `stty tostop` would stop the whole server (termios(3)).
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTTOU,))
        while True:
            line, reported = self._next()
            self._done(line, reported, _write(line))

    def _next(self) -> tuple[bytes, int]:
        """Wait for the next line."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines)
            return self._lines.popleft()

    def _done(self, line: bytes, reported: int, written: bool) -> None:
        with self._changed:
            self._waiting -= len(line)
            if written:
                self._report()
            else:
                self._unreported += reported or 1
                self.dropped += not reported
            self._changed.notify_all()


def _write(line: bytes) -> bool:
    """Write a line, however long that takes; return whether it could be written."""
    while line:
        try:
            line = line[os.write(STDERR, line) :]
        except BlockingIOError:  # another process has set O_NONBLOCK
            _wait_for_reader()
        except OSError:
            return False  # the reader is gone, or the disk is full
    return True


def _wait_for_reader() -> None:
    poll = select.poll()
    poll.register(STDERR, select.POLLOUT)
    poll.poll()
