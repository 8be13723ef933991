"""Writes the figures of the documentation from the stored results of two runs.

Rule: the text between two markers in a document is generated from the results in docs/performance.
A test checks that it is current.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from . import report
from .figures import Comparison, Series
from .results import Results

#: The results of `whole-path` and of all other benchmarks, relative to the root of the checkout.
WAYS, PARTS = Path("docs/performance/ways.json"), Path("docs/performance/figures.json")
GUIDE, INTERNALS = Path("docs/performance.md"), Path("docs/performance-internals.md")
BEGIN = "<!-- Generated from {}: do not edit. -->"
END = "<!-- End of the generated text. -->"
HOW = "run: python3 -m benchmarks --document"


def write(root: Path) -> None:
    """Write all regions and plots."""
    from . import plots  # noqa: PLC0415 (the texts need no matplotlib)

    for path, text in texts(root).items():
        path.write_text(text, encoding="utf-8")
    for shown in plotted(root):
        plots.draw(shown, root / plot(shown.name), digest(shown))


def texts(root: Path) -> dict[Path, str]:
    """Return the documents with their current regions."""
    ways, parts = (Results.read(root / path) for path in (WAYS, PARTS))
    guide, internals = ((root / path).read_text(encoding="utf-8") for path in (GUIDE, INTERNALS))
    internals = replaced(internals, WAYS.name, all_ways(ways))
    return {
        root / GUIDE: replaced(guide, WAYS.name, summary(ways)),
        root / INTERNALS: replaced(internals, PARTS.name, all_parts(parts)),
    }


def plotted(root: Path) -> list[Series | Comparison]:
    """Return the results that are plotted."""
    parts = Results.read(root / PARTS)
    return [main(Results.read(root / WAYS)), *parts.series, *parts.comparisons]


def replaced(text: str, source: str, region: str) -> str:
    """Return a document in which the region that is generated from a file is replaced."""
    marker = BEGIN.format(source)
    before, begin, rest = text.partition(marker)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"the document has no region between {marker!r} and {END!r}")
    return f"{before}{begin}\n\n{region}\n\n{end}{after}"


def digest(shown: Series | Comparison) -> str:
    """Return a digest of the data of a plot."""
    kept = json.dumps(asdict(shown), sort_keys=True)
    return hashlib.sha256(kept.encode()).hexdigest()[:16]


def plot(name: str) -> Path:
    """Return the path of a plot relative to the root."""
    return PARTS.with_name(f"{name}.svg")


def main(ways: Results) -> Comparison:
    """Return the comparison for the guide, without the ways that no site would use."""
    first = ways.comparisons[0]
    chosen = [way for way in first.ways if not way.reference]
    return Comparison(first.name, first.label, ways=chosen)


def summary(ways: Results) -> str:
    """Return the region of the guide."""
    compared = main(ways)
    return "\n\n".join([report.paths(compared), _picture(compared), ways.conditions.shown()])


def all_ways(ways: Results) -> str:
    """Return the region with the results of `whole-path`."""
    tables = []
    for compared in ways.comparisons:
        tables += [f"#### {_capital(compared.label)}", report.paths(compared, spread=True)]
        tables += report.absences(compared)
    return "\n\n".join([ways.conditions.shown(), report.figures(ways.figures), *tables])


def all_parts(results: Results) -> str:
    """Return the region with the results of all other benchmarks."""
    with_bar = [figure for figure in results.figures if figure.bar()]
    without = [figure for figure in results.figures if not figure.bar()]
    parts = [results.conditions.shown()]
    parts += ["### Figures with a limit", report.figures(with_bar)]
    parts += ["### Figures without a limit", report.figures(without)]
    parts += ["### Growth"] if results.series else []
    for series in results.series:
        parts += [report.growth(series), _picture(series)]
    parts += ["### Profile"] if results.comparisons else []
    for compared in results.comparisons:
        parts += [report.comparison(compared), _picture(compared)]
    return "\n\n".join(parts)


def _picture(shown: Series | Comparison) -> str:
    return f"![{_capital(shown.label)}]({plot(shown.name).relative_to('docs')})"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
