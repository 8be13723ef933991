"""Figures: what was measured, round by round, and the bars that it is to keep.

Rule: a figure is the median of its rounds with the least and the greatest; it is judged by its
processor time (or memory) against its bar, and the verdict is only shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Self

from .clock import Spent
from .peers import Upstream, needs_descriptors

MANY = Path(__file__).parent / "many.py"


@dataclass(frozen=True)
class Subject:
    """A program to be measured: its name, and its command with `{upstream}` for HOST:PORT."""

    name: str
    template: tuple[str, ...]

    def command(self, upstream: str, *options: str) -> list[str]:
        """Return its command line."""
        return [*(word.replace("{upstream}", upstream) for word in self.template), *options]


@dataclass
class Samples:
    """What the rounds gave: processor time or memory, and the wall clock where it says anything."""

    samples: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def add(self, spent: Spent) -> None:
        """Add what one round gave."""
        self.samples.append(spent.processor)
        self.wall.append(spent.wall)

    def rounds(self) -> list[Spent]:
        """Return what `add` was given."""
        return [Spent(*each) for each in zip(self.samples, self.wall, strict=True)]


@dataclass
class Figure(Samples):
    """One line of the table of figures."""

    label: str = ""
    unit: str = "x"
    #: The bar: at most this, or at least that.
    at_most: float | None = None
    at_least: float | None = None

    def bar(self) -> str:
        """Return the bar as it is shown."""
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        return f"≥ {self.at_least:g}" if self.at_least is not None else ""

    def verdict(self) -> str:
        """Say whether the median, as it is shown, keeps to the bar."""
        if not self.samples or not self.bar():
            return ""
        shown = float(number(median(self.samples)))
        most = math.inf if self.at_most is None else self.at_most
        return "meets" if (self.at_least or 0.0) <= shown <= most else "misses"

    def compare(self, rounds: Iterable[Spent], others: Iterable[Spent]) -> Self:
        """Add the ratios of what was measured in the same rounds."""
        for one, other in zip(rounds, others, strict=True):
            self.add(one.over(other))
        return self


@dataclass
class Point(Samples):
    """What was measured at one place of a series."""

    at: int = 0


@dataclass
class Series:
    """How something grows: its name, what it is measured for, and of what there is more."""

    name: str
    label: str
    of: str
    unit: str = "ms"
    points: list[Point] = field(default_factory=list)

    def at(self, places: Iterable[int]) -> Self:
        """Measure at these places."""
        self.points = [Point(at=place) for place in places]
        return self

    def slope(self) -> float:
        """Return the exponent of the growth over the last step: 0 is flat, 1 proportional."""
        (x, y), (further, more) = self._last()
        return math.log(more / y) / math.log(further / max(x, 1))

    def each(self) -> float:
        """Return what each further one costs over the last step, in the unit of the series."""
        (x, y), (further, more) = self._last()
        return (more - y) / (further - x)

    def _last(self) -> Sequence[tuple[int, float]]:
        return [(point.at, median(point.samples)) for point in self.points[-2:]]


@dataclass
class Way(Samples):
    """What one of several ways of doing the same takes."""

    name: str = ""


@dataclass
class Comparison:
    """Several ways of doing the same, each next to the first."""

    name: str
    label: str
    unit: str = "ms"
    ways: list[Way] = field(default_factory=list)

    def next_to_first(self, way: Way) -> list[Spent]:
        """Return the ratios of a way to the first, round by round."""
        pairs = zip(way.rounds(), self.ways[0].rounds(), strict=True)
        return [one.over(first) for one, first in pairs]


Measured = Figure | Series | Comparison


@dataclass(frozen=True)
class Bench:
    """What every benchmark is given."""

    python: str
    #: postprox as it was installed, and what is measured beside it.
    postprox: Subject
    beside: tuple[Subject, ...]
    upstream: Upstream
    directory: Path
    #: How often, instead of each benchmark's own number; 0 for that.
    rounds: int
    #: What sizes and numbers are divided by, to try the programs out.
    divisor: int

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """All programs to be measured."""
        return self.postprox, *self.beside

    def named(self, label: str, subject: Subject) -> str:
        """Return the label of a figure, with the subject's name unless it is postprox."""
        return label if subject is self.postprox else f"{label}: {subject.name}"

    def bar(self, subject: Subject, value: float) -> float | None:
        """Return the bar of a figure, which is postprox's alone."""
        return value if subject is self.postprox else None

    def turns(self, usual: int) -> range:
        """Return the rounds of a benchmark; round 0 warms up and is not to be counted."""
        return range((self.rounds or usual) + 1)

    def part(self, number: int, floor: int = 1) -> int:
        """Return a size or a number, in miniature if that is asked for."""
        return max(floor, number // self.divisor)

    def places(self, numbers: Iterable[int]) -> list[int]:
        """Return where to measure a series, two places at least."""
        places = {self.part(number) if number else 0 for number in numbers}
        return sorted(places if len(places) > 1 else {1, 2})

    def command(self, subject: Subject, *options: str) -> list[str]:
        """Return a subject's command line, with the place where messages are stored."""
        return subject.command(self.upstream.smtp, "-d", str(self.directory), *options)

    def crowded(self, sessions: int, descriptors: int, *options: str) -> list[str]:
        """Return the command line of postprox with room for sessions that hold so many open."""
        needs_descriptors(sessions * descriptors + 100)
        library = self.directory / "lib/postprox"
        many = (self.python, "-IS", str(MANY), str(library), str(descriptors), "{upstream}")
        room = ("--max-sessions", str(sessions + 10))
        return self.command(Subject("postprox", many), *room, *options)


def number(value: float) -> str:
    """Return a number with as many digits as mean something."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
