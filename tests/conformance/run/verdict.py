"""The verdict on the results of a run, and its wording.

Rule: pure functions. A verdict never covers transcripts that were not run. The results at level
MUST determine the verdict. A known divergence counts as a failure, but a stale divergence does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..format.vocabulary import MODES
from .results import Result

CONFORMANT = "conformant"
NOT_STRICT = "conformant, not strict"
NOT_CONFORMANT = "not conformant"
#: The possible verdicts. Failures at level SHOULD are listed but do not make a program
#: non-conformant. A verdict contains "conformant" only if the run at level MUST was complete.
NOT_AT_MUST = "not tested at level MUST"
NOT_JUDGED = "not tested"

#: The beginning of the message about an unimplemented `may`.
PERMITTED = "permitted: "
_MISSED = ("failed", "diverged")
#: The outcome of a transcript that passes although the description lists it as a divergence.
STALE = "stale"


@dataclass(frozen=True)
class Unjudged:
    """Results that are missing for the same reason."""

    reason: str
    results: int
    must: int

    def __str__(self) -> str:
        results = f"{self.results} result{'' if self.results == 1 else 's'}"
        return f"{results}, {self.must} of them at level MUST: {self.reason}"


@dataclass(frozen=True)
class Verdict:
    """The verdict, and the results on which it is based."""

    word: str
    missed: tuple[Result, ...]
    #: The number of results at levels MUST and SHOULD, except skipped results.
    must: int
    should: int
    unjudged: tuple[Unjudged, ...]
    #: The selection, or "" if all transcripts were run in all modes and all requirements were
    #: tested.
    selection: str
    #: Results at any level that pass although they are listed as known divergences.
    stale: tuple[Result, ...] = ()
    #: The profile whose requirements were tested, or "" in older result files.
    profile: str = ""

    def missed_at(self, level: str) -> tuple[Result, ...]:
        """Return the failures at *level*."""
        return tuple(result for result in self.missed if result.level == level)

    @property
    def unexpected(self) -> bool:
        """True if there is an unexpected miss at level MUST or a stale divergence."""
        failed = any(result.outcome == "failed" for result in self.missed_at("must"))
        return failed or bool(self.stale)

    @property
    def sentence(self) -> str:
        """Return the verdict and its profile in one line."""
        return f"{self._counts} (profile {self.profile})" if self.profile else self._counts

    @property
    def _counts(self) -> str:
        if self.word == NOT_JUDGED:
            return f"{NOT_JUDGED}: no transcript at level MUST or SHOULD was completed"
        counts = [
            _count("must", len(self.missed_at("must")), self.must),
            _count("should", len(self.missed_at("should")), self.should),
        ]
        return f"{self.word}: {', '.join(count for count in counts if count)}"

    def lines(self) -> Iterator[str]:
        """Return the verdict, the missing results and the stale entries."""
        yield f"verdict: {self.sentence}"
        if self.selection:
            yield f"  only a selection was tested: {self.selection}"
        for unjudged in self.unjudged:
            yield f"  not tested: {unjudged}"
        if self.stale:
            yield f"  {self._stale_entries}"

    @property
    def _stale_entries(self) -> str:
        names = ", ".join(_names(self.stale))
        count = f"{len(self.stale)} known divergence{'' if len(self.stale) == 1 else 's'}"
        passes = "passes" if len(self.stale) == 1 else "pass"
        return f"{count} in the implementation file now {passes}; remove the entries for: {names}"


def judge(
    results: Sequence[Result],
    transcripts: int,
    modes: Sequence[str],
    source: str = "",
    profile: str = "",
) -> Verdict:
    """Return the verdict on *results* in *modes* for a *profile* of *transcripts* transcripts.

    With a *source*, only requirements from this source were tested.
    """
    everything = [result for result in results if result.level != "may"]
    judged = [result for result in everything if result.outcome != "skipped"]
    missed = tuple(result for result in judged if result.outcome in _MISSED)
    return Verdict(
        _word(judged, missed),
        missed,
        sum(result.level == "must" for result in judged),
        sum(result.level == "should" for result in judged),
        _unjudged(everything),
        selection(results, transcripts, modes, source),
        tuple(result for result in results if result.outcome == STALE),
        profile,
    )


def selection(
    results: Sequence[Result], transcripts: int, modes: Sequence[str], source: str = ""
) -> str:
    """Return a description of the selected part of *transcripts*, or "" if all were selected."""
    tried = len({result.transcript for result in results if result.is_transcript})
    parts = [f"{tried} of {transcripts} transcripts"] if tried < transcripts else []
    if not set(MODES) <= set(modes):
        parts.append(f"in {', '.join(modes)} only")
    if source:
        parts.append(f"only requirements from source {source}")
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
    if missed:
        return f"{missed} of {judged} failed at level {level.upper()}"
    return f"all {judged} passed at level {level.upper()}"


def _unjudged(results: list[Result]) -> tuple[Unjudged, ...]:
    reasons: dict[str, list[Result]] = {}
    for result in results:
        if result.outcome == "skipped":
            reasons.setdefault(result.message, []).append(result)
    return tuple(
        Unjudged(reason, len(those), sum(result.level == "must" for result in those))
        for reason, those in reasons.items()
    )


def _names(results: Iterable[Result]) -> list[str]:
    """Return the name of each transcript with the modes of its results."""
    modes: dict[str, list[str]] = {}
    for result in sorted(results, key=lambda one: one.transcript):
        modes.setdefault(result.transcript, []).append(result.mode)
    return [f"{name} [{', '.join(of_it)}]" for name, of_it in modes.items()]
