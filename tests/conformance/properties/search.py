"""A search for a session in which something is wrong, and how what it finds is told.

Rule: one rule that is broken is told, with the shortest session found; what it drags along is not.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import Flaky

from .run import Run
from .script import written

#: Asked for by name, or by any profile of a thousand examples.
DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep" or settings().max_examples >= 1000


def examples(usual: int, deep: int) -> settings:
    """*usual* ones, always the same, or a *deep* search for new ones."""
    return settings(
        max_examples=deep if DEEP else usual,
        derandomize=not DEEP,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.target, Phase.shrink],
    )


class Search:
    """What one search has found so far."""

    def __init__(self, *, shrinks: bool) -> None:
        self._shrinks = shrinks
        self._sessions = 0
        self._wrong: list[str] = []

    @property
    def over(self) -> bool:
        """Whether enough is known: what is known to be wrong need not be found at its shortest."""
        return bool(self._wrong) and not self._shrinks

    def judge(self, run: Run, wrong: list[str], title: str) -> None:
        """Fail if something is *wrong* with *run*: by the first rule that is broken."""
        self._sessions += 1
        if not wrong:
            return
        rule = wrong[0].partition(":")[0]
        self._wrong = [one for one in wrong if one.partition(":")[0] == rule]
        fail("\n".join(self._wrong), told(run, title, self._wrong))

    def through(self, search: Callable[[], None]) -> None:
        """Carry it out; a failure that does not come again is told as what it is."""
        try:
            search()
        except Flaky:
            fail(
                f"{self._wrong[0]}\n"
                f"in one of {self._sessions} sessions, but not when it was played again:\n"
                "a race of the program's, or of a slow machine (--time-scale 3)"
            )


def fail(*paragraphs: str) -> NoReturn:
    """The failure's own text, without a traceback through the suite."""
    pytest.fail("\n\n".join(paragraphs), pytrace=False)


def told(run: Run, title: str, notes: list[str]) -> str:
    """The session that failed, ready to be completed and checked in."""
    return f"the shortest dialogue found, as a transcript:\n\n{written(run, title, notes)}"
