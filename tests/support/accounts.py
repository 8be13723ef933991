"""Skips tests that do not depend on the account in the gate's second run.

The gate runs the tests as an ordinary user and then as root.

Rule: only `.ci/run` sets the variable, after all tests have passed as an ordinary user.
"""

from __future__ import annotations

import os

import pytest

PASSED_AS_USER = "POSTPROX_PASSED_AS_USER"


def skip_if_passed_as_user() -> None:
    """Skip the calling test if the gate has already run it as an ordinary user."""
    if os.environ.get(PASSED_AS_USER):
        pytest.skip("has passed as an ordinary user")
