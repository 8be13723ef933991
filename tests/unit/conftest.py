"""What tests of sockets and processes share."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from postprox.shell.loop import Loop
from postprox.shell.system import environ
from tests.unit.peers import fresh_loop, listening
from tests.unit.processes import Upstream
from tests.unit.rehearsing import Rehearse

# A service manager that has started the tests awaits nothing from the servers in them.
environ.pop(b"NOTIFY_SOCKET", None)


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


@pytest.fixture
def rehearse(tmp_path: Path) -> Rehearse:
    return Rehearse(tmp_path)
