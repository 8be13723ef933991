"""Formats results as Markdown tables, for the terminal and for the documentation.

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
        ["what", "", "processor time, memory or count", "elapsed time", "limit", ""],
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
    shown = table([series.of, f"processor time, {series.unit}", "elapsed time"], rows)
    return f"{series.label}\n\n{shown}\n\n{slope(series)}"


def slope(series: Series) -> str:
    """Return a sentence about the growth of a series."""
    return (
        f"Slope over the last step: {series.slope():.2f} (0 is flat, 1 is proportional); "
        f"each additional one of the {series.of} costs {1000 * series.each():.3g} µs."
    )


def comparison(compared: Comparison) -> str:
    """Return the table of a comparison."""
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
    elapsed = f"elapsed time, {compared.unit}"
    head = ["way", f"processor time, {compared.unit}", f"/ {first}", elapsed, f"/ {first}"]
    return f"{compared.label}, a message\n\n{table(head, rows)}"


def paths(compared: Comparison, *, spread: bool = False) -> str:
    """Return the table of a comparison with latencies and memory.

    spread: whether to show the minimum and maximum of the processor time.
    """
    first = compared.ways[0].name
    rows = []
    for way in compared.ways:
        ratios = [ratio.processor for ratio in compared.next_to_first(way)]
        ratio, processor = (
            summary(each if spread else [median(each)]) for each in (ratios, way.samples)
        )
        rate = number(1000 / median(way.wall))
        memory = number(way.memory) if way.memory else ""
        rows.append([way.name, ratio, processor, *map(number, way.latency), rate, memory])
    head = ["way", f"processor time / {first}", "ms", "latency, ms", "99 %", "messages/s", "MB"]
    return table(head, rows)


def absences(compared: Comparison) -> list[str]:
    """Return a sentence for each way that was not measured."""
    return [f"Not measured: {name}: {reason}." for name, reason in compared.absent.items()]


def everything(results: Results) -> str:
    """Return all tables, one after another."""
    parts = [results.conditions.shown()]
    parts += [figures(results.figures)] if results.figures else []
    parts += map(growth, results.series)
    for compared in results.comparisons:
        is_path = any(way.latency for way in compared.ways)
        parts += [compared.label, paths(compared)] if is_path else [comparison(compared)]
        parts += absences(compared)
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
