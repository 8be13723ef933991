"""Finds lines of a shell script that damage the message, mix up messages or run remote text.

Rule: the functions depend only on the text and evaluate nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .script_mistakes import Mistake, code_lines, replaced

#: The kinds of mistakes.
SUBSHELL = "subshell"
READ = "read"
BLANK = "blank"
SHARED = "shared"
INJECTION = "injection"
_Code = list[tuple[int, str]]
_EMAIL = r"\"?\$\{?EMAIL\}?\"?"
_PIPED_LOOP = re.compile(
    r"(?P<command>[^|;]+?)\s*\|\s*(?P<loop>while\s+[^;]*read\s[^;]*?(?P<line>\w+)\s*;\s*do)"
)
_ASSIGNMENT = re.compile(r"(?:^|[;&|]|\b(?:then|else|do)\b)\s*(?P<name>\w+)=")
_READ_LOOP = re.compile(r"while\s+read\s+(?:-\w+\s+)*(?P<name>\w+)\s*;\s*do")
_HEADER = re.compile(r"(echo|printf)\s+(-e\s+)?[\"'][A-Z][\w-]*: ?[^\"']*[\"']")
_EMPTY_LINE = re.compile(r"echo(\s+(\"\"|''))?\s*;?|printf\s+[\"']\\n[\"']\s*;?")
#: A file that all running filters share, because its name is fixed.
_FIXED = re.compile(
    rf"(?:\bcp\s+{_EMAIL}\s+|{_EMAIL}[^;&>]*(?<![0-9])>\s*)(?P<path>/(?:var/)?tmp/[\w.-]+)(?=\s|;|$)"
)
_ENVELOPE = r"\$\{?(?:HELO|SENDER|RECIPIENTS?|CLIENT_NAME)\b"
_COMMAND = re.compile(
    rf"\b(?P<shell>(?:sh|bash|dash)\s+-c\s+)\"(?P<text>[^\"]*{_ENVELOPE}[^\"]*)\""
)
_EVAL = re.compile(rf"(?:^|[;&|]\s*)eval\s[^#]*{_ENVELOPE}")


def mistakes(script: str) -> Iterator[Mistake]:
    """Yield the mistakes in a shell script."""
    code = list(code_lines(script))
    if "<<" in script:
        return
    yield from _subshells(code)
    yield from _reads(code)
    yield from _blanks(code)
    yield from _shared(code)
    yield from _injections(code)


def _subshells(code: _Code) -> Iterator[Mistake]:
    """Yield a loop in a pipeline that sets a variable, if a later line uses the variable."""
    for position, (number, line) in enumerate(code):
        found = _PIPED_LOOP.fullmatch(line)
        end = next((i for i, (_, each) in enumerate(code) if i > position and each == "done"), 0)
        if found is None or not end:
            continue
        body = [each for _, each in code[position + 1 : end]]
        names = {each["name"] for text in body for each in _ASSIGNMENT.finditer(text)}
        later = "\n".join(each for _, each in code[end + 1 :])
        if any(re.search(rf"\$\{{?{name}\b", later) for name in names):
            last = code[end][0]
            command = re.sub(r"[\\&/]", r"\\\g<0>", found["command"].strip())
            loop = f'{found["loop"]} [ -n "${found["line"]}" ] || continue'
            edit = f"{replaced(number, found[0], loop)};"
            edit += rf"{last}s/done/done <<END\n$({command})\nEND/"
            yield Mistake(SUBSHELL, line, number, edit)


def _reads(code: _Code) -> Iterator[Mistake]:
    """Yield a loop that copies the message with read(1), which changes lines."""
    for (number, line), (_, body), (last, end) in zip(code, code[1:], code[2:], strict=False):
        found = _READ_LOOP.fullmatch(line)
        if found is None or not re.match(rf"done\s*<\s*{_EMAIL}", end):
            continue
        if re.fullmatch(rf"echo\s+\"?\$\{{?{found['name']}\}}?\"?\s*;?", body):
            edit = f'{number}s/while.*/cat "$EMAIL"/;{number + 1},{last}d'
            is_simple = last == number + 2 and end.rstrip('"}').endswith("EMAIL")
            yield Mistake(READ, line, number, edit if is_simple else "")


def _blanks(code: _Code) -> Iterator[Mistake]:
    """Yield an empty line between a new header field and the message."""
    for (_, first), (number, line), (_, last) in zip(code, code[1:], code[2:], strict=False):
        is_copy = re.match(rf"cat\s+{_EMAIL}", last)
        if _HEADER.match(first) and _EMPTY_LINE.fullmatch(line) and is_copy:
            yield Mistake(BLANK, line, number, f"{number}d")


def _shared(code: _Code) -> Iterator[Mistake]:
    """Yield the line that writes the message to a file with a fixed name."""
    text = "\n".join(line for _, line in code)
    for number, line in code:
        found = _FIXED.search(line)
        if found is None or text.count(found["path"]) < 2 or "flock" in text:
            continue
        path = re.sub(r"[.]", r"\\.", found["path"])
        edit = (
            f's,"{path}","$copy",g;s,{path},"$copy",g;'
            "1a copy=$(mktemp) || exit 2; trap 'rm -f \"$copy\"' EXIT"
        )
        yield Mistake(SHARED, line, number, edit)
        return


def _injections(code: _Code) -> Iterator[Mistake]:
    """Yield a line that makes text from the SMTP session part of a command."""
    for number, line in code:
        if found := _COMMAND.search(line):
            edit = replaced(number, found[0], f"{found['shell']}'{found['text']}'")
            yield Mistake(INJECTION, line, number, edit if "'" not in found["text"] else "")
        elif _EVAL.search(line):
            yield Mistake(INJECTION, line, number)
