"""Writes the figures of the documentation from the results of a run.

Rule: the text between two markers in a document is generated from docs/performance/figures.json. A
test checks that it is current.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from . import report
from .figures import Comparison, Series
from .results import Results

#: Relative to the root of the checkout.
FIGURES = Path("docs/performance/figures.json")
BEGIN = "<!-- Measured: `python3 -m benchmarks --document` writes what follows. -->"
END = "<!-- End of what is measured. -->"


def write(results: Results, root: Path) -> None:
    """Write all regions and plots."""
    from . import plots  # noqa: PLC0415 (the texts need no matplotlib)

    for path, text in texts(results, root).items():
        path.write_text(text, encoding="utf-8")
    for shown in results.shown():
        plots.draw(shown, root / plot(shown.name), digest(shown))


def texts(results: Results, root: Path) -> dict[Path, str]:
    """Return the document with its current region."""
    page = root / "docs/performance.md"
    return {page: replaced(page, all_figures(results))}


def replaced(path: Path, region: str) -> str:
    """Return a document in which a region is replaced."""
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path} has no region between {BEGIN!r} and {END!r}")
    return f"{before}{begin}\n\n{region}\n\n{end}{after}"


def digest(shown: Series | Comparison) -> str:
    """Return a digest of the data of a plot."""
    kept = json.dumps(asdict(shown), sort_keys=True)
    return hashlib.sha256(kept.encode()).hexdigest()[:16]


def plot(name: str) -> Path:
    """Return the path of a plot relative to the root."""
    return FIGURES.with_name(f"{name}.svg")


def all_figures(results: Results) -> str:
    """Return the region of docs/performance.md."""
    with_bar = [figure for figure in results.figures if figure.bar()]
    without = [figure for figure in results.figures if not figure.bar()]
    parts = [
        results.conditions.shown(),
        "### Figures with a bar",
        report.figures(with_bar),
        "### Figures without one",
        report.figures(without),
        "### Growth",
    ]
    for series in results.series:
        parts += [report.growth(series), _picture(series.label, series.name)]
    for title, names in (
        ("### The whole path, behind a real Postfix", "path-"),
        ("### What it is made of", "profile-"),
    ):
        compared = [each for each in results.comparisons if each.name.startswith(names)]
        parts += [title] if compared else []
        for each in compared:
            parts += [report.comparison(each), _picture(each.label, each.name)]
    return "\n\n".join(parts)


def _picture(label: str, name: str) -> str:
    return f"![{label}]({plot(name).relative_to('docs')})"
