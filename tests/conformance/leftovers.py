"""What a run leaves behind: files in the temp directory, processes.

Rule: either may outlive the run for a moment, until kill and unlink have taken effect.
"""

from __future__ import annotations

from collections.abc import Callable

from .harness import Stage
from .proc import command_line

#: That moment, in seconds.
AFTERMATH = 2.0
_LOOK_AGAIN = 0.005


def still_left(
    stage: Stage, look: Callable[[], list[str]], seconds: float = AFTERMATH
) -> list[str]:
    """What *look* finds when *seconds* have passed; nothing, as soon as it finds nothing."""
    found: list[str] = []

    def clean() -> bool:
        found[:] = look()
        return not found

    stage.loop.turn_until(clean, seconds, _LOOK_AGAIN)
    return found


def files(stage: Stage) -> list[str]:
    """The names of what lies in the temp directory, if it is one that can be written to."""
    if stage.header.tmp in ("file", "missing"):
        return []
    return sorted(path.name for path in stage.tmp_seen.iterdir())


def processes(stage: Stage) -> list[str]:
    """The command lines of descendants that outlived the process."""
    assert stage.process is not None
    return [command_line(pid) for pid in sorted(stage.process.orphans())]
