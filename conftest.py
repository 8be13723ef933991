"""Loads the conformance suite's plugin: transcripts can then be run from anywhere in the tree."""

from __future__ import annotations

pytest_plugins = ["tests.conformance.plugin"]
