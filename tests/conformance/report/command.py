"""The subcommand `report`, which converts result files to a page, a Markdown matrix or a badge.

Rule: the exit status does not depend on the verdicts. It is 0 if the output was written, and 2
after an error in the command line, in a result file or in an output file.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ..format.requirements import specification
from .badge import badge_json, badge_svg
from .matrix import build
from .render import html, markdown
from .results import ResultFileError, Run, read_run

STANDARD_OUTPUT = "-"
_EXIT_WRONG = 2
_BADGES = {".svg": badge_svg, ".json": badge_json}


def add_report(words: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand `report`."""
    parser = words.add_parser(
        "report",
        help="show results clause by clause, with implementations side by side",
        description="Show conformance results clause by clause, with implementations side by side.",
    )
    parser.add_argument(
        "results",
        nargs="+",
        type=Path,
        metavar="RESULTS.jsonl",
        help=("result files written by 'run --results'"),
    )
    add_outputs(parser)
    parser.set_defaults(do=_report)


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Add the options for output files."""
    add = parser.add_argument
    add(
        "--html",
        metavar="FILE",
        help="write one self-contained HTML page ('-' for standard output)",
    )
    add("--markdown", metavar="FILE", help="write a Markdown matrix ('-' for standard output)")
    add(
        "--badge",
        metavar="FILE",
        help="write the verdict as a badge to FILE.svg, or to FILE.json for shields.io",
    )


def write_outputs(options: argparse.Namespace, runs: Sequence[Run]) -> None:
    """Write the output files that *options* specify."""
    matrix = build(specification().families, runs)
    for target, render in ((options.html, html), (options.markdown, markdown)):
        if target is not None:
            _write(target, render(matrix))
    if options.badge is not None:
        badge = _BADGES[Path(options.badge).suffix]
        _write(options.badge, badge(runs[0]))


def check_outputs(options: argparse.Namespace, **further: object) -> None:
    """Raise an error before a run if an output file cannot be written.

    *further* maps option names to other output files of the same run.
    """
    outputs = {"html": options.html, "markdown": options.markdown, "badge": options.badge}
    targets: dict[str, str] = {}
    for option, target in {**outputs, **further}.items():
        if target is None:
            continue
        earlier = targets.setdefault(str(target), option)
        if earlier != option:
            raise ResultFileError(f"--{earlier} and --{option} must not both be '{target}'")
        if str(target) != STANDARD_OUTPUT:
            _check_place(Path(str(target)))
    if options.badge is not None and Path(options.badge).suffix not in _BADGES:
        raise ResultFileError(f"--badge {options.badge}: must be FILE.svg or FILE.json")


def _check_place(path: Path) -> None:
    if path.is_dir():
        raise ResultFileError(f"{path}: is a directory")
    if not path.parent.is_dir():
        raise ResultFileError(f"{path}: missing directory {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ResultFileError(f"{path}: cannot be written")


def _report(options: argparse.Namespace) -> int:
    try:
        _check(options)
        write_outputs(options, [read_run(path) for path in options.results])
    except (ResultFileError, OSError) as error:
        print(f"report: {error}", file=sys.stderr)
        return _EXIT_WRONG
    return 0


def _check(options: argparse.Namespace) -> None:
    if {options.html, options.markdown, options.badge} == {None}:
        raise ResultFileError("missing --html FILE, --markdown FILE or --badge FILE")
    check_outputs(options)
    if options.badge is not None and len(options.results) > 1:
        raise ResultFileError("--badge requires exactly one result file")


def _write(target: str, text: str) -> None:
    if target == STANDARD_OUTPUT:
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()
    else:
        Path(target).write_text(text, "utf-8")
