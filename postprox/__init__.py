"""postprox, a minimal SMTP proxy that runs a filter command on every message.

Rule: this module imports nothing, because every other module imports it.
"""

__version__ = "1.0.0"

#: True only for type checkers. Importing the constant from `typing` would take longer than a whole
#: session.
TYPE_CHECKING = False
