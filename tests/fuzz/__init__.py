"""Fuzzing: inputs that nobody thought of, led by which lines of the core they reach."""
