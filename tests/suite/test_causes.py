"""The grouping of failures by cause, with the worst harm first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.conformance.run.causes import by_harm, causes
from tests.conformance.run.results import Known, Result
from tests.conformance.run.summary import failure_lines, harm_lines


def miss(
    name: str, harm: str, requirement: str, *, cause: str = "", reason: str = "", outcome: str = ""
) -> Result:
    known = Known("bug", reason) if reason else None
    level = "should" if harm in ("stalled", "misreported") else "must"
    return Result(
        *(f"relay/{name}.smtp", "stdio", "t", (requirement.rpartition("-")[0],), level),
        outcome or ("diverged" if known else "failed"),
        divergence=known,
        cause=cause,
        requirements=(requirement,),
        harm=harm,
        requirement=requirement,
        sentence=f"The proxy MUST keep {requirement}.",
    )


LOST = miss("lost", "lost", "data.end-1", cause="x")
STALLED = miss("stalled", "stalled", "relay.idle-1", cause="y")


@pytest.mark.parametrize(
    "other",
    [
        miss("other", "stalled", "data.end-1", cause="z"),
        miss("other", "stalled", "relay.idle-1", cause="x"),
    ],
    ids=["same requirement", "same step, expectation and observation"],
)
def test_failures_share_cause_if_requirement_or_symptom_matches(other: Result) -> None:
    (cause,) = causes([other, LOST])
    assert cause.example == LOST
    assert cause.harm == "lost"


def test_known_failures_with_same_reason_share_cause() -> None:
    known = [miss(name, "lost", f"data.end-{name}", reason="It is so.") for name in ("1", "2")]
    (cause,) = causes(known)
    assert cause.others == "and 1 other failure (some violate data.end-2)"


def test_known_failures_with_different_reasons_are_grouped_separately() -> None:
    known = [miss(text, "lost", "data.end-1", cause="x", reason=text) for text in ("one", "two")]
    assert [cause.others for cause in causes(known)] == ["", ""]


def test_cause_mentions_at_most_five_other_requirements() -> None:
    (cause,) = causes(miss(f"{n}", "lost", f"data.end-{n}", cause="x") for n in range(1, 9))
    assert cause.others == (
        "and 7 other failures "
        "(some violate data.end-2, data.end-3, data.end-4, data.end-5, data.end-6 and 2 more)"
    )


def test_failures_are_grouped_transitively() -> None:
    middle = miss("middle", "altered", "relay.idle-1", cause="x")
    (cause,) = causes([STALLED, middle, LOST])
    assert set(cause.results) == {LOST, middle, STALLED}


def passes(requirement: str, number: int) -> list[Result]:
    return [
        replace(miss(f"{n}", "lost", requirement, outcome="passed"), requirement="")
        for n in range(number)
    ]


def test_most_violated_requirement_provides_example_of_cause() -> None:
    symptom = miss("symptom", "lost", "relay.order-1", cause="x")
    mistakes = [miss(n, "unfiltered", "relay.refused-1", cause="x") for n in ("a", "b")]
    every = [symptom, *mistakes, *passes("relay.order-1", 3), *passes("relay.refused-1", 1)]
    (cause,) = causes(every)
    assert cause.example == mistakes[0]
    assert list(harm_lines(every))[:3] == [
        "passes mail unfiltered in 1 way:",
        "  The proxy MUST keep relay.refused-1. (relay.refused-1)",
        "    relay/a.smtp [stdio] and 2 other failures (some violate relay.order-1)",
    ]
    assert list(failure_lines(every, {}))[1:] == [
        "x",
        "2 more with the same cause: relay/b.smtp::stdio, relay/symptom.smtp::stdio",
    ]


def test_failure_that_loses_mail_is_preferred_as_example() -> None:
    lost = miss("lost", "lost", "relay.order-1", cause="x")
    stalled = miss("stalled", "stalled", "relay.idle-1", cause="x")
    (cause,) = causes([stalled, lost, *passes("relay.order-1", 9)])
    assert cause.example == lost


def test_most_harmful_of_unrelated_failures_comes_first() -> None:
    assert [cause.example for cause in causes([STALLED, LOST])] == [LOST, STALLED]


def test_random_sessions_are_listed_after_transcripts() -> None:
    random = replace(LOST, transcript="properties/sessions", requirement="relay.order-2", cause="r")
    assert list(by_harm(causes([random, STALLED]))) == [
        "stalls in 1 way",
        "fails random sessions (possibly for the reasons above) in 1 way",
    ]
    assert list(by_harm(causes([random]))) == ["loses mail in 1 way"]


def test_passed_and_skipped_results_have_no_cause() -> None:
    results = [miss(one, "lost", "data.end-1", outcome=one) for one in ("passed", "skipped")]
    assert causes(results) == ()


def test_heading_shows_number_of_causes() -> None:
    three = [miss(name, "lost", f"data.end-{name}", cause=name) for name in ("1", "2", "3")]
    assert list(by_harm(causes([*three, STALLED]))) == ["loses mail in 3 ways", "stalls in 1 way"]


def test_terminal_output_groups_failures_by_harm_and_requirement() -> None:
    seen = "relay/lost.smtp:7 [stdio] expected 250; got 451\nmore"
    assert list(harm_lines([STALLED, replace(LOST, message=seen)])) == [
        "loses mail in 1 way:",
        "  The proxy MUST keep data.end-1. (data.end-1)",
        "    relay/lost.smtp [stdio]",
        "    expected 250; got 451",
        "stalls in 1 way:",
        "  The proxy MUST keep relay.idle-1. (relay.idle-1)",
        "    relay/stalled.smtp [stdio]",
        "The subcommand 'explain' prints the reasons for a requirement.",
    ]


def test_terminal_output_without_failures_has_no_hint() -> None:
    assert list(harm_lines([replace(LOST, outcome="passed")])) == []


def test_most_harmful_failure_is_printed_first() -> None:
    results = [STALLED, replace(STALLED, mode="listen"), LOST]
    told = {"relay/lost.smtp::stdio": "lost", "relay/stalled.smtp::listen": "stalled"}
    assert list(failure_lines(results, told)) == [
        "",
        "lost",
        "",
        "stalled",
        "1 more with the same cause: relay/stalled.smtp::stdio",
    ]


def test_results_from_older_files_are_grouped_by_clause() -> None:
    old = Result("relay/a.smtp", "stdio", "a title", ("relay.eof",), "must", "failed")
    assert list(harm_lines([old])) == [
        "misses clauses in 1 way:",
        "  a title (relay.eof)",
        "    relay/a.smtp [stdio]",
        "The subcommand 'explain' prints the reasons for a requirement.",
    ]
