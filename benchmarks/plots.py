"""Plots the series and comparisons of a run as SVG (matplotlib, in the extra `bench`).

Rule: a plot shows the median of each point with its range. Its description contains a digest of the
data (`document.digest`), so that outdated plots can be detected.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, NullFormatter

from .figures import Comparison, Samples, Series

COLOURS = ("#1f5fa8", "#c0c0c0")
#: The smallest text, in units of the picture. It is legible in a picture 400 pixels wide.
TEXT = 10
#: The longest line of a way's name.
NAME = 44


def draw(shown: Series | Comparison, path: Path, description: str) -> None:
    """Write the plot of a series or comparison."""
    # Text remains text, and the same data produces the same file.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "postprox", "font.size": TEXT}):
        height = 3.2 if isinstance(shown, Series) else 1 + 0.3 * len(shown.ways)
        canvas = Canvas(figsize=(6, height), layout="constrained")
        canvas.suptitle(shown.label)
        axes = canvas.subplots()
        if isinstance(shown, Series):
            _series(axes, shown)
        elif any(way.latency for way in shown.ways):
            _paths(axes, shown)
        else:
            _comparison(axes, shown)
        canvas.savefig(path, metadata={"Date": None, "Description": description})
    text = path.read_text(encoding="utf-8")  # this text has blanks at the ends of lines
    path.write_text("\n".join(map(str.rstrip, text.splitlines())) + "\n", encoding="utf-8")


def _series(axes: Axes, series: Series) -> None:
    places = [max(point.at, 1) for point in series.points]
    for label, colour, values in (
        ("processor time", COLOURS[0], [point.samples for point in series.points]),
        ("elapsed time", COLOURS[1], [point.wall for point in series.points]),
    ):
        middles, errors = _spread(values)
        axes.errorbar(places, middles, yerr=errors, color=colour, label=label, marker="o", ms=3)
    axes.set(xscale="log", yscale="log", xlabel=series.of, ylabel=f"{series.unit} per message")
    for axis in (axes.xaxis, axes.yaxis):  # the exponents of the default labels are too small
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.9g}".replace(",", " ")))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend()


def _paths(axes: Axes, compared: Comparison) -> None:
    ways = compared.ways
    middles, errors = _spread([way.samples for way in ways])
    colours = [COLOURS[not way.name.startswith("postprox")] for way in ways]
    axes.barh(range(len(ways)), middles, xerr=errors, color=colours)
    axes.set_yticks(range(len(ways)), [_wrapped(way.name) for way in ways])
    axes.invert_yaxis()
    axes.set(xlabel=f"processor time per message, {compared.unit}")


def _wrapped(name: str) -> str:
    return "\n".join(textwrap.wrap(name, NAME))


def _comparison(axes: Axes, compared: Comparison) -> None:
    ways: Sequence[Samples] = compared.ways
    names = [way.name for way in compared.ways]
    for label, colour, shift, values in (
        ("processor time of all", COLOURS[0], -0.2, [way.samples for way in ways]),
        ("elapsed time", COLOURS[1], 0.2, [way.wall for way in ways]),
    ):
        middles, errors = _spread(values)
        places = [index + shift for index in range(len(names))]
        axes.barh(places, middles, height=0.4, xerr=errors, color=colour, label=label)
    axes.set_yticks(range(len(names)), [_wrapped(name) for name in names])
    axes.invert_yaxis()
    axes.set(xlabel=f"{compared.unit} per message")
    axes.legend()


def _spread(values: Sequence[Sequence[float]]) -> tuple[list[float], list[list[float]]]:
    """Return the medians, and the distances of the minimum and maximum from them."""
    middles = [median(each) for each in values]
    below = [middle - min(each) for middle, each in zip(middles, values, strict=True)]
    above = [max(each) - middle for middle, each in zip(middles, values, strict=True)]
    return middles, [below, above]
