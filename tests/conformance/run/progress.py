"""The progress of a run, which is printed every few seconds as a line with the number of results.

Rule: a thread writes the line, so it appears even if there are no new results.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

#: The time before the first line and between the lines, in seconds.
_FIRST = 5.0
_INTERVAL = 10.0


class Progress:
    """The counts of a run, and a thread that reports them by calling *write*."""

    def __init__(
        self, write: Callable[[str], None], first: float = _FIRST, interval: float = _INTERVAL
    ) -> None:
        #: The number of selected results, or 0 until it is known.
        self.total = 0
        self._write = write
        self._first = first
        self._interval = interval
        self._began = time.monotonic()
        self._results = 0
        self._missed = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def add(self, outcome: str) -> None:
        """Count a result."""
        self._results += 1
        self._missed += outcome == "failed"

    def line(self) -> str:
        """Return the line."""
        seconds = round(time.monotonic() - self._began)
        if not self.total:
            return f"loading the transcripts, {seconds} s"
        of = f" of {self.total}"
        return f"{self._results}{of} results, {self._missed} failed, {seconds} s"

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        pause = self._first
        while not self._ended.wait(pause):
            self._write(self.line())
            pause = self._interval
