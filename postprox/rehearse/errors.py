"""The error of a rehearsal.

Rule: each text names the problem and is printed unchanged.
"""

from __future__ import annotations


class CannotRunError(Exception):
    """A part of the rehearsal itself could not run."""
