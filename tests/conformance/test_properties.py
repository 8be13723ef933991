"""Properties beyond scripts: random sessions, and what is true of every one of them.

Rule: here it is only settled how many sessions are drawn, and how a failure is told; what is drawn
is `properties.draw`'s, what must hold `properties.invariants`'s.

``HYPOTHESIS_PROFILE=deep`` (or ``--hypothesis-profile=deep``) draws many; ``--compare`` names a
second implementation, for a search for the shortest dialogue on which the two differ.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from .engine import play
from .failure import explain
from .implementation import find_implementation
from .looks import StepFailedError
from .plugin import suite_of
from .process import adopt_orphans
from .properties.compare import ASPECTS, differences
from .properties.draw import crowds, plans
from .properties.drive import perform, perform_together
from .properties.invariants import broken
from .properties.plan import Command, Message, Plan, Verdict
from .properties.run import Run
from .properties.script import as_transcript, written
from .stage import Settings, Stage

#: Asked for by name, or by any profile of a thousand examples.
_DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep" or settings().max_examples >= 1000
#: Where silence is as good a difference as any, and waited for a hundred times.
_ASLEEP_IN_COMPARISON = 0.3


def examples(usual: int, deep: int) -> settings:
    """*usual* ones, always the same, or a *deep* search for new ones."""
    return settings(
        max_examples=deep if _DEEP else usual,
        derandomize=not _DEEP,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.target, Phase.shrink],
    )


def fail(*paragraphs: str) -> NoReturn:
    """The failure's own text, without a traceback through the suite."""
    pytest.fail("\n\n".join(paragraphs), pytrace=False)


@pytest.fixture(scope="module")
def judged(request: pytest.FixtureRequest) -> Settings:
    """The implementation that `--implementation` names."""
    adopt_orphans()
    return suite_of(request.config).settings


@pytest.fixture(scope="module")
def sound(judged: Settings) -> Settings:
    """The same, unless random sessions could only find again what is known to be wrong."""
    if judged.implementation.divergences and not _DEEP:
        pytest.skip("it has known divergences; HYPOTHESIS_PROFILE=deep looks all the same")
    return judged


@pytest.fixture(scope="module")
def compared(request: pytest.FixtureRequest, judged: Settings) -> Settings:
    """The implementation that `--compare` names."""
    name = request.config.getoption("--compare")
    return replace(judged, implementation=find_implementation(name))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A search for each aspect in which two may differ, if there are two."""
    if "aspect" in metafunc.fixturenames:
        reason = "--compare names no second implementation"
        none = pytest.param("", marks=pytest.mark.skip(reason), id="none")
        compares = metafunc.config.getoption("--compare") is not None
        metafunc.parametrize("aspect", list(ASPECTS) if compares else [none])


@examples(usual=40, deep=1500)
@given(plan=plans())
def test_every_session_is_in_order(sound: Settings, plan: Plan) -> None:
    run = perform(plan, sound)
    if wrong := broken(run):
        fail("\n".join(wrong), told(run, "What should not be", wrong))


@examples(usual=4, deep=300)
@given(crowd=crowds())
def test_every_session_of_a_crowd_is_in_order(sound: Settings, crowd: dict[bytes, Plan]) -> None:
    if "listen" not in sound.implementation.capabilities:
        pytest.skip("the implementation lacks 'listen'")
    for run in perform_together(crowd, sound):
        if wrong := broken(run):
            fail("\n".join(wrong), told(run, "What should not be in a crowd", wrong))


@examples(usual=100, deep=1500)
@given(plan=plans())
def test_two_implementations_agree(
    judged: Settings, compared: Settings, aspect: str, plan: Plan
) -> None:
    one, other = (perform(plan, settings, _ASLEEP_IN_COMPARISON) for settings in (judged, compared))
    if found := differences(aspect, one, other):
        found.insert(0, f"{judged.implementation.name} | {compared.implementation.name}")
        fail("\n".join(found), told(one, f"Where two differ: {aspect}", found))


def told(run: Run, title: str, notes: list[str]) -> str:
    """The session that failed, ready to be completed and checked in."""
    return f"the shortest dialogue found, as a transcript:\n\n{written(run, title, notes)}"


def test_a_run_written_as_a_transcript_can_be_played(sound: Settings) -> None:
    run = perform(PLAN, sound)
    assert broken(run) == []
    stage = Stage(as_transcript(run, "A run written down"), "stdio", sound)
    try:
        play(stage)
    except StepFailedError as error:
        fail(explain(stage, error, ""))
    finally:
        stage.close()


PLAN = Plan(
    (
        Command(b"EHLO client.example"),
        Command(b"MAIL FROM:<a@example>", joined=True, address=b"a@example"),
        Command(b"RCPT TO:<b@example>", joined=True, address=b"b@example"),
        Message(b"Subject: x\r\n\r\n.\nhello\xff\0\r\n", Verdict(1, b"", b"550 no\n"), joined=True),
        Command(b"MAIL FROM:<>", joined=True, address=b"<>"),
        Command(b"RCPT TO:<b@example>", joined=True, address=b"b@example"),
        Message(b"x" * 200 + b"\r\n", Verdict(0, b"y\n.\n")),
        Command(b"QUIT", joined=True),
    ),
    cuts=((3,), (), (-1, -2, -3)),
)
