"""Finds messages in files, mailboxes (mbox and Maildir), directories and standard input.

Rule: this module finds and counts the messages. Each message is read only when it is sent, so the
required memory depends on the largest message and not on the mailbox. An empty file is not a
message. If a message cannot be read, the other messages are still sent.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .access import DIRECTORY, FILE, LINK, Access
from .errors import CannotRunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import BinaryIO

    from .proxy import User

#: The name of standard input on the command line and in the output.
STANDARD_INPUT = "-"
#: The maximum size of a message in octets. A sparse file or a device can be arbitrarily large.
LIMIT = 1 << 28
_TOO_LARGE = f"larger than {LIMIT >> 20} MiB"
#: The maximum number of octets to read at once from a line.
_LINE = 1 << 16
# The line before each message in an mbox, which contains an address and a date.
_FROM = re.compile(rb"From \S+[ \t]+(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)\b")
# The empty line after each message in an mbox.
_SEPARATOR = re.compile(rb"(?<=\n)\r?\n\Z")
# A quoted "From " line in the message itself (mboxrd).
_QUOTED = re.compile(rb"(?m)^>(>*From )")


@dataclass(frozen=True)
class Source:
    """One message and its position."""

    #: The file name, followed by the number of the message if the file is an mbox.
    name: str
    #: The file, or None for standard input and for a pipe.
    path: Path | None
    #: The position of the message in the file, in octets. If the end is None, the message is the
    #: whole file.
    begin: int = 0
    end: int | None = None
    #: The content of a message without a `path`. None if this content is too large.
    octets: bytes | None = b""
    #: If the process runs as root, the user whose rights it uses to open the file. None for its own
    #: rights.
    user: User | None = None

    @property
    def in_mbox(self) -> bool:
        """Whether the file is an mbox."""
        return self.begin > 0 or self.end is not None

    def read(self) -> bytes:
        """Return the message without the separator lines of the mbox.

        Raises:
            OSError: the message cannot be read or is too large.
        """
        if self.path is None:
            text = self.octets
        else:
            with Access(self.user).open(self.path) as file:
                seen = os.fstat(file.fileno())
                end = seen.st_size if self.end is None else self.end
                regular = stat.S_ISREG(seen.st_mode)
                if regular and end - self.begin > LIMIT:
                    text = None
                elif self.in_mbox:
                    file.seek(self.begin)
                    text = file.read(end - self.begin)
                else:
                    text = _bounded(file)
        if text is None:
            raise OSError(errno.EFBIG, _TOO_LARGE, self.name)
        return _QUOTED.sub(rb"\1", _SEPARATOR.sub(b"", text)) if self.in_mbox else text


def _bounded(file: BinaryIO) -> bytes | None:
    """Return the rest of a file, or None if the rest is too large."""
    pieces = []
    size = 0
    while size <= LIMIT and (piece := file.read(1 << 20)):
        pieces.append(piece)
        size += len(piece)
    return None if size > LIMIT else b"".join(pieces)


def found(paths: Iterable[Path], user: User | None = None) -> list[Source]:
    """Return the messages in `paths`, opened with the rights of `user`.

    Raises:
        CannotRunError: some paths cannot be read or contain no message. The error lists these
            paths.
    """
    sources: list[Source] = []
    wrong = []
    for path in paths:
        try:
            sources += _found(path, user)
        except CannotRunError as error:
            wrong.append(str(error))
        except OSError as error:
            name = str(error.filename or path)
            wrong.append(f"cannot read the message {name!r}: {error.strerror}")
        except MemoryError:
            wrong.append(
                f"cannot read the message {str(path)!r}: too large for the available memory"
            )
    if wrong:
        raise CannotRunError("; ".join(wrong))
    return sources


def files(paths: Iterable[Path], user: User | None = None) -> Iterator[Path]:
    """Yield each existing file in `paths`, and the files in each directory in `paths`."""
    access = Access(user)
    for path in paths:
        try:
            directory = stat.S_ISDIR(access.mode(path))
            yield from _files(access, path) if directory else (path,)
        except OSError:
            continue


def _found(path: Path, user: User | None) -> list[Source]:
    access = Access(user)
    if str(path) == STANDARD_INPUT:
        if sys.stdin is None:
            raise CannotRunError("standard input is closed")
        sources = _once(STANDARD_INPUT, sys.stdin.buffer)
    elif stat.S_ISDIR(access.mode(path)):
        listed = list(_files(access, path))
        if not listed:
            raise CannotRunError(f"no message in the directory {str(path)!r}")
        sources = [each for file in listed for each in _in_directory(file, user)]
    else:
        sources = _in_file(path, user)
    if not sources:
        raise CannotRunError(f"no message in {str(path)!r}: it is empty")
    return sources


def _once(name: str, file: BinaryIO) -> list[Source]:
    """Read a file that can be read only once."""
    octets = _bounded(file)
    return [] if octets == b"" else [Source(name, None, octets=octets)]


def _in_directory(path: Path, user: User | None) -> list[Source]:
    """Return the messages in a file that was found in a directory.

    If the file cannot be opened, it counts as one message, and reading this message fails later.
    """
    try:
        return _in_file(path, user)
    except OSError:
        return [Source(str(path), path, user=user)]


def _files(access: Access, top: Path) -> Iterator[Path]:
    """Yield the files in a directory and its subdirectories, in order.

    If a subdirectory cannot be listed, its own path is yielded. The function is not recursive,
    because directories may be nested more deeply than Python's recursion limit.
    """
    pending = [(top, DIRECTORY)]
    while pending:
        path, kind = pending.pop()
        if kind != DIRECTORY:
            yield path
            continue
        try:
            inside = _inside(access, path)
        except OSError:
            if path == top:
                raise
            yield path
        else:
            pending += reversed(inside)


def _inside(access: Access, directory: Path) -> list[tuple[Path, str]]:
    """Return the files and directories in a directory, except links to directories."""
    entries = access.entries(directory)
    if not all(_is(stat.S_ISDIR, access, directory / name, entries) for name in ("cur", "new")):
        return [
            (directory / name, kind if kind == DIRECTORY else FILE)
            for name, kind in entries.items()
            if not name.startswith(".")
            and (kind == DIRECTORY or _is(stat.S_ISREG, access, directory / name, entries))
        ]
    # A Maildir contains delivered messages and subfolders. Messages in tmp/ are incomplete.
    inside = []
    for name in ("new", "cur"):
        try:
            messages = access.entries(directory / name)
        except OSError:
            inside.append((directory / name, FILE))  # Opening this path will report the error.
            continue
        inside += [
            (directory / name / message, FILE)
            for message in messages
            if not message.startswith(".")
            and _is(stat.S_ISREG, access, directory / name / message, messages)
        ]
    folders = (name for name, kind in entries.items() if kind == DIRECTORY)
    inside += [
        (directory / name, DIRECTORY) for name in folders if name not in ("new", "cur", "tmp")
    ]
    return inside


def _is(test: Callable[[int], bool], access: Access, path: Path, entries: dict[str, str]) -> bool:
    """Return whether `test` accepts the type of an entry. For a link, test the target's type."""
    kind = entries.get(path.name)
    if kind != LINK:
        return kind == (DIRECTORY if test is stat.S_ISDIR else FILE)
    try:
        return test(access.mode(path))
    except PermissionError:
        return test is stat.S_ISREG  # The error is reported when the file is opened.
    except OSError:
        return False


def _in_file(path: Path, user: User | None) -> list[Source]:
    """Return the message in a file, the messages in an mbox, or no message if the file is empty."""
    name = str(path)
    with Access(user).open(path) as file:
        seen = os.fstat(file.fileno())
        if not stat.S_ISREG(seen.st_mode):
            # Such a file can be a pipe from <(command), for example.
            return _once(name, file)
        begins = list(_beginnings(file))
    if not seen.st_size:
        return []
    if len(begins) < 2:
        return [Source(name, path, user=user)]
    ends = [at for at, _ in begins[1:]]
    return [
        Source(f"{name}:{number}", path, begin, end, user=user)
        for number, ((_, begin), end) in enumerate(
            zip(begins, [*ends, seen.st_size], strict=True), 1
        )
    ]


def _beginnings(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """For each message in an mbox, yield the positions of its "From " line and its first line."""
    at = 0
    blank = whole = True
    while line := file.readline(_LINE):
        if blank and _FROM.match(line):
            yield at, at + len(line)
        elif not at:
            return  # The file is not an mbox, which begins with a "From " line.
        blank = whole and line in (b"\n", b"\r\n")
        whole = line.endswith(b"\n")
        at += len(line)
