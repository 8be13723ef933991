"""The error that ends a rehearsal.

Rule: the text of each error names the problem and is printed unchanged.
"""

from __future__ import annotations


class CannotRunError(Exception):
    """A part of the rehearsal could not run."""
