"""Tests that a failing system call never loses a message, a file or another session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.calls import calls_of, every_call
from tests.faults.failing import ERRORS
from tests.faults.scenario import MODES

pytestmark = pytest.mark.any_account

#: The filter that replaces the message causes almost all calls. The others cause fewer.
KINDS = ["replaces", "accepts", "refuses"] if "POSTPROX_FAULTS" in os.environ else ["replaces"]

#: Rare calls by a filter that causes them. Their numbers do not vary if no other call is counted.
RARE = {
    "replaces": ("accept", "connect", "send", "socket", "register", "unregister"),
    "sleeps": ("killpg",),
    "fills-a-directory": ("chmod", "scandir", "rmdir"),
    "replaces-long": ("modify", "write"),
}

ALWAYS = {"open", "read", "write", "close", "poll", "socket", "connect", "send"}
CALLS = {"spawned": ALWAYS, "listening": ALWAYS | {"accept", "register", "unregister"}}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
def test_guarantees_hold_if_system_call_fails(mode: str, kind: str, tmp_path: Path) -> None:
    findings = every_call(mode, kind, tmp_path / "proxy")
    assert not findings.violations
    assert {"read", "write", "close", "open"} <= {call.split()[0] for call in findings.calls}
    assert findings.logged


@pytest.mark.parametrize("kind", RARE)
@pytest.mark.parametrize("mode", MODES)
def test_guarantees_hold_if_rare_system_call_fails(mode: str, kind: str, tmp_path: Path) -> None:
    assert not every_call(mode, kind, tmp_path / "proxy", RARE[kind]).violations


@pytest.mark.parametrize("mode", MODES)
def test_session_makes_every_expected_system_call(mode: str, tmp_path: Path) -> None:
    assert CALLS[mode] <= calls_of(mode, "replaces", tmp_path)


def test_error_table_contains_only_used_system_calls(tmp_path: Path) -> None:
    made = {
        call
        for mode in MODES
        for kind in RARE
        for call in calls_of(mode, kind, tmp_path / mode / kind)
    }
    assert made == ERRORS.keys()
