"""Logging to standard error, for a server in the foreground (log.stderr).

Rule: only a separate thread writes to descriptor 2, so a reader that stops reading does not delay
mail. Other processes share the flags of the descriptor, so the proxy does not change them. Without
O_NONBLOCK, write(2) waits for the reader.

Unwritten lines are buffered in memory, up to a limit. If the limit is reached, further lines are
dropped. When the reader resumes reading, a line reports the number of dropped lines. Errors and
warnings may use twice as much space as informational lines.

Logs: the number of dropped lines.
"""

import os
import select
import threading
from collections import deque

from ..core import limits, log_levels
from . import log
from .system import STDERR, signal


class StandardError:
    """A queue of lines, and the thread that writes them.

    Raises:
        OSError: the thread cannot be started.
    """

    def __init__(self) -> None:
        #: The queued lines, each paired with the number of dropped lines that it reports.
        self._lines: deque[tuple[bytes, int]] = deque()
        self._waiting = 0  # the number of unwritten octets, including the line being written
        self._unreported = 0
        #: The number of dropped lines since the start.
        self.dropped = 0
        self._changed = threading.Condition()
        try:
            threading.Thread(target=self._run, daemon=True).start()
        except RuntimeError as error:
            raise OSError(0, str(error)) from None

    def write(self, level: int, text: str) -> None:
        """Queue a line at `level` (see `log_levels`) for the thread, without waiting."""
        line = log.line(text) + b"\n"
        with self._changed:
            self._report()
            if self._has_space(level, len(line)):
                self._add(line, 0)
            else:
                self._unreported += 1
                self.dropped += 1

    def flush_and_close(self) -> None:
        """Wait up to `limits.LOG_EXIT_FLUSH` seconds for the thread to write all lines."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, limits.LOG_EXIT_FLUSH)

    def _has_space(self, level: int, size: int) -> bool:
        if level <= log_levels.WARNING:
            return self._waiting + size <= limits.LOG_BACKLOG
        # The report of dropped lines must precede the next informational line.
        return not self._unreported and self._waiting + size <= limits.LOG_BACKLOG // 2

    def _report(self) -> None:
        """Report dropped lines unless an older line is queued."""
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
    """Write a line without a timeout, and return False on an error."""
    while line:
        try:
            line = line[os.write(STDERR, line) :]
        except BlockingIOError:  # another process has set O_NONBLOCK
            _wait_for_reader()
        except OSError:
            return False  # the reader has exited, or the disk is full
    return True


def _wait_for_reader() -> None:
    poll = select.poll()
    poll.register(STDERR, select.POLLOUT)
    poll.poll()
