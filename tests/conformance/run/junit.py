"""JUnit's XML: a row is named as its result is, and there is one for that which no item came to.

Rule: pytest writes the file; it is only told.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .results import Result
from .verdict import STALE


def name_row(config: pytest.Config, report: pytest.TestReport, result: Result) -> None:
    """What pytest would make of the place of a file says nothing, or where the suite lies."""
    for writer in _writers(config):
        case = writer.node_reporter(report)
        case.add_attribute("classname", result.transcript.replace("/", "."))
        case.add_attribute("name", result.mode)


def add_row(config: pytest.Config, result: Result) -> None:
    """A row for *result*, which no item of pytest's came to."""
    for writer in _writers(config):
        writer.pytest_runtest_logreport(_report(result))


def _report(result: Result) -> pytest.TestReport:
    failed, diverged = result.outcome in ("failed", STALE), result.outcome == "diverged"
    report = pytest.TestReport(
        nodeid=f"{result.transcript}::{result.mode}",
        location=("", None, ""),
        keywords={},
        outcome="failed" if failed else "skipped" if diverged else "passed",
        longrepr=(result.text or result.message) if failed else None,
        when="call",
    )
    if diverged:
        report.wasxfail = result.message
    return report


def _writers(config: pytest.Config) -> Iterator[Any]:
    """pytest has no name for the one that `--junitxml` asks for."""
    for plugin in config.pluginmanager.get_plugins():
        if hasattr(plugin, "node_reporter"):
            yield plugin
