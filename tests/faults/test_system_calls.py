"""No system call that fails costs a message, a file, or another session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.calls import every_call

#: One that replaces the message makes all calls that there are; the others make less.
KINDS = ["replaces", "accepts", "refuses"] if "POSTPROX_FAULTS" in os.environ else ["replaces"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["spawned", "listening"])
def test_any_system_call_may_fail(mode: str, kind: str, tmp_path: Path) -> None:
    findings = every_call(mode, kind, tmp_path / "proxy")
    assert not findings.violations
    assert {"read", "write", "close", "open"} <= {call.split()[0] for call in findings.calls}
