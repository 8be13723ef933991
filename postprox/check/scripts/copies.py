"""Finds lines that damage or lose the message when they copy it.

Rule: the functions depend only on the text and evaluate nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .lines import EMAIL, Code, is_bare
from .mistake import Kind, Mistake, replaced

#: A command that prints a header field, a command that prints an empty line, and the copy of the
#: message that follows.
_SEPARATOR = r"\s*(?:;|&&|\n)\s*"
_HEADER = (
    r"(?P<printer>echo|printf)\s+(?P<option>-e\s+)?"
    r"(?P<text>\"[A-Z][\w-]*:[^\"\n]*\"|'[A-Z][\w-]*:[^'\n]*')[^;&|\n{}]*"
)
_EMPTY_LINE = r"(?:echo(?:\s+(?:\"\"|''))?|printf\s+[\"']\\n[\"'])"
_MARKED = re.compile(
    rf"(?P<header>{_HEADER}){_SEPARATOR}(?P<empty>{_EMPTY_LINE}{_SEPARATOR})?"
    rf"cat\s+{EMAIL}(?P<rest>[^\n]*(?:\n[}})][^\n]*)?)"
)


def mistakes(code: Code, *, echo_expands: bool) -> Iterator[Mistake]:
    """Yield the mistakes in the lines of a script."""
    yield from _blanks(code, echo_expands=echo_expands)
    yield from _partial(code)
    yield from _unsaved(code)
    yield from _logged(code)
    yield from _cut(code)
    yield from _spilled(code)


def _blanks(code: Code, *, echo_expands: bool) -> Iterator[Mistake]:
    """Yield a line that prints an empty line between a new header field and the message."""
    text = "\n".join(line for _, line in code)
    for found in _MARKED.finditer(text):
        if re.search(r"(?<!\|)\|(?!\|)", found["rest"]) or (
            ">" in found["rest"] and "OUTFILE" not in found["rest"]
        ):
            continue  # the text may be the body of a notification
        start = found.start("empty" if found["empty"] else "header")
        number, line = code[text.count("\n", 0, start)]
        if found["empty"]:
            is_line = line == found["empty"].strip().rstrip(";&").strip()
            edit = f"{number}d" if is_line else replaced(number, found["empty"].rstrip("\n"), "")
            yield Mistake(Kind.BLANK, line, number, edit)
        elif (new := _as_field(found, echo_expands=echo_expands)) != found["header"]:
            yield Mistake(Kind.BLANK, line, number, replaced(number, found["header"], new))


def _as_field(found: re.Match[str], *, echo_expands: bool) -> str:
    """Return a command that prints a header field without an empty line after it."""
    text, header = found["text"], found["header"]
    if found["printer"] == "printf":
        return header.replace(text, re.sub(r"(?<!\\)(\\n){2,}(?=[\"']$)", r"\\n", text))
    if not echo_expands and not found["option"]:
        return header  # without -e, the echo of bash prints \n unchanged
    new = re.sub(r"(?<!\\)(\\n)+(?=[\"']$)", "", text)
    header = header.replace(text, new)
    return header.replace(found["option"], "", 1) if found["option"] and echo_expands else header


#: Programs that end early if they cannot process a message.
_CONVERTER = re.compile(
    r"(?:^|[;{|]|&&)\s*(?P<command>(?:/\S*/)?(?:iconv|uconv|recode|reformime|openssl|gpg|gpgsm|perl"
    r"|python3)\s(?:[^|;&{}'\"]|'[^']*'|\"[^\"]*\"|>&[0-9]|\$\{\w+\})*)(?=[;}]|$)"
)
#: The rest of a group of commands that writes OUTFILE, after one of the commands.
_WRITTEN = re.compile(
    r"\s*;?\s*(?:(?:echo|printf|cat)\s[^;|&{}\n]*[;\n]\s*)*\}\s*>\s*\"?\$\{?OUTFILE\}?\"?"
)


def _partial(code: Code) -> Iterator[Mistake]:
    """Yield a program that writes OUTFILE, if the script ignores the program's exit status."""
    text = "\n".join(line for _, line in code)
    if re.search(r"\bset\s+-\w*e|errexit|\btrap\b.*\bERR\b", text):
        return
    for position, (number, line) in enumerate(code):
        found = _CONVERTER.search(line)
        if found is None:
            continue
        rest = "\n".join(
            [line[found.end("command") :], *(each for _, each in code[position + 1 :])]
        )
        if (
            not (end := _WRITTEN.match(rest))
            and "OUTFILE" not in found["command"].rpartition(">")[2]
        ):
            continue
        after = rest[end.end() :] if end else rest
        is_used = re.match(r"\s*([|&]|;?\s*(then|do)\b)", after) or re.search(
            r"\$\{?\?|OUTFILE", after
        )
        # The script may test the message first, and -c makes iconv(1) continue.
        is_safe = text.count(found["command"].split()[0]) > 1 or re.search(
            r"\s-\w*c\b|//IGNORE", found["command"]
        )
        if after.strip("; \n") and not is_used and not is_safe:
            command = found["command"].rstrip()
            yield Mistake(
                Kind.PARTIAL, line, number, replaced(number, command, f"{command} || exit 2")
            )


