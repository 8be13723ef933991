"""postprox, a minimal SMTP proxy that runs a filter command on every message.

Rule: this module imports nothing, because every other module imports it.
"""

__version__ = "1.0.0"

#: True for type checkers and False at run time. Importing TYPE_CHECKING from `typing` would take
#: longer than a whole session.
TYPE_CHECKING = False
