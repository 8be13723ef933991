"""Where the messages are: files, mailboxes (mbox and Maildir), directories, standard input.

Rule: here they are only found and counted; each is read when its turn comes, so that a mailbox of
any size takes no more memory than its largest message. An empty file is no message. With --user,
root opens no link and no FIFO that belongs to that user.
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

from .errors import CannotRunError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

    from .proxy import User

#: How standard input is named, on the command line and in what is printed.
STANDARD_INPUT = "-"
# The line before each message of an mbox, as mail programs write it: an address and a date.
_FROM = re.compile(rb"From \S+[ \t]+(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)\b")
# The empty line behind each message of an mbox.
_SEPARATOR = re.compile(rb"(?<=\n)\r?\n\Z")
# A line of the message itself that an mbox had to mark (mboxrd).
_QUOTED = re.compile(rb"(?m)^>(>*From )")


@dataclass(frozen=True)
class Source:
    """One message, and where it is.

    name: what it is called; the file's name, and for one of an mbox its number behind it.
    path: the file, None for standard input.
    begin, end: its octets in the file; the end None for all.
    octets: what standard input had.
    user: whose links and FIFOs are not opened, None if it does not matter.
    """

    name: str
    path: Path | None
    begin: int = 0
    end: int | None = None
    octets: bytes = b""
    user: User | None = None

    @property
    def boxed(self) -> bool:
        """Whether it is one of the messages of an mbox."""
        return self.begin > 0 or self.end is not None

    def read(self) -> bytes:
        """Return the message, without what belongs to the mailbox.

        Raises:
            OSError: it cannot be read.
        """
        if self.path is None:
            text = self.octets
        else:
            with _opened(self.path, self.user) as file:
                if self.begin:
                    file.seek(self.begin)
                text = file.read() if self.end is None else file.read(self.end - self.begin)
        return _QUOTED.sub(rb"\1", _SEPARATOR.sub(b"", text)) if self.boxed else text


def _opened(path: Path, user: User | None) -> BinaryIO:
    """Open a file for reading.

    Raises:
        OSError: it cannot be opened, or it is a link or a FIFO of the user.
    """
    if user is None:
        return path.open("rb")
    is_link = path.is_symlink()
    refused = PermissionError(errno.EPERM, f"a link or FIFO of user {user.name}", str(path))
    if is_link and path.lstat().st_uid == user.uid:
        raise refused
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
    file = os.fdopen(os.open(path, flags if is_link else flags | os.O_NOFOLLOW), "rb")
    seen = os.fstat(file.fileno())
    if seen.st_uid == user.uid and not stat.S_ISREG(seen.st_mode):
        file.close()
        raise refused
    os.set_blocking(file.fileno(), True)
    return file


def found(paths: Iterable[Path], user: User | None = None) -> list[Source]:
    """Return the messages that `paths` name; no link or FIFO of the user is opened.

    Raises:
        CannotRunError: some of them cannot be read, or hold no message; each is named.
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
    if wrong:
        raise CannotRunError("; ".join(wrong))
    return sources


def files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the files that `paths` name, as far as they are there."""
    for path in paths:
        try:
            yield from _listed(path) if path.is_dir() else (path,)
        except (OSError, CannotRunError):
            continue


def _found(path: Path, user: User | None) -> list[Source]:
    if str(path) == STANDARD_INPUT:
        octets = sys.stdin.buffer.read()
        sources = [Source(STANDARD_INPUT, None, octets=octets)] if octets else []
    elif path.is_dir():
        sources = [each for file in _listed(path) for each in _in_directory(file, user)]
    else:
        sources = _in_file(path, user)
    if not sources:
        raise CannotRunError(f"no message in {str(path)!r}: it is empty")
    return sources


def _in_directory(path: Path, user: User | None) -> list[Source]:
    """Return the messages in a file; the failure of one that cannot be read waits for its turn."""
    try:
        return _in_file(path, user)
    except OSError:
        return [Source(str(path), path, user=user)]


def _listed(directory: Path) -> list[Path]:
    """Return the files of a directory and of those in it."""
    listed = list(_below(directory))
    if not listed:
        raise CannotRunError(f"no message in the directory {str(directory)!r}")
    return listed


def _below(directory: Path) -> Iterator[Path]:
    if all((directory / name).is_dir() for name in ("cur", "new")):
        yield from _maildir(directory)
        return
    for path in sorted(directory.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _below(path)
        elif path.is_file():
            yield path


def _maildir(directory: Path) -> Iterator[Path]:
    """Yield what has been delivered into a Maildir and its folders, but not what is in tmp/."""
    for name in ("new", "cur"):
        files = sorted((directory / name).iterdir())
        yield from (file for file in files if file.is_file() and not file.name.startswith("."))
    for path in sorted(directory.iterdir()):
        if path.is_dir() and path.name not in ("new", "cur", "tmp"):
            yield from _below(path)


def _in_file(path: Path, user: User | None) -> list[Source]:
    """Return the message in a file, or the messages if it is an mbox; none if it is empty."""
    name = str(path)
    with _opened(path, user) as file:
        seen = os.fstat(file.fileno())
        if not stat.S_ISREG(seen.st_mode):
            # A pipe, as in <(command), can be read only once.
            octets = file.read()
            return [Source(name, None, octets=octets)] if octets else []
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


def _beginnings(lines: Iterable[bytes]) -> Iterator[tuple[int, int]]:
    """Yield where each "From " line of an mbox begins, and where its message does."""
    at = 0
    blank = True
    for line in lines:
        if blank and _FROM.match(line):
            yield at, at + len(line)
        elif not at:
            return  # an mbox begins with one
        blank = line in (b"\n", b"\r\n")
        at += len(line)
