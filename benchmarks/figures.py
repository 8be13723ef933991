"""Figures: what was measured, of which program, round by round, and the table of them.

Rule: a figure is shown as the median of its rounds with the least and the greatest, beside its
bound; it judges nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from .peers import Upstream


@dataclass(frozen=True)
class Subject:
    """A program to be measured: its name, and its command with `{upstream}` for HOST:PORT."""

    name: str
    template: tuple[str, ...]

    def command(self, upstream: str, *options: str) -> list[str]:
        """Return its command line."""
        return [*(word.replace("{upstream}", upstream) for word in self.template), *options]


@dataclass
class Figure:
    """One line of the table."""

    label: str
    unit: str = ""
    bound: str = ""
    samples: dict[str, list[float]] = field(default_factory=dict)

    def add(self, subject: Subject, value: float) -> None:
        """Add what one round gave."""
        self.samples.setdefault(subject.name, []).append(value)

    def shown(self, name: str) -> str:
        """Return the median and the range of what was measured of the subject `name`."""
        values = self.samples.get(name)
        if not values:
            return ""
        least, middle, greatest = (_number(f(values)) for f in (min, median, max))
        if len(values) == 1:
            return middle
        return f"{middle} ({least} .. {greatest})"


@dataclass(frozen=True)
class Bench:
    """What every benchmark is given."""

    python: str
    subjects: tuple[Subject, ...]
    upstream: Upstream
    directory: Path
    #: How often, instead of each benchmark's own number; 0 for that.
    rounds: int
    #: What sizes are divided by, to try the programs out.
    divisor: int

    def turns(self, usual: int) -> range:
        """The rounds of a benchmark; round 0 warms up and is not to be counted."""
        return range((self.rounds or usual) + 1)

    @property
    def spooling(self) -> tuple[str, str]:
        """The option that says where messages are stored."""
        return "-d", str(self.directory)


def in_turn(times: int, *measures: Callable[[], float]) -> list[float]:
    """Run the measures in turn (A B C A B C …), so many times; return the least of each.

    The least is what it takes when nothing else wants the machine; the rest is noise.
    """
    runs = [[measure() for measure in measures] for _ in range(times)]
    return [min(values) for values in zip(*runs, strict=True)]


def table(figures: Iterable[Figure], names: Sequence[str]) -> str:
    """Return the figures as a Markdown table, with a column for each name of a subject."""
    rows = [["median (least .. greatest)", "", *names, "bound"]]
    rows += [
        [figure.label, figure.unit, *(figure.shown(name) for name in names), figure.bound]
        for figure in figures
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |"
        for row in rows
    )


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
