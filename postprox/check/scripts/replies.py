"""Finds lines whose replies do not reach the proxy or do not match the exit status.

Rule: the functions depend only on the text and evaluate nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from . import shell_command
from .lines import Code, constants, has_here_document, outer_positions
from .mistake import Kind, Mistake, replaced

_BEGIN = r"(?:^|[;&|({]|\b(?:then|do|else)\b|\))\s*"
_REPLY_TEXT = r"(?:echo|printf)\s+(?:-\w+\s+)?(?:[\"']?%s(?:\\n)?[\"']?\s+)?[\"']?"
#: A command that prints a reply, and a command that prints a rejection.
_REPLY = re.compile(rf"{_BEGIN}(?P<printer>{_REPLY_TEXT}[45][0-9][0-9][ -][45A-Za-z])")
_REJECTION = re.compile(rf"{_BEGIN}{_REPLY_TEXT}5[0-9][0-9][ -][5A-Za-z]")
_EXIT = re.compile(
    rf"{_BEGIN}(?P<command>exit\s+(?P<status>-?[0-9][0-9.]*|\$EX_\w+|\$\{{EX_\w+\}}))"
    r"\s*(?=$|[;&|)}])"
)
#: The end of a branch of a script.
_BRANCH_END = re.compile(r"\b(exit|return|fi|esac|done|else|elif)\b|;;|\|\|")
#: A redirection of standard error of the whole script to a file or to standard output.
_EXEC = re.compile(
    r"exec\s+(1?>>?\s*[\w./\"${}-]+\s+)?(2>&1|2>>?\s*[\w./\"${}-]+|(&>>?|>&)\s*[/\"$][\w./\"${}-]*)"
)


def mistakes(code: Code) -> Iterator[Mistake]:
    """Yield the mistakes in the lines of a script."""
    yield from _statuses(code)
    yield from _redirections(code)
    yield from _traces(code)
    yield from _unanswered(code)
    if not has_here_document(code):
        yield from _sysexits(code)


def _statuses(code: Code) -> Iterator[Mistake]:
    """Yield each `exit` after a rejecting reply, if its status is not 1.

    The result does not include `exit 0`, because a script that does not yet reject mail may contain
    it. It includes other numbers that result in status 0, such as 256.
    """
    values = dict(constants(code))
    for position, (number, line) in enumerate(code):
        for found in _EXIT.finditer(line):
            status, command = found["status"], found["command"]
            if status.startswith("$"):
                status = values.get(status.strip("${}"), "1")
            is_one = status.isdigit() and (status == "0" or int(status) % 256 == 1)
            if not is_one and _follows_rejection(code, position, found.start("command")):
                text = replaced(number, command, "exit 1")
                kind = Kind.ZERO if status.isdigit() and int(status) % 256 == 0 else Kind.STATUS
                yield Mistake(kind, line, number, text if line.count(command) == 1 else "")


def _follows_rejection(code: Code, position: int, start: int) -> bool:
    """Return whether the previous commands of the same branch print a reply that rejects mail."""
    before = [code[position][1][:start], *(line for _, line in reversed(code[:position]))]
    for line in before[:4]:
        replies = list(_REJECTION.finditer(line))
        if replies or _BRANCH_END.search(line):
            return bool(replies) and not _BRANCH_END.search(line[replies[-1].end() :])
    return False


def _redirections(code: Code) -> Iterator[Mistake]:
    """Yield each line that redirects the script's standard error, if a later line prints a reply.

    A script that saves or restores standard error is left out.
    """
    text = "\n".join(line for _, line in code)
    if re.search(r"[3-9]>&|>&[3-9]|[3-9]>|<<|/dev/tty", text) or text.count("exec ") != 1:
        return
    for position in outer_positions(code):
        number, line = code[position]
        found = _EXEC.fullmatch(line.rstrip("; "))
        if found is None or "/dev/std" in line or "/dev/fd" in line:
            continue
        edits = [replaced(number, found[0], found[0].replace("exec", "exec 3>&2", 1))]
        for later, reply in code[position + 1 :]:
            printed = _REPLY.search(reply)
            if printed is None:
                continue
            is_redirected = re.search(r"1?>&2|>\s*/dev/stderr", reply)
            if reply.count(printed["printer"].split()[0]) != 1 or (
                is_redirected is None and ">" in reply
            ):
                edits = []
                break
            if is_redirected:
                edits.append(replaced(later, is_redirected[0], ">&3"))
            else:
                name = printed["printer"].split()[0]
                edits.append(replaced(later, name, f">&3 {name}"))
        if len(edits) != 1:
            yield Mistake(Kind.EXEC, line, number, ";".join(edits))
        return


_TRACE = re.compile(r"set\s+-(?P<letters>[a-zA-Z]*[xv][a-zA-Z]*)\s*;?|set\s+-o\s+(xtrace|verbose)")


def _traces(code: Code) -> Iterator[Mistake]:
    """Yield the line that lets the shell print each command, if the script also prints a reply."""
    text = "\n".join(line for _, line in code)
    if re.search(r"set\s+\+|\bexec\b|BASH_XTRACEFD", text) or not _REPLY.search(text):
        return
    for position in outer_positions(code):
        number, line = code[position]
        if found := _TRACE.fullmatch(line):
            kept = re.sub("[xv]", "", found["letters"] or "")
            edit = replaced(number, line, f"set -{kept}") if kept else f"{number}d"
            yield Mistake(Kind.TRACE, line, number, edit)


#: A text that may be a reply, and a way to print or replace the reply elsewhere.
_ANY_REPLY = re.compile(
    r"[245][0-9][0-9]|clam|spam|\bexec\b|\beval\b|<<|^\s*\.\s|\bsource\b|cat\b.*>&2", re.M
)
_REFUSED = re.compile(rf"{_BEGIN}(?P<command>exit\s+1)\s*(?=$|[;&|)}}])")


def _unanswered(code: Code) -> Iterator[Mistake]:
    """Yield a line that rejects the message, if the script never prints a reply."""
    text = "\n".join(line for _, line in code)
    found = [(number, line) for number, line in code if _REFUSED.search(line)]
    # Other programs than grep(1) may print a reply.
    if not found or _ANY_REPLY.search(text) or not re.search(r"\bgrep\b.*EMAIL", text):
        return
    new = "{ echo '550 5.7.1 The message was rejected' >\\&2; exit 1; }"
    edits = [rf"{number}s/\bexit[ \t]\+1\b/{new}/" for number, _ in found]
    yield Mistake(Kind.UNANSWERED, found[0][1], found[0][0], ";".join(edits))


#: A command that prints a reply. The filter's reply is the last line of its standard error.
_PRINTED_REPLY = re.compile(
    r"(?:^|[;&|({]|\b(?:then|do|else)\b|\))\s*(?:echo|printf)\s+(?:-\w+\s+)?"
    r"(?:[\"']?%s(?:\\n)?[\"']?\s+)?[\"']?[45][0-9][0-9][ -][45A-Za-z]",
    re.MULTILINE,
)


def reply_to_output(script: str) -> tuple[str, tuple[int, ...]]:
    """Return the first line that prints a reply to standard output, and the numbers of all such
    lines.

    The result is ("", ()) if any part of the script may redirect output to standard error.
    """
    lines = [(n, line) for n, line in enumerate(script.split("\n"), 1)]
    code = [(n, line) for n, line in lines if not line.lstrip().startswith("#")]
    text = "\n".join(line for _, line in code)
    if shell_command.TO_ERROR.search(text) or re.search(r"\b(exec|logger)\b|\$\(|`", text):
        return "", ()
    found = [
        (n, line) for n, line in code if _PRINTED_REPLY.search(line) and not re.search("[|>]", line)
    ]
    return (found[0][1].strip(), tuple(n for n, _ in found)) if found else ("", ())


#: The exit statuses of sysexits.h with which a filter for pipe(8) rejects a message.
_REJECTED = ("65", "69", "77")
_SYSEXIT = re.compile(
    r"(?:^|[;&{]|\b(?:then|do|else)\b)\s*(?P<exit>exit\s+[\"']?\$?\{?\w+\}?[\"']?)"
)
#: A command that prints a text without a reply code, and words that indicate a rejection or a
#: failure.
_TEXT = re.compile(
    r"(?:^|[;&{]|\b(?:then|do|else)\b)\s*(?P<print>(?P<printer>echo|printf)\s+(?P<quote>[\"']?)"
    r"(?P<text>(?:5\.[0-9]\.[0-9] )?[A-Za-z](?:[^;&|<>\"'`(){}]|\$\{\w+\})*)(?P=quote)"
    r"[^;&|<>`(){}]*"
    r"(?P<target>1?>&2|>\s*/dev/stderr)?)\s*(?=$|[;&}])"
)
_REFUSAL = re.compile(
    r"reject|refus|virus|infected|spam|malware|content|den(ied|y)|not\s+(allowed|accepted|permitted)"
    r"|forbidden|prohibited|banned|blocked|policy",
    re.IGNORECASE,
)
_FAILURE = re.compile(
    r"unavail|cannot|can't|could|fail|error|time|running|not found|missing|exist|usage|later|broken"
    r"|down\b|unable|no such|no (answer|reply|response)|scan|check|engine|database|did not"
    r"|signature|abort|incomplete|update|config|invalid|memory|disk|busy|limit|crash|kill|dead|stopped|lost"
    r"|connect|permission|socket|clamd|spamd|daemon|server",
    re.IGNORECASE,
)


def _sysexits(code: Code) -> Iterator[Mistake]:
    """Yield an `exit` with which a script for pipe(8) rejects a message.

    Only an `exit` after a text about a rejection counts, because status 69 can also report that a
    scanner is not available.
    """
    values = dict(constants(code))
    for position, (number, line) in enumerate(code):
        for found in _SYSEXIT.finditer(line):
            word = re.sub(r"^exit\s+|[\"'${}]", "", found["exit"])
            if values.get(word, word) not in _REJECTED:
                continue
            before = [(number, line[: found.start("exit")]), *reversed(code[:position])][:2]
            if before[0][1].strip(" {"):
                before = before[:1]
            printed = next(((n, each) for n, text in before if (each := _last_text(text))), None)
            if printed:
                edits = [
                    _as_reply(printed[0], printed[1]),
                    replaced(number, found["exit"], "exit 1"),
                ]
                yield Mistake(Kind.SYSEXIT, line, number, ";".join(edits))


def _last_text(line: str) -> re.Match[str] | None:
    """Return the last command of a line if it prints a text about a rejection."""
    found = list(_TEXT.finditer(line))
    if not found or line[found[-1].end() :].strip("; "):
        return None
    text = found[-1]["text"]
    return found[-1] if _REFUSAL.search(text) and not _FAILURE.search(text) else None


def _as_reply(number: int, found: re.Match[str]) -> str:
    """Return a script for sed(1) that turns a printed text into a reply on standard error."""
    start = f"{found['printer']} {found['quote']}"
    code = "550" if found["text"].startswith("5") else "550 5.7.1"
    new = found["print"].replace(found["text"], f"{code} {found['text']}", 1)
    new = re.sub(r"^\w+\s+[\"']?", lambda _: start, new)
    return replaced(number, found["print"], new if found["target"] else f">&2 {new}")
