"""The violated requirement of a failed step."""

from __future__ import annotations

import pytest

from tests.conformance.format.requirements import specification
from tests.conformance.play.failure import can_violate, is_observed_by

pytestmark = pytest.mark.any_account


@pytest.mark.parametrize(
    ("requirement", "got", "expected"),
    [
        ("data.upstream-lost-1", "250 OK", True),  # MUST NOT send 2yz
        ("data.upstream-lost-1", "451 no", False),
        ("data.upstream-lost-1", "nothing (waited 10 s)", False),
        ("data.final-reply-7", "221 bye", True),  # MUST NOT send 221
        ("data.final-reply-7", "250 ok", False),
        ("data.end-3", "evil", True),  # MUST NOT, without a code
        ("data.end-3", "@eof", False),
        ("listen.sessions-3", "nothing (waited 10 s)", True),  # SHOULD NOT delay
        ("listen.sessions-3", "220 up.example for 1", False),
        ("listen.sessions-6", "nothing (waited 10 s)", False),
        ("relay.bad-reply-1", "not a reply line: 000 ok", True),  # names the valid codes
        ("data.upstream-lost-2", "nothing (waited 10 s)", True),  # SHOULD
    ],
)
def test_prohibition_is_violated_only_by_prohibited_octets(
    requirement: str, got: str, expected: bool
) -> None:
    assert can_violate(specification().requirements[requirement], got) is expected


@pytest.mark.parametrize(
    ("kind", "requirement", "expected"),
    [
        ("P", "log.verdict-1", True),
        ("C", "log.verdict-1", False),
        ("P", "cli.exit-1", True),
        ("U", "cli.exit-1", False),
        ("F", "filter.env-1", True),
        ("U", "filter.env-sender-1", False),
        ("U", "files.gone-1", False),
        ("C", "relay.bad-reply-9", False),
        ("C", "data.end-1", True),
    ],
)
def test_failed_step_counts_against_observed_requirements(
    kind: str, requirement: str, expected: bool
) -> None:
    assert is_observed_by(kind, specification().requirements[requirement]) is expected
