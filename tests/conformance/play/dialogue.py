"""What was said so far, in the order in which the suite saw it; kept for the failure's text."""

from __future__ import annotations

from dataclasses import dataclass

from ..format.payload import visible

#: A message of megabytes is told by its beginning.
_KEPT_OCTETS = 2000
_SHOWN_LINES = 60
_SHOWN_WIDTH = 160


@dataclass
class _Entry:
    who: str
    octets: bytearray
    total: int = 0


class Dialogue:
    """Octets and events, one entry for each direction's turn."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []

    def said(self, who: str, octets: bytes) -> None:
        """*who* (`C>`, `U<` ...) said *octets*; what goes on in the same turn is joined."""
        if not self._entries or self._entries[-1].who != who:
            self._entries.append(_Entry(who, bytearray()))
        entry = self._entries[-1]
        entry.octets += octets[: max(0, _KEPT_OCTETS - len(entry.octets))]
        entry.total += len(octets)

    def event(self, who: str, text: str) -> None:
        """Something happened that is no octets."""
        octets = text.encode()
        self._entries.append(_Entry(f"{who} --", bytearray(octets), len(octets)))

    def lines(self) -> list[str]:
        """The dialogue for a person: one line for each line said, the last ones if it is long."""
        lines: list[str] = []
        for entry in self._entries:
            lines += _entry_lines(entry)
        if len(lines) > _SHOWN_LINES:
            left_out = len(lines) - _SHOWN_LINES
            lines = [f"(... {left_out} lines before)", *lines[-_SHOWN_LINES:]]
        return lines


def _entry_lines(entry: _Entry) -> list[str]:
    lines = [
        f"{entry.who} {shorten(visible(line))}"
        for line in bytes(entry.octets).splitlines(keepends=True)
    ]
    if entry.total > len(entry.octets):
        lines.append(f"{entry.who} (... {entry.total} octets in all)")
    return lines


def shorten(text: str, width: int = _SHOWN_WIDTH) -> str:
    """*text*, its middle left out if it is wide."""
    if len(text) <= width:
        return text
    half = (width - 20) // 2
    return f"{text[:half]} (... {len(text) - 2 * half} more ...) {text[-half:]}"
