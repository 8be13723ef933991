"""Finds typographic quotes.

Rule: the functions depend only on the text and evaluate nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .lines import Code, has_here_document, is_bare
from .mistake import Kind, Mistake, replaced

#: Typographic quotes in UTF-8, each octet as one character.
_DOUBLE = r"\xe2\x80[\x9c\x9d\x9e]"
_SINGLE = r"\xe2\x80[\x98\x99\x9a]"
#: A word in typographic quotes that is an expansion, a path or part of an assignment, or that
#: contains a blank. The quotes of other words can be intended.
_QUOTED = re.compile(
    rf"(?P<before>=?)(?P<all>{_DOUBLE}(?P<double>[^\xe2\"]+?){_DOUBLE}"
    rf"|{_SINGLE}(?P<single>[^\xe2']+?){_SINGLE})"
)
_PRINTING = re.compile(r"(?:^|[;&|({]|\b(?:then|do|else)\b)\s*(?:echo|printf|logger)\s[^;&|]*$")


def mistakes(code: Code) -> Iterator[Mistake]:
    """Yield a line with typographic quotes, which the shell does not remove."""
    if has_here_document(code):
        return
    edits, lines, before = [], [], ""
    for number, line in code:
        for found in _QUOTED.finditer(line):
            text = found["double"] or found["single"]
            is_quoted = found["before"] or re.match("[$/]", text) or " " in text
            start = found.start("all")
            is_code = is_bare(before + line, len(before) + start)
            if is_quoted and is_code and not _PRINTING.search(line[:start]):
                mark = '"' if found["double"] else "'"
                edits.append(replaced(number, found["all"], f"{mark}{text}{mark}"))
                lines.append((number, line))
        before += f"{line}\n"
    if lines:
        yield Mistake(Kind.QUOTES, lines[0][1], lines[0][0], ";".join(edits))
