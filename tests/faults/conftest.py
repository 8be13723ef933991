"""Fixtures for fault injection: upstream servers, and proxies that are stopped after the test."""

from __future__ import annotations

from tests.support.fixtures import answering, listener, serve, spawn, upstream

__all__ = ["answering", "listener", "serve", "spawn", "upstream"]
