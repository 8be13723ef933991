"""The decisions of the proxy: SMTP protocol, verdicts and wire format.

Rule: this package is sans-I/O. The package receives octets, events and the time, and returns
actions. ``[tool.importlinter]`` in pyproject.toml enforces this rule.
"""
