"""postprox: a minimal SMTP proxy that runs a filter command on every message."""

__version__ = "1.0.0"

#: What type checkers take for true. Importing it from `typing` costs more than a whole session.
TYPE_CHECKING = False
