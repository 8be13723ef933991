"""Finds lines whose exit statuses do not give the intended result.

Rule: the functions depend only on the text and evaluate nothing. A line is not reported if another
part of the script may make it harmless.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .lines import Code, has_here_document, is_bare, outer_positions
from .mistake import Kind, Mistake, replaced

_STRICT = re.compile(r"^set\s+(-[a-z]*e|.*errexit)", re.MULTILINE)
_STRICT_HEAD = re.compile(r"#!\s*/\S+\s+-[a-z]*e")


def mistakes(script: str, code: Code) -> Iterator[Mistake]:
    """Yield the mistakes in the lines of a script."""
    yield from _refused(code)
    if has_here_document(code):
        return
    text = "\n".join(line for _, line in code)
    is_strict = bool(_STRICT.search(text) or _STRICT_HEAD.match(script))
    yield from _searches(code, text, is_strict=is_strict)
    yield from _untested(code, text)
    yield from _stale(code)
    if is_strict:
        yield from _unfound(code, text)


#: A scanner that exits with a status above 1 if it fails. Its output then contains no FOUND.
_SCAN = (
    r"(?P<scan>(?:cat\s+\"?\$\{?EMAIL\}?\"?\s*\|\s*)?(?:/\S*/)?clamd?scan\b"
    r"(?:[^|;&(){}`\n]|\$\{\w+\}|>&[0-9])*?)"
)
_SEARCH = re.compile(
    rf"(?P<negation>!\s+)?{_SCAN}\s*\|\s*(?P<grep>(?:/\S*/)?[ef]?grep\b[^|;&()`\n]*\bFOUND\b[^|;&()`\n]*)"
)
_SCANNED = re.compile(rf"(?P<name>\w+)=\"?\$\({_SCAN}\)\"?\s*;?")
#: A part of a script that may distinguish a failed scanner from a message without a virus.
_CHECKED = re.compile(
    r"\bOK\b|ERROR|[Ii]nfected|[Cc]onnect|-S\s|\bnc\b|PING|--ping|pipefail|PIPESTATUS|mispipe|\$\{?\?|>&[3-9]|\$\{\w+:?\?"
    r"|systemctl|pgrep|pidof|\b(eval|source|trap)\b|^\.\s|clamd?scan\b[^\n]*\|\|",
    re.MULTILINE,
)
_SAVED = "scanned=$({}) || [ $? = 1 ] || exit 2; "


def _searches(code: Code, text: str, *, is_strict: bool) -> Iterator[Mistake]:
    """Yield a line that looks for a virus only in a scanner's output.

    The output of a scanner that fails looks like that for a message without a virus.
    """
    uses = len(re.findall(r"(?<![-\w/])(?:/\S*/)?clamd?scan\b(?=\s)", text))
    if uses != 1 or "FOUND" not in text or _CHECKED.search(text):
        return
    for number, line in code:
        if re.match(r"\w+=", line) and is_strict:
            continue  # the status of the assignment ends the script
        if saved := _SCANNED.fullmatch(line):
            if re.search(rf"(-[nz]|\bcase)\s+\"?\$\{{?{saved['name']}\b", text):
                continue  # the script may handle other outputs
            edit = replaced(number, line, f"{line.rstrip('; ')} || [ $? = 1 ] || exit 2")
            yield Mistake(Kind.SEARCH, line, number, edit)
        elif (found := _SEARCH.search(line)) and is_bare(
            line.replace('="$(', "= $("), found.start("scan")
        ):
            yield Mistake(Kind.SEARCH, line, number, _with_status(number, line, found))


def _with_status(number: int, line: str, found: re.Match[str]) -> str:
    """Return a script for sed(1) that saves the scanner's output and tests its status."""
    head, after = line[: found.start()], line[found.end() :].lstrip()
    if re.search(r"\s-\w*v", found["grep"]) or "scanned" in line:
        return ""
    saved = _SAVED.format(found["scan"].rstrip())
    new = f"{found['negation'] or ''}printf '%s\\n' \"$scanned\" | {found['grep']}"
    if assigned := re.fullmatch(r"(?P<name>\w+=\"?)\$\(", head):
        return replaced(number, f"{head}{found[0]}", f"{saved}{assigned['name']}$({new}")
    if (after.startswith("|") and after[:2] != "||") or after.startswith(")") or "$(" in head:
        return ""
    if re.search(r"(&&|\|\|)\s*$", head):
        return replaced(number, found[0].rstrip(), f"{{ {saved}{new.rstrip()}; }}")
    return replaced(number, found[0], f"{saved}{new}")


#: An assignment whose status is that of grep(1), which is 1 if grep(1) finds nothing.
_COUNTED = re.compile(
    r"\w+=\"?\$\((?P<before>[^()`]*\|\s*)?(?:/\S*/)?[ef]?grep\s(?P<arguments>[^|;&()`]*)\)\"?\s*;?"
)
#: Options and patterns with which grep(1) finds something in each message.
_ALWAYS_FOUND = re.compile(
    r"(^|\s)-\w*v|[\"'](\.|\^|\$|)[\"']|\s\.\s|\^(Received|From|Date|Message-I)"
)


