"""The matrix of families and implementations, which counts and groups results.

Rule: this module does not format anything. A result is one transcript in one mode. It adds one
to its implementation's totals, one to each group and one to each of its families.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count, groupby

from ..format.requirements import Family
from ..format.vocabulary import LEVELS, OUTCOMES
from ..run.causes import Cause, by_harm, causes
from ..run.results import Known, Result
from .results import Run

#: The outcomes in order of precedence. The first one that occurs determines the appearance of a
#: group.
WEIGHT = ("failed", "diverged", "stale", "passed", "skipped")


@dataclass(frozen=True)
class Tally:
    """The number of results for each outcome."""

    counts: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, results: Iterable[Result]) -> Tally:
        counter = Counter(result.outcome for result in results)
        return cls(tuple((outcome, counter[outcome]) for outcome in OUTCOMES if counter[outcome]))

    def number(self, outcome: str) -> int:
        return dict(self.counts).get(outcome, 0)


@dataclass(frozen=True)
class Finding:
    """A result with a text (failed, diverged or skipped), which combines modes with the same text.

    If an implementation skips several transcripts with the same text, this is one finding.
    """

    anchor: str
    results: tuple[Result, ...]

    @property
    def first(self) -> Result:
        return self.results[0]

    @property
    def outcome(self) -> str:
        return self.first.outcome

    @property
    def message(self) -> str:
        return self.first.message

    @property
    def divergence(self) -> Known | None:
        return self.first.divergence

    @property
    def modes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(result.mode for result in self.results))

    @property
    def transcripts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(result.transcript for result in self.results))


@dataclass(frozen=True)
class Column:
    """One implementation, from one result file."""

    label: str
    run: Run
    findings: tuple[Finding, ...]

    def tally(self, level: str | None = None) -> Tally:
        return Tally.of(r for r in self.run.results if level in (None, r.level))

    def found(self, outcome: str) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.outcome == outcome)

    @property
    def causes(self) -> tuple[tuple[Finding, ...], ...]:
        """Return failures by cause, most frequent first, followed by failures without a cause."""
        together: dict[str, list[Finding]] = {}
        for finding in self.found("failed"):
            together.setdefault(finding.first.cause or finding.anchor, []).append(finding)
        return tuple(map(tuple, sorted(together.values(), key=len, reverse=True)))

    @property
    def levels(self) -> tuple[str, ...]:
        return _levels(self.run.results)

    @cached_property
    def harms(self) -> dict[str, list[Cause]]:
        """The causes of all misses, grouped under headings for their harm."""
        return by_harm(causes(self.run.results))

    @cached_property
    def anchors(self) -> dict[Result, str]:
        """The anchors of result texts in the report."""
        return {result: finding.anchor for finding in self.findings for result in finding.results}


@dataclass(frozen=True)
class Mark:
    """An outcome, its modes, and the anchor of its text."""

    outcome: str
    modes: tuple[str, ...]
    anchor: str | None


@dataclass(frozen=True)
class Entry:
    """A transcript in the list of its family, with its outcomes in each column."""

    transcript: str
    title: str
    level: str
    marks: tuple[tuple[Mark, ...], ...]

    @property
    def failed(self) -> bool:
        return any(mark.outcome == "failed" for marks in self.marks for mark in marks)


@dataclass(frozen=True)
class Cell:
    """One column of one family. It has a tally for each level, which may be empty."""

    tallies: tuple[tuple[str, Tally], ...]

    @property
    def verdict(self) -> str:
        there = {outcome for _, tally in self.tallies for outcome, _ in tally.counts}
        return next((outcome for outcome in WEIGHT if outcome in there), "none")


@dataclass(frozen=True)
class Row:
    """One family, with a cell for each column and the transcripts."""

    family: Family
    cells: tuple[Cell, ...]
    entries: tuple[Entry, ...]

    @property
    def levels(self) -> tuple[str, ...]:
        seen = {*self.family.levels, *(entry.level for entry in self.entries)}
        return tuple(level for level in LEVELS if level in seen)

    @property
    def failed_levels(self) -> tuple[str, ...]:
        seen = {entry.level for entry in self.entries if entry.failed}
        return tuple(level for level in LEVELS if level in seen)


@dataclass(frozen=True)
class Group:
    """Families whose names begin with the same word."""

    name: str
    rows: tuple[Row, ...]
    tallies: tuple[Tally, ...]


@dataclass(frozen=True)
class Matrix:
    """The contents of a report."""

    columns: tuple[Column, ...]
    groups: tuple[Group, ...]

    @property
    def rows(self) -> int:
        return sum(len(group.rows) for group in self.groups)

    @property
    def properties(self) -> tuple[tuple[str, tuple[Tally, ...]], ...]:
        """The properties of random sessions, each with a tally for each column."""
        results = [[r for r in column.run.results if r.is_property] for column in self.columns]
        names = sorted({r.transcript for of_one in results for r in of_one})
        return tuple(
            (name, tuple(Tally.of(r for r in of_one if r.transcript == name) for of_one in results))
            for name in names
        )

    @property
    def partial(self) -> bool:
        return any(column.run.gaps for column in self.columns)

    @property
    def suite_versions(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(column.run.suite_version for column in self.columns))


def build(families: Sequence[Family], runs: Sequence[Run]) -> Matrix:
    """Return the matrix of *runs* over *families*, in the order of both."""
    numbers = count(1)
    columns = tuple(
        Column(label, run, _findings(run, numbers))
        for label, run in zip(_labels(runs), runs, strict=True)
    )
    everything = [*families, *_strangers(families, runs)]
    groups = dict.fromkeys(family.group for family in everything)
    return Matrix(
        columns, tuple(_group(g, [f for f in everything if f.group == g], columns) for g in groups)
    )


def _labels(runs: Sequence[Run]) -> list[str]:
    """Return each column's name and version, with the file name if two labels would be equal."""
    plain = [f"{run.name} {run.version}".strip() for run in runs]
    return [
        label if plain.count(label) == 1 else f"{label} ({run.source})"
        for label, run in zip(plain, runs, strict=True)
    ]


