"""Operating system functions, in a module that is quick to import.

Rule: only this module imports ``posix``, ``_socket`` and ``_signal``.

Postfix starts one process per connection, so every import delays each message. ``os``, ``socket``
and ``signal`` wrap these C modules in enumerations and helpers that a session does not need.
Importing ``os``, ``socket`` and ``signal`` takes longer than starting the interpreter (measured by
``benchmarks/startup.py``). For type checkers, it imports the documented modules instead.
"""

import sys

from .. import TYPE_CHECKING

if TYPE_CHECKING:
    import os as posix
    import signal
    import socket
    from os import environb as environ
else:
    import _signal as signal
    import _socket as socket
    import posix

    environ = posix.environ

__all__ = [
    "accept",
    "add_standard_descriptors",
    "close",
    "environ",
    "file_name",
    "is_regular",
    "is_socket",
    "keep_freed_memory",
    "posix",
    "signal",
    "silence",
    "socket",
]

STDIN, STDOUT, STDERR = 0, 1, 2

# From inode(7). The module `stat` defines the same constants, but importing it takes time.
_FILE_TYPE, _REGULAR, _SOCKET = 0o170000, 0o100000, 0o140000


def add_standard_descriptors() -> None:
    """Open descriptors 0, 1 and 2 if they are closed, so that no socket or spool uses them."""
    while (descriptor := posix.open("/dev/null", posix.O_RDWR)) <= STDERR:
        posix.set_inheritable(descriptor, True)
    posix.close(descriptor)


def silence(descriptor: int) -> None:
    """Redirect `descriptor` to /dev/null."""
    null = posix.open("/dev/null", posix.O_RDWR)
    posix.dup2(null, descriptor)
    posix.close(null)


def close(descriptor: int) -> None:
    """Close `descriptor`. Errors are ignored, because close(2) frees the descriptor in any case."""
    try:
        posix.close(descriptor)
    except OSError:
        pass


def is_socket(descriptor: int) -> bool:
    """Return whether `descriptor` is a socket."""
    return posix.fstat(descriptor).st_mode & _FILE_TYPE == _SOCKET


def accept(listener: socket.socket) -> socket.socket:
    """Accept a client, as ``socket.socket.accept`` does.

    Raises:
        OSError: accept(2) failed.
    """
    descriptor, _ = listener._accept()  # type: ignore[attr-defined]
    return socket.socket(listener.family, listener.type, listener.proto, fileno=descriptor)


def is_regular(status: posix.stat_result) -> bool:
    """Return whether `status`, from fstat(2), describes a regular file."""
    return status.st_mode & _FILE_TYPE == _REGULAR


def file_name(path: str) -> bytes:
    """Encode `path` for the operating system, as os.fsencode does."""
    return path.encode(sys.getfilesystemencoding(), "surrogateescape")


def keep_freed_memory() -> None:
    """Make the C library keep one or two megabytes of freed memory for reuse.

    By default, the library returns the memory of each block of a message to the system. Allocating
    the memory again, page by page, takes as long as all other work on the block. Freeing one large
    object raises the threshold for returning memory (mallopt(3), M_MMAP_THRESHOLD).
    """
    bytes(1 << 20)
