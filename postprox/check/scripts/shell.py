"""Applies all rules for shell scripts.

Rule: the functions depend only on the text and evaluate nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from . import (
    copies,
    injections,
    loops,
    message_flow,
    pipelines,
    proxy_variables,
    quotes,
    replies,
    sending,
    shared_files,
    statuses,
    used_files,
    waits,
)
from .lines import code_lines, has_here_document
from .mistake import Mistake

#: The functions that need only the lines of a script.
_RULES = (
    pipelines.mistakes,
    replies.mistakes,
    message_flow.mistakes,
    used_files.mistakes,
    waits.mistakes,
    quotes.mistakes,
    proxy_variables.mistakes,
)


def mistakes(script: str, *, echo_expands: bool = True) -> Iterator[Mistake]:
    """Yield the mistakes in a shell script.

    `echo_expands` is true if echo interprets backslashes, as in dash(1) and not in bash(1).
    """
    code = list(code_lines(script))
    for rule in _RULES:
        yield from rule(code)
    yield from statuses.mistakes(script, code)
    if not has_here_document(code):
        yield from loops.mistakes(script, code)
        yield from copies.mistakes(code, echo_expands=echo_expands)
        yield from shared_files.mistakes(code)
        yield from injections.mistakes(code)
    yield from sending.mistakes(script)
