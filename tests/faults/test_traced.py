"""No call of the kernel that fails costs a message, a file, or another session.

The gate lets each kind of call fail at two places of a session, `nox -s faults` at eight.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.faults.traced import some_calls

INDEXES = 8 if "POSTPROX_FAULTS" in os.environ else 2

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is needed")


@pytest.mark.parametrize("mode", ["spawned", "listening"])
def test_any_call_of_the_kernel_may_fail(mode: str, tmp_path: Path) -> None:
    findings = some_calls(mode, INDEXES, tmp_path / "proxy")
    assert not findings.violations
    assert {"read", "write", "openat", "mmap", "linkat", "pread64"} <= findings.injected.keys()
