"""Finds loops that lose variables, exit statuses or parts of lines.

Rule: the functions depend only on the text and evaluate nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .lines import EMAIL, Code
from .mistake import Kind, Mistake, replaced

_PIPED_LOOP = re.compile(
    r"(?P<command>[^|;]+?)\s*\|\s*(?P<loop>while\s+[^;]*read\s[^;]*?(?P<line>\w+)\s*;\s*do)"
)
_ASSIGNMENT = re.compile(r"(?:^|[;&|]|\b(?:then|else|do)\b)\s*(?P<name>\w+)=")
_READ_LOOP = re.compile(r"while\s+read\s+(?:-\w+\s+)*(?P<name>\w+)\s*;\s*do")


def mistakes(script: str, code: Code) -> Iterator[Mistake]:
    """Yield the mistakes in the lines of a script."""
    if not re.match(r"#!.*(\b(ksh|mksh|zsh)\b|\s-\w*e)", script):
        yield from _subshells(code)
    yield from _reads(code)


def _subshells(code: Code) -> Iterator[Mistake]:
    """Yield a loop in a pipeline if later lines use a variable that it sets, or if its `exit` does
    not end the script.
    """
    text = "\n".join(line for _, line in code)
    for position, (number, line) in enumerate(code):
        found = _PIPED_LOOP.fullmatch(line)
        end = next((i for i, (_, each) in enumerate(code) if i > position and each == "done"), 0)
        if found is None or not end:
            continue
        body = [each for _, each in code[position + 1 : end]]
        if re.search(r"\b(for|while|until)\b", "\n".join(body)):
            continue  # `done` may belong to another loop
        names = {each["name"] for text in body for each in _ASSIGNMENT.finditer(text)}
        later = "\n".join(each for _, each in code[end + 1 :])
        is_set = any(re.search(rf"\$\{{?{name}\b", later) for name in names)
        if is_set or (_is_left(body, later) and not _KEPT_EXIT.search(text)):
            last = code[end][0]
            command = re.sub(r"[\\&/]", r"\\\g<0>", found["command"].strip())
            loop = f'{found["loop"]} [ -n "${found["line"]}" ] || continue'
            edit = f"{replaced(number, found[0], loop)};"
            edit += rf"{last}s/done/done <<END\n$({command})\nEND/"
            yield Mistake(Kind.SUBSHELL if is_set else Kind.LOOP_EXIT, line, number, edit)


def _is_left(body: list[str], later: str) -> bool:
    """Return whether an `exit` that rejects mail ends only the loop's subshell, and no later line
    uses the loop's exit status.

    A loop that writes a file is left out, because a later line may read the file.
    """
    text = re.sub(r"1?>&2|2?>\s*/dev/(null|stderr)", "", "\n".join(body))
    is_rejected = "\n".join(body) != text and re.search(
        r"(^|[;&{]|\b(then|do|else)\b)\s*exit\s+[1-9]", text, re.MULTILINE
    )
    if not is_rejected or re.search(r">|\b(touch|tee|mkdir|cp|mv|ln)\b", text):
        return False
    after = re.sub(r"^((fi|esac|done)\s*;?\s*)*", "", later)
    return bool(after) and not re.match(r"[)}&|]|exit\s*;?$|[^\n]*\$\{?\?", after, re.MULTILINE)


#: A part of a script that makes a failed loop end the script, or that runs the loop in the same
#: shell.
_KEPT_EXIT = re.compile(r"\bset\s+-\w*e|errexit|lastpipe|\b(trap|kill)\b")


def _reads(code: Code) -> Iterator[Mistake]:
    """Yield a loop that copies the message with read(1), which changes lines."""
    for (number, line), (_, body), (last, end) in zip(code, code[1:], code[2:], strict=False):
        found = _READ_LOOP.fullmatch(line)
        if found is None or not re.match(rf"done\s*<\s*{EMAIL}", end):
            continue
        if re.fullmatch(rf"echo\s+\"?\$\{{?{found['name']}\}}?\"?\s*;?", body):
            edit = f'{number}s/while.*/cat "$EMAIL"/;{number + 1},{last}d'
            is_simple = last == number + 2 and end.rstrip('"}').endswith("EMAIL")
            yield Mistake(Kind.READ, line, number, edit if is_simple else "")
            return
    yield from _read_lines(code)


#: The beginning of a loop that reads lines with read(1) and its default separators.
_READ_LINES = re.compile(r"while\s+read\s+(?P<option>-r\s+)?(?P<name>\w+)\s*;\s*do\s*$")


def _read_lines(code: Code) -> Iterator[Mistake]:
    """Yield a loop that examines each line of the message and prints most lines with echo."""
    starts = [(i, found) for i, (_, line) in enumerate(code) if (found := _READ_LINES.match(line))]
    if len(starts) != 1:
        return
    (position, found), name = starts[0], starts[0][1]["name"]
    end = next((i for i in range(position, len(code)) if code[i][1].startswith("done")), 0)
    printed = rf"echo\s+\"?\$\{{?{name}\}}?\"?(?=\s|;|$)"
    lines = [(n, each) for n, line in code[position:end] if (each := re.search(printed, line))]
    if lines and re.match(rf"done\s*<\s*{EMAIL}", code[end][1]):
        number, line = code[position]
        condition = f'while IFS= read -r {name} || [ -n "${name}" ]; do'
        edits = [replaced(number, found[0].rstrip(), condition)]
        edits += [replaced(n, each[0], f"printf '%s\\n' \"${name}\"") for n, each in lines]
        yield Mistake(Kind.READ, line, number, ";".join(edits))
