"""How the filter's run is observed: the command that the proxy is given instead of the user's.

Rule: nothing that the proxy can see of the filter changes: exit status, standard error, death by
a signal, the process group and with it the time limit. What is recorded goes to a directory.

The files that are read afterwards belong to the filter's user, who may have put anything in their
place: a link, a FIFO, any octets. `Records` opens nothing but regular files of that user.

The user's command runs as `sh -c CMD`, as it would without this. Its standard error goes to a
file, so that nothing is lost when the filter is killed, and from there to the proxy.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from .proxy import User

VARIABLES = (
    *("EMAIL", "OUTFILE", "SENDER", "RECIPIENT", "REMOTEIP", "HELO"),
    *("RECIPIENTS", "RECIPIENTCOUNT", "QUEUE_ID", "CLIENT_NAME"),
)
#: What is kept of standard error: its end.
STDERR_KEPT = 1 << 18
#: What the filter has made of OUTFILE.
EMPTY, FILLED, UNUSABLE = "empty", "filled", "unusable"
_MADE = {word.encode(): word for word in (EMPTY, FILLED, UNUSABLE)}
#: An exit status in digits.
_STATUS = re.compile(rb"[0-9]{1,3}")

# PYTHONPATH is the rehearsal's; spawn(8) does not set it. The parentheses keep what this shell has
# to say of a killed command ("Killed") out of the file. A status above 128 is how a shell says that
# a signal has killed a command: pass it on as such (but no signal that only stops).
_SNIPPET = r"""
printf '%s\0' {2} >{0}/environment
unset PYTHONPATH
(exec sh -c {1} 2>{0}/stderr)
rehearsed=$?
: >{0}/end
if [ -h "$OUTFILE" ]; then echo unusable
elif [ ! -e "$OUTFILE" ]; then echo empty
elif [ ! -f "$OUTFILE" ] || [ ! -r "$OUTFILE" ]; then echo unusable
elif [ -s "$OUTFILE" ]; then echo filled
else echo empty; fi >{0}/outfile
cat {0}/stderr >&2
printf '%s\n' "$rehearsed" >{0}/status
if [ "$rehearsed" -gt 128 ]; then
    case $(kill -l "$rehearsed" 2>/dev/null) in
    '' | STOP | TSTP | TTIN | TTOU) ;;
    *) ulimit -c 0; kill -s "$(kill -l "$rehearsed")" $$ ;;
    esac
fi
exit "$rehearsed"
"""


@dataclass(frozen=True)
class FilterRun:
    """One run of the filter.

    environment: the variables that the proxy sets.
    status: as the shell has it, 128 + N for signal N; None if it was killed before its end.
    stderr: the end of its standard error.
    seconds: how long it ran; None if it was killed before its end.
    outfile: what it has made of OUTFILE.
    """

    environment: dict[str, bytes]
    status: int | None
    stderr: bytes
    seconds: float | None
    outfile: str


def observed(command: str, directory: Path) -> str:
    """Return a command that runs `command` and records it in `directory`."""
    values = " ".join(f'"${name}"' for name in VARIABLES)
    return _SNIPPET.format(shlex.quote(str(directory)), shlex.quote(command), values)


class Records:
    """A new directory for the records, which belongs to `user` if there is one.

    It stays open while the context lasts: the user can put another directory at its path.
    """

    def __init__(self, path: Path, user: User | None) -> None:
        self.path = path
        path.mkdir()
        self._directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        if user is not None:
            os.fchown(self._directory, user.uid, user.gid)
        self._owner = os.fstat(self._directory).st_uid

    def __enter__(self) -> Records:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._directory)

    def run(self) -> FilterRun | None:
        """Return what was recorded, None if the filter was not run."""
        environment, begin = self._read("environment")
        if begin is None:
            return None
        status = self._read("status")[0].strip()
        stderr = self._read("stderr")[0]
        end = self._read("end")[1]
        made = self._read("outfile")[0].strip()
        return FilterRun(
            dict(zip(VARIABLES, environment.split(b"\0")[:-1], strict=False)),
            int(status) if _STATUS.fullmatch(status) else None,
            stderr,
            None if end is None else max(0.0, (end - begin) / 1e9),
            _MADE.get(made, EMPTY),
        )

    def _read(self, name: str) -> tuple[bytes, int | None]:
        """Return the end of a file, and its time in ns; b"" and None if there is none."""
        try:
            file = os.open(
                name,
                os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY,
                dir_fd=self._directory,
            )
        except OSError:
            return b"", None
        try:
            seen = os.fstat(file)
            # A second name may be that of another user's file.
            if not stat.S_ISREG(seen.st_mode) or seen.st_uid != self._owner or seen.st_nlink > 1:
                return b"", None
            return os.pread(file, STDERR_KEPT, max(0, seen.st_size - STDERR_KEPT)), seen.st_mtime_ns
        finally:
            os.close(file)
