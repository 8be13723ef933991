"""A fuzzer input, which is read from beginning to end.

Rule: every input is valid. A small change to the input has a small effect, which helps the fuzzer.
A read past the end returns 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Thing = TypeVar("Thing")


class Source:
    """The octets of an input, each of which is read once."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def more(self) -> bool:
        """Whether unread octets remain."""
        return self._at < len(self._data)

    def octet(self) -> int:
        """Return the next octet."""
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def octets(self) -> bytes:
        """Read an octet as a length, and return that many octets."""
        begin = self._at + 1
        self._at = min(begin + self.octet(), len(self._data))
        return self._data[begin : self._at]

    def rest(self) -> bytes:
        """Return the remaining octets."""
        begin, self._at = self._at, len(self._data)
        return self._data[begin:]

    def one_of(self, things: Sequence[Thing]) -> Thing:
        """Return one of `things`, which the next octet selects."""
        return things[self.octet() % len(things)]
