"""The coverage of the specification by transcripts and broken proxies.

Rule: each exception has a reason in uncovered.txt or unbroken.txt. The two lists only shrink.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.format.loader import load_transcript
from tests.conformance.format.requirements import specification
from tests.conformance.paths import SUFFIX, TRANSCRIPTS
from tests.suite.broken_proxies import BROKEN_PROXIES

FOLDER = Path(__file__).resolve().parent
REQUIREMENTS = specification().requirements
MUSTS = {name for name, requirement in REQUIREMENTS.items() if requirement.level == "must"}


def exceptions(name: str) -> dict[str, str]:
    """Return the reason for each requirement in a file with lines of the form `id: reason`."""
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    return {one: reason for one, _, reason in (line.partition(": ") for line in lines)}


UNCOVERED = exceptions("uncovered.txt")
UNBROKEN = exceptions("unbroken.txt")


@pytest.fixture(scope="module")
def cited() -> set[str]:
    paths = sorted(TRANSCRIPTS.rglob(f"*{SUFFIX}"))
    return {one for path in paths for one in load_transcript(path).header.requires}


def test_each_requirement_has_transcript_or_is_listed_exception(cited: set[str]) -> None:
    assert sorted(REQUIREMENTS.keys() - cited - UNCOVERED.keys()) == []


def test_covered_requirement_is_not_listed_as_exception(cited: set[str]) -> None:
    assert sorted(UNCOVERED.keys() & cited) == []


def test_each_mandatory_requirement_has_broken_proxy_or_is_listed_exception() -> None:
    broken = {proxy.requirement for proxy in BROKEN_PROXIES.values()}
    assert sorted(MUSTS - broken - UNBROKEN.keys()) == []


def test_requirement_with_broken_proxy_is_not_listed_as_exception() -> None:
    broken = {proxy.requirement for proxy in BROKEN_PROXIES.values()}
    assert sorted(UNBROKEN.keys() & broken) == []


@pytest.mark.parametrize(("listed", "known"), [(UNCOVERED, set(REQUIREMENTS)), (UNBROKEN, MUSTS)])
def test_each_listed_exception_has_reason(listed: dict[str, str], known: set[str]) -> None:
    assert sorted(listed.keys() - known) == []
    assert [name for name, reason in listed.items() if not reason] == []
    assert list(listed) == sorted(listed)
