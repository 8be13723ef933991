"""Finds the leftovers of a run, which are files in the temporary directory and processes.

Rule: both may exist briefly after the run, until kill(2) and unlink(2) have taken effect.
"""

from __future__ import annotations

from collections.abc import Callable

from .harness import Harness
from .procfs import command_line

#: The maximum duration of this period, in seconds.
AFTERMATH = 2.0
_LOOK_AGAIN = 0.005


def still_left(
    harness: Harness, look: Callable[[], list[str]], seconds: float = AFTERMATH
) -> list[str]:
    """Return the result of *look* after *seconds*, or as soon as the result is empty."""
    found: list[str] = []

    def clean() -> bool:
        found[:] = look()
        return not found

    harness.loop.turn_until(clean, seconds, _LOOK_AGAIN)
    return found


def files(harness: Harness) -> list[str]:
    """Return the names of files in the temporary directory, if it is writable."""
    if harness.header.tmp in ("file", "missing"):
        return []
    return sorted(path.name for path in harness.tmp_seen.iterdir())


def processes(harness: Harness) -> list[str]:
    """Return the command lines of descendants that have outlived the process."""
    assert harness.process is not None
    return [command_line(pid) for pid in sorted(harness.process.orphans())]
