"""Finds words that a filter should reject, so that test messages can contain them.

Rule: the functions depend only on the text and execute nothing.
"""

from __future__ import annotations

import re

_WORD = r"(?P<quote>[\"']?)(?P<word>[A-Za-z]{4,30})(?P=quote)"
#: A search for a fixed text: grep(1) in a shell script, and `in` in a Python script.
_SEARCHES = (
    re.compile(rf"\bgrep\b(?:\s+-[a-zA-Z]+)*\s+(?:-e\s+)?{_WORD}\s"),
    re.compile(r"(?<!\w)b?(?P<quote>[\"'])(?P<word>[A-Za-z]{4,30})(?P=quote)\s+in\b"),
)
#: The same searches in scripts that always exit with a status other than 0 if they find the word.
_REFUSALS = (
    re.compile(
        rf"^(?:if +)?grep -[a-zA-Z]*q[a-zA-Z]* +(?:-[a-zA-Z]+ +)*{_WORD} +\"?\$\{{?EMAIL\}}?\"?"
        r"(?: *; *then\b| *\n+then\b| *&&)(?:[^\n]*\n(?!fi|el)){0,4}?[^\n]*\bexit [1-9]",
        re.MULTILINE,
    ),
    re.compile(
        rf"^ *if b?{_WORD} in [\w.()]+:(?:[^\n]*\n){{1,4}}?"
        r"[^\n]*\b(?:sys\.exit\((?!0|None|\))|return [1-9])",
        re.MULTILINE,
    ),
)
#: Programs that scan for viruses.
_VIRUS_SCANNER = re.compile(r"\b(clamdscan|clamscan|clamd)\b")
#: The EICAR test file, which virus scanners report as a virus. It is in two parts, so that they do
#: not report this module.
EICAR = r"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-" + "STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"


def searched_word(script: str) -> str:
    """Return the first word for which a script searches, or ""."""
    lines = _code(script).split("\n")
    found = (each.search(line) for line in lines for each in _SEARCHES)
    return next((each["word"] for each in found if each), "")


def refused_word(script: str) -> str:
    """Return the first word that always makes a script reject a message, or ""."""
    found = (each.search(_code(script)) for each in _REFUSALS)
    return next((each["word"] for each in found if each), "")


def scans_for_viruses(script: str) -> bool:
    """Return whether a script runs a virus scanner."""
    return _VIRUS_SCANNER.search(_code(script)) is not None


def absolute_paths(script: str) -> list[str]:
    """Return the absolute paths in a script, in order of first appearance."""
    return list(dict.fromkeys(re.findall(r"(?<![\w.$}*?/-])/[A-Za-z][\w./-]*", _code(script))))


def _code(script: str) -> str:
    """Return a script without its comment lines."""
    return "\n".join(line for line in script.split("\n") if not line.lstrip().startswith("#"))
