"""What a killed proxy has left in the spool directory, and its removal (files.stale).

Rule: a file goes only if it is surely left: it bears a name of ours, is a regular file of our own
user, is old, and no living proxy holds the lock on the EMAIL or OUTFILE that belongs to it. Names
carry no pid: the directory may be shared with a process in another pid name space.
"""

import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..core import limits, log_levels
from . import log

_NAME = re.compile(r"postprox-[0-9a-f]{16}\.(email|out|spool)")
_LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


def remove_stale_files(directory: str) -> None:
    """Remove what is left in `directory`; what cannot be looked at stays."""
    try:
        found = {path.stem for path in Path(directory).iterdir() if _NAME.fullmatch(path.name)}
    except OSError:
        return  # whoever sends a message is told why it cannot be stored
    removed = sum(_removed(Path(directory, stem)) for stem in found)
    if removed:
        log.write(log_levels.WARNING, f"removed {removed} files of a killed proxy from {directory}")


def _removed(stem: Path) -> int:
    """Remove those files of one message that are left; return how many there were."""
    email, outfile, spool = (stem.with_suffix(suffix) for suffix in (".email", ".out", ".spool"))
    removed = int(_is_old(spool, limits.STALE) and _remove(spool))
    if not _is_our_file(email):
        # Its filter may have removed or replaced EMAIL, and still be writing.
        if _is_old(outfile, limits.STALE_OUTFILE):
            with _locked(outfile) as locked:
                removed += locked and _remove(outfile)
    elif _is_old(email, limits.STALE):
        # A filter that edits EMAIL in place may have put another file under its name.
        with _locked(email) as email_locked, _locked(outfile) as outfile_locked:
            if email_locked and outfile_locked:
                # OUTFILE first: EMAIL is the sign by which the next listener would find it.
                removed += _remove(outfile) + _remove(email)
    return removed


def _is_our_file(path: Path) -> bool:
    try:
        return _is_ours(path.lstat())
    except OSError:
        return False


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
    """Lock a file of ours, and tell whether it could be: otherwise a living proxy holds it.

    Under any other name there is nothing to lock.
    """
    if not _is_our_file(path):
        yield True
        return
    try:
        descriptor = _opened(path)
    except (OSError, NotImplementedError):
        yield False
        return
    try:
        yield _lock(descriptor)
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    """Open a file for reading; its filter may have made it unreadable.

    Raises:
        OSError: it cannot be opened.
        NotImplementedError: its mode cannot be changed, as that of a link.
    """
    try:
        return os.open(path, _LOOK)
    except PermissionError:
        _make_readable(path)
        return os.open(path, _LOOK)


def _make_readable(path: Path) -> None:
    try:
        path.chmod(stat.S_IRUSR, follow_symlinks=False)
    except NotImplementedError:  # a link; or the C library, which wants /proc for it
        if not _is_our_file(path):
            raise
        path.chmod(stat.S_IRUSR)


def _lock(descriptor: int) -> bool:
    """Take a shared lock, for which a descriptor that reads is enough; a proxy's is exclusive."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
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
