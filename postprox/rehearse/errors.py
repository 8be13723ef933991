"""What a rehearsal can fail with.

Rule: each text names what is wrong, and is fit to be printed as it is.
"""

from __future__ import annotations


class CannotRunError(Exception):
    """Something of the rehearsal itself could not run."""
