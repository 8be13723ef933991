"""Values and options of the command line that argparse does not check by itself.

Rule: whatever cannot be is said before anything is played, with what was probably meant.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Callable, Sequence

from ..format.payload import did_you_mean

#: What pytest's -k has between and, or, not and brackets.
_KEYWORD = re.compile(r"[\w:+.\[\]\\/-]+")
_OPERATORS = ("and", "or", "not", "(", ")")
_NODES = (ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.Name, ast.Load)


def number(text: str) -> int:
    """A number from 1."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"wants a number from 1, not '{text}'")
    return int(text)


def keywords(text: str) -> str:
    """What -k of pytest understands; its workers would otherwise find out, each by itself."""
    if text and not _is_expression(text):
        raise argparse.ArgumentTypeError(
            f"'{text}' is not made of words with and, or, not and ( ) between them"
        )
    return text


def _is_expression(text: str) -> bool:
    """Whether it reads as Python would read it, each word being a name."""
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
    """Reads one of *known*, each of which is *what*."""

    def read(text: str) -> str:
        if text not in known:
            raise argparse.ArgumentTypeError(
                f"there is no {what} '{text}'{did_you_mean(text, list(known))}; "
                f"there are {', '.join(known)}"
            )
        return text

    return read


def refuse(parser: argparse.ArgumentParser, further: Sequence[str]) -> None:
    """Say that *parser* does not know what is *further* in the command line; exit status 2."""
    known = re.findall(r"--[a-z-]+", parser.format_help())
    option = next((word.partition("=")[0] for word in further if word.startswith("-")), "")
    parser.error(f"unrecognized arguments: {' '.join(further)}{did_you_mean(option, known)}")
