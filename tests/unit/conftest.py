"""Hypothesis profiles, and what tests of sockets and processes share.

`ci` always tries the same examples, `dev` looks for new ones, and `--hypothesis-profile=long` looks
for many.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from postprox.shell.loop import Loop
from tests.unit.peers import fresh_loop, listening
from tests.unit.processes import Upstream

_SLOW_MACHINE = (HealthCheck.too_slow,)

settings.register_profile(
    "ci", derandomize=True, deadline=None, suppress_health_check=_SLOW_MACHINE
)
settings.register_profile("dev", deadline=None, suppress_health_check=_SLOW_MACHINE)
settings.register_profile(
    "long", max_examples=3000, deadline=None, suppress_health_check=_SLOW_MACHINE
)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture
def loop() -> Iterator[Loop]:
    with fresh_loop() as loop:
        yield loop


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with listening() as listener:
        yield listener


@pytest.fixture
def upstream(listener: socket.socket) -> Iterator[Upstream]:
    upstream = Upstream(listener)
    yield upstream
    upstream.closes()
