"""What a run leaves behind: files in the temp directory, processes.

Rule: either may outlive the run for a moment, until kill and unlink have taken effect.
"""

from __future__ import annotations

from collections.abc import Callable

from .harness import Harness
from .procfs import command_line

#: That moment, in seconds.
AFTERMATH = 2.0
_LOOK_AGAIN = 0.005


def still_left(
    harness: Harness, look: Callable[[], list[str]], seconds: float = AFTERMATH
) -> list[str]:
    """What *look* finds when *seconds* have passed; nothing, as soon as it finds nothing."""
    found: list[str] = []

    def clean() -> bool:
        found[:] = look()
        return not found

    harness.loop.turn_until(clean, seconds, _LOOK_AGAIN)
    return found


def files(harness: Harness) -> list[str]:
    """The names of what lies in the temp directory, if it is one that can be written to."""
    if harness.header.tmp in ("file", "missing"):
        return []
    return sorted(path.name for path in harness.tmp_seen.iterdir())


def processes(harness: Harness) -> list[str]:
    """The command lines of descendants that outlived the process."""
    assert harness.process is not None
    return [command_line(pid) for pid in sorted(harness.process.orphans())]
