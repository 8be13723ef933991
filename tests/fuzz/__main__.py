"""python3 -m tests.fuzz: atheris on the grammar and the session, for a time or for some inputs.

Rule: what is true of an input is `grammar`'s and `session`'s to say; here the fuzzer finds inputs.
The corpus begins with what is made here, and what the fuzzer finds worth keeping stays in FOLDER.
An input that breaks something is written to a file, and can be tried again alone by its name.
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

#: Inputs are no longer: some dozens of events, or a message with every peculiarity.
LONGEST = 400


def holds(data: bytes) -> None:
    """Try one input; its first octet says whether on the grammar or on the session."""
    source = Source(data)
    source.one_of(TARGETS)(source)


def begin(folder: Path) -> None:
    """Write the inputs that the search begins with: one for each thing that can be tried."""
    for number in range(len(grammar.TARGETS)):
        for text in (b"250-a\r\n250 b\r\n", b"\r\n..x\r\n.\r\nQUIT\r\n", b"-c\0cat\0[::1]:25"):
            (folder / f"grammar-{number}-{len(text)}").write_bytes(bytes((0, number, 99)) + text)
    for flags in range(32):
        (folder / f"session-{flags}").write_bytes(bytes((1, flags, 0, 0, 0)) + session.WHOLE)


def main() -> int:
    """Search; libFuzzer itself ends the process, with 0 if nothing was found."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.fuzz", description=__doc__)
    parser.add_argument("input", nargs="*", type=Path, help="try these again, and nothing else")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--inputs", type=int, default=-1, help="stop after so many")
    parser.add_argument("--seed", type=int, default=0, help="0 for one by chance; it is printed")
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
