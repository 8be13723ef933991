"""Waits until the filter or a message has changed.

Rule: a file has changed if stat(2) returns a different result. This module does not open any file.
"""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

from . import sources

if TYPE_CHECKING:
    from .options import Settings

#: The interval between checks, in seconds.
_TICK = 0.25

State = dict[Path, tuple[int, int, int]]


def state(settings: Settings) -> State:
    """Return the inode, size and modification time of each filter file and each message."""
    seen = {}
    for path in (
        *_filter_files(settings.command),
        *sources.files(settings.messages, settings.user),
    ):
        try:
            status = path.stat()
        except OSError:
            continue
        seen[path] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return seen


def changed(settings: Settings, before: State) -> str:
    """Wait until a file has changed and has then been stable for one interval.

    Return the name of that file.
    """
    last = before
    while True:
        time.sleep(_TICK)
        now = state(settings)
        different = {path for path, _ in now.items() ^ before.items()}
        if different and now == last:
            return str(min(different))
        last = now


def _filter_files(command: str) -> list[Path]:
    """Return the words in a command that are file names."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    return [path for path in map(Path, words) if _is_file(path)]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False  # A word in the command may be too long for a file name.
