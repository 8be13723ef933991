"""An input of the fuzzer, read from its beginning to its end.

Rule: every input means something, and a small change to it changes little of what it means: so the
fuzzer finds its way. What is read past its end is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Thing = TypeVar("Thing")


class Source:
    """The octets of one input, each of which is read once."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def more(self) -> bool:
        """Whether something is left."""
        return self._at < len(self._data)

    def octet(self) -> int:
        """Return the next octet."""
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def octets(self) -> bytes:
        """Return up to 255 octets; the first one read says how many."""
        begin = self._at + 1
        self._at = min(begin + self.octet(), len(self._data))
        return self._data[begin : self._at]

    def rest(self) -> bytes:
        """Return all that is left."""
        begin, self._at = self._at, len(self._data)
        return self._data[begin:]

    def one_of(self, things: Sequence[Thing]) -> Thing:
        """Return one of `things`."""
        return things[self.octet() % len(things)]
