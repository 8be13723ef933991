"""What a killed proxy has left in the spool directory, and its removal (files.stale).

Rule: a file goes only if it is surely left: it bears a name of ours, is a regular file of our own
user, is old, and no living proxy holds the lock on the EMAIL that belongs to it. Names carry no
pid: the directory may be shared with a process in another pid name space.
"""

import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..core import levels, limits
from . import log

_NAME = re.compile(r"postprox-[0-9a-f]{16}\.(email|out|spool)")


def sweep(directory: str) -> None:
    """Remove what is left in `directory`; what cannot be looked at stays."""
    try:
        found = [path for path in Path(directory).iterdir() if _NAME.fullmatch(path.name)]
    except OSError:
        return  # whoever sends a message is told why it cannot be stored
    # OUTFILE before the EMAIL that tells whose it is.
    removed = sum(_is_removed(path) for path in sorted(found, reverse=True))
    if removed:
        log.write(levels.WARNING, f"removed {removed} files of a killed proxy from {directory}")


def _is_removed(path: Path) -> bool:
    """Remove a file if it is left; return whether it was."""
    email = path.with_suffix(".email")
    if path.suffix == ".out" and not os.path.lexists(email):
        # Its filter may have removed EMAIL, and still be writing.
        return _is_old(path, limits.STALE_OUTFILE) and _remove(path)
    if path.suffix == ".spool":
        return _is_old(path, limits.STALE) and _remove(path)
    if not _is_old(email, limits.STALE):
        return False
    with _locked(email) as locked:
        return locked and _remove(path)


def _is_old(path: Path, seconds: float) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    return _is_ours(status) and time.time() - max(status.st_mtime, status.st_ctime) > seconds


def _is_ours(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Lock a file, and tell whether it could be: otherwise a living proxy holds it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        yield False
        return
    try:
        yield _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        os.lockf(descriptor, os.F_TLOCK, 0)
    except OSError:
        return False
    return True


def _remove(path: Path) -> bool:
    try:
        if _is_ours(path.lstat()):
            path.unlink()
            return True
    except OSError:
        pass
    return False
