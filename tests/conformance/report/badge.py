"""The verdict as a badge, which is an SVG or an endpoint for shields.io.

Rule: a badge contains the suite's version, the profile and the exact words of the verdict. Only a
complete run gets a positive colour.
"""

from __future__ import annotations

import json

from ..run.verdict import CONFORMANT, NOT_CONFORMANT, NOT_STRICT
from .render import svg
from .results import Run

_COLOURS = {CONFORMANT: "brightgreen", NOT_STRICT: "yellowgreen", NOT_CONFORMANT: "red"}
_UNKNOWN = "lightgrey"
#: The colour names of shields.io, and their values in SVG.
_HEXADECIMAL = {
    "brightgreen": "#3c7d12",
    "yellowgreen": "#6c7a0c",
    "red": "#b3141f",
    _UNKNOWN: "#57606a",
}


def _words(run: Run) -> tuple[str, str, str]:
    """Return the label, message and colour of the badge."""
    verdict = run.verdict
    in_part = bool(run.gaps or verdict.selection)
    message = f"{verdict.word} (in part)" if in_part else verdict.word
    profile = f", profile {run.profile}" if run.profile else ""
    label = f"postprox suite {run.suite_version}{profile}"
    return label, message, _colour(verdict.word, in_part)


def _colour(word: str, in_part: bool) -> str:
    if in_part and word != NOT_CONFORMANT:
        return _UNKNOWN
    return _COLOURS.get(word, _UNKNOWN)


def badge_json(run: Run) -> str:
    """Return an endpoint of shields.io (schema version 1)."""
    label, message, colour = _words(run)
    table = {"schemaVersion": 1, "label": label, "message": message, "color": colour}
    return json.dumps(table) + "\n"


def badge_svg(run: Run) -> str:
    """Return an SVG with an accessible title."""
    label, message, colour = _words(run)
    return svg(label, message, _HEXADECIMAL[colour])
