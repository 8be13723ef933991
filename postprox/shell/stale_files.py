"""Removes files that killed proxies left behind in the spool directory (files.stale).

Rule: a file is removed only if it is an old regular file of this user and its name has the form
that postprox uses. A file is not removed while a running proxy holds a lock on EMAIL or OUTFILE of
the same message. Names do not contain a process ID, because processes in other PID namespaces may
share the directory.

Logs: the number of removed files.
"""

import fcntl
import os
import stat
import time

from ..core import limits, log_levels
from . import log

_PREFIX, _SUFFIXES = "postprox-", ("email", "out", "spool")
#: The random part of a name.
_LENGTH, _DIGITS = 16, frozenset("0123456789abcdef")
_LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


def remove_stale_files(directory: str) -> None:
    """Remove stale files in `directory` and ignore errors."""
    try:
        found = {stem for name in os.listdir(directory) if (stem := _stem(name))}
    except OSError:
        return  # the reply to the next message will report the error
    removed = sum(_removed(os.path.join(directory, stem)) for stem in found)
    if removed:
        log.write(
            log_levels.WARNING, f"removed {removed} stale files of a killed proxy from {directory}"
        )


def _stem(name: str) -> str:
    """Return the part of a file name that all files of a message share.

    Return "" if the name does not belong to a file of a message.
    """
    stem, _, suffix = name.partition(".")
    random = stem.removeprefix(_PREFIX)
    is_ours = stem != random and len(random) == _LENGTH and _DIGITS.issuperset(random)
    return stem if is_ours and suffix in _SUFFIXES else ""


def _removed(stem: str) -> int:
    """Remove the stale files of one message, and return their number."""
    email, outfile, spool = (f"{stem}.{suffix}" for suffix in _SUFFIXES)
    removed = int(_is_old(spool, limits.STALE) and _remove(spool))
    if not _is_our_file(email):
        # The filter may have removed or replaced EMAIL, and may still be writing to OUTFILE.
        if _is_old(outfile, limits.STALE_OUTFILE):
            with _Lock(outfile) as locked:
                removed += locked and _remove(outfile)
    elif _is_old(email, limits.STALE):
        # A filter that edits EMAIL may replace it with an unlocked file.
        with _Lock(email) as email_locked, _Lock(outfile) as outfile_locked:
            if email_locked and outfile_locked:
                # Remove OUTFILE first, because without EMAIL the next server would not find
                # OUTFILE.
                removed += _remove(outfile) + _remove(email)
    return removed


def _is_our_file(path: str) -> bool:
    try:
        return _is_ours(os.lstat(path))
    except OSError:
        return False


def _is_old(path: str, seconds: float) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return _is_ours(status) and time.time() - max(status.st_mtime, status.st_ctime) > seconds


def _is_ours(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


class _Lock:
    """A context manager that locks a file.

    Its value is False after an error, or if a running proxy holds the lock. Its value is True if
    the file has been locked, or if there is no regular file of this user.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> bool:
        if not _is_our_file(self._path):
            return True
        try:
            self._descriptor = _opened(self._path)
        except (OSError, NotImplementedError):
            return False
        return _takes_lock(self._descriptor)

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


def _opened(path: str) -> int:
    """Open a file for reading, even if the filter has made it unreadable.

    Raises:
        OSError: the file cannot be opened.
        NotImplementedError: the mode cannot be changed, for example because the file is a link.
    """
    try:
        return os.open(path, _LOOK)
    except PermissionError:
        _make_readable(path)
        return os.open(path, _LOOK)


def _make_readable(path: str) -> None:
    try:
        os.chmod(path, stat.S_IRUSR, follow_symlinks=False)
    except NotImplementedError:  # the file is a link, or the C library cannot use /proc
        if not _is_our_file(path):
            raise
        os.chmod(path, stat.S_IRUSR)


def _takes_lock(descriptor: int) -> bool:
    """Try to take a shared lock, which requires only read access. Proxies lock exclusively."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove(path: str) -> bool:
    try:
        if _is_ours(os.lstat(path)):
            os.unlink(path)
            return True
    except OSError:
        pass
    return False
