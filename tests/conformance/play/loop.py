"""The event loop: files that became readable or writable call back; nothing here knows SMTP."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable
from typing import Protocol

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE


class HasFileno(Protocol):
    """Anything with a descriptor."""

    def fileno(self) -> int:
        """The descriptor."""
        ...


Watched = int | HasFileno


class Loop:
    """A selector whose keys carry what to call."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def watch(self, file: Watched, events: int, callback: Callable[[int], None]) -> None:
        """Call *callback* with the events of *file* from now on; replaces an earlier watch."""
        try:
            self._selector.modify(file, events, callback)
        except KeyError:
            self._selector.register(file, events, callback)

    def forget(self, file: Watched) -> None:
        """No more calls for *file*."""
        try:
            self._selector.unregister(file)
        except (KeyError, ValueError):
            return

    def turn(self, seconds: float) -> None:
        """Wait at most *seconds* for something to happen, and let it be handled."""
        for key, events in self._selector.select(max(0.0, seconds)):
            key.data(events)

    def turn_until(self, done: Callable[[], bool], seconds: float, pause: float = 1.0) -> bool:
        """Turn until *done* or until *seconds* are over; *pause* bounds the time between looks."""
        deadline = time.monotonic() + seconds
        while not done():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.turn(min(left, pause))
        return True

    def close(self) -> None:
        """Give the selector back."""
        self._selector.close()
