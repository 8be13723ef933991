"""Checks options and values that argparse cannot check.

Rule: invalid values are reported, with a suggestion, before any transcript is run.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Callable, Sequence

from ..format.payload import did_you_mean
from ..format.profiles import Profile

#: Matches the words and parentheses of a pytest -k expression.
_KEYWORD = re.compile(r"[\w:+.\[\]\\/-]+")
_OPERATORS = ("and", "or", "not", "(", ")")
_NODES = (ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.Name, ast.Load)


def number(text: str) -> int:
    """Parse a positive whole number."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"must be at least 1, not '{text}'")
    return int(text)


def profile(text: str) -> Profile:
    """Parse the name of a profile."""
    try:
        return Profile.of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def keywords(text: str) -> str:
    """Check a pytest -k expression here, because otherwise each worker would report the error."""
    if text and not _is_expression(text):
        raise argparse.ArgumentTypeError(
            f"'{text}' must consist of words combined with 'and', 'or', 'not' and parentheses"
        )
    return text


def _is_expression(text: str) -> bool:
    """Whether the expression is valid Python after each word is replaced with a name."""
    words = re.findall(r"[()]|[^\s()]+", text)
    if not all(word in _OPERATORS or _KEYWORD.fullmatch(word) for word in words):
        return False
    names = [word if word in _OPERATORS else "x" for word in words]
    try:
        tree = ast.parse(" ".join(names), mode="eval")
    except SyntaxError:
        return False
    return all(isinstance(node, _NODES) for node in ast.walk(tree))


def one_of(what: str, known: Sequence[str]) -> Callable[[str], str]:
    """Return a parser that accepts one of *known*. Error messages call the value *what*."""

    def read(text: str) -> str:
        if text not in known:
            raise argparse.ArgumentTypeError(
                f"unknown {what} '{text}'{did_you_mean(text, list(known))}; valid names: "
                f"{', '.join(known)}"
            )
        return text

    return read


def refuse(parser: argparse.ArgumentParser, further: Sequence[str]) -> None:
    """Report unknown arguments and exit with status 2."""
    known = re.findall(r"--[a-z-]+", parser.format_help())
    option = next((word.partition("=")[0] for word in further if word.startswith("-")), "")
    parser.error(f"unrecognized arguments: {' '.join(further)}{did_you_mean(option, known)}")
