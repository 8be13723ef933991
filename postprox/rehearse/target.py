"""The --junit file.

Rule: regular files are replaced atomically, and missing files are created atomically. Devices,
FIFOs and file descriptors are written to, but never replaced. A symbolic link is refused, because
another user could create a link in /tmp.
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
from typing import TYPE_CHECKING

from .access import DESCRIPTOR
from .errors import CannotRunError

if TYPE_CHECKING:
    from pathlib import Path

_STREAMS = {"stdout": 1, "stderr": 2}


def is_descriptor(path: Path) -> bool:
    """Return whether a path names a file descriptor of this process."""
    return DESCRIPTOR.fullmatch(str(path)) is not None and path.name != "stdin"


def problem(path: Path) -> str:
    """Return the reason why XML cannot be written to `path`, or "".

    Raises:
        OSError: the file system does not accept the path.
    """
    if is_descriptor(path):
        return ""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and _is_stream(mode):
        return "" if os.access(path, os.W_OK) else "cannot be written to"
    if mode is not None and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        return "must be a file, not a symbolic link, block device or socket"
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        return "must be a file in a writable directory"
    return ""


def write(path: Path, text: bytes) -> None:
    """Write the document.

    Raises:
        CannotRunError: the file cannot be written.
    """
    try:
        why = problem(path)
        if why:
            raise CannotRunError(f"--junit {str(path)!r}: {why}")
        if is_descriptor(path):
            sys.stdout.flush()
            # Opening a regular file again would overwrite its beginning.
            with os.fdopen(os.dup(_STREAMS.get(path.name) or int(path.name)), "wb") as file:
                file.write(text)
        elif path.exists() and _is_stream(path.lstat().st_mode):
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NOCTTY), "wb") as file:
                file.write(text)
        else:
            _replace(path, text)
    except OSError as error:
        raise CannotRunError(f"cannot write {str(path)!r}: {error.strerror}") from None


def _is_stream(mode: int) -> bool:
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def _replace(path: Path, text: bytes) -> None:
    # If the name were predictable, another user could create a link with this name in /tmp.
    temporary = path.with_name(f".junit-{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.write(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
