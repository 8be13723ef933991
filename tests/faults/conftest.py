"""The fixtures of the tests with faults: proxies that end with their test, and upstream servers."""

from __future__ import annotations

from tests.support.fixtures import answering, listener, serve, spawn, upstream

__all__ = ["answering", "listener", "serve", "spawn", "upstream"]
