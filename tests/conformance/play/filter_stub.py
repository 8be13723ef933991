"""The filter: a wrapper in sh around the transcript's text, and what it tells the suite.

Rule: everything about a run is recorded before the transcript's own text starts, so that it is
there however the filter ends. The wrapper costs two short commands (mkdir, cp); all else is done by
the shell itself, for it runs thousands of times.
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

# The suite's variables are not exported: the filter's environment is what the proxy made it.
# <> opens a fifo without waiting for its other end.
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
    """One run of the filter, as it was when it began."""

    pid: int
    group: int | None
    environment: dict[str, bytes]
    email: bytes | None
    email_mode: int | None
    outfile: bytes | None
    exit_status: int | None = None


class FilterStub:
    """The directory in which the filter's runs are recorded, and its gates."""

    def __init__(self, loop: Loop, directory: Path, dialogue: Dialogue) -> None:
        self._loop = loop
        self._directory = directory
        self._dialogue = dialogue
        self._gates: dict[str, int] = {}
        self._events = -1
        self._partial = b""
        self.new_runs: deque[FilterRun] = deque()
        self.runs: list[FilterRun] = []
        self.waiting: list[str] = []  # gates at which a filter has arrived

    @property
    def command(self) -> str:
        """The shell command that stands for {filter}."""
        # Sourced: the process that runs the text is the very one the implementation started.
        return f". {shlex.quote(str(self._directory / 'wrapper'))}"

    def prepare(self, text: str, tmp: str, gates: set[str]) -> None:
        """Make the wrapper and the fifos."""
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
        """Let one filter that waits at gate *name* (or comes to it) go on."""
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
        """Let go of the fifos; a filter that waits at a gate reads EOF and goes on."""
        if self._events >= 0:
            self._loop.forget(self._events)
            for descriptor in (self._events, *self._gates.values()):
                os.close(descriptor)
            self._events = -1


def parse_environment(octets: bytes) -> dict[str, bytes]:
    """NAME to value, from the NUL-separated form of /proc/PID/environ."""
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
    """Living processes of the run: the filter itself and, if it leads a group, all of that.

    All that an implementation starts is below this process, which adopts what loses its parent.
    """
    candidates = descendants(os.getpid()) if run.group == run.pid else {run.pid}
    return sorted(pid for pid in candidates if _belongs(pid, run))


def _belongs(pid: int, run: FilterRun) -> bool:
    return (pid == run.pid or process_group(pid) == run.group) and is_alive(pid)
