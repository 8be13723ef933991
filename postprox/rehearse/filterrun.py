"""How the filter's run is observed: the command that the proxy is given instead of the user's.

Rule: nothing that the proxy can see of the filter changes: exit status, standard error, death by
a signal, the process group and with it the time limit. What is recorded goes to a directory.

The user's command runs as `sh -c CMD`, as it would without this. Its standard error goes to a
file, so that nothing is lost when the filter is killed, and from there to the proxy.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

VARIABLES = (
    *("EMAIL", "OUTFILE", "SENDER", "RECIPIENT", "REMOTEIP", "HELO"),
    *("RECIPIENTS", "RECIPIENTCOUNT", "QUEUE_ID", "CLIENT_NAME"),
)
#: What is kept of standard error: its end.
STDERR_KEPT = 1 << 18
#: What the filter has made of OUTFILE.
EMPTY, FILLED, UNUSABLE = "empty", "filled", "unusable"

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


def recorded(directory: Path) -> FilterRun | None:
    """Return what was recorded, None if the filter was not run."""
    environment = directory / "environment"
    if not environment.exists():
        return None
    values = _read(environment).split(b"\0")[:-1]
    status = _read(directory / "status").strip()
    return FilterRun(
        dict(zip(VARIABLES, values, strict=False)),
        int(status) if status else None,
        _read(directory / "stderr"),
        _seconds(environment, directory / "end"),
        _read(directory / "outfile").decode().strip() or EMPTY,
    )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - STDERR_KEPT))
            return file.read()
    except FileNotFoundError:
        return b""


def _seconds(begin: Path, end: Path) -> float | None:
    try:
        return max(0.0, (end.stat().st_mtime_ns - begin.stat().st_mtime_ns) / 1e9)
    except FileNotFoundError:
        return None
