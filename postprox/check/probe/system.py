"""Opens regular files, and defines the search paths of programs.

Rule: this module only reads data and makes no decisions.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

from .. import machine
from ..postconf import UnreadableError

#: The PATH of commands started by spawn(8), and of commands started by systemd.
SPAWN_PATH = "/usr/bin:/bin"
SYSTEMD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: The timeout in seconds. postconf(1) can block on a FIFO, faccessat(2) on a network file system.
TIMEOUT = 10.0
#: The maximum size of a unit, drop-in or environment file, in octets.
LARGEST_FILE = 1 << 16


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file. A read from any other file, such as a FIFO, may never return.

    Raises:
        UnreadableError: the file is not a regular file.
        OSError: the file cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnreadableError(f"{path} is not a regular file")
    return os.fdopen(descriptor, "rb")


def read_text(path: Path) -> str:
    """Read a systemd file.

    Raises:
        UnreadableError: the file is not a text file or is larger than `LARGEST_FILE`.
        OSError: the file cannot be opened.
    """
    with open_regular(path) as file:
        octets = file.read(LARGEST_FILE + 1) or b""  # read() returns None if it would block
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text or len(octets) > LARGEST_FILE:
        raise UnreadableError(f"{path} must be a text file of at most {LARGEST_FILE} octets")
    return text


def names_in(directory: str) -> list[str]:
    try:
        return [each.name for each in Path(directory).iterdir()]
    except OSError:
        return []


def target_of(path: str) -> str:
    """Return the path with symbolic links resolved, or "" if it contains none."""
    real = os.path.realpath(path)
    return "" if real == path.rstrip("/") else real


def read_script(path: str) -> bytes:
    """Read a script. Return b"" if the file is a binary program or cannot be read."""
    try:
        with open_regular(path) as file:
            text = file.read(machine.LARGEST_SCRIPT) or b""
    except (OSError, UnreadableError):
        return b""
    return b"" if text.startswith(b"\x7fELF") else text


def is_tmpfs(directory: str) -> bool:
    """Return whether a tmpfs is mounted on the directory."""
    with contextlib.suppress(OSError):
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
        return [directory, "tmpfs"] in [mount[1:3] for mount in mounts]
    return False
