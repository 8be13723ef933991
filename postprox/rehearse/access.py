"""Opens message files with the rights of the user that --user specifies.

Rule: a command that runs as root opens files and directories with the rights of the `--user`
account. It uses root's rights only for paths that this account cannot change. Otherwise, the
account could make the command open any file through a symbolic link.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from .proxy import User

#: The types of directory entries.
DIRECTORY, LINK, FILE, OTHER = "directory", "link", "file", "other"
#: Matches paths that name a file descriptor of this process, such as <(command).
DESCRIPTOR = re.compile(r"/dev/(?:stdin|stdout|stderr|fd/\d+)|/proc/self/fd/\d+")
#: The maximum number of symbolic links in a path, as in Linux.
_MAX_LINKS = 40


class Access:
    """Accesses files. If this process runs as root, it uses the rights of `user`."""

    def __init__(self, user: User | None) -> None:
        self._user = None if user is None or os.geteuid() or not user.uid else user

    def open(self, path: Path) -> BinaryIO:
        """Open a file for reading.

        Raises:
            OSError: the file cannot be opened, or it is a FIFO or device that belongs to the user.
        """
        if self._user is None or DESCRIPTOR.fullmatch(str(path)):
            return path.open("rb")
        # Opening a FIFO that has no writer would block.
        file = self._descriptor(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            seen = os.fstat(file)
            if seen.st_uid == self._user.uid and not stat.S_ISREG(seen.st_mode):
                why = f"it is not a regular file and belongs to the user {self._user.name}"
                raise PermissionError(errno.EPERM, why, str(path))
            os.set_blocking(file, True)
            return os.fdopen(file, "rb")
        except OSError:
            os.close(file)
            raise

    def mode(self, path: Path) -> int:
        """Return the mode of a file, or of the target of a link.

        Raises:
            OSError: there is no such file, or access is denied.
        """
        if self._user is None or DESCRIPTOR.fullmatch(str(path)):
            return path.stat().st_mode
        file = self._descriptor(path, os.O_PATH)
        try:
            return os.fstat(file).st_mode
        finally:
            os.close(file)

    def entries(self, directory: Path) -> dict[str, str]:
        """Return the sorted names in a directory, with their types.

        Raises:
            OSError: the directory cannot be listed.
        """
        file = self._descriptor(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with os.scandir(file) as found:
                return {
                    each.name: _kind(each) for each in sorted(found, key=lambda each: each.name)
                }
        finally:
            os.close(file)

    def _descriptor(self, path: Path, flags: int) -> int:
        if self._user is None:
            return os.open(path, flags)
        try:
            with _rights_of(self._user):
                return os.open(path, flags)
        except PermissionError:
            return _open_as_root(path, flags, self._user)


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return LINK
    if entry.is_dir(follow_symlinks=False):
        return DIRECTORY
    return FILE if entry.is_file(follow_symlinks=False) else OTHER


@contextlib.contextmanager
def _rights_of(user: User) -> Iterator[None]:
    """Set the effective user ID and group ID to the IDs of `user` until the context ends.

    As under spawn(8), the only supplementary group is the user's primary group.
    """
    groups, group = os.getgroups(), os.getegid()
    try:
        os.setgroups([user.gid])
        os.setegid(user.gid)
        os.seteuid(user.uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def _open_as_root(path: Path, flags: int, user: User) -> int:
    """Open a file that the user cannot read, one path component at a time.

    Raises:
        PermissionError: the user could have changed the target of the path.
    """
    here = os.open("/" if path.is_absolute() else ".", os.O_PATH | os.O_DIRECTORY)
    names = _reversed_names(path) or ["."]
    links = 0
    try:
        while True:
            directory = os.fstat(here)
            name = names.pop()
            step = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=here)
            seen = os.fstat(step)
            if _can_change(user, directory) or _can_be_planted(user, directory, seen):
                os.close(step)
                why = f"permission denied for the user {user.name}"
                raise PermissionError(errno.EACCES, why, str(path))
            if stat.S_ISLNK(seen.st_mode):
                target = Path(os.readlink("", dir_fd=step))
                os.close(step)
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
                names += _reversed_names(target)
                if target.is_absolute():
                    os.close(here)
                    here = os.open("/", os.O_PATH | os.O_DIRECTORY)
                names = names or ["."]
            elif names:
                os.close(here)
                here = step
            else:
                os.close(step)
                # Only root can replace the file between the check and this call.
                return os.open(name, flags | os.O_NOFOLLOW, dir_fd=here)
    finally:
        os.close(here)


def _reversed_names(path: Path) -> list[str]:
    return [name for name in reversed(path.parts) if name != path.anchor]


def _can_change(user: User, directory: os.stat_result) -> bool:
    """Return whether the user could replace entries of a directory.

    The user is assumed to be in every group except root's.
    """
    mode = directory.st_mode
    writable = mode & stat.S_IWOTH or (mode & stat.S_IWGRP and directory.st_gid)
    return directory.st_uid == user.uid or bool(writable and not mode & stat.S_ISVTX)


def _can_be_planted(user: User, directory: os.stat_result, seen: os.stat_result) -> bool:
    """Return whether the user may have created an entry in a directory such as /tmp."""
    if not directory.st_mode & (stat.S_IWOTH | stat.S_IWGRP):
        return False
    hard_link = stat.S_ISREG(seen.st_mode) and seen.st_nlink > 1
    return seen.st_uid == user.uid or hard_link
