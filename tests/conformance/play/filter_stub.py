"""The filter, a shell wrapper that runs the transcript's script and records the run for the suite.

Rule: a run is recorded before the script starts, so the record exists even if the filter is killed.
The wrapper runs thousands of times, so it executes only two fast commands (mkdir, cp).
"""

from __future__ import annotations

import os
import shlex
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from .dialogue import Dialogue
from .loop import READ, Loop
from .procfs import descendants, is_alive, process_group

# The suite's variables are not exported, so the filter's environment comes only from the proxy. <>
# opens a FIFO without waiting for the other end.
_WRAPPER = """\
suite_box={box}
suite_tmp={tmp}
mkdir "$suite_box/$$"
cp -p "$EMAIL" "$OUTFILE" /proc/$$/environ "$suite_box/$$" 2>/dev/null
printf 'run %s\\n' $$ 1<>"$suite_box/events"
trap 'printf "exit %s %s\\n" $$ $? 1<>"$suite_box/events"' EXIT
gate() {{
    printf 'gate %s %s\\n' $$ "${{1-}}" 1<>"$suite_box/events"
    read -r suite_line <"$suite_box/gate-${{1-}}" || :
}}
{text}
"""


@dataclass
class FilterRun:
    """The record of one run of the filter, created when the run starts."""

    pid: int
    group: int | None
    environment: dict[str, bytes]
    email: bytes | None
    email_mode: int | None
    outfile: bytes | None
    exit_status: int | None = None


class FilterStub:
    """The directory that contains the gates and the records of the filter runs."""

    def __init__(self, loop: Loop, directory: Path, dialogue: Dialogue) -> None:
        self._loop = loop
        self._directory = directory
        self._dialogue = dialogue
        self._gates: dict[str, int] = {}
        self._events = -1
        self._partial = b""
        self.new_runs: deque[FilterRun] = deque()
        self.runs: list[FilterRun] = []
        self.waiting: list[str] = []  # gates at which a filter is waiting

    @property
    def command(self) -> str:
        """The shell command for {filter}."""
        # The script is sourced, so that it runs in the process started by the implementation.
        return f". {shlex.quote(str(self._directory / 'wrapper'))}"

    def prepare(self, text: str, tmp: str, gates: set[str]) -> None:
        """Create the wrapper and the FIFOs."""
        self._directory.mkdir()
        wrapper = _WRAPPER.format(
            box=shlex.quote(str(self._directory)), tmp=shlex.quote(tmp), text=text
        )
        (self._directory / "wrapper").write_text(wrapper)
        self._events = self._fifo("events")
        self._gates = {name: self._fifo(f"gate-{name}") for name in sorted(gates | {""})}
        self._loop.watch(self._events, READ, self._read)

    def _fifo(self, name: str) -> int:
        path = self._directory / name
        os.mkfifo(path)
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def open_gate(self, name: str) -> None:
        """Open gate *name* once, for a filter that is waiting or arrives later."""
        self._dialogue.event("F>", f"gate {name}".rstrip())
        os.write(self._gates[name], b"\n")

    def _read(self, _events: int) -> None:
        *lines, self._partial = (self._partial + os.read(self._events, 65536)).split(b"\n")
        for line in lines:
            self._dialogue.event("F<", line.decode("ascii", "replace"))
            word, pid, *rest = line.decode("ascii", "replace").split(" ")
            self._event(word, int(pid), rest)

    def _event(self, word: str, pid: int, rest: list[str]) -> None:
        if word == "run":
            run = self._record(pid)
            self.new_runs.append(run)
            self.runs.append(run)
        elif word == "gate":
            self.waiting.append(rest[0])
        else:
            for run in self.runs:
                if run.pid == pid:
                    run.exit_status = int(rest[0])

    def _record(self, pid: int) -> FilterRun:
        directory = self._directory / str(pid)
        environment = parse_environment(_content(directory / "environ") or b"")
        email = _copy(directory, environment.get("EMAIL"))
        outfile = _copy(directory, environment.get("OUTFILE"))
        mode = email.stat().st_mode & 0o777 if email and email.exists() else None
        return FilterRun(
            pid, process_group(pid), environment, _content(email), mode, _content(outfile)
        )

    def close(self) -> None:
        """Close the FIFOs. A filter that is waiting at a gate reads EOF and continues."""
        if self._events >= 0:
            self._loop.forget(self._events)
            for descriptor in (self._events, *self._gates.values()):
                os.close(descriptor)
            self._events = -1


def parse_environment(octets: bytes) -> dict[str, bytes]:
    """Parse the NUL-separated variables of /proc/PID/environ."""
    pairs = (one.partition(b"=") for one in octets.split(b"\0") if b"=" in one)
    return {name.decode("latin-1"): value for name, _, value in pairs}


def _copy(directory: Path, original: bytes | None) -> Path | None:
    return directory / Path(os.fsdecode(original)).name if original else None


def _content(path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path and path.is_file() else None
    except OSError:
        return None


def group_members(run: FilterRun) -> list[int]:
    """Return a run's processes: the filter, and its process group if the filter leads one.

    All processes of an implementation are descendants of this process, because it adopts orphans.
    """
    candidates = descendants(os.getpid()) if run.group == run.pid else {run.pid}
    return sorted(pid for pid in candidates if _belongs(pid, run))


def _belongs(pid: int, run: FilterRun) -> bool:
    return (pid == run.pid or process_group(pid) == run.group) and is_alive(pid)
