"""The names of the operating system that the proxy uses, imported in the cheapest way.

Rule: only this module imports ``posix``, ``_socket`` and ``_signal``.

Postfix starts one process for every connection, so every import is paid for by every mail.
``os``, ``socket`` and ``signal`` wrap these C modules in enumerations and helpers that no session
needs; together they cost more than the interpreter's own start (``benchmarks/startup.py``
measures it). Type checkers see the documented modules instead.
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

# inode(7); the module `stat` has them too, for the price of an import.
_FILE_TYPE, _REGULAR, _SOCKET = 0o170000, 0o100000, 0o140000


def add_standard_descriptors() -> None:
    """Make sure that descriptors 0, 1 and 2 exist, so that no socket or spool can become one."""
    while (descriptor := posix.open("/dev/null", posix.O_RDWR)) <= STDERR:
        posix.set_inheritable(descriptor, True)
    posix.close(descriptor)


def silence(descriptor: int) -> None:
    """Point `descriptor` at /dev/null, whatever it was."""
    null = posix.open("/dev/null", posix.O_RDWR)
    posix.dup2(null, descriptor)
    posix.close(null)


def close(descriptor: int) -> None:
    """Close `descriptor`, which is gone even where close(2) reports an error."""
    try:
        posix.close(descriptor)
    except OSError:
        pass


def is_socket(descriptor: int) -> bool:
    """Whether `descriptor` is a socket."""
    return posix.fstat(descriptor).st_mode & _FILE_TYPE == _SOCKET


def is_regular(status: posix.stat_result) -> bool:
    """Whether `status`, as fstat(2) returns it, is that of a regular file."""
    return status.st_mode & _FILE_TYPE == _REGULAR


def file_name(path: str) -> bytes:
    """Return the octets by which the operating system knows `path`, as os.fsencode does."""
    return path.encode(sys.getfilesystemencoding(), "surrogateescape")


def keep_freed_memory() -> None:
    """Let the C library keep memory that is freed, a megabyte or two, for the next block.

    It would give every block of a message back to the system and get it anew, page by page, which
    costs as much as all that is done to the block. Freeing one large piece raises the size from
    which it does so (mallopt(3), M_MMAP_THRESHOLD).
    """
    bytes(1 << 20)
