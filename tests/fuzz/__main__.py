"""python3 -m tests.fuzz: fuzz the grammar and the session with atheris.

Rule: `grammar` and `session` define the rules. This module starts the fuzzer with an initial
corpus. The fuzzer stores useful inputs in FOLDER, and writes an input that violates a rule to a
file. To run the input again, give the file's name.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["postprox.core"]):
    from tests.fuzz import grammar, session

from tests.fuzz.source import Source

TARGETS = (grammar.holds, session.holds)

#: The maximum length of an input, which suffices for dozens of events or a complex message.
LONGEST = 400


def holds(data: bytes) -> None:
    """Test one input. Its first octet selects the grammar or the session."""
    source = Source(data)
    source.one_of(TARGETS)(source)


def begin(folder: Path) -> None:
    """Write the initial inputs, one for each function and event."""
    for number in range(len(grammar.TARGETS)):
        for text in (b"250-a\r\n250 b\r\n", b"\r\n..x\r\n.\r\nQUIT\r\n", b"-c\0cat\0[::1]:25"):
            (folder / f"grammar-{number}-{len(text)}").write_bytes(bytes((0, number, 99)) + text)
    for flags in range(32):
        (folder / f"session-{flags}").write_bytes(bytes((1, flags, 0, 0, 0)) + session.WHOLE)


def main() -> int:
    """Search for violations. libFuzzer ends the process, with status 0 if there is no violation."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.fuzz", description=__doc__)
    parser.add_argument("input", nargs="*", type=Path, help="run only these inputs")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--inputs", type=int, default=-1, help="the maximum number of inputs")
    parser.add_argument(
        "--seed", type=int, default=0, help="the seed; 0 selects and prints a random seed"
    )
    parser.add_argument("--corpus", type=Path, metavar="FOLDER")
    wanted = parser.parse_args()
    for path in wanted.input:
        holds(path.read_bytes())
    if wanted.input:
        return 0
    with tempfile.TemporaryDirectory(prefix="postprox-fuzz-") as made:
        begin(Path(made))
        folders = [str(wanted.corpus), made] if wanted.corpus else [made]
        limits = [f"-max_total_time={wanted.seconds}", f"-runs={wanted.inputs}"]
        usual = [f"-max_len={LONGEST}", "-len_control=0", "-timeout=20", "-print_final_stats=1"]
        atheris.Setup([sys.argv[0], f"-seed={wanted.seed}", *limits, *usual, *folders], holds)
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
