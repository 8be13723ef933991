"""Runs a fixed sample of all scenarios. `nox -s faults` runs all of them.

The seed determines the sample. `python3 -m tests.faults SCENARIO` reproduces a violation.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.proxies import Place
from tests.faults.run import Account, doubtful, run
from tests.faults.scenario import Scenario, every_scenario, sample
from tests.faults.stage import Stage

pytestmark = pytest.mark.any_account

SAMPLE, SEED, PARTS = 500, 36, 5


@pytest.mark.parametrize("part", range(PARTS))
def test_guarantees_hold_under_random_faults(part: int) -> None:
    account = run(sample(SAMPLE, SEED)[part::PARTS], at_once=12)
    assert not account.violations
    assert not account.unforeseen
    assert account.outcomes.total() == SAMPLE // PARTS


def test_faults_with_unknown_outcome_exist() -> None:
    assert doubtful().keys() <= {scenario.fault for scenario in every_scenario()}


def test_scenario_names_are_unique() -> None:
    names = [scenario.name for scenario in every_scenario()]
    assert len(set(names)) == len(names)


def test_sample_covers_every_scenario_attribute_value() -> None:
    def parts(scenarios: list[Scenario]) -> set[str]:
        return {part for s in scenarios for part in (s.mode, s.kind, s.who, s.moment, s.deed)}

    assert parts(sample(SAMPLE, SEED)) == parts(list(every_scenario()))


@pytest.mark.parametrize(
    ("scenario", "violations"),
    [
        (Scenario("listening", "accepts", "upstream", "RSET", "4yz"), 1),
        (Scenario("listening", "accepts", "client", "filtering", "closes"), 1),
        (Scenario("listening", "sleeps", "client", "filtering", "closes"), 0),
        (Scenario("listening", "accepts", "nobody", "", ""), 0),
    ],
)
def test_planned_fault_that_does_not_occur_counts_as_violation(
    scenario: Scenario, violations: int, tmp_path: Path
) -> None:
    account = Account()
    account.enter(Stage(scenario, "1", Place(tmp_path / "place")))
    assert len(account.violations) == violations
