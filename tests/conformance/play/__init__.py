"""Runs one transcript. No other package runs an implementation."""
