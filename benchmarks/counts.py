"""Counts the work of a message and of a session.

Rule: counts do not depend on the machine's load. The count for a message is the difference between
a server's run with many messages and its run with few, divided by the number of additional
messages, so that the start and the end of the process are not included. Each message has a session
of its own, as with Postfix. The filter's own work is not included.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import peers
from .figures import Bench, Figure
from .startup import one_message, quit_only

FEW, MORE = 10, 50
MESSAGE = peers.Message(4096)
#: Runs the launcher, and writes the numbers of calls to a file.
PROFILER = """
import sys
counts = dict.fromkeys(("call", "c_call"), 0)
def count(frame, event, argument):
    if event in counts:
        counts[event] += 1
_, result, *sys.argv = sys.argv
program = compile(open(sys.argv[0]).read(), sys.argv[0], "exec")
sys.setprofile(count)
try:
    exec(program, {"__name__": "__main__"})
finally:
    sys.setprofile(None)
    open(result, "w").write("%(call)d %(c_call)d" % counts)
"""
#: Runs the launcher without the signals that valgrind reserves for itself. compile() would create
#: the classes of all syntax nodes, which takes 8 million instructions.
FEWER_SIGNALS = """
import _signal, sys
signals = _signal.valid_signals() - {63, 64}
_signal.valid_signals = lambda: set(signals)
del sys.argv[0]
exec(open(sys.argv[0]).read(), {"__name__": "__main__"})
"""


@dataclass(frozen=True)
class Tool:
    """A program that counts something in one run of a command.

    program: the name of the program, which must be installed.
    rows: the names of the counts, and their units.
    command: returns the command line before the launcher, from the interpreter and the name of the
        result file.
    read: returns the counts from the text of the result file.
    """

    program: str
    rows: tuple[tuple[str, str], ...]
    command: Callable[[str, str], list[str]]
    read: Callable[[str], list[float]]


def _numbers(pattern: str, divisor: int = 1) -> Callable[[str], list[float]]:
    def read(text: str) -> list[float]:
        found = re.search(pattern, text)
        if found is None:
            raise peers.BrokenDialogueError(f"no counts in {text[-500:]!r}")
        return [int(number.replace(",", "")) / divisor for number in found.groups()]

    return read


def _valgrind(python: str, result: str, *options: str) -> list[str]:
    return ["valgrind", f"--log-file={result}", *options, python, "-SBc", FEWER_SIGNALS]


STRACE = Tool(
    "strace",
    (("system calls", ""),),
    lambda python, result: ["strace", "-D", "-o", result, python, "-ISB"],
    lambda text: [float(len(re.findall(r"^\w+\(", text, re.MULTILINE)))],
)
CALLS = Tool(
    "python3",
    (("calls of Python functions", ""), ("calls of built-in functions", "")),
    lambda python, result: [python, "-ISBc", PROFILER, result],
    _numbers(r"(\d+) (\d+)"),
)
MEMCHECK = Tool(
    "valgrind",
    (("allocations", ""),),
    lambda python, result: ["env", "PYTHONMALLOC=malloc", *_valgrind(python, result)],
    _numbers(r"total heap usage: ([\d,]+) allocs"),
)
CALLGRIND = Tool(
    "valgrind",
    (("instructions outside the kernel", "million"),),
    lambda python, result: _valgrind(
        python, result, "--tool=callgrind", "--callgrind-out-file=/dev/null"
    ),
    _numbers(r"Collected : (\d+)", 1_000_000),
)
FILTERS = {"no filter": (), "`-c /bin/true`": ("-c", "/bin/true")}


def counted(tool: Tool, python: str, use: Callable[[list[str]], object]) -> list[float]:
    """Return the counts of one run, in which `use` receives the command before the launcher."""
    with tempfile.TemporaryDirectory(prefix="postprox-counts-") as directory:
        result = Path(directory) / "result"
        program, *arguments = tool.command(python, str(result))
        use([str(shutil.which(program)), *arguments])
        return tool.read(result.read_text(encoding="utf-8"))


def served(command: list[str], messages: int) -> None:
    """Start a server and send messages to it."""
    with peers.listening(command) as proxy:
        for _ in range(messages):
            client = peers.connected(proxy.address)
            client.send(MESSAGE)
            client.quit()


def per_message(tool: Tool, python: str, command: list[str], more: int) -> list[float]:
    """Return the counts for one message to a server."""
    few = counted(tool, python, lambda prefix: served([*prefix, *command], FEW))
    many = counted(tool, python, lambda prefix: served([*prefix, *command], FEW + more))
    return [(one - other) / more for one, other in zip(many, few, strict=True)]


def figures(tool: Tool, label: str, values: list[float]) -> Iterator[Figure]:
    """Yield one figure for each count of a tool."""
    for (row, unit), value in zip(tool.rows, values, strict=True):
        yield Figure([value], label=f"{label}: {row}", unit=unit)


def of_server(bench: Bench) -> Iterator[Figure]:
    """Count the work of a server for one message."""
    for name, options in FILTERS.items():
        command = bench.command(bench.postprox, *options)
        for tool in (STRACE, CALLS, MEMCHECK, CALLGRIND):
            values = per_message(tool, bench.python, command, bench.part(MORE))
            yield from figures(tool, f"listening, a message, {name}", values)


def of_session(bench: Bench) -> Iterator[Figure]:
    """Count the work of a session in a process of its own, including the start of Python."""
    empty = Path(bench.directory) / "empty"
    empty.write_text("", encoding="ascii")
    command = bench.command(bench.postprox)
    with_filter = bench.command(bench.postprox, "-c", "/bin/true")
    for tool in (STRACE, CALLGRIND):
        uses: dict[str, Callable[[list[str]], object]] = {
            "the interpreter, no statement": lambda prefix: subprocess.run(
                [*prefix, str(empty)], check=True
            ),
            "a session with QUIT only": lambda prefix: quit_only([*prefix, *command]),
            "a session with a message, no filter": lambda prefix: one_message([*prefix, *command]),
            "a session with a message, `-c /bin/true`": lambda prefix: one_message(
                [*prefix, *with_filter]
            ),
        }
        for label, use in uses.items():
            yield from figures(tool, f"spawned, {label}", counted(tool, bench.python, use))


def measure(bench: Bench) -> Iterator[Figure]:
    """Run the benchmark."""
    absent = [name for name in ("strace", "valgrind") if not shutil.which(name)]
    if absent:
        raise peers.NotHereError(f"requires {' and '.join(absent)}")
    yield from of_server(bench)
    yield from of_session(bench)