#: A command that copies the message, and the next command, which prints a reply that discards the
#: message.
_UNSAVED = re.compile(
    r"(?:^|[;{]|\b(?:then|do|else)\b)[ \t]*(?P<copy>(?:/\S*/)?(?:cp|mv|ln|install|cat|gzip|zstd|xz)"
    r"\s(?:[^;&|\n{}]|\$\{\w+\}|2>&1)*?\$\{?EMAIL\b(?:[^;&|\n{}]|\$\{\w+\}|2>&1)*?)[ \t]*[;\n]\s*"
    r"(?:(?:logger|echo)\s[^;&|\n>]*[;\n]\s*)?"
    r"(?:echo|printf)\s+(?:[\"']?%s(?:\\n)?[\"']?\s+)?[\"']?2[0-9][0-9][ -][^;|\n]*>&2",
    re.MULTILINE,
)


def _unsaved(code: Code) -> Iterator[Mistake]:
    """Yield a command that copies a message, if the script then discards the message without
    testing whether the command succeeded.
    """
    text = "\n".join(line for _, line in code)
    if re.search(r"\bset\s+-\w*e|errexit|\btrap\b.*\bERR\b", text):
        return
    for found in _UNSAVED.finditer(text):
        number, line = code[text.count("\n", 0, found.start("copy"))]
        is_copy = "cp" in found["copy"] or not re.search(r">\s*\"?\$\{?OUTFILE", found["copy"])
        if is_copy and is_bare(text, found.start("copy")):
            edit = replaced(number, found["copy"], f"{found['copy']} || exit 2")
            yield Mistake(Kind.UNSAVED, line, number, edit)


#: A sed(1) script that ends at the first empty line of the message.
_QUIT = re.compile(r"\s+-e\s+'/\^\$/q'|;\s*/\^\$/q(?=')")


def _cut(code: Code) -> Iterator[Mistake]:
    """Yield a sed(1) command that ends at the empty line after the header.

    Only a test message shows whether this damages the result.
    """
    for number, line in code:
        found = _QUIT.search(line)
        if found and re.search(rf"\bsed\b.*{EMAIL}", line):
            yield Mistake(Kind.CUT, line, number, replaced(number, found[0], ""))


#: A redirection of standard output of the whole script to the result.
_RESULT = re.compile(r"exec\s+1?>\s*\"?\$\{?OUTFILE\}?\"?\s*;?")
#: A program that prints a report about the message.
_REPORT = re.compile(rf"(?!cat\b|sed\b|grep\b)[\w./-]+(\s+-[\w=-]+)*\s+{EMAIL}\s*;?")


def _spilled(code: Code) -> Iterator[Mistake]:
    """Yield a program that prints a report into the result.

    Only a test message shows whether the program prints anything.
    """
    lines = [line for _, line in code]
    start = next((i for i, line in enumerate(lines) if _RESULT.fullmatch(line)), len(lines))
    for number, line in code[start:]:
        if _REPORT.fullmatch(line):
            new = f"{line.rstrip('; ')} > /dev/null"
            yield Mistake(Kind.SPILLED, line, number, replaced(number, line, new))


#: A command that appends a text to the result.
_APPENDED = re.compile(
    r"(?:^|[;&|{]|\b(?:then|do|else)\b)\s*(?P<print>(?:echo|printf|date)\b[^|;&<>]*?)"
    r"\s*(?P<target>>>\s*\"?\$\{?OUTFILE\}?\"?)"
)


def _logged(code: Code) -> Iterator[Mistake]:
    """Yield a line that writes a log entry to $OUTFILE, if no line writes a message there."""
    text = "\n".join(line for _, line in code)
    found = [(number, line, _APPENDED.search(line)) for number, line in code]
    lines = [(number, line, each) for number, line, each in found if each]
    if not lines or len(re.findall(r"\$\{?OUTFILE\b", text)) != len(lines):
        return
    edits = [
        replaced(number, each["target"], "| logger -t mail-filter") for number, _, each in lines
    ]
    yield Mistake(Kind.LOGGED, lines[0][1], lines[0][0], ";".join(edits))
