"""postprox: a minimal SMTP proxy that runs a filter command on every message.

Rule: this module imports nothing, because every other module imports it.
"""

__version__ = "1.0.0"

#: True for type checkers only. Importing the constant from `typing` costs more than a whole
#: session.
TYPE_CHECKING = False
