"""What a run's results amount to, in words.

Rule: pure, and it never claims what was not judged; level must decides, level should is named, a
known divergence is a miss like any other, and one that has stopped diverging is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..format.vocabulary import MODES
from .results import Result

CONFORMANT = "conformant"
NOT_STRICT = "conformant, not strict"
NOT_CONFORMANT = "not conformant"
#: What is missed at should is named, but who was not asked for the rest is not called conformant.
NOT_AT_MUST = "not judged at must"
NOT_JUDGED = "not judged"

#: How the message of a `may` that is not so begins: observed, never missed.
PERMITTED = "permitted: "
#: Of an implementation that is not conformant, so many for each clause are named.
_NAMED = 10
_MISSED = ("failed", "diverged")
#: The outcome of what passes though the implementation's file says that it fails.
STALE = "stale"


@dataclass(frozen=True)
class Unjudged:
    """Results that could not be had, all for one reason."""

    reason: str
    results: int
    must: int

    def __str__(self) -> str:
        results = f"{self.results} result{'' if self.results == 1 else 's'}"
        return f"{results}, {self.must} of them at level must: {self.reason}"


@dataclass(frozen=True)
class Verdict:
    """The word, and what it rests on."""

    word: str
    missed: tuple[Result, ...]
    #: How many results there are at levels must and should, skipped ones not among them.
    must: int
    should: int
    unjudged: tuple[Unjudged, ...]
    #: "" if every transcript of the suite was tried, in every mode.
    selection: str
    #: What passes, at any level, though it is listed as a known divergence.
    stale: tuple[Result, ...] = ()

    def missed_at(self, level: str) -> tuple[Result, ...]:
        """What was missed at *level*."""
        return tuple(result for result in self.missed if result.level == level)

    @property
    def unexpected(self) -> bool:
        """Whether the file is wrong: a miss at level must that it does not announce, or none."""
        failed = any(result.outcome == "failed" for result in self.missed_at("must"))
        return failed or bool(self.stale)

    @property
    def sentence(self) -> str:
        """The verdict in one line."""
        if self.word == NOT_JUDGED:
            return f"{NOT_JUDGED}: nothing at level must or should was played to its end"
        counts = [
            _count("must", len(self.missed_at("must")), self.must),
            _count("should", len(self.missed_at("should")), self.should),
        ]
        return f"{self.word}: {', '.join(count for count in counts if count)}"

    def lines(self) -> Iterator[str]:
        """The verdict, what was not judged, and what was missed, by clause and whole name."""
        yield f"verdict: {self.sentence}"
        if self.selection:
            yield f"  only a selection was judged: {self.selection}"
        for unjudged in self.unjudged:
            yield f"  not judged: {unjudged}"
        if self.stale:
            yield f"  {self._stale_entries}"
        for level in ("must", "should"):
            for clauses, names in _by_clauses(self.missed_at(level)):
                named = names[:_NAMED] if self.word == NOT_CONFORMANT else names
                more = f" and {len(names) - len(named)} more" if len(names) > len(named) else ""
                yield f"  missed ({level}) {clauses}: {', '.join(named)}{more}"

    @property
    def _stale_entries(self) -> str:
        names = ", ".join(_names(self.stale))
        count = f"{len(self.stale)} known divergence{'' if len(self.stale) == 1 else 's'}"
        passes = "passes" if len(self.stale) == 1 else "pass"
        return (
            f"{count} of the implementation's file {passes}: remove the entries, "
            f"or those of these modes: {names}"
        )


def judge(results: Sequence[Result], transcripts: int, modes: Sequence[str]) -> Verdict:
    """The verdict on *results* in *modes*, of a suite that has so many *transcripts*."""
    everything = [result for result in results if result.level != "may"]
    judged = [result for result in everything if result.outcome != "skipped"]
    missed = tuple(result for result in judged if result.outcome in _MISSED)
    return Verdict(
        _word(judged, missed),
        missed,
        sum(result.level == "must" for result in judged),
        sum(result.level == "should" for result in judged),
        _unjudged(everything),
        selection(results, transcripts, modes),
        tuple(result for result in results if result.outcome == STALE),
    )


def selection(results: Sequence[Result], transcripts: int, modes: Sequence[str]) -> str:
    """What of so many *transcripts* in all modes was chosen; "" if all was."""
    tried = len({result.transcript for result in results if result.is_transcript})
    parts = [f"{tried} of {transcripts} transcripts"] if tried < transcripts else []
    if not set(MODES) <= set(modes):
        parts.append(f"in {', '.join(modes)} only")
    return ", ".join(parts)


def _word(judged: list[Result], missed: tuple[Result, ...]) -> str:
    if not judged:
        return NOT_JUDGED
    if any(result.level == "must" for result in missed):
        return NOT_CONFORMANT
    if all(result.level != "must" for result in judged):
        return NOT_AT_MUST
    return NOT_STRICT if missed else CONFORMANT


def _count(level: str, missed: int, judged: int) -> str:
    if not judged:
        return ""
    return f"{missed} of {judged} missed at {level}" if missed else f"all {judged} at {level}"


def _unjudged(results: list[Result]) -> tuple[Unjudged, ...]:
    reasons: dict[str, list[Result]] = {}
    for result in results:
        if result.outcome == "skipped":
            reasons.setdefault(result.message, []).append(result)
    return tuple(
        Unjudged(reason, len(those), sum(result.level == "must" for result in those))
        for reason, those in reasons.items()
    )


def _by_clauses(missed: tuple[Result, ...]) -> Iterator[tuple[str, list[str]]]:
    together: dict[str, list[Result]] = {}
    for result in sorted(missed, key=lambda one: (one.clauses, one.transcript)):
        together.setdefault(", ".join(result.clauses), []).append(result)
    for clauses, results in together.items():
        yield clauses, _names(results)


def _names(results: Iterable[Result]) -> list[str]:
    """Each transcript with the modes of its results."""
    modes: dict[str, list[str]] = {}
    for result in sorted(results, key=lambda one: one.transcript):
        modes.setdefault(result.transcript, []).append(result.mode)
    return [f"{name} [{', '.join(of_it)}]" for name, of_it in modes.items()]
