"""Tests the properties of random sessions, in addition to transcripts.

Rule: this module only sets the number of sessions. `properties.strategies` generates them,
`properties.rules` contains the rules, and `properties.search` reports failures.

With ``HYPOTHESIS_PROFILE=deep``, many sessions are generated.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given

from .format.vocabulary import PROPERTY_PREFIX
from .play.harness import Settings
from .play.needs import lacking
from .play.preflight import CANARY_FAILS
from .properties.plan import Plan
from .properties.player import perform, perform_together
from .properties.rules import REQUIRES, broken
from .properties.search import Search, examples
from .properties.strategies import concurrent_sessions, plans
from .run.control import CONTROL_FAILS
from .run.items import PROPERTY_MARKER, divergence_of, suite_of
from .run.results import Control

#: The capabilities that random sessions require in every mode.
_USED = ("filter", "pipelining", "8bitmime", "size", "spool-dir")


@pytest.fixture
def judged(request: pytest.FixtureRequest) -> Settings:
    """The implementation given with `--implementation`."""
    suite = suite_of(request.config)
    mode = request.node.get_closest_marker(PROPERTY_MARKER).kwargs["mode"]
    if mode not in suite.modes or not suite.judges_everything:
        pytest.skip("this level or mode was not selected")
    if reason := lacking([mode, *_USED], suite.settings):
        pytest.skip(reason)
    if mode in suite.smoke_failures:
        pytest.skip(CANARY_FAILS)
    return suite.settings


Look = Callable[[Settings, Search], None]


@pytest.fixture
def search(request: pytest.FixtureRequest, judged: Settings) -> Callable[[Look], None]:
    """Search with an adapter's control first, and then with the implementation.

    A known divergence is searched for, but not shrunk. If the control violates the property, the
    implementation is not tested.
    """

    def run(look: Look) -> None:
        control = suite_of(request.config).control
        if control is not None:
            try:
                look(control, Search(shrinks=False))
            except pytest.fail.Exception as error:
                request.node.control = Control("failed", str(error), str(error))
                pytest.skip(CONTROL_FAILS)
            request.node.control = Control("passed")
        look(judged, Search(shrinks=divergence_of(request.node) is None))

    return run


@pytest.mark.conformance_property(
    name=f"{PROPERTY_PREFIX}sessions",
    title="Random sessions satisfy the rules",
    requires=REQUIRES,
    mode="stdio",
)
def test_every_session_satisfies_rules(search: Callable[[Look], None]) -> None:
    def look(judged: Settings, found: Search) -> None:
        @examples(usual=40, deep=1500)
        @given(plan=plans())
        def sessions(plan: Plan) -> None:
            if not found.over:
                run = perform(plan, judged)
                found.judge(run, broken(run), "A random session that violates a rule")

        found.through(sessions)

    search(look)


@pytest.mark.conformance_property(
    name=f"{PROPERTY_PREFIX}crowds",
    title="Concurrent random sessions satisfy the rules",
    requires=REQUIRES,
    mode="listen",
)
def test_every_session_of_concurrent_clients_satisfies_rules(
    search: Callable[[Look], None],
) -> None:
    def look(judged: Settings, found: Search) -> None:
        @examples(usual=4, deep=300)
        @given(crowd=concurrent_sessions())
        def sessions(crowd: dict[bytes, Plan]) -> None:
            if not found.over:
                for run in perform_together(crowd, judged):
                    found.judge(run, broken(run), "A concurrent session that violates a rule")

        found.through(sessions)

    search(look)
