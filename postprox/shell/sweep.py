"""What a killed proxy has left in the spool directory, and its removal (files.stale).

Rule: a file goes only if it is surely left: it bears a name of ours, is a regular file of our own
user, is old, and no living proxy holds the lock on the EMAIL that belongs to it. Names carry no
pid: the directory may be shared with a process in another pid name space.
"""

import os
import re
import stat
import time
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
    left = [path for path in found if _is_left(path)]
    removed = sum(_remove(path) for path in left)
    if removed:
        log.write(levels.WARNING, f"removed {removed} files of a killed proxy from {directory}")


def _is_left(path: Path) -> bool:
    email = path.with_suffix(".email")
    if path.suffix == ".out" and not os.path.lexists(email):
        # Its filter may have removed EMAIL, and still be writing.
        return _is_old(path, limits.STALE_OUTFILE)
    if path.suffix == ".spool":
        return _is_old(path, limits.STALE)
    return _is_old(email, limits.STALE) and _is_unlocked(email)


def _is_old(path: Path, seconds: float) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    return _is_ours(status) and time.time() - max(status.st_mtime, status.st_ctime) > seconds


def _is_ours(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


def _is_unlocked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        os.lockf(descriptor, os.F_TLOCK, 0)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def _remove(path: Path) -> bool:
    try:
        if _is_ours(path.lstat()):
            path.unlink()
            return True
    except OSError:
        pass
    return False
