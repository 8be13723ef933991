"""Tests that tests/golden contains the current user-visible texts."""

from __future__ import annotations

import sys

import pytest

from tests.golden import GOLDEN, HELPED, PRODUCERS

pytestmark = pytest.mark.any_account


@pytest.mark.parametrize("name", PRODUCERS)
def test_golden_file_is_current(name: str) -> None:
    if name in HELPED and "postprox" not in HELPED[name] and sys.version_info[:2] != (3, 11):
        pytest.skip("the wording of argparse depends on the Python version")
    kept = (GOLDEN / name).read_text(encoding="utf-8")
    assert PRODUCERS[name]() == kept, "outdated file; run python3 -m tests.golden"


def test_every_golden_file_is_produced() -> None:
    assert {path.name for path in GOLDEN.glob("*.txt")} == set(PRODUCERS)
