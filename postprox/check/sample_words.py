"""Finds a word for which a filter searches the message, so that a test message can contain it.

Rule: the functions depend only on the text and execute nothing.
"""

from __future__ import annotations

import re

#: A search for a fixed text: grep(1) in a shell script, and `in` in a Python script.
_SEARCHES = (
    re.compile(
        r"\bgrep\b(?:\s+-[a-zA-Z]+)*\s+(?:-e\s+)?(?P<quote>[\"']?)(?P<word>[A-Za-z]{4,30})(?P=quote)\s"
    ),
    re.compile(r"(?<!\w)b?(?P<quote>[\"'])(?P<word>[A-Za-z]{4,30})(?P=quote)\s+in\b"),
)


def searched_word(script: str) -> str:
    """Return the first word for which a script searches, or ""."""
    lines = [line for line in script.split("\n") if not line.lstrip().startswith("#")]
    found = (each.search(line) for line in lines for each in _SEARCHES)
    return next((each["word"] for each in found if each), "")
