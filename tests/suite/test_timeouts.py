"""Adaptive time limits: frequent timeouts reduce the limit without causing false failures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.conformance.format.reader import parse_transcript
from tests.conformance.format.requirements import specification
from tests.conformance.play.failure import Failure
from tests.conformance.play.harness import Settings
from tests.conformance.play.implementation import Divergence
from tests.conformance.play.process import adopt_orphans
from tests.conformance.play.timeouts import AdaptiveTimeout
from tests.conformance.run import suite
from tests.conformance.run.items import suite_of
from tests.conformance.run.suite import Played, play_fairly

#: A requirement of each level.
REQUIREMENTS = {one.level: one.id for one in specification().requirements.values()}
GREETING = """\
+++
title = "t"
requires = ["{requirement}"]
+++
U> 220 here
C< 220 here
"""
NEVER_SAID = GREETING + "U< NOOP\n"


def tired(slowest: float = 0.0) -> AdaptiveTimeout:
    return AdaptiveTimeout(left=0, slowest=slowest)


def test_time_limit_is_reduced_after_permitted_number_of_timeouts() -> None:
    timeouts = AdaptiveTimeout(left=2)
    timeouts.expired()
    assert timeouts.limit(10.0) == 10.0
    timeouts.expired()
    assert timeouts.limit(10.0) == 2.0


def test_reduced_limit_exceeds_slowest_response_time() -> None:
    timeouts = tired()
    timeouts.observed(1.5)
    timeouts.observed(0.1)
    assert timeouts.limit(10.0) == 4.5


def test_reduced_limit_never_exceeds_full_limit() -> None:
    assert tired(slowest=9.0).limit(10.0) == 10.0


def test_permitted_number_of_timeouts_is_divided_among_workers() -> None:
    assert AdaptiveTimeout.shared(4) == AdaptiveTimeout(left=2, replays={"must": 2, "should": 1})


def test_each_worker_is_permitted_one_timeout() -> None:
    assert AdaptiveTimeout.shared(99) == AdaptiveTimeout(left=1, replays={"must": 1, "should": 1})


@pytest.fixture
def hasty(request: pytest.FixtureRequest) -> Settings:
    """Settings with a timeout of 0.25 s that has already been reduced to 0.05 s."""
    adopt_orphans()
    return replace(suite_of(request.config).settings, timeout=0.25, timeouts=tired())


def waited(level: str, settings: Settings) -> str:
    """Run a transcript that times out. Return the waiting time shown in the failure summary."""
    transcript = parse_transcript(NEVER_SAID.format(requirement=REQUIREMENTS[level]), "t")
    failure = play_fairly(transcript, "stdio", settings).failure
    assert failure is not None
    return failure.summary.rpartition("(waited ")[2]


def test_transcript_that_failed_due_to_reduced_timeout_is_rerun(hasty: Settings) -> None:
    hasty.timeouts.observed(0.07)
    assert waited("must", hasty) == "0.25 s)"


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Let every run fail because of a reduced time limit. Return the list of runs."""
    runs: list[object] = []

    def fail_early(*arguments: object) -> Played:
        runs.append(arguments)
        return Played(Failure("nothing received", "", "", ""), hasty=True)

    monkeypatch.setattr(suite, "play_once", fail_early)
    return runs


def run(level: str, settings: Settings) -> None:
    transcript = parse_transcript(NEVER_SAID.format(requirement=REQUIREMENTS[level]), "t")
    play_fairly(transcript, "stdio", settings)


def test_number_of_repeated_runs_is_limited(hasty: Settings, runs: list[object]) -> None:
    hasty.timeouts.replays["must"] = 1
    run("must", hasty)
    assert (len(runs), hasty.timeouts.replays) == (2, {"must": 0, "should": 4})
    run("must", hasty)
    assert len(runs) == 3


@pytest.mark.usefixtures("runs")
def test_must_and_should_repeats_have_separate_limits(hasty: Settings) -> None:
    run("should", hasty)
    assert hasty.timeouts.replays == {"must": 8, "should": 3}


def test_passing_rerun_replaces_failure(
    hasty: Settings,
) -> None:
    class Hasty(AdaptiveTimeout):
        """A time limit of zero."""

        def limit(self, _whole: float) -> float:
            return 0.0

    timeouts = Hasty(left=0)
    transcript = parse_transcript(GREETING.format(requirement=REQUIREMENTS["must"]), "t")
    settings = replace(hasty, timeout=10.0, timeouts=timeouts)
    assert play_fairly(transcript, "stdio", settings).failure is None
    assert timeouts.replays["must"] == AdaptiveTimeout().replays["must"]
    assert timeouts.slowest > 0


def test_slow_start_is_not_a_known_divergence(hasty: Settings) -> None:
    one = hasty.implementation
    slow = replace(
        one,
        argv=("/bin/sh", "-c", 'sleep 1.6; exec "$@"', "sh", *one.argv),
        divergences=(Divergence("t", None, "bug", "A later step fails."),),
    )
    transcript = parse_transcript(GREETING.format(requirement=REQUIREMENTS["must"]), "t")
    settings = replace(hasty, implementation=slow, timeout=7.5)  # 1.5 s for a known divergence
    assert play_fairly(transcript, "listen", settings).failure is None
