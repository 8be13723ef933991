"""The report as text for a terminal or as JSON for a program.

Rule: text only. The exit status is the highest level. The text has only printable characters.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from .findings import Finding

_WORDS = {1: "warning", 2: "DANGER"}


def status(findings: Sequence[Finding]) -> int:
    """Return the exit status, which is the highest level; 0 without findings."""
    return max((finding.level for finding in findings), default=0)


def as_text(findings: Sequence[Finding], unchecked: Sequence[str]) -> str:
    """Format the report for a terminal. It is empty without findings and unchecked items."""
    lines = []
    for finding in sorted(findings, key=lambda finding: -finding.level):
        lines += [
            f"{_WORDS[finding.level]}: {finding.where}: {finding.problem} [{finding.name}]",
            f"    {finding.remedy}",
        ]
    lines += [f"not checked: {text}" for text in unchecked]
    return "".join(f"{printable(line)}\n" for line in lines)


def printable(text: str) -> str:
    """Replace each unprintable character by an escape sequence."""
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )


def as_json(findings: Sequence[Finding], unchecked: Sequence[str]) -> str:
    """Format the findings, the unchecked items and the exit status as one JSON object."""
    report = {
        "findings": [
            {
                "name": finding.name,
                "level": finding.level,
                "where": finding.where,
                "problem": finding.problem,
                "remedy": finding.remedy,
            }
            for finding in findings
        ],
        "unseen": list(unchecked),
        "status": status(findings),
    }
    return json.dumps(report, indent=2) + "\n"
