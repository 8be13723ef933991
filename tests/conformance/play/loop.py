"""The event loop, which calls functions when files become readable or writable.

Rule: this module does not interpret SMTP.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable
from typing import Protocol

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE


class HasFileno(Protocol):
    """An object with a file descriptor."""

    def fileno(self) -> int:
        """Return the file descriptor."""
        ...


Watched = int | HasFileno


class Loop:
    """A selector with a callback for each file."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def watch(self, file: Watched, events: int, callback: Callable[[int], None]) -> None:
        """Call *callback* for each event of *file*. This replaces an earlier callback."""
        try:
            self._selector.modify(file, events, callback)
        except KeyError:
            self._selector.register(file, events, callback)

    def forget(self, file: Watched) -> None:
        """Stop watching *file*."""
        try:
            self._selector.unregister(file)
        except (KeyError, ValueError):
            return

    def turn(self, seconds: float) -> None:
        """Wait up to *seconds* for events, and handle them."""
        for key, events in self._selector.select(max(0.0, seconds)):
            key.data(events)

    def turn_until(self, done: Callable[[], bool], seconds: float, pause: float = 1.0) -> bool:
        """Run until *done* is true, or for *seconds*. *pause* limits the time between checks."""
        deadline = time.monotonic() + seconds
        while not done():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.turn(min(left, pause))
        return True

    def close(self) -> None:
        """Close the selector."""
        self._selector.close()
