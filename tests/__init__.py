"""Unit tests, the conformance suite and its tests, and tests with real servers."""
