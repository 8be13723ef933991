"""Records the observed octets and events in order, for failure reports."""

from __future__ import annotations

from dataclasses import dataclass

from ..format.payload import visible

#: The maximum number of recorded octets of a message.
_KEPT_OCTETS = 2000
_SHOWN_LINES = 60
_SHOWN_WIDTH = 160


@dataclass
class _Entry:
    who: str
    octets: bytearray
    total: int = 0


class Dialogue:
    """A record of octets and events. Consecutive octets in one direction form one entry."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []

    def said(self, who: str, octets: bytes) -> None:
        """Record octets sent by *who* (such as `C>`). They extend an incomplete entry of *who*."""
        if not self._entries or self._entries[-1].who != who:
            self._entries.append(_Entry(who, bytearray()))
        entry = self._entries[-1]
        entry.octets += octets[: max(0, _KEPT_OCTETS - len(entry.octets))]
        entry.total += len(octets)

    def event(self, who: str, text: str) -> None:
        """Record an event that has no octets."""
        octets = text.encode()
        self._entries.append(_Entry(f"{who} --", bytearray(octets), len(octets)))

    def octets_of(self, who: str) -> bytes:
        """Return the recorded octets of *who*, with a line end after each entry."""
        return b"\n".join(bytes(entry.octets) for entry in self._entries if entry.who == who)

    def lines(self) -> list[str]:
        """Return the lines of the dialogue, or only the last lines of a long dialogue."""
        lines: list[str] = []
        for entry in self._entries:
            lines += _entry_lines(entry)
        if len(lines) > _SHOWN_LINES:
            left_out = len(lines) - _SHOWN_LINES
            lines = [f"(... {left_out} earlier lines)", *lines[-_SHOWN_LINES:]]
        return lines


def _entry_lines(entry: _Entry) -> list[str]:
    lines = [
        f"{entry.who} {shorten(visible(line))}"
        for line in bytes(entry.octets).splitlines(keepends=True)
    ]
    if entry.total > len(entry.octets):
        lines.append(f"{entry.who} (... {entry.total} octets in total)")
    return lines


def shorten(text: str, width: int = _SHOWN_WIDTH) -> str:
    """Shorten *text* to the width by removing its middle."""
    if len(text) <= width:
        return text
    half = (width - 20) // 2
    return f"{text[:half]} (... {len(text) - 2 * half} more ...) {text[-half:]}"
