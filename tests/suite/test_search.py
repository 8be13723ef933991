"""The search for violations reports one rule and recognises races."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis.errors import Flaky

from tests.conformance.format.reader import parse_transcript
from tests.conformance.play.harness import Harness
from tests.conformance.play.implementation import REFERENCE, Divergence, find_implementation
from tests.conformance.play.timeouts import AdaptiveTimeout
from tests.conformance.properties.plan import Plan
from tests.conformance.properties.run import Run, Utterance
from tests.conformance.properties.search import Search
from tests.conformance.run.items import SUITE

WRONG = ["final_replies: one", "final_replies: two", "nothing_left: an echo"]
TRANSCRIPT = '+++\ntitle = "t"\nrequires = ["a.b-1"]\n+++\nC> QUIT\n'


def failure(action: Callable[[], None]) -> str:
    with pytest.raises(pytest.fail.Exception) as caught:
        action()
    return str(caught.value)


def test_only_violations_of_first_violated_rule_are_reported() -> None:
    text = failure(lambda: Search(shrinks=True).judge(Run(Plan(())), WRONG, "t"))
    assert text.startswith("final_replies: one\nfinal_replies: two\n\nthe shortest dialogue found")
    assert "nothing_left" not in text


def test_known_failure_is_not_shrunk() -> None:
    for shrinks in (True, False):
        search = Search(shrinks=shrinks)
        failure(lambda search=search: search.judge(Run(Plan(())), WRONG, "t"))  # type: ignore[misc]
        assert search.over is not shrinks


def test_shortest_session_is_reported_after_time_limit() -> None:
    search = Search(shrinks=True, seconds=0)
    longer = Run(Plan(()), said=[Utterance("C>", b"NOOP\r\n")])

    def found_twice_and_not_again() -> None:
        for run in (longer, Run(Plan(())), longer):
            failure(lambda run=run: search.judge(run, WRONG, "t"))  # type: ignore[misc]
        assert search.over
        raise Flaky

    shortest = failure(lambda: Search(shrinks=True).judge(Run(Plan(())), WRONG, "t"))
    assert failure(lambda: search.through(found_twice_and_not_again)) == shortest


def test_race_report_has_three_lines() -> None:
    search = Search(shrinks=True)

    def found_and_not_found_again() -> None:
        failure(lambda: search.judge(Run(Plan(())), WRONG, "t"))
        raise Flaky

    text = failure(lambda: search.through(found_and_not_found_again))
    assert text.splitlines()[0] == "final_replies: one"
    assert len(text.splitlines()) == 3


@contextlib.contextmanager
def staged(request: pytest.FixtureRequest, **changes: Any) -> Iterator[Harness]:
    """Yield a harness for the reference with changed settings."""
    settings = replace(request.config.stash[SUITE].settings, **changes)
    harness = Harness(parse_transcript(TRANSCRIPT, "t"), "stdio", settings)
    try:
        yield harness
    finally:
        harness.close()


def test_time_limit_is_reduced_after_permitted_timeouts(
    request: pytest.FixtureRequest,
) -> None:
    with staged(request, timeouts=AdaptiveTimeout(left=1)) as harness:
        usual = harness.timeout
        assert not harness.wait_until(lambda: False, extra=0.01 - usual)
        assert harness.timeout == usual / 5


def test_known_failure_does_not_use_up_permitted_timeouts(
    request: pytest.FixtureRequest,
) -> None:
    known = replace(
        find_implementation(REFERENCE), divergences=(Divergence("t", None, "bug", "it is slow"),)
    )
    timeouts = AdaptiveTimeout(left=1)
    with (
        staged(request) as usual,
        staged(request, implementation=known, timeouts=timeouts) as harness,
    ):
        assert harness.timeout == usual.timeout / 5
        assert not harness.wait_until(lambda: False, extra=0.01 - harness.timeout)
        assert timeouts == AdaptiveTimeout(left=1)
