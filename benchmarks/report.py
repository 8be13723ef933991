"""Formats results as Markdown tables, for the terminal and for docs/performance.md.

Rule: every number is a median with the minimum and maximum of all rounds. Processor time comes
first, followed by elapsed time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from .figures import Comparison, Figure, Series, number
from .results import Results


def summary(values: Sequence[float]) -> str:
    """Return the median and the range of values, or "" if there are none."""
    if not values:
        return ""
    low, middle, high = (number(of(values)) for of in (min, median, max))
    return middle if len(values) == 1 else f"{middle} ({low} .. {high})"


def figures(measured: Iterable[Figure]) -> str:
    """Return the table of figures."""
    return table(
        ["what", "", "processor", "by the clock", "bar", ""],
        [
            [
                figure.label,
                figure.unit,
                summary(figure.samples),
                summary(figure.wall),
                figure.bar(),
                figure.verdict(),
            ]
            for figure in measured
        ],
    )


def growth(series: Series) -> str:
    """Return the table of a series, with its slope."""
    rows = [
        [f"{point.at:,}".replace(",", " "), summary(point.samples), summary(point.wall)]
        for point in series.points
    ]
    shown = table([series.of, f"processor, {series.unit}", "by the clock"], rows)
    return f"{series.label}\n\n{shown}\n\n{slope(series)}"


def slope(series: Series) -> str:
    """Return a sentence about the growth of a series."""
    return (
        f"Slope over the last step: {series.slope():.2f} (0 is flat, 1 is proportional); "
        f"each additional one of the {series.of} costs {1000 * series.each():.3g} µs."
    )


def comparison(compared: Comparison) -> str:
    """Return the table of a comparison."""
    if any(way.latency for way in compared.ways):
        return paths(compared)
    rows = []
    for way in compared.ways:
        ratios = compared.next_to_first(way)
        rows.append(
            [
                way.name,
                summary(way.samples),
                summary([ratio.processor for ratio in ratios]),
                summary(way.wall),
                summary([ratio.wall for ratio in ratios]),
            ]
        )
    first = compared.ways[0].name
    clock = f"by the clock, {compared.unit}"
    head = ["way", f"processor, {compared.unit}", f"/ {first}", clock, f"/ {first}"]
    return f"{compared.label}, a message\n\n{table(head, rows)}"


def paths(compared: Comparison) -> str:
    """Return the table of a comparison that has latencies."""
    first = compared.ways[0].name
    head = ["way", "processor, ms", f"/ {first}", "latency, ms", "99 %", "messages/s", "MB"]
    rows = [
        [
            way.name,
            summary(way.samples),
            number(median(ratio.processor for ratio in compared.next_to_first(way))),
            *map(number, way.latency),
            number(1000 / median(way.wall)),
            number(way.memory) if way.memory else "",
        ]
        for way in compared.ways
    ]
    absent = [f"Not measured: {name}: {reason}." for name, reason in compared.absent.items()]
    return "\n\n".join([compared.label, table(head, rows), *absent])


def everything(results: Results) -> str:
    """Return all tables, one after another."""
    parts = [results.conditions.shown()]
    parts += [figures(results.figures)] if results.figures else []
    parts += map(growth, results.series)
    parts += map(comparison, results.comparisons)
    parts += [f"Not measured: {name}: {reason}" for name, reason in results.missing.items()]
    parts += [f"Broken: {name}: {reason}" for name, reason in results.broken.items()]
    return "\n\n".join(parts)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    cells = [list(head), *map(list, rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |"
        for row in cells
    )
