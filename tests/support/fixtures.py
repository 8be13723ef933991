"""Fixtures for conftest.py files: an upstream server, and proxies that end with the test."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from tests.support.answering import Answering
from tests.support.peers import listening
from tests.support.proxies import Serving, Spawned, starting
from tests.support.upstream import Upstream

__all__ = ["Serve", "Spawn", "answering", "listener", "serve", "spawn", "upstream"]

Spawn = Callable[..., Spawned]
Serve = Callable[..., Serving]


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
def answering() -> Iterator[Answering]:
    upstream = Answering()
    yield upstream
    upstream.close()


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    yield from starting(Spawned)


@pytest.fixture
def serve() -> Iterator[Serve]:
    yield from starting(Serving)
