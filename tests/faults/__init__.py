"""Fault injection tests, which check the outcome of every message while the environment fails."""