def _unfound(code: Code, text: str) -> Iterator[Mistake]:
    """Yield an assignment that ends the script if grep(1) finds nothing in the message."""
    if re.search(r"set\s+\+|\b(trap|eval|source)\b", text):
        return
    for position in outer_positions(code):
        number, line = code[position]
        found = _COUNTED.fullmatch(line)
        if found and "EMAIL" in line and not _ALWAYS_FOUND.search(found["arguments"]):
            edit = replaced(number, line, f"{line.rstrip('; ')} || [ $? = 1 ] || exit 2")
            yield Mistake(Kind.UNFOUND, line, number, edit)


#: A command that only runs a scanner.
_RUN = re.compile(
    r"(?:/\S*/)?clamd?scan\s(?:[^|;&(){}`<>]|\$\{\w+\}|[0-9]?>&[0-9]|&?[0-9]?>\s*/\S+|<\s*\"?\$)*;?"
)
#: The next command, which compares the status with 1.
_IS_ONE = re.compile(
    r"(?P<if>if\s+)?(?P<test>\[\[?\s+[\"']?\$\??(?P<name>\w*)[\"']?\s+(?:-eq|==?)\s+[\"']?1[\"']?\s+\]?\])"
)
_ASSIGNED = re.compile(r"(?P<name>[A-Za-z_]\w*)=[\"']?\$\?[\"']?;?")
#: A part of a script that may handle other statuses.
_HANDLED = re.compile(
    r"pipefail|PIPESTATUS|\b(trap|eval|source|case)\b|-(gt|ge|ne|lt|le)\b|!=|\(\(|-eq\s+[^1]|\b2\)|\|\||--ping"
    r"|elif|else|\b(nc|socat|pidof|pgrep|systemctl)\b"
)


def _untested(code: Code, text: str) -> Iterator[Mistake]:
    """Yield a line that tests a scanner's exit status only for status 1 (a virus).

    A scanner that fails has a higher status. The script then treats the message as clean.
    """
    if _HANDLED.search(text.replace("|| exit 2", "")):
        return
    for position, (_, line) in enumerate(code[:-1]):
        if not _RUN.fullmatch(line):
            continue
        number, test = code[position + 1]
        if assigned := _ASSIGNED.fullmatch(test):
            name = assigned["name"]
            uses = re.findall(rf"\$\{{?{name}\b", text)
            later = "\n".join(each for _, each in code[position + 2 :])
            is_one = re.search(rf"\$\{{?{name}\}}?[\"']?\s+(-eq|==?)\s+[\"']?1\b", later)
            if len(uses) == 1 and is_one:
                new = f"{test.rstrip('; ')}; [ ${name} -le 1 ] || exit 2"
                yield Mistake(Kind.UNTESTED, line, number, replaced(number, test, new))
        elif (found := _IS_ONE.match(test)) and not found["name"] and text.count("$?") == 1:
            new = f"scanned=$?; [ $scanned -le 1 ] || exit 2; {found['if'] or ''}[ $scanned -eq 1 ]"
            yield Mistake(Kind.UNTESTED, line, number, replaced(number, found[0], new))


#: A command whose status the script should test, and a command that replaces this status.
_TESTED = re.compile(r"(?:(?:/\S*/)?(?:[ef]?grep\s+-\w*q|clamd?scan\b)[^|;&]*|spamc\s+-c[^|;&]*)")
_MESSAGE = re.compile(r"(?:logger|echo|printf|date|rm)\s[^;&|]*")


def _stale(code: Code) -> Iterator[Mistake]:
    """Yield a test of `$?` if another command has replaced the status of the scan."""
    for first, second, third in zip(code, code[1:], code[2:], strict=False):
        is_test = re.match(r"(if\s+)?(\[|case\s+)\s*[\"']?\$\?", third[1])
        if _TESTED.fullmatch(first[1]) and _MESSAGE.fullmatch(second[1]) and is_test:
            # The command `a` of sed(1) ends only at the end of the script.
            edits = [replaced(third[0], "$?", "$scanned"), f"{first[0]}a scanned=$?"]
            yield Mistake(Kind.STALE, third[1], third[0], ";".join(edits))


#: A part of a script that can end it with status 0 before its last line, or run other commands.
_OTHER_END = re.compile(
    r"\bexit\b(?!\s+[1-9])|\b(exec|return|trap|kill|source|eval)\b|<<|(^|[;&|]\s*)\.\s", re.M
)
#: A list of commands whose exit status is never 0.
_NEVER_ZERO = re.compile(
    r"(?!(?:if|case|for|while|until|function)\b|[\w-]+\s*\(\)|[{(])(?:[^;|{}\n]|\|(?!\|))+&&\s*"
    r"(?:exit\s+[1-9][0-9]*|\{(?:[^{}|]|\|(?!\|))*\bexit\s+[1-9][0-9]*\s*;?\s*\})\s*;?"
)


def _refused(code: Code) -> Iterator[Mistake]:
    """Yield a last line, such as `grep && exit 1`, that always ends the script with a failure."""
    outer = set(outer_positions(code))
    if _OTHER_END.search("\n".join(line for _, line in code)) or len(code) - 1 not in outer:
        return
    start = len(code) - 1
    while start and start - 1 not in outer:
        start -= 1
    number, line = code[start]
    last = "\n".join(each for _, each in code[start:])
    if _NEVER_ZERO.fullmatch(re.sub(r"'[^']*'|\"[^\"]*\"", "x", last)):
        yield Mistake(Kind.REFUSED, line, number, "$a exit 0")
