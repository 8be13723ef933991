"""A progress indicator on the last line of a terminal.

Rule: the line is written to standard error, and only if standard error is a terminal. The line is
erased before any other output.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING

from .text import cut, printable

if TYPE_CHECKING:
    from types import TracebackType

#: The interval between two updates, in seconds.
_TICK = 1.0
_CLEAR = "\r\033[K"


class Progress:
    """A context manager that shows the elapsed time of a filter run.

    `begins` displays the number and the name of a message.

    total: the number of messages.
    width: the width of the terminal in columns.
    """

    def __init__(self, total: int, width: int) -> None:
        self._total = total
        self._width = width
        self._shown = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._at = ""
        self._begun = 0.0
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def begins(self, number: int, name: str) -> None:
        """Display the number and the name of a message."""
        self._at = f"[{number}/{self._total}] {printable(name)}"
        self._show("")

    def ends(self) -> None:
        """Erase the line."""
        if self._shown:
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()

    def __enter__(self) -> None:
        if self._shown:
            self._begun = time.monotonic()
            self._done.clear()
            self._thread = threading.Thread(target=self._count, daemon=True)
            self._thread.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._thread is not None:
            self._done.set()
            self._thread.join()
            self._thread = None
            self.ends()

    def _count(self) -> None:
        while not self._done.wait(_TICK):
            self._show(f": filter has been running for {time.monotonic() - self._begun:.0f} s ...")

    def _show(self, what: str) -> None:
        if self._shown:
            # Some terminals begin a new line after the last column.
            name = cut(self._at, self._width - 1 - len(what))
            sys.stderr.write(f"{_CLEAR}{name}{what}")
            sys.stderr.flush()
