"""The results of invariants: each rule has one result in each mode, from all runs together."""

from __future__ import annotations

from tests.conformance.play.failure import Failure
from tests.conformance.play.implementation import Divergence, Implementation
from tests.conformance.run.invariant_results import (
    InvariantObservation,
    InvariantResults,
    stale_if_known,
)
from tests.conformance.run.results import Result

NAME = "invariant/stop"
REQUIREMENT = "listen.stop-9"
PLAIN = Implementation("p", ("p",))
KNOWING = Implementation("p", ("p",), divergences=(Divergence(NAME, None, "bug", "known"),))


def failure(where: str) -> Failure:
    return Failure(
        f"{where} expected an end; got none", "all there is to know", "no end", REQUIREMENT
    )


def results(*seen: InvariantObservation, implementation: Implementation = PLAIN) -> list[Result]:
    tally = InvariantResults()
    for one in seen:
        tally.add(one)
    return tally.results(implementation)


def test_satisfied_rule_produces_one_result_per_mode() -> None:
    kept = results(
        InvariantObservation("stop", "listen"),
        InvariantObservation("stop", "listen"),
        InvariantObservation("death", "stdio"),
    )
    assert [(one.transcript, one.mode, one.outcome) for one in kept] == [
        ("invariant/death", "stdio", "passed"),
        (NAME, "listen", "passed"),
    ]


def test_broken_rule_result_contains_first_failure_and_count() -> None:
    (one,) = results(
        InvariantObservation("stop", "listen"),
        InvariantObservation("stop", "listen", failure("a.smtp")),
        InvariantObservation("stop", "listen", failure("b.smtp")),
    )
    assert (one.outcome, one.level, one.clauses) == ("failed", "should", ("listen.stop",))
    assert (one.requirement, one.requirements) == (REQUIREMENT, (REQUIREMENT,))
    assert one.message == "in 2 of 3 runs; first failure: a.smtp expected an end; got none"
    assert one.text.endswith("all there is to know")


def test_violated_rule_with_known_divergence_has_outcome_diverged() -> None:
    (one,) = results(
        InvariantObservation("stop", "listen", failure("a.smtp")), implementation=KNOWING
    )
    assert one.outcome == "diverged"


def test_divergence_that_no_longer_occurs_is_stale() -> None:
    (one,) = results(InvariantObservation("stop", "listen"), implementation=KNOWING)
    assert one.outcome == "passed"
    assert stale_if_known(one, KNOWING).outcome == "stale"
    assert stale_if_known(one, PLAIN).outcome == "passed"
