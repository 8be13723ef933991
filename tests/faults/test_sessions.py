"""Random sessions with several messages. A failure names the session.

The gate always runs the same sessions. POSTPROX_SEED and `nox -s faults` select other sessions. A
failure prints the seed. `python3 -m tests.faults.sessions NUMBER` runs a session again.
"""

from __future__ import annotations

import os
import random

import pytest

from tests.faults.ledger import KEPT
from tests.faults.sessions import planned, play

DEEP = "POSTPROX_FAULTS" in os.environ
COUNT, PARTS = (250, 4) if DEEP else (40, 2)
SEED = int(os.environ.get("POSTPROX_SEED", random.randrange(1 << 20) if DEEP else 7))  # noqa: S311


@pytest.mark.parametrize("part", range(PARTS))
def test_guarantees_hold_in_random_sessions(part: int) -> None:
    first = SEED * 1_000_000 + part * COUNT
    account = play(iter(range(first, first + COUNT)), at_once=6)
    assert not account.violations, f"POSTPROX_SEED={SEED}"
    assert account.sessions == COUNT
    assert account.outcomes[KEPT] > COUNT


def test_same_seed_generates_same_session() -> None:
    assert planned(42) == planned(42) != planned(43)
