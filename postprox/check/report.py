"""What was found, in words for a terminal or as JSON for a program.

Rule: text only. The exit status is the highest level. Nothing from a configuration reaches the
terminal but printable characters.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from .findings import Finding

_WORDS = {1: "warning", 2: "DANGER"}


def status(findings: Sequence[Finding]) -> int:
    """The exit status: 0, 1 (warnings), 2 (mail will be refused or pass unfiltered)."""
    return max((finding.level for finding in findings), default=0)


def as_text(findings: Sequence[Finding], unchecked: Sequence[str]) -> str:
    """Nothing for a configuration that is right and whole."""
    lines = []
    for finding in sorted(findings, key=lambda finding: -finding.level):
        lines += [
            f"{_WORDS[finding.level]}: {finding.where}: {finding.problem} [{finding.name}]",
            f"    {finding.remedy}",
        ]
    lines += [f"not seen: {text}" for text in unchecked]
    return "".join(f"{printable(line)}\n" for line in lines)


def printable(text: str) -> str:
    """A text with an escape for each character that is not printable."""
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )


def as_json(findings: Sequence[Finding], unchecked: Sequence[str]) -> str:
    """One object: findings, what was not seen, the exit status."""
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
