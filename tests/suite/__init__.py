"""Tests of the conformance suite itself, including its transcript format, runner and reports."""