def _strangers(families: Sequence[Family], runs: Sequence[Run]) -> list[Family]:
    """Return the families that occur in the results but not in the specification."""
    named = {name for run in runs for result in run.results for name in result.clauses}
    strange = sorted(named - {family.name for family in families})
    return [Family(name, (), "Not in this specification.") for name in strange]


def _findings(run: Run, numbers: Iterator[int]) -> tuple[Finding, ...]:
    def words(result: Result) -> tuple[object, ...]:
        which = "" if result.outcome == "skipped" else result.transcript
        return result.outcome, which, result.message, result.divergence

    together: dict[tuple[object, ...], list[Result]] = {}
    for result in sorted(run.results, key=lambda r: (r.transcript, _mode_order(run, r))):
        if result.outcome != "passed":
            together.setdefault(words(result), []).append(result)
    return tuple(Finding(f"n{next(numbers)}", tuple(same)) for same in together.values())


def _mode_order(run: Run, result: Result) -> int:
    return run.modes.index(result.mode) if result.mode in run.modes else len(run.modes)


def _levels(results: Iterable[Result]) -> tuple[str, ...]:
    seen = {result.level for result in results}
    return tuple(level for level in LEVELS if level in seen)


def _group(name: str, families: Sequence[Family], columns: Sequence[Column]) -> Group:
    names = {family.name for family in families}
    return Group(
        name,
        tuple(_row(family, columns) for family in families),
        tuple(Tally.of(r for r in c.run.results if names & set(r.clauses)) for c in columns),
    )


def _row(family: Family, columns: Sequence[Column]) -> Row:
    judged = [[r for r in c.run.results if family.name in r.clauses] for c in columns]
    return Row(
        family,
        tuple(_cell(family, results) for results in judged),
        tuple(_entries(judged, columns)),
    )


def _cell(family: Family, results: Sequence[Result]) -> Cell:
    """Return tallies for all levels of the family, even if empty, and for levels with results."""
    if not results:
        return Cell(())
    levels = {*family.levels, *_levels(results)}
    return Cell(
        tuple(
            (level, Tally.of(r for r in results if r.level == level))
            for level in LEVELS
            if level in levels
        )
    )


def _entries(judged: Sequence[Sequence[Result]], columns: Sequence[Column]) -> list[Entry]:
    """Return all transcripts that occur in a column, with their outcomes in every column."""
    first = {r.transcript: r for results in reversed(judged) for r in results}
    return [
        Entry(
            name,
            first[name].title,
            first[name].level,
            tuple(
                _marks(column, [r for r in results if r.transcript == name])
                for results, column in zip(judged, columns, strict=True)
            ),
        )
        for name in sorted(first)
    ]


def _marks(column: Column, results: Sequence[Result]) -> tuple[Mark, ...]:
    def looks(result: Result) -> tuple[int, str]:
        return WEIGHT.index(result.outcome), column.anchors.get(result, "")

    ordered = sorted(results, key=lambda r: (looks(r), _mode_order(column.run, r)))
    return tuple(
        Mark(WEIGHT[outcome], tuple(result.mode for result in same), anchor or None)
        for (outcome, anchor), same in groupby(ordered, key=looks)
    )
