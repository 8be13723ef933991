"""Loads the conformance suite's plugin: transcripts can then be run from anywhere in the tree.

It also skips tests marked `any_account` when the gate runs them a second time, as root.
"""

from __future__ import annotations

import os

import pytest

from tests.support.accounts import skip_if_passed_as_user

pytest_plugins = ["tests.conformance.plugin"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two workers a processor for `-n auto`: a run of a transcript waits as much as it computes."""
    return 2 * len(os.sched_getaffinity(0))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Let an idle worker take tests from a busy one: some files take minutes."""
    from xdist.scheduler import WorkStealingScheduling  # noqa: PLC0415 - xdist is optional

    return WorkStealingScheduling(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Run a test marked `any_account` once in the gate."""
    if item.get_closest_marker("any_account"):
        skip_if_passed_as_user()
