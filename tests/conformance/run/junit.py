"""Adds names and results to the JUnit XML of pytest.

Rule: pytest writes the file, with values from this module. This module itself writes the file only
if pytest did not start the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from ..format.profiles import Profile
from .results import Result
from .verdict import STALE


def name_profile(config: pytest.Config, profile: Profile) -> None:
    """Add the name of *profile* as a property of the whole file."""
    for writer in _writers(config):
        writer.add_global_property("profile", profile.name)


def name_row(config: pytest.Config, report: pytest.TestReport, result: Result) -> None:
    """Name a test case after its result, because the file may be outside the user's directory."""
    for writer in _writers(config):
        case = writer.node_reporter(report)
        case.add_attribute("classname", result.transcript.replace("/", "."))
        case.add_attribute("name", result.mode)


def add_row(config: pytest.Config, result: Result) -> None:
    """Add a test case for a *result* without a pytest item."""
    for writer in _writers(config):
        writer.pytest_runtest_logreport(_report(result))


def write_nothing_judged(path: Path, reason: str) -> None:
    """Write a file with one error, the *reason* why nothing was run."""
    suites = ET.Element("testsuites")
    suite = ET.SubElement(suites, "testsuite", name="conformance", tests="1", errors="1")
    case = ET.SubElement(suite, "testcase", classname="conformance", name="run")
    ET.SubElement(case, "error", message=reason)
    ET.ElementTree(suites).write(path, encoding="utf-8", xml_declaration=True)


def _report(result: Result) -> pytest.TestReport:
    failed, diverged = result.outcome in ("failed", STALE), result.outcome == "diverged"
    skipped = result.outcome == "skipped"
    report = pytest.TestReport(
        nodeid=f"{result.transcript}::{result.mode}",
        location=("", None, ""),
        keywords={},
        outcome="failed" if failed else "skipped" if diverged or skipped else "passed",
        longrepr=_longrepr(result, failed=failed),
        when="call",
    )
    if diverged:
        report.wasxfail = result.message
    return report


def _longrepr(result: Result, *, failed: bool) -> str | tuple[str, int, str] | None:
    """Return the text of a row. A skipped row has pytest's form."""
    if result.outcome == "skipped":
        return (result.transcript, 0, f"Skipped: {result.message}")
    return (result.text or result.message) if failed else None


def _writers(config: pytest.Config) -> Iterator[Any]:
    """Yield the writers for `--junitxml`, for which pytest has no public API."""
    for plugin in config.pluginmanager.get_plugins():
        if hasattr(plugin, "node_reporter"):
            yield plugin
