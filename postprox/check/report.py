"""The report, as text for a terminal or as JSON for a program.

Rule: this module only creates text, and this text is printable. The exit status is the
highest level of the findings, or 3 if there are only unchecked items.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .. import __version__
from .findings import DANGER, Finding
from .routes import Proxy
from .setup import Setup

_WORDS = {1: "warning", DANGER: "DANGER"}
#: The exit status if there are no findings, but an item could not be checked.
INCOMPLETE = 3
#: The maximum width of a line, and the indentation of commands.
WIDTH = 80
_INDENT = "    "
_LONGEST_PIECE = 60


@dataclass(frozen=True)
class Result:
    """The result of a check."""

    setup: Setup
    findings: Sequence[Finding]
    unchecked: Sequence[str]
    #: The command that lets Postfix load the configuration after the other commands, or "".
    reload: str = ""

    @property
    def status(self) -> int:
        """Return the exit status, which depends on the highest level and on unchecked items."""
        complete = INCOMPLETE if self.unchecked else 0
        return max((finding.level for finding in self.findings), default=complete)


def as_text(result: Result) -> str:
    """Format the report for a terminal. The text is empty if there is nothing to report."""
    lines: list[str] = []
    for finding in sorted(result.findings, key=lambda finding: -finding.level):
        title = f"{_WORDS[finding.level]}: {finding.where}: {finding.problem} [{finding.name}]"
        lines += _wrapped(title)
        for command in finding.commands:
            lines += wrapped_command(printable(command))
    if result.reload:
        lines += _wrapped("last step: let Postfix load the changed configuration")
        lines += wrapped_command(printable(result.reload))
    for text in result.unchecked:
        lines += _wrapped(f"not checked: {text}")
    return "".join(f"{line}\n" for line in lines)


def recipe_as_text(lines: Sequence[str]) -> str:
    """Format the lines of a recipe for a shell, which joins the wrapped lines."""
    printed: list[str] = []
    for line in map(printable, lines):
        if line.startswith("#"):
            printed += textwrap.wrap(line, WIDTH, subsequent_indent="# ", break_on_hyphens=False)
        else:
            printed += wrapped_command(line)
    return "".join(f"{line}\n" for line in printed)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(printable(text), WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def wrapped_command(command: str) -> list[str]:
    """Split a command into lines that the shell joins again.

    Each line but the last ends with a backslash. If the split is within a word, the next line
    begins in the first column. A single-quoted part is closed before the backslash and reopened on
    the next line.
    """
    lines = [_INDENT]
    for piece, is_in_quotes in _pieces(command):
        # Each line reserves columns at its end for a quote, a space and a backslash.
        if len(lines[-1]) + len(piece) <= WIDTH - 3 or not lines[-1].strip():
            lines[-1] += piece
        elif is_in_quotes:
            lines[-1] += "'\\"
            lines.append(f"'{piece}")
        elif piece.startswith(" "):
            lines[-1] += " \\"
            lines.append(_INDENT * 2 + piece.lstrip())
        else:
            lines[-1] += "\\"
            lines.append(piece)
    return lines


def _pieces(command: str) -> Iterator[tuple[str, bool]]:
    """Split a command before each space. Split a long word too, but not before a quote.

    Yield each piece, and whether it begins within single quotes.
    """
    is_in_quotes = False
    for word in re.split(r"(?= )", command):
        for piece in _split(word):
            yield piece, is_in_quotes
            # shlex.quote encloses each single quote in double quotes.
            is_in_quotes ^= piece.replace("'\"'\"'", "").count("'") % 2 == 1


def _split(word: str) -> list[str]:
    pieces = re.findall(rf".{{1,{_LONGEST_PIECE}}}(?!['\"])", word)
    return pieces if "".join(pieces) == word else [word]


def printable(text: str) -> str:
    """Replace each unprintable character with an escape sequence."""
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )


def as_json(result: Result) -> str:
    """Format the whole result as one JSON object."""
    return _document(
        proxies=[_proxy(proxy) for proxy in result.setup.proxies],
        findings=[
            {
                "name": finding.name,
                "level": finding.level,
                "where": finding.where,
                "problem": finding.problem,
                "remedy": finding.remedy,
            }
            for finding in result.findings
        ],
        reload=result.reload,
        unseen=list(result.unchecked),
        running=result.setup.running is not None,
        status=result.status,
    )


def error_as_json(reason: str, status: int) -> str:
    """Format an error that stopped the check as one JSON object."""
    return _document(
        proxies=[], findings=[], reload="", unseen=[], running=False, status=status, error=reason
    )


def _document(**items: object) -> str:
    return json.dumps({"version": __version__, "error": "", **items}, indent=2) + "\n"


def _proxy(proxy: Proxy) -> dict[str, object]:
    return {
        "where": proxy.where,
        "listen": [str(endpoint) for endpoint in proxy.endpoints],
        "upstream": proxy.options.target.text if proxy.options else "",
        "user": proxy.user,
        "command": list(proxy.words),
    }
