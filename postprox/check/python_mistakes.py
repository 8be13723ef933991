"""Finds lines of a Python script that fail for some or all messages.

Rule: the functions depend only on the text and execute nothing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from .script_mistakes import Mistake, replaced

#: The kinds of mistakes.
TEXT = "text"
MODULE = "module"
#: A call that opens the message as text. The default encoding is UTF-8, and other octets raise an
#: error.
_OPENED = re.compile(
    r"open\(\s*(?P<name>os\.environ\[[\"'](?:EMAIL|OUTFILE)[\"']\])(?P<mode>,\s*[\"'][rwa]t?[\"'])?\s*\)"
)


def text_mode(script: str) -> Iterator[Mistake]:
    """Yield the first line that reads the message as UTF-8, with a correction of all lines."""
    lines = [(n, line) for n, line in enumerate(script.split("\n"), 1) if not _is_comment(line)]
    found = [(n, line, each) for n, line in lines for each in _OPENED.finditer(line)]
    if not any("EMAIL" in each["name"] for _, _, each in found):
        return
    edits = [
        replaced(
            number,
            each[0],
            f'open({each["name"]}{each["mode"] or ""}, encoding="latin-1", newline="")',
        )
        for number, _, each in found
    ]
    number, line, _ = next(one for one in found if "EMAIL" in one[2]["name"])
    yield Mistake(TEXT, line.strip(), number, ";".join(edits))


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


def imported(script: str) -> Iterator[tuple[int, str]]:
    """Yield the line number and the first part of each module that the script always imports."""
    try:
        tree = ast.parse(script)
    except (SyntaxError, ValueError):
        return
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, each.name.partition(".")[0]) for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module.partition(".")[0]
