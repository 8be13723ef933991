"""Searches for the shortest dialogue in which two implementations differ.

Rule: each aspect is searched separately, so that a known difference does not hide others.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given

from .play.harness import Settings
from .play.implementation import find_implementation
from .properties.compare import ASPECTS, differences
from .properties.plan import Plan
from .properties.player import perform
from .properties.search import Search, examples
from .properties.strategies import plans
from .run.items import suite_of

#: The time limit in seconds for an awaited event. It is short, because a missing event counts as a
#: difference and is awaited a hundred times.
_ASLEEP = 0.3


@pytest.fixture
def one(request: pytest.FixtureRequest) -> Settings:
    """The implementation given with `--implementation`."""
    return suite_of(request.config).settings


@pytest.fixture
def other(request: pytest.FixtureRequest, one: Settings) -> Settings:
    """The implementation given with `--compare`."""
    name = str(request.config.getoption("--compare"))
    return replace(one, implementation=find_implementation(name))


@pytest.mark.parametrize("aspect", list(ASPECTS))
def test_two_implementations_agree(one: Settings, other: Settings, aspect: str) -> None:
    search = Search(shrinks=True)
    names = f"{one.implementation.name} | {other.implementation.name}"

    @examples(usual=100, deep=1500)
    @given(plan=plans())
    def sessions(plan: Plan) -> None:
        this, that = (perform(plan, settings, _ASLEEP) for settings in (one, other))
        if found := differences(aspect, this, that):
            search.judge(
                this,
                [f"{names}: {line}" for line in found],
                (f"The implementations differ: {aspect}"),
            )

    search.through(sessions)
