"""postprox: a minimal SMTP proxy that runs a filter command on every message.

Rule: nothing is imported here, for everything imports this.
"""

__version__ = "1.0.0"

#: What type checkers take for true. Importing it from `typing` costs more than a whole session.
TYPE_CHECKING = False
