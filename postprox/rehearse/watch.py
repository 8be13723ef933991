"""Waits until the filter or a message changes.

Rule: what counts is what stat(2) says of the files, looked at again and again; nothing is opened.
"""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

from . import sources

if TYPE_CHECKING:
    from .options import Settings

#: How often it is looked, in seconds.
_TICK = 0.25

State = dict[Path, tuple[int, int, int]]


def state(settings: Settings) -> State:
    """Return what is there now of all files that matter."""
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
    """Wait until something is not as `before`, and is at rest; return the name of one."""
    last = before
    while True:
        time.sleep(_TICK)
        now = state(settings)
        different = {path for path, _ in now.items() ^ before.items()}
        if different and now == last:
            return str(min(different))
        last = now


def _filter_files(command: str) -> list[Path]:
    """Return the words of a command that name a file: the filter, and what it is given."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    return [path for path in map(Path, words) if _is_file(path)]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False  # Any word of a command may be longer than a file's name can be.
