"""Tests of the conformance suite itself: its format, its runner, its reports, its corpus."""
