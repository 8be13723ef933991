"""Writes the files that a server provides to other programs (`--metrics`, `--pid-file`).

Rule: this module never opens an existing file. The module writes a new file with a unique name in
FILE's directory, and renames it to FILE. An existing link or FIFO with either name therefore has no
effect, and a reader of FILE never sees partial contents.
"""

import errno
import os
import stat

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: The file is world-readable, because its readers run as other users.
_MODE = 0o644
#: The name of a new file. The name contains the process ID of the writer and a random part that
#: other users cannot predict. The name does not end with .prom, so Prometheus' collector ignores
#: the file.
_NAME = r"\.postprox-([0-9]{1,9})-[0-9a-f]{16}"
#: Renaming a file to /dev/stdout or /dev/null would replace the device for all processes.
_DEVICES = "/dev"


def replace(path: str, content: bytes) -> int:
    """Write `content` to a new file, rename it to `path`, and return its descriptor for writing.

    Raises:
        OSError: the file cannot be written. The error's `filename` is `path`.
    """
    directory = _directory(path)
    new = os.path.join(directory, f".postprox-{os.getpid()}-{os.urandom(8).hex()}")
    descriptor = -1
    try:
        _refuse_devices(directory)
        descriptor = os.open(new, _NEW, _MODE)
        os.fchmod(descriptor, _MODE)  # the umask does not apply
        write(descriptor, content)
        os.replace(new, path)
    except OSError as error:
        if descriptor >= 0:
            os.close(descriptor)
            _remove(new)
        raise OSError(error.errno, error.strerror, path) from None
    return descriptor


def write(descriptor: int, content: bytes) -> None:
    """Write `content` at the start of the file, in one system call if possible.

    Raises:
        OSError: the file cannot be written.
    """
    written = 0
    while written < len(content):
        written += os.pwrite(descriptor, content[written:], written)


def remove_stale(path: str) -> None:
    """Remove new files that were not renamed to `path`, because their processes were killed.

    A process in another PID namespace may appear to have exited. In that case, the file is removed,
    and the process's next rename fails.
    """
    import re  # imported here, so that a server without such files starts faster

    directory = _directory(path)
    try:
        found = [re.fullmatch(_NAME, name) for name in os.listdir(directory)]
    except OSError:
        return
    for name in found:
        if name and not _is_alive(int(name[1])):
            _remove(os.path.join(directory, name[0]))


def _directory(path: str) -> str:
    return os.path.dirname(path) or os.curdir


def _refuse_devices(directory: str) -> None:
    if os.path.realpath(directory) == _DEVICES:
        raise OSError(errno.EPERM, "it would replace a device")


def _is_alive(pid: int) -> bool:
    """Return whether another process has this ID.

    Return False for the ID of this process. If a file name already contains the ID of this process,
    an earlier process with the same ID wrote the file, so the file is stale.
    """
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # the process runs as another user
    return True


def _remove(path: str) -> None:
    """Remove `path` if it is a regular file of this user."""
    try:
        status = os.lstat(path)
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
            os.unlink(path)
    except OSError:
        pass  # another process has removed it, or the directory is not writable
