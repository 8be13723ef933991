"""Compares received octets with expected ones.

Rule: only pure functions and values, which map octets to a verdict.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from ..format.nodes import ReplyPattern
from ..format.payload import visible
from .dialogue import shorten


class State(Enum):
    """The state of an observation."""

    YES = "observed"
    NO = "can no longer be observed"
    WAIT = "not yet decided"


@dataclass(frozen=True)
class Verdict:
    """The state of an observation, with the number of octets `used` or the text that it `got`."""

    state: State
    used: int = 0
    got: str = ""


WAIT = Verdict(State.WAIT)
YES = Verdict(State.YES)


def no(got: str) -> Verdict:
    """Return a negative verdict with the observation *got*."""
    return Verdict(State.NO, got=got)


class OctetsAwaited:
    """Compares a growing buffer with the expected octets. Each octet is compared only once."""

    def __init__(self, expected: bytes) -> None:
        self.expected = expected
        self._compared = 0

    def look(self, buffer: bytearray) -> Verdict:
        """Return the verdict on *buffer*, which has only grown since the last call."""
        end = min(len(buffer), len(self.expected))
        if buffer[self._compared : end] != self.expected[self._compared : end]:
            return no(describe(buffer, self._first_difference(buffer, end)))
        self._compared = end
        return Verdict(State.YES, end) if end == len(self.expected) else WAIT

    def _first_difference(self, buffer: bytearray, end: int) -> int:
        return next(at for at in range(self._compared, end) if buffer[at] != self.expected[at])


#: An end of data for a reader that ends lines at CRLF, at LF or at CR.
_END_FOR_ANY_READER = re.compile(rb"(?:\A|(?<=\n))\.\r?\n|(?:\A|(?<=\r))\.\r")
_END_OF_DATA = re.compile(rb"(?:\A|(?<=\r\n))\.\r\n")
#: The failure text for a message that another server could read as several messages.
EARLIER_END = "octets that end the message for a server that ends lines at CR or LF"
#: The beginning of a reply that accepts a message.
_SUCCESS = re.compile(rb"2\d\d")
#: The octets of an end of data that may be incomplete at the end of the buffer.
_INCOMPLETE_END = 2


class MessageAwaited:
    """Waits for a message whose first end of data is the same for readers of CRLF, LF and CR."""

    def __init__(self) -> None:
        self._searched = 0

    def look(self, buffer: bytearray) -> Verdict:
        """Return the verdict on *buffer*, which has only grown since the last call."""
        end = _END_FOR_ANY_READER.search(buffer, self._searched)
        if end is None:
            self._searched = max(0, len(buffer) - _INCOMPLETE_END)
            return WAIT
        if found := _END_OF_DATA.match(buffer, end.start()):
            return Verdict(State.YES, found.end())
        if buffer == b".\r":
            return WAIT
        return no(f"{EARLIER_END}: {describe(buffer, end.start())}")


class NoSuccessAwaited:
    """Waits for the last line of a reply, which must not begin with 2yz."""

    def look(self, buffer: bytearray) -> Verdict:
        """Return the verdict on *buffer*."""
        start = 0
        while end := buffer.find(b"\n", start) + 1:
            if buffer[start + 3 : start + 4] != b"-":  # the last line of a reply
                is_success = _SUCCESS.match(buffer, start)
                return no(describe(buffer, start)) if is_success else Verdict(State.YES, end)
            start = end
        return WAIT


class UnfinishedAwaited:
    """Waits as long as no reader finds an end of data."""

    def look(self, buffer: bytearray) -> Verdict:
        """Return the verdict on *buffer*."""
        end = _END_FOR_ANY_READER.search(buffer)
        if end is None or buffer[end.start() :] == b".\r":
            return WAIT
        return no(f"the end of data: {describe(buffer, end.start())}")


def describe(buffer: bytearray, difference: int = 0) -> str:
    """Return the line of *buffer* that contains octet *difference*, as visible octets."""
    if not buffer:
        return "nothing"
    start = buffer.rfind(b"\n", 0, difference) + 1
    end = buffer.find(b"\n", difference) + 1 or len(buffer)
    text = shorten(visible(bytes(buffer[start:end])))
    return text if difference < 200 else f"{text} (first difference at octet {difference})"


_REPLY_LINE = re.compile(rb"([2-5][0-5][0-9])(?:([ -])([^\r\n\0]*))?\r\n")
#: RFC 5321 4.5.3.1.5 allows 512 octets. The rest is shown in the message about a wrong reply.
_MAXIMUM_REPLY_LINE = 4096


class ReplyAwaited:
    """Waits for a complete, well-formed reply that matches a pattern."""

    def __init__(self, pattern: ReplyPattern) -> None:
        self._pattern = pattern

    def look(self, buffer: bytearray) -> Verdict:
        """Return the verdict on *buffer*."""
        at, code = 0, b""
        while True:
            end = buffer.find(b"\n", at) + 1
            if not end:
                too_long = len(buffer) - at > _MAXIMUM_REPLY_LINE
                return no(describe(buffer, at)) if too_long else WAIT
            found = _REPLY_LINE.fullmatch(bytes(buffer[at:end]))
            if not found:
                return no(f"not a reply line: {describe(buffer, at)}")
            if code and found[1] != code:
                return no(f"a reply with two codes: {describe(buffer, at)}")
            if not self._fits(found[1].decode(), found[3] or b""):
                return no(describe(buffer, at))
            code, at = found[1], end
            if found[2] != b"-":
                return Verdict(State.YES, at)

    def _fits(self, code: str, text: bytes) -> bool:
        if not any(_code_fits(code, wanted) for wanted in self._pattern.codes):
            return False
        wanted = self._pattern.enhanced
        return wanted is None or _enhanced_fits(text.split(b" ")[0].decode("latin-1"), wanted)


def _code_fits(code: str, wanted: str) -> bool:
    return all(letter in ("x", digit) for digit, letter in zip(code, wanted, strict=True))


def _enhanced_fits(text: str, wanted: str) -> bool:
    numbers, patterns = text.split("."), wanted.split(".")
    return (
        len(numbers) == 3
        and all(number.isdigit() for number in numbers)
        and all(
            pattern in ("x", number) for number, pattern in zip(numbers, patterns, strict=False)
        )
    )


def text_fits(operator: str, wanted: bytes, text: bytes) -> bool:
    """Whether *text* passes the test `contains`, `lacks`, `is`, `matches` or `empty`."""
    match operator:
        case "contains":
            return wanted in text
        case "lacks":
            return wanted not in text
        case "is":
            return text == wanted
        case "matches":
            return re.search(wanted, text, re.MULTILINE) is not None
        case _:
            return not text
