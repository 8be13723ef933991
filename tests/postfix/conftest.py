"""What all tests with a real Postfix need."""

from __future__ import annotations

import os

import pytest

from .instance import missing


@pytest.fixture(scope="session")
def needs_postfix() -> None:
    """Skip where there can be no private Postfix; fail where there was to be one."""
    if reason := missing():
        if os.environ.get("POSTPROX_REQUIRE_POSTFIX") == "1":
            pytest.fail(f"POSTPROX_REQUIRE_POSTFIX=1, but {reason}")
        pytest.skip(reason)
