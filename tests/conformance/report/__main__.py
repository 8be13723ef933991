"""The command line: result files in, a page or a Markdown matrix out, or one line saying why not.

    python -m tests.conformance.report RESULTS.jsonl [MORE.jsonl …] [--html FILE] [--markdown FILE]

Exit status: 0 written, 2 a mistake in the command line, a result file or an output file. What the
implementations are worth makes no difference: that was the runner's exit status.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ..clauses import load_clauses
from ..paths import SPECIFICATION
from .matrix import Matrix, build
from .render import html, markdown
from .results import ResultFileError, read_run

STANDARD_OUTPUT = "-"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    outputs: list[tuple[str, Callable[[Matrix], str]]] = [
        (target, render)
        for target, render in ((options.html, html), (options.markdown, markdown))
        if target is not None
    ]
    try:
        runs = [read_run(path) for path in options.results]
        matrix = build(load_clauses(SPECIFICATION.read_text("utf-8")), runs)
        for target, render in outputs:
            _write(target, render(matrix))
    except (ResultFileError, OSError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance.report",
        description="Show conformance results clause by clause, several implementations abreast.",
    )
    parser.add_argument(
        "results", nargs="+", type=Path, metavar="RESULTS.jsonl", help="what the suite has written"
    )
    parser.add_argument("--html", metavar="FILE", help="write one self-contained page ('-': here)")
    parser.add_argument("--markdown", metavar="FILE", help="write a Markdown matrix ('-': here)")
    options = parser.parse_args(arguments)
    if options.html is None and options.markdown is None:
        parser.error("nothing to write: give --html FILE, --markdown FILE or both")
    if options.html == options.markdown:
        parser.error(f"--html and --markdown both go to {options.html!r}")
    return options


def _write(target: str, text: str) -> None:
    if target == STANDARD_OUTPUT:
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()
    else:
        Path(target).write_text(text, "utf-8")


if __name__ == "__main__":
    sys.exit(main())
