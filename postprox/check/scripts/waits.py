"""Finds lines that can wait for longer than the filter may run.

Rule: the functions depend only on the text and evaluate nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .lines import Code, outer_positions
from .mistake import Kind, Mistake


def mistakes(code: Code) -> Iterator[Mistake]:
    """Yield the mistakes in the lines of a script."""
    yield from _sleeps(code)
    yield from _locks(code)


def _sleeps(code: Code) -> Iterator[Mistake]:
    """Yield the lines that always wait, with the seconds in `path`."""
    for position in outer_positions(code):
        number, line = code[position]
        if found := re.fullmatch(r"sleep\s+([0-9]{1,6})\s*;?", line):
            yield Mistake(Kind.SLEEP, line, number, f"{number}d", path=found[1])


#: A loop that waits until it can create a directory or a link, and the next lines of such a loop.
_LOCK = re.compile(
    r"(?:until|while\s+!)\s+(?:/\S*/)?(?:mkdir|ln\s+-s\s+\S+)\s+"
    r"(?P<lock>\"[^\"\s]+\"|[^\s;&|<>\"']+)(?P<errors>\s+[12&]?>+\s*&?\S+)*\s*(?P<rest>;\s*do\b.*)?"
)
_WAIT = re.compile(r"(?:;?\s*do\b)?\s*;?\s*(?:sleep\s+[0-9.]+\s*;?\s*)?(?P<done>done)?\s*;?")
#: A part of a script that can remove or ignore an old lock, or limit the time to wait.
_OLD_LOCK = re.compile(
    r"kill\s+-0|mmin|mtime|stale|\s-[on]t\s|\bstat\b|timeout|flock|SECONDS|/proc"
)


def _locks(code: Code) -> Iterator[Mistake]:
    """Yield a loop that waits for a lock which remains if the filter is killed."""
    text = "\n".join(line for _, line in code)
    if _OLD_LOCK.search(text) or re.search("[0-9]<|9>|<<", text):
        return
    for position, (number, line) in enumerate(code):
        found = _LOCK.fullmatch(line)
        if found is None:
            continue
        name = found["lock"].strip('"')
        before = [each for _, each in code[:position] if name in each]
        last, end = number, _WAIT.fullmatch(found["rest"] or "")
        for last, each in code[position + 1 :]:  # noqa: B007
            if end is None or end["done"]:
                break
            end = _WAIT.fullmatch(each)
        if end is None or not end["done"] or any(not each.startswith("trap") for each in before):
            continue
        new = f'exec 9> "{name}.flock" && flock 9 || exit 2'
        new += f'; mkdir -p "{name}"' if "mkdir" in line else ""
        new = re.sub(r"[\\&/]", r"\\\g<0>", new)
        rest = "" if (found["rest"] or "").rstrip("; ").endswith("done") else _rest(code, position)
        yield Mistake(Kind.LOCK, line, number, f"{number}s/^\\([ \\t]*\\).*/\\1{new}/{rest}")


def _rest(code: Code, position: int) -> str:
    """Return a script for sed(1) that deletes the other lines of a loop."""
    first = code[position][0] + 1
    last = next(number for number, line in code[position + 1 :] if re.search(r"\bdone\b", line))
    return f";{first},{last}d"
