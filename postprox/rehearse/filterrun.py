"""The record of a filter run, and the command that writes this record.

Rule: the rehearsal reads only files that it created and opened before the filter started. The
filter's user cannot replace these files.

The proxy runs `observer.py` instead of the filter, and the observer runs the filter.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import observer
from .observer import EMPTY, FILLED, STDERR_KEPT, UNUSABLE, VARIABLES

if TYPE_CHECKING:
    from types import TracebackType

    from .proxy import User

__all__ = ("EMPTY", "FILLED", "UNUSABLE", "VARIABLES", "FilterRun", "Records", "observed", "parses")

#: Matches the exit status, the state of OUTFILE and the duration in seconds.
_END = re.compile(rb"(\d{1,3}) (empty|filled|unusable) (\d{1,9}\.\d{6})\n")


@dataclass(frozen=True)
class FilterRun:
    """One run of the filter."""

    #: The environment variables that the proxy sets.
    environment: dict[str, bytes]
    #: The exit status, 128 + N for signal N, or None if the observer was killed first.
    status: int | None
    #: The last octets of the filter's standard error.
    stderr: bytes
    #: The duration in seconds, or None if the observer was killed first.
    seconds: float | None
    #: The state of OUTFILE.
    outfile: str


def observed(command: str, directory: Path) -> str:
    """Return a command that runs `command` and records this run in `directory`."""
    # With -I and -S, neither the filter's user nor the environment can add modules.
    words = (sys.executable, "-I", "-S", observer.__file__, str(directory), command)
    return f"exec {shlex.join(words)}"


def parses(command: str) -> bool:
    """Return whether the shell can parse a command, without running it."""
    try:
        done = subprocess.run(
            ["/bin/sh", "-n", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    except OSError:
        return True  # There is no usable shell, so the run will report the error.
    return done.returncode == 0


class Records:
    """The records of a filter run, in the new directory `path`.

    If `user` is not None, the directory and the records belong to that user.

    The files stay open until the context ends. The observer unlinks the files.
    """

    def __init__(self, path: Path, user: User | None) -> None:
        self.path = path
        path.mkdir(mode=0o700)
        self._files: dict[str, int] = {}
        for name in observer.RECORDS:
            self._files[name] = os.open(path / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            if user is not None:
                os.fchown(self._files[name], user.uid, user.gid)
        if user is not None:
            os.chown(path, user.uid, user.gid)

    def __enter__(self) -> Records:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for file in self._files.values():
            os.close(file)

    def run(self) -> FilterRun | None:
        """Return the recorded run, or None if the filter was not started."""
        environment = self._read(observer.ENVIRONMENT)
        if not environment:
            return None
        end = _END.fullmatch(self._read(observer.END))
        return FilterRun(
            dict(zip(VARIABLES, environment.split(b"\0")[:-1], strict=False)),
            int(end[1]) if end else None,
            self._read(observer.STDERR),
            float(end[3]) if end else None,
            end[2].decode() if end else EMPTY,
        )

    def _read(self, name: str) -> bytes:
        """Return the last octets of a record."""
        file = self._files[name]
        size = os.fstat(file).st_size
        return os.pread(file, STDERR_KEPT, max(0, size - STDERR_KEPT))
