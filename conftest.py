"""Loads the conformance suite's plugin: transcripts can then be run from anywhere in the tree."""

from __future__ import annotations

import os

import pytest

pytest_plugins = ["tests.conformance.plugin"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two workers a processor for `-n auto`: a run of a transcript waits as much as it computes."""
    return 2 * len(os.sched_getaffinity(0))
