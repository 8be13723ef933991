"""The results of invariants, one for each rule and mode, from the observations in all runs.

Rule: this module only counts. A violated rule counts as one miss, regardless of the number of runs.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from ..format.vocabulary import INVARIANT_PREFIX, MODES
from ..play.failure import Failure
from ..play.implementation import Implementation
from ..play.invariants import RULES, Rule
from .results import Known, Result, basis
from .verdict import STALE


@dataclass(frozen=True)
class InvariantObservation:
    """The observation of one rule in one run."""

    rule: str
    mode: str
    #: None if the rule was met.
    failure: Failure | None = None


@dataclass
class InvariantResults:
    """The observations of all runs."""

    _runs: Counter[tuple[str, str]] = field(default_factory=Counter)
    _broken: Counter[tuple[str, str]] = field(default_factory=Counter)
    _first: dict[tuple[str, str], Failure] = field(default_factory=dict)

    def add(self, seen: InvariantObservation) -> None:
        """Add the observation of one rule in one run."""
        key = (seen.rule, seen.mode)
        self._runs[key] += 1
        if seen.failure is not None:
            self._broken[key] += 1
            self._first.setdefault(key, seen.failure)

    def results(self, implementation: Implementation) -> list[Result]:
        """Return a result for each rule in each mode in which a run could have violated it."""
        return [
            self._result(rule, mode, implementation)
            for rule in RULES
            for mode in MODES
            if self._runs[rule.name, mode]
        ]

    def _result(self, rule: Rule, mode: str, implementation: Implementation) -> Result:
        key = (rule.name, mode)
        name = INVARIANT_PREFIX + rule.name
        failure = self._first.get(key)
        if failure is None:
            return Result(name, mode, rule.title, outcome="passed", **basis(rule.requires[:1]))
        known = implementation.divergence(name, mode)
        message = (
            f"in {self._broken[key]} of {self._runs[key]} runs; first failure: {failure.summary}"
        )
        return Result(
            transcript=name,
            mode=mode,
            title=rule.title,
            outcome="failed" if known is None else "diverged",
            message=message,
            divergence=Known(known.kind, known.reason) if known else None,
            cause=failure.cause,
            text=failure.text if known is None else "",
            **basis(rule.requires[:1], failure.requirement),
        )


def stale_if_known(result: Result, implementation: Implementation) -> Result:
    """Mark the *result* of a complete run as stale if it passes but is a known divergence."""
    known = implementation.divergence(result.transcript, result.mode)
    if result.outcome != "passed" or known is None or known.sometimes:
        return result
    return replace(result, outcome=STALE, divergence=Known(known.kind, known.reason))
