"""The measured figures by round, and their limits.

Rule: a figure is the median of its rounds, with the minimum and maximum. Its processor time (or
memory) is compared with a limit, and the result is only displayed.
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
    """A program to measure, with its name and its command, in which `{upstream}` is HOST:PORT."""

    name: str
    template: tuple[str, ...]

    def command(self, upstream: str, *options: str) -> list[str]:
        """Return the command line of the program."""
        return [*(word.replace("{upstream}", upstream) for word in self.template), *options]


@dataclass
class Samples:
    """The results of all rounds: processor time or memory, and elapsed time if it is meaningful."""

    samples: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def add(self, spent: Spent) -> None:
        """Add the result of one round."""
        self.samples.append(spent.processor)
        self.wall.append(spent.wall)

    def rounds(self) -> list[Spent]:
        """Return the results that `add` received."""
        return [Spent(*each) for each in zip(self.samples, self.wall, strict=True)]


@dataclass
class Figure(Samples):
    """A line of the table of figures."""

    label: str = ""
    unit: str = "x"
    #: The limit, which is a maximum or a minimum.
    at_most: float | None = None
    at_least: float | None = None

    def bar(self) -> str:
        """Return the limit as text."""
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        return f"≥ {self.at_least:g}" if self.at_least is not None else ""

    def verdict(self) -> str:
        """Return whether the displayed median is within the limit, as text."""
        if not self.samples or not self.bar():
            return ""
        shown = float(number(median(self.samples)))
        most = math.inf if self.at_most is None else self.at_most
        return "meets" if (self.at_least or 0.0) <= shown <= most else "misses"

    def compare(self, rounds: Iterable[Spent], others: Iterable[Spent]) -> Self:
        """Add the ratios of results from the same rounds."""
        for one, other in zip(rounds, others, strict=True):
            self.add(one.over(other))
        return self


@dataclass
class Point(Samples):
    """The result at one point of a series."""

    at: int = 0


@dataclass
class Series:
    """A series of results, with its name, the measured unit, and the quantity that increases."""

    name: str
    label: str
    of: str
    unit: str = "ms"
    points: list[Point] = field(default_factory=list)

    def at(self, places: Iterable[int]) -> Self:
        """Measure at these points."""
        self.points = [Point(at=place) for place in places]
        return self

    def slope(self) -> float:
        """Return the exponent of the growth over the last step (0: constant, 1: proportional)."""
        (x, y), (further, more) = self._last()
        return math.log(more / y) / math.log(further / max(x, 1))

    def each(self) -> float:
        """Return the cost of each additional one over the last step, in the unit of the series."""
        (x, y), (further, more) = self._last()
        return (more - y) / (further - x)

    def _last(self) -> Sequence[tuple[int, float]]:
        return [(point.at, median(point.samples)) for point in self.points[-2:]]


@dataclass
class Way(Samples):
    """The results of one of several ways to do the same work."""

    name: str = ""
    #: The median and the 99th percentile of all latencies in ms, if they are measured.
    latency: list[float] = field(default_factory=list)
    #: The memory of the filtering processes in MB.
    memory: float = 0.0
    #: Whether the way only serves for comparison.
    reference: bool = False


@dataclass
class Comparison:
    """Several ways to do the same work, each compared with the first one."""

    name: str
    label: str
    unit: str = "ms"
    ways: list[Way] = field(default_factory=list)
    #: The ways that could not be measured, and the reasons.
    absent: dict[str, str] = field(default_factory=dict)

    def next_to_first(self, way: Way) -> list[Spent]:
        """Return the ratios of a way to the first one, by round."""
        pairs = zip(way.rounds(), self.ways[0].rounds(), strict=True)
        return [one.over(first) for one, first in pairs]


Measured = Figure | Series | Comparison


@dataclass(frozen=True)
class Bench:
    """The parameters of every benchmark."""

    python: str
    #: The installed postprox, and the programs that are also measured.
    postprox: Subject
    beside: tuple[Subject, ...]
    upstream: Upstream
    directory: Path
    #: The number of rounds, or 0 for the default of each benchmark.
    rounds: int
    #: The divisor of sizes and numbers, for trial runs.
    divisor: int

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """All programs to measure."""
        return self.postprox, *self.beside

    def named(self, label: str, subject: Subject) -> str:
        """Return the label of a figure, which contains the subject's name unless it is postprox."""
        return label if subject is self.postprox else f"{label}: {subject.name}"

    def bar(self, subject: Subject, value: float) -> float | None:
        """Return the limit of a figure, which applies only to postprox."""
        return value if subject is self.postprox else None

    def turns(self, usual: int) -> range:
        """Return the rounds of a benchmark. Round 0 is a warm-up and does not count."""
        return range((self.rounds or usual) + 1)

    def part(self, number: int, floor: int = 1) -> int:
        """Return a size or number, reduced in a trial run."""
        return max(floor, number // self.divisor)

    def places(self, numbers: Iterable[int]) -> list[int]:
        """Return the points of a series, at least two of them."""
        places = {self.part(number) if number else 0 for number in numbers}
        return sorted(places if len(places) > 1 else {1, 2})

    def command(self, subject: Subject, *options: str) -> list[str]:
        """Return the command line of a subject, with the directory for messages."""
        return subject.command(self.upstream.smtp, "-d", str(self.directory), *options)

    def crowded(self, sessions: int, descriptors: int, *options: str) -> list[str]:
        """Return the command line of postprox for many sessions with few open files each."""
        needs_descriptors(sessions * descriptors + 100)
        library = self.directory / "lib/postprox"
        many = (self.python, "-IS", str(MANY), str(library), str(descriptors), "{upstream}")
        room = ("--max-sessions", str(sessions + 10))
        return self.command(Subject("postprox", many), *room, *options)


def number(value: float) -> str:
    """Format a number with its significant digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
