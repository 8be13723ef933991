"""postprox: a minimal SMTP proxy that runs a filter command on every message."""

__version__ = "1.0.0"
