"""Searches for a session that violates a rule, and reports the violation.

Rule: only the first violated rule is reported, with the shortest session found. Violations that
result from it are not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import Flaky

from .run import Run
from .script import written

_PROFILE = os.environ.get("HYPOTHESIS_PROFILE")
#: Whether a deep search was requested, either by name or with a profile of a thousand examples.
DEEP = _PROFILE == "deep" or settings().max_examples >= 1000
#: The number of examples in the profile `few`, which the tests of the suite's commands use.
_FEW = 3
#: The time limit in seconds of the search for the shortest failing session.
_SHRINKING = 60.0


def examples(usual: int, deep: int) -> settings:
    """Return the settings for *usual* reproducible examples, or for a deep search."""
    return settings(
        max_examples=deep if DEEP else _FEW if _PROFILE == "few" else usual,
        derandomize=not DEEP,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.target, Phase.shrink],
    )


class Search:
    """The results of one search."""

    def __init__(self, *, shrinks: bool, seconds: float = _SHRINKING) -> None:
        self._shrinks = shrinks
        self._seconds = float("inf") if DEEP else seconds
        self._sessions = 0
        self._wrong: list[str] = []
        #: The time of the first failure, and the shortest text so far.
        self._began = 0.0
        self._shortest: tuple[str, str] | None = None

    @property
    def over(self) -> bool:
        """True if the search is over: the time has expired or a known divergence was found."""
        return bool(self._wrong) and (not self._shrinks or self._late)

    @property
    def _late(self) -> bool:
        return time.monotonic() >= self._began + self._seconds

    def judge(self, run: Run, wrong: list[str], title: str) -> None:
        """Fail with the first violation in *wrong*, if any, which occurred in *run*."""
        self._sessions += 1
        if not wrong:
            return
        if not self._wrong:
            self._began = time.monotonic()
        rule = wrong[0].partition(":")[0]
        self._wrong = [one for one in wrong if one.partition(":")[0] == rule]
        text = ("\n".join(self._wrong), told(run, title, self._wrong))
        if self._shortest is None or len(text[1]) < len(self._shortest[1]):
            self._shortest = text
        fail(*text)

    def through(self, search: Callable[[], None]) -> None:
        """Run the search. A failure that does not recur is reported as a race."""
        try:
            search()
        except Flaky:
            if self._shrinks and self._late and self._shortest is not None:
                fail(*self._shortest)
            fail(
                f"{self._wrong[0]}\nin one of {self._sessions} sessions, but not when that "
                "session was run again:\nthe program has a race, or the machine is slow "
                "(try --time-scale 3)"
            )


def fail(*paragraphs: str) -> NoReturn:
    """Fail with the failure report instead of a traceback through the suite."""
    pytest.fail("\n\n".join(paragraphs), pytrace=False)


def told(run: Run, title: str, notes: list[str]) -> str:
    """Return the failed session as a draft of a transcript."""
    return f"the shortest dialogue found, as a transcript:\n\n{written(run, title, notes)}"
