"""Fixtures for tests of sockets and processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from postprox.shell.loop import Loop
from postprox.shell.system import environ
from tests.support.fixtures import listener, serve, spawn, upstream
from tests.unit.peers import fresh_loop
from tests.unit.rehearsing import Rehearse

__all__ = ["listener", "serve", "spawn", "upstream"]

# Servers under test must not send notifications to the service manager that started the tests.
environ.pop(b"NOTIFY_SOCKET", None)


@pytest.fixture
def loop() -> Iterator[Loop]:
    with fresh_loop() as loop:
        yield loop


@pytest.fixture
def rehearse(tmp_path: Path) -> Rehearse:
    return Rehearse(tmp_path)
