"""Texts that users see: each change of wording shows as a change of a file in tests/golden."""

from __future__ import annotations

import sys

import pytest

from tests.golden import GOLDEN, HELPED, PRODUCERS


@pytest.mark.parametrize("name", PRODUCERS)
def test_golden_file_is_current(name: str) -> None:
    if name in HELPED and "postprox" not in HELPED[name] and sys.version_info[:2] != (3, 11):
        pytest.skip("argparse words its help differently in each version of Python")
    kept = (GOLDEN / name).read_text(encoding="utf-8")
    assert PRODUCERS[name]() == kept, "python3 -m tests.golden writes it anew"


def test_every_golden_file_is_produced() -> None:
    assert {path.name for path in GOLDEN.glob("*.txt")} == set(PRODUCERS)
