"""Results as GitHub annotations.

Rule: the text for each message comes from `summary.complaint`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .summary import complaint
from .text import printable

if TYPE_CHECKING:
    from .options import Settings
    from .summary import Result


def lines(settings: Settings, results: list[Result]) -> list[str]:
    """Return a GitHub workflow command for each message that has a problem."""
    found = []
    for done in results:
        why = complaint(settings, done)
        if why:
            file = f"file={_escaped(done.path, ':,')}," if done.path else ""
            what = _escaped(f"{done.name}: {why}")
            found.append(f"::error {file}title=postprox-rehearse::{what}")
    return found


def _escaped(text: str, more: str = "") -> str:
    """Escape percent signs, newlines and the characters in `more`, as GitHub requires."""
    return "".join(
        f"%{ord(character):02X}" if character in "%\r\n" + more else printable(character)
        for character in text
    )
