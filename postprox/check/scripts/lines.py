"""Splits a shell script into lines of code.

Rule: the functions depend only on the text and evaluate nothing.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

#: The lines of a script that contain code, with their numbers.
Code = list[tuple[int, str]]
EMAIL = r"\"?\$\{?EMAIL\}?\"?"


def code_lines(script: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that contain code, and their numbers, without comments."""
    for number, line in enumerate(script.split("\n"), 1):
        for found in re.finditer(r"(^|\s)#", line):
            if is_bare(line, found.start()):
                line = line[: found.start()]  # noqa: PLW2901
                break
        if line.strip():
            yield number, line.strip()


def outer_positions(code: Code) -> Iterator[int]:
    """Yield the positions of the lines that are in no branch, loop or function."""
    depth = 0
    for position, (_, line) in enumerate(code):
        depth += len(re.findall(r"(?:^|[;&|])\s*(?:if|case|for|while|until)\b|[{(](?=\s|$)", line))
        depth -= len(re.findall(r"(?:^|[;&|])\s*(?:fi|esac|done)\b|(?:^|\s)[)}]", line))
        if depth == 0:
            yield position


def constants(code: Code) -> Iterator[tuple[str, str]]:
    """Yield the variables that a script sets only once, to a number or an absolute path."""
    text = "\n".join(line for _, line in code)
    names = re.findall(r"\b(\w+)\+?=", text)
    for name, value in re.findall(
        r"^(?:export\s+)?(\w+)=[\"']?([0-9]+|/[\w./@-]+)[\"']?;?$", text, re.M
    ):
        if names.count(name) == 1:
            yield name, value


def tokens(command: str) -> list[str] | None:
    """Return the words and operators of a command, or None if a quote is missing."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=";&|()<>")
    lexer.whitespace_split = True
    try:
        return list(lexer)
    except ValueError:
        return None


def is_bare(command: str, position: int) -> bool:
    """Return whether a position in a command is outside quotes and comments."""
    return tokens(command[:position]) is not None


def has_here_document(code: Code) -> bool:
    """Return whether a script may contain a here-document, whose lines are not code."""
    return any("<<" in line for _, line in code)
