"""The command `python3 -m benchmarks`, which installs the proxy, measures it and prints tables."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tests.postfix.instance import PostfixError

from . import (
    asleep,
    counts,
    growth,
    idle,
    large,
    listening,
    memory,
    profile,
    report,
    startup,
    whole_path,
)
from .figures import Bench, Measured, Subject
from .peers import BrokenDialogueError, NotHereError, upstream
from .results import ROOT, Conditions, Results

MEASURES: dict[str, Callable[[Bench], Iterator[Measured]]] = {
    "startup": startup.measure,
    "listening": listening.measure,
    "idle": idle.measure,
    "asleep": asleep.measure,
    "large": large.measure,
    "memory": memory.measure,
    "growth": growth.measure,
    "whole-path": whole_path.measure,
    "profile": profile.measure,
    "counts": counts.measure,
}
#: Errors that end one benchmark but not the others.
BROKEN = (BrokenDialogueError, PostfixError, OSError, subprocess.SubprocessError)
INSTALLER = ROOT / "packaging/install"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python3 -m benchmarks",
        description="Measure the cost of postprox as ratios, and compare them with their limits.",
    )
    parser.add_argument("which", nargs="*", metavar="WHICH", help=f"of {', '.join(MEASURES)}")
    parser.add_argument(
        "--python", default="/usr/bin/python3", help="the interpreter (default: %(default)s)"
    )
    parser.add_argument(
        "-d",
        "--directory",
        type=Path,
        help=(
            "the directory for messages; the benchmark memory requires 2 GB (default: a temporary "
            "directory)"
        ),
    )
    parser.add_argument(
        "--beside",
        action="append",
        default=[],
        metavar="[NAME=]CMD",
        help="also measure this command, which must accept postprox's options and run a session on "
        "standard input and output, with {upstream} for HOST:PORT",
    )
    parser.add_argument(
        "--rounds", type=int, default=0, help="the number of measurements of each benchmark"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="store all samples in FILE")
    parser.add_argument(
        "--document",
        action="store_true",
        help="do not measure; write the tables and plots of the documentation from the results in "
        "docs/performance (plots require the extra `bench`)",
    )
    parser.add_argument(
        "--miniature",
        action="store_const",
        const=1000,
        default=1,
        help="divide all sizes by a thousand, only to check that everything works",
    )
    wanted = parser.parse_args(arguments)
    unknown = [name for name in wanted.which if name not in MEASURES]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]!r}; must be one of {', '.join(MEASURES)}")
    return wanted


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the selected benchmarks."""
    wanted = parse(arguments)
    if wanted.document:
        from . import document  # noqa: PLC0415 (only this needs what draws the plots)

        document.write(ROOT)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # stop all programs first
    with (
        tempfile.TemporaryDirectory(prefix="postprox-bench-", dir=wanted.directory) as name,
        upstream() as server,
    ):
        place = Path(name)
        place.chmod(0o755)  # for programs that Postfix runs as another user
        install(place, wanted.python)
        bench = Bench(
            python=wanted.python,
            postprox=Subject("postprox", (f"{place}/sbin/postprox", "{upstream}")),
            beside=tuple(map(other, wanted.beside)),
            upstream=server,
            directory=place,
            rounds=wanted.rounds,
            divisor=wanted.miniature,
        )
        results = measured(bench, wanted.which or list(MEASURES))
    if wanted.json:
        results.write(wanted.json)
    print(report.everything(results))
    return 1 if results.broken else 0


def install(place: Path, python: str) -> None:
    """Install the proxy of this checkout."""
    done = subprocess.run(
        ["/bin/sh", INSTALLER, "--prefix", place, "--python", python],
        stdout=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:  # the installer has printed the reason
        raise SystemExit("benchmarks: the proxy cannot be installed")


def other(beside: str) -> Subject:
    """Return the program of `--beside`. Its path may be relative."""
    name, equals, command = beside.partition("=")
    program, *arguments = shlex.split(command if equals else beside)
    return Subject(name, (str(Path(program).resolve()), *arguments))


def measured(bench: Bench, names: Sequence[str]) -> Results:
    """Run the benchmarks one after another and report progress, because they take minutes."""
    results = Results(Conditions.here(bench.python))
    for name in names:
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        try:
            for figure in MEASURES[name](bench):
                results.add(figure)
        except NotHereError as reason:
            results.missing[name] = str(reason)
        except BROKEN as reason:  # the figures of the other benchmarks are still useful
            results.broken[name] = f"{type(reason).__name__}: {reason}"
    before, _ = results.conditions.load
    results.conditions = replace(results.conditions, load=(before, os.getloadavg()[0]))
    return results


if __name__ == "__main__":
    sys.exit(main())
