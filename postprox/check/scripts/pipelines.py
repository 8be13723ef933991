"""Finds pipelines whose last program hides the exit status of a scanner.

Rule: the functions depend only on the text and evaluate nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from . import shell_command
from .lines import Code, is_bare
from .mistake import Kind, Mistake, replaced

#: A scanner whose exit status reports a virus or spam.
_VERDICT = re.compile(
    r"\b(clamdscan|clamscan)\b|\bspamc\b.*\s(-\w*[cE]|--check|--exitcode)"
    r"|\bspamassassin\b.*\s(-\w*e|--exit-code)"
)
_SINK = re.compile(
    rf"(?P<before>([ \t]*2>&1)?[ \t]*(?<!\|)\|(?P<both>&?))[ \t]*(/[^ \t|;&]*/)?"
    rf"(?P<name>{'|'.join(shell_command.SINKS)})\b"
    r"(?P<arguments>([^|;&()`\"']|\"[^\"`]*\"|'[^']*'|[0-9]?>&[0-9])*?)[ \t]*"
    r"(?P<end>\)|;|&&|\|\||$)"
)
#: The arguments of tee(1) that a redirection can replace.
_TEE = re.compile(
    r"[ \t]+(?P<append>(-a|--append)[ \t]+)?(?P<file>[^-\s\"'<>][^\s\"'<>]*|\"[^\"]*\"|'[^']*')"
    r"([ \t]*>[ \t]*/dev/null)?[ \t]*"
)
_USE = re.compile(
    r"([A-Za-z_]\w*=|case\s+|(if\s+)?(!\s+)?(\[\[?|test)\s+|exit\s+|return\s+)\"?\$\??"
)
#: A test of the exit status of the previous command.
_TESTED = re.compile(r"(case\s+|(if\s+)?(!\s+)?(\[\[?|test)\s+)[\"']?\$\?")
_STATUS = re.compile(r"[^;|#]*\$\{?\?")
#: A part of a script that reads the scanner's output, or the status of each command in a pipeline.
_OTHER_STATUS = re.compile(r"pipefail|PIPESTATUS|pipestatus|mispipe|FOUND|nfected|>&[3-9]|<<")


def mistakes(code: Code) -> Iterator[Mistake]:
    """Yield the pipelines whose last program hides the exit status of a scanner.

    A pipeline is omitted if the script does not use its exit status.
    """
    if _OTHER_STATUS.search("\n".join(line for _, line in code)):
        return
    for position, (number, line) in enumerate(code):
        for found in _SINK.finditer(line):
            head = line[: found.start()]
            command = re.split(r"&&|\|\||;|\b(?:then|do|else)\b|[{(]", head)[-1]
            following = line[found.end() :].strip().strip('"').strip()
            if not following and found["end"] in ("", ")") and position + 1 < len(code):
                following = code[position + 1][1]
            is_other = "EMAIL" in command and "OUTFILE" not in line
            is_other &= not shell_command.SCANNER.search(command)
            is_tested = is_other and _TESTED.match(following.lstrip("; "))
            if (
                (_VERDICT.search(command) or is_tested)
                and is_bare(line, found.start())
                and _uses_status(head, found["end"], following.lstrip("; "))
                and not _reads(code, position, found["arguments"])
                and not (found["name"] == "sed" and re.search("[qQ]", found["arguments"]))
            ):
                yield Mistake(Kind.PIPE, line, number, _without_pipe(number, found))


def _uses_status(head: str, end: str, following: str) -> bool:
    """Return whether a script uses the exit status of a pipeline."""
    is_condition = re.match(r"(if|elif|while|until)\s[^;]*$", head)
    if end == "||":
        return not re.match(r"(true|:|echo|printf|logger)\b", following)
    if end == "&&":
        return True
    if end == ")":
        operator = re.match(r"(\|\||&&)\s*", following)
        if operator:
            return _uses_status(head, operator[1], following[operator.end() :])
    is_branch = is_condition and re.match(r"then\b|do\b", following)
    return bool(is_branch or (_USE.match(following) and _STATUS.match(following)))


def _reads(code: Code, position: int, arguments: str) -> bool:
    """Return whether another line reads the file that the pipeline writes."""
    words = [word for word in re.split(r"[\s\"'<>]+", arguments) if re.search("[/$]", word)]
    others = [line for number, (_, line) in enumerate(code) if number != position]
    return any(
        word in line and re.search(r"\b(grep|egrep|awk|sed|cat|case|read|tail|head)\b|<", line)
        for word in words
        for line in others
    )


def _without_pipe(number: int, found: re.Match[str]) -> str:
    """Return a sed(1) script that replaces or removes the pipe, or "" if neither is possible."""
    old = found[0][: len(found[0]) - len(found["end"])].rstrip()
    has_errors = found["both"] or "2>&1" in found["before"]
    if found["end"] == ")":
        return ""
    if found["name"] != "tee":
        return "" if ">" in found["arguments"] else replaced(number, old, "")
    file = _TEE.fullmatch(found["arguments"])
    if file is None:
        return ""
    new = f" {'>>' if file['append'] else '>'} {file['file']}{' 2>&1' if has_errors else ''}"
    return replaced(number, old, new)


#: A part of a script that can replace the filter's exit status, or that changes the message.
_OTHER_RESULT = re.compile(
    r"\bexit\b(?!\s+0\b)|\bset\s+-\w*e|errexit|\b(exec|return|trap|kill|OUTFILE|source)\b"
    r"|\$\{\w+:?\?|(^|[;&|]\s*)\.\s",
    re.MULTILINE,
)
_PIPE_TO_SINK = rf"\|&?[ \t]*(/[^ \t|;&]*/)?({'|'.join(shell_command.SINKS)})([ \t][^|;&(){{}}]*)?$"
_ALWAYS_ZERO = r"(true|:|exit\s+0)\s*;?\s*$"


def lost_status(script: str) -> tuple[str, int]:
    """Return the last line of a script if this line hides a scanner's exit status.

    The number is the line number, or 0 if neither this line nor the previous one runs the scanner.
    If the script can end with another exit status, or changes the message, the result is ("", 0).
    """
    lines = [(n, line.strip()) for n, line in enumerate(script.split("\n"), 1)]
    code = [(n, line) for n, line in lines if line and not line.startswith("#")]
    text = "\n".join(line for _, line in code)
    if not code or not shell_command.SCANNER.search(text) or _OTHER_RESULT.search(text):
        return "", 0
    number, last = code[-1]
    if re.match(_ALWAYS_ZERO, last):
        before = "".join(line for _, line in code[-2:-1])
        return last, number if shell_command.SCANNER.search(before) else 0
    if re.search(rf"(\|\||;)\s*{_ALWAYS_ZERO}", last):
        return last, number if shell_command.SCANNER.search(last) else 0
    piped = re.search(rf"(?<!\|){_PIPE_TO_SINK}", last)
    is_scanned = (
        piped
        and shell_command.SCANNER.search(last[: piped.start()])
        and is_bare(last, piped.start())
    )
    if is_scanned and "pipefail" not in text:
        return last, number
    return "", 0


def without_sink(number: int) -> str:
    """Return a script for `sed -E` that removes the end of a pipeline, such as `| logger`."""
    return rf"{number}s,[ \t]*(2>&1[ \t]*)?{_PIPE_TO_SINK},,"
