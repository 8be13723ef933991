"""Finds lines that use or change the proxy's variables incorrectly.

Rule: the functions depend only on the text and evaluate nothing. A line is not reported if another
part of the script may make it harmless.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping

from .lines import Code, code_lines
from .mistake import Kind, Mistake

#: The variables that the proxy sets for the filter.
_SET = (
    *("EMAIL", "OUTFILE", "SENDER", "RECIPIENT", "REMOTEIP", "HELO", "RECIPIENTS"),
    *("RECIPIENTCOUNT", "QUEUE_ID", "CLIENT_NAME"),
)
#: The variables of proxsmtpd and clamsmtpd, each with the variable of this proxy.
_OTHERS = {
    "REMOTE": "REMOTEIP",
    "REMOTE_ADDR": "REMOTEIP",
    "REMOTE_HELO": "HELO",
    "CLIENT": "REMOTEIP",
    "CLIENT_ADDRESS": "REMOTEIP",
    "CLIENT_IP": "REMOTEIP",
    "FROM": "SENDER",
    "MAILFROM": "SENDER",
    "RCPT": "RECIPIENT",
    "TO": "RECIPIENT",
    "INFILE": "EMAIL",
    "MESSAGE": "EMAIL",
}
#: The minimum similarity, from 0 to 1, at which a name is regarded as a misspelt variable.
_SIMILAR = 0.75
_USE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
#: An assignment of a fixed text.
_FIXED = re.compile(r"(?P<name>EMAIL|OUTFILE)=(?P<value>\"[^\"$`]*\"|'[^']*'|[^\s;&|$`\"'()]+);?")
#: A command that prints text for a person.
_PRINTED = re.compile(r"(?:.*[;&{]\s*)?(?:echo|printf|logger|mail)\s")
#: A part of a script that can set any variable.
_READS = re.compile(r"(^|[;&|]\s*)(\.|source|eval|set -a)\s", re.MULTILINE)


def mistakes(code: Code) -> Iterator[Mistake]:
    """Yield the mistakes in the lines of a script."""
    text = "\n".join(line for _, line in code)
    yield from _unquoted(code)
    yield from _empty(code, text)
    if not _READS.search(text):
        yield from _overwritten(code)
        yield from _foreign(code, text)


#: A test such as [ -n $NAME ], in which the variable is not quoted.
_NOT_EMPTY = re.compile(r"(?<!\[)\[\s+(?P<not>!\s+)?-n\s+(?P<value>\$\{?\w+\}?)\s+\](?!\])")


def _unquoted(code: Code) -> Iterator[Mistake]:
    """Yield a test that is always true, because the shell removes an empty value."""
    for number, line in code:
        if found := _NOT_EMPTY.search(line):
            edit = rf'{number}s/-n \+\{found["value"]}/-n "{found["value"]}"/'
            yield Mistake(Kind.UNQUOTED, line, number, edit)
            return


def _empty(code: Code, text: str) -> Iterator[Mistake]:
    """Yield a line that lacks $EMAIL and $OUTFILE, because an unquoted here-document expanded them
    to nothing.
    """
    written = next(((n, line) for n, line in code if re.search(r"(?<!\d)>\s*\"\"", line)), None)
    if written and "EMAIL" not in text and "OUTFILE" not in text:
        result, message = r's/>\( *\)""/>\1"$OUTFILE"/', r's/\(cat\|grep [^;|&]*\) ""/\1 "$EMAIL"/'
        edits = [f"{n}{result};{n}{message}" for n, _ in code]
        yield Mistake(Kind.EMPTY, written[1], written[0], ";".join(edits))


def _overwritten(code: Code) -> Iterator[Mistake]:
    """Yield a line that overwrites EMAIL or OUTFILE, the path of the message or of the result."""
    for position, (number, line) in enumerate(code):
        found = _FIXED.fullmatch(line)
        later = code[position + 1 :]
        if found is None or not any(found["name"] in _names(line) for _, line in later):
            continue
        name = found["name"]
        new = f"OWN_{name}"
        printed = [n for n, line in later if _PRINTED.match(line) and name in _names(line)]
        edits = [f"{number}s/{name}=/{new}=/"]
        edits += [
            rf"{n}s/\${{{name}}}/${{{new}}}/g;{n}s/\${name}\b/${new}/g"
            for n in printed
            if not re.search(r"[<>]\s*\"?\$|\bcat\b", dict(later)[n])
        ]
        yield Mistake(Kind.OVERWRITTEN, line, number, ";".join(edits), path=name)


def _foreign(code: Code, text: str) -> Iterator[Mistake]:
    """Yield a line with a variable of another program, or with a misspelt variable."""
    own = {*re.findall(r"\b(\w+)\+?=", text), *re.findall(r"\bfor\s+(\w+)", text)}
    own |= {name for names in re.findall(r"\bread\s+([\w\s-]+)", text) for name in names.split()}
    own |= {name for names in re.findall(r"\blocal\s+([\w\s]+)", text) for name in names.split()}
    for number, line in code:
        for name in _names(line):
            right = "" if name in own else _meant(name)
            if right:
                edit = rf"s/\${{{name}}}/${{{right}}}/g;s/\${name}\b/${right}/g"
                yield Mistake(Kind.FOREIGN, line, number, edit, path=f"{name} {right}")
                return


def _meant(name: str) -> str:
    """Return the variable of the proxy that a name probably stands for, or ""."""
    if name in _SET or not name.isupper():
        return ""
    near = difflib.get_close_matches(name, _SET, 1, _SIMILAR)
    return _OTHERS.get(name) or (near[0] if near else "")


def _names(line: str) -> list[str]:
    """Return the names of the variables that a line expands without a default value."""
    outside = re.sub(r"'[^']*'", "", line)
    return [found[1] or found[2] for found in _USE.finditer(outside)]


#: A use of a variable that login(1) sets, in Python and in a shell that exits at an unset variable.
_LOGIN = r"(?P<name>HOME|USER|LOGNAME)\b"
_PYTHON_LOGIN = re.compile(rf"\benviron\[[\"']{_LOGIN}")
_SHELL_LOGIN = re.compile(rf"\$(?:\{{{_LOGIN}[:?}}]|(?P<bare>HOME|USER|LOGNAME)\b)")
_STRICT_SHELL = re.compile(r"^\s*set\s+(-[a-z]*u|-o\s+nounset)", re.MULTILINE)


def unset_variables(script: str, values: Mapping[str, str]) -> Iterator[Mistake]:
    """Yield the first line with a variable that the script does not set, but that `values` has.

    `values` contains the variables of an environment file that the proxy does not read.
    """
    for number, line in code_lines(script):
        for name in _names(line):
            if name in values and not re.search(rf"\b{name}\+?=|\bread\b.*\b{name}\b", script):
                yield Mistake(Kind.LOGIN, line, number, values[name], path=name)
                return


def login_variables(script: str, *, is_python: bool) -> Iterator[Mistake]:
    """Yield the first line that fails without a variable that login(1) sets.

    The name of the variable is in `path`.
    """
    if not is_python and not _STRICT_SHELL.search(script):
        return
    for number, line in code_lines(script):
        found = (_PYTHON_LOGIN if is_python else _SHELL_LOGIN).search(line)
        name = next(filter(None, found.groups()), "") if found else ""
        if name and not re.search(rf"\b{name}=|environ\[.{name}.\]\s*=|[{{]{name}:-", script):
            yield Mistake(Kind.LOGIN, line, number, path=name)
            return
