"""What the tests with faults share: proxies that end with their test, and an upstream."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.faults.answering import Answering
from tests.unit.conftest import listener, upstream
from tests.unit.processes import Serving, Spawned

__all__ = ["listener", "upstream"]

Start = Callable[..., Spawned]
Serve = Callable[..., Serving]


@pytest.fixture
def answering() -> Iterator[Answering]:
    upstream = Answering()
    yield upstream
    upstream.close()


@pytest.fixture
def spawn() -> Iterator[Start]:
    started: list[Spawned] = []

    def start(*arguments: str, **more: object) -> Spawned:
        started.append(Spawned(*arguments, **more))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for proxy in started:
        proxy.closes()


@pytest.fixture
def serve() -> Iterator[Serve]:
    started: list[Serving] = []

    def start(*arguments: str, **more: object) -> Serving:
        started.append(Serving(*arguments, **more))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for server in started:
        server.closes()
