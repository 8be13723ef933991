"""The files that a server writes for other programs (`--metrics`, `--pid-file`).

Rule: nothing that exists is opened. A file is written under a name of its own, in the directory
of FILE, and renamed to FILE. So a link or a FIFO in either place has no effect, and a reader of
FILE never sees half of its contents.
"""

import errno
import os
import re
import stat
from pathlib import Path

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: Readers run as other users.
_MODE = 0o644
#: A new file's name: the pid of its writer, and a random part that no other user can foresee. It
#: does not end with .prom, so Prometheus' collector does not read it.
_NAME = re.compile(r"\.postprox-([0-9]{1,9})-[0-9a-f]{16}")
#: A rename to /dev/stdout or /dev/null would remove that name from the machine.
_DEVICES = "/dev"


def replace(path: Path, content: bytes) -> int:
    """Rename a new file with `content` to `path`; return its descriptor, open for writing.

    Raises:
        OSError: it cannot be written; its `filename` is `path`.
    """
    new = path.parent / f".postprox-{os.getpid()}-{os.urandom(8).hex()}"
    descriptor = -1
    try:
        _refuse_devices(path)
        descriptor = os.open(new, _NEW, _MODE)
        os.fchmod(descriptor, _MODE)  # whatever the umask
        write(descriptor, content)
        new.replace(path)
    except OSError as error:
        if descriptor >= 0:
            os.close(descriptor)
            _remove(new)
        raise OSError(error.errno, error.strerror, str(path)) from None
    return descriptor


def write(descriptor: int, content: bytes) -> None:
    """Write all of `content` from the file's beginning on, in one write if the system does so.

    Raises:
        OSError: it cannot be written.
    """
    written = 0
    while written < len(content):
        written += os.pwrite(descriptor, content[written:], written)


def remove_stale(directory: Path) -> None:
    """Remove the new files that processes left because they were killed before the rename.

    A process in another pid name space may be taken for a killed one. Then its rename fails once.
    """
    try:
        found = [(path, _NAME.fullmatch(path.name)) for path in directory.iterdir()]
    except OSError:
        return
    for path, name in found:
        if name and not _is_alive(int(name[1])):
            _remove(path)


def _refuse_devices(path: Path) -> None:
    if os.path.realpath(path.parent) == _DEVICES:
        raise OSError(errno.EPERM, "it would replace a device")


def _is_alive(pid: int) -> bool:
    """Whether another process with this id runs; the id of this one belonged to an earlier one."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it runs as another user
    return True


def _remove(path: Path) -> None:
    """Remove `path` if it is a regular file of this user."""
    try:
        status = path.lstat()
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
            path.unlink()
    except OSError:
        pass  # another process has removed it, or the directory allows no removal
