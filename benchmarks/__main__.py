"""The command `python3 -m benchmarks`: installs the proxy somewhere, measures, prints a table."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from . import latency, memory, sessions, startup, throughput
from .figures import Bench, Figure, Subject, table
from .peers import upstream

MEASURES = {
    "startup": startup.measure,
    "latency": latency.measure,
    "throughput": throughput.measure,
    "memory": memory.measure,
    "sessions": sessions.measure,
}
INSTALLER = Path(__file__).parent.parent / "packaging/install"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python3 -m benchmarks",
        description="What postprox costs, as ratios, with the bounds that they are to keep.",
    )
    parser.add_argument("which", nargs="*", metavar="WHICH", help=f"of {', '.join(MEASURES)}")
    parser.add_argument(
        "--python", default="/usr/bin/python3", help="the interpreter (default: %(default)s)"
    )
    parser.add_argument(
        "-d",
        "--directory",
        type=Path,
        help="where messages are stored; memory needs 2 GB there (default: a temporary directory)",
    )
    parser.add_argument(
        "--beside",
        action="append",
        default=[],
        metavar="CMD",
        help="measure this too: a command with postprox's options that proxies on standard input "
        "and output, with {upstream} for HOST:PORT",
    )
    parser.add_argument("--rounds", type=int, default=0, help="how often each is measured")
    parser.add_argument(
        "--miniature",
        action="store_const",
        const=1000,
        default=1,
        help="sizes of a thousandth: shows that all works, and no more",
    )
    wanted = parser.parse_args(arguments)
    unknown = [name for name in wanted.which if name not in MEASURES]
    if unknown:
        parser.error(f"{unknown[0]!r} is none of {', '.join(MEASURES)}")
    return wanted


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was asked for."""
    wanted = parse(arguments)
    with tempfile.TemporaryDirectory(prefix="postprox-bench-", dir=wanted.directory) as place:
        subprocess.run(
            ["/bin/sh", INSTALLER, "--prefix", place, "--python", wanted.python],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        subjects = [Subject("postprox", (f"{place}/sbin/postprox", "{upstream}"))]
        subjects += [Subject(beside, tuple(shlex.split(beside))) for beside in wanted.beside]
        with upstream() as server:
            bench = Bench(
                python=wanted.python,
                subjects=tuple(subjects),
                upstream=server,
                directory=Path(place),
                rounds=wanted.rounds,
                divisor=wanted.miniature,
            )
            figures = measured(bench, wanted.which or list(MEASURES))
    print(f"{describe(wanted.python)}\n")
    print(table(figures, [subject.name for subject in subjects]))
    return 0


def measured(bench: Bench, names: Sequence[str]) -> list[Figure]:
    """Measure one after the other, and say so: it takes a minute or two."""
    figures: list[Figure] = []
    for name in names:
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        figures += MEASURES[name](bench)
    return figures


def describe(python: str) -> str:
    """Say in a line what kind of machine this is."""
    version = subprocess.run([python, "-V"], capture_output=True, text=True, check=True)
    return f"{version.stdout.strip()}, {os.cpu_count()} cores, {platform.system()} {_kernel()}"


def _kernel() -> str:
    return ".".join(platform.release().split(".")[:2])


if __name__ == "__main__":
    sys.exit(main())
