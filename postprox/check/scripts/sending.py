"""Finds lines of a script that was written for the simple content filter of Postfix.

Rule: the functions depend only on the text and evaluate nothing. If the script might get the
message in another way or send different text, the line is not reported.

Postfix's pipe(8) gives such a script the message on standard input and the recipients as arguments,
and the script sends the message with sendmail(1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from . import message_flow, shell_command
from .lines import code_lines, is_bare
from .mistake import Kind, Mistake, replaced

#: A part of a script that can run another script, or change the script's own arguments. An
#: instance of Postfix with another configuration need not send mail to the filter.
_OTHER_SCRIPT = re.compile(
    r"\b(source|eval|python3?|perl|ruby|sh|bash|function|printenv)\b|(^|[;&|]\s*)\.\s|\(\s*\)"
    r"|\bset\s+(--|[^-+\s])|\bexec\s+(?!\S*sendmail\b)|(^|[\s;&|(`\"'])(\.{1,2}/|/usr/local/|/opt/"
    r"|/home/|/root/|~)|MAIL_CONFIG",
    re.MULTILINE,
)
_POSITIONAL = re.compile(r"\$\{?[1-9@*]")
_RECIPIENTS = re.compile(r"\$\{?([1-9@*]|RECIPIENTS?\b)|\s-[GiI]*t[GiI]*(\s|$)")
_CONSTANT = re.compile(
    r"^(?:export\s+)?([A-Za-z_]\w*)=(?:\"([^\"$`]*)\"|'([^']*)'|([\w./-]+))$", re.MULTILINE
)
_SEPARATOR = re.compile(r";|&&|\|\||\b(?:then|do|else|if|while|until)\b|[!{}()]")
#: A variable that gets the text of standard input.
_CAPTURED = re.compile(r"\w=\"?\$\(cat\)")
#: Programs that copy their input unchanged, and programs that can change it.
_COPIERS = ("cat", "cp", "ln", "mv", "tee")
_EDITORS = ("formail", "spamassassin", "spamc")
#: Options with which these programs write other text, such as a reply or a report.
_OTHER_TEXT = {"formail": "-[^-]*[rxX]", "spamc": "-[^-]*[cCKLRry]"}


@dataclass(frozen=True)
class _Step:
    """A pipeline of programs that copies, edits or sends the message."""

    line: str
    number: int
    #: The input file, or "" for standard input.
    source: str
    #: The file that it writes, or "" if it sends the text with sendmail(1).
    target: str
    #: True if the pipeline does not change the text.
    is_exact: bool


def mistakes(script: str) -> Iterator[Mistake]:
    """Yield the line that reads the message from standard input, or that sends the message."""
    code = list(code_lines(script))
    text = "\n".join(line for _, line in code)
    constants = _constants(text)
    expanded = [(number, _expanded(line, constants), line) for number, line in code]
    steps = [step for each in expanded for step in _steps(*each)]
    if "EMAIL" in text:
        if "MAIL_CONFIG" not in text:
            yield from _resent(script, steps, code)
            yield from _looped(code, text)
            yield from _resent_copy(code, text)
            notices = [*_echoed(code), *_announced(script)]
            correction = ";".join(each.correction for each in notices)
            yield from (replace(each, correction=correction) for each in notices[:1])
        return
    plain = re.sub(r"'[^']*'", "''", "\n".join(line for _, line, _ in expanded))
    is_other = any(
        _POSITIONAL.search(line)
        and not re.search(rf"\b({'|'.join(shell_command.SCANNERS)}|sendmail)\b", line)
        for line in plain.split("\n")
    )
    if is_other or _OTHER_SCRIPT.search(plain) or message_flow.without_message(script)[0]:
        return
    read = [step for step in steps if not step.source and _is_used(step, steps, plain)]
    files = _copies({"": True}, steps)
    sent = [
        step
        for step in steps
        if not step.target and (step.source in files or _POSITIONAL.search(step.line))
    ]
    scans = [
        (number, line)
        for number, line, _ in expanded
        if _POSITIONAL.search(line)
        and re.search(rf"\b({'|'.join(shell_command.SCANNERS)})\b", line)
    ]
    captured = [each for each in code if _CAPTURED.search(each[1])]
    unread = Kind.LOST if "OUTFILE" in text else Kind.UNREAD
    if captured and not sent and not read:
        number, line = captured[0]
        yield Mistake(unread, line, number, rf'{number}s/=\(["]*\)$(cat)/=\1$(cat "$EMAIL")/')
    elif sent:
        first = (*read, *sent)[0]
        yield Mistake(Kind.UNSENT, first.line, first.number, _mended(script, read, steps))
    elif read:
        yield Mistake(unread, read[0].line, read[0].number, _mended(script, read, steps))
    elif scans:
        yield Mistake(Kind.UNSENT, dict(code)[scans[0][0]], scans[0][0])


def _constants(text: str) -> dict[str, str]:
    """Return the variables that a script sets once, to a known value."""
    found = [(name, a or b or c) for name, a, b, c in _CONSTANT.findall(text)]
    names = re.findall(r"\b([A-Za-z_]\w*)\+?=", text)
    return {name: value for name, value in found if names.count(name) == 1}


def _expanded(line: str, constants: dict[str, str]) -> str:
    """Replace known variables, and write the others as $NAME."""
    return re.sub(
        r"\$(?:\{(\w+)\}|(\w+))",
        lambda found: constants.get(found[1] or found[2], f"${found[1] or found[2]}"),
        line,
    )


def _steps(number: int, line: str, original: str) -> Iterator[_Step]:
    """Yield each pipeline in a line, if the pipeline copies or sends text."""
    for pipeline in _SEPARATOR.split(line):
        programs = [each.strip() for each in pipeline.split("|")]
        words = [each.replace('"', "").replace("'", "").split() for each in programs]
        words = [each[1:] if each[:1] == ["exec"] else each for each in words]
        if not all(words):
            continue
        names = [each[0].rpartition("/")[2] for each in words]
        is_sent = names[-1] == "sendmail" and _has_recipients(words[-1])
        copying = names[:-1] if is_sent else names
        if not all(map(_keeps_message, copying, words)):
            continue
        source = _source(names[0], words[0], programs[0])
        target = "" if is_sent else _target(names[-1], words[-1], programs[-1])
        if source is not None and target is not None:
            is_exact = all(name in _COPIERS for name in copying)
            yield _Step(original, number, source, target, is_exact)


def _keeps_message(name: str, words: Sequence[str]) -> bool:
    """Return whether a program writes the message that it reads, perhaps with changes."""
    other = _OTHER_TEXT.get(name)
    is_other = other and any(re.match(other, word) for word in words[1:])
    return name in (*_COPIERS, *_EDITORS) and not is_other


def _has_recipients(words: Sequence[str]) -> bool:
    """Return whether the recipients of sendmail(1) come from a variable or from the message."""
    arguments = re.sub(r"[0-9]?[<>]+\s*\S+", "", " ".join(words[1:]))
    arguments = re.sub(r"(^|\s)-[frF]\s*(?!\$[@*])\S+", "", arguments)
    is_other = re.search(r"(^|\s)-(C|q|b[^m])", arguments)
    return bool(_RECIPIENTS.search(f" {arguments}")) and not is_other


def _operands(words: Sequence[str]) -> list[str]:
    text = re.sub(r"[0-9]?>&[0-9-]|[0-9]?[<>]+\s*\S+", "", " ".join(words[1:]))
    return [word for word in text.split() if not word.startswith("-")]


def _source(name: str, words: Sequence[str], program: str) -> str | None:
    """Return the file that a program reads, "" for standard input, or None if unknown."""
    redirected = re.search(r"(?<!<)<(?![<&(])\s*[\"']?([^\s\"'<>]+)", program)
    operands = _operands(words)
    if "<<" in program:
        return None
    if redirected:
        return redirected[1]
    if name in ("cp", "ln", "mv"):
        return operands[0] if len(operands) == 2 else None
    if name == "cat":
        return (*operands, "")[0] if len(operands) <= 1 else None
    if name == "tee" or name in _EDITORS:
        files = [word for word in operands if word.startswith("$EMAIL")]
        return (*files, "")[0]
    return ""  # sendmail(1) without a redirection


def _target(name: str, words: Sequence[str], program: str) -> str | None:
    """Return the file that a program writes, or None if unknown."""
    redirected = re.search(r"(?<![0-9&>])1?>\s*[\"']?([^\s\"'<>&]+)", program)
    operands = _operands(words)
    if name in ("cp", "ln", "mv", "tee") and operands:
        return operands[-1]
    return redirected[1] if redirected and not redirected[1].startswith("/dev/") else None


def _is_used(step: _Step, steps: Sequence[_Step], text: str) -> bool:
    """Return whether the script uses the text that a step reads from standard input."""
    return (
        not step.target
        or any(each.source == step.target for each in steps)
        or (text.replace('"', "").count(step.target) > 1)
    )


def _copies(files: dict[str, bool], steps: Sequence[_Step]) -> dict[str, bool]:
    """Return the files that contain the message, and whether it is unchanged there."""
    for step in steps:
        if step.source in files and step.target and step.target != "$OUTFILE":
            files[step.target] = files[step.source] and step.is_exact
    return files


def _resent(
    script: str, steps: Sequence[_Step], code: Sequence[tuple[int, str]]
) -> Iterator[Mistake]:
    """Yield the line that sends the message in $EMAIL, unless the script then rejects it."""
    # The result already contains the changes, so the script can simply end.
    files = {**_copies({"$EMAIL": True}, steps), "$OUTFILE": True}
    for step in steps:
        following = next((line for number, line in code if number > step.number), "")
        is_rejected = re.search(
            r";\s*exit\s+[1-9]|^exit\s+[1-9]", f"{step.line}\n{following}", re.M
        )
        if step.source in files and not step.target and not is_rejected:
            is_exact = files[step.source] and step.is_exact
            yield Mistake(
                Kind.RESENT,
                step.line,
                step.number,
                _without_sending(script, step) if is_exact else "",
            )
            return


#: A command that sends the message with sendmail(1), and a reply that discards it.
_SENT = re.compile(r"\$\{?EMAIL\b[^|;&]*\|\s*(?P<sender>(/\S*/)?sendmail\b[^|;&<>]*\$[^|;&<>]*)")
#: The end of a script that accepts the message.
_PASSED = re.compile(r"(exit(\s+(0|\$\?))?)?")
_DISCARDED = re.compile(r"(echo|printf)\s+[\"']?2[0-9][0-9][ -].*>&2")
#: A command that prints header fields and the message, and sends this text to the recipients.
_MARKED_COPY = re.compile(
    r"\{\s*((echo|printf)\s[^|;&{}]*;\s*)+cat\s+\"?\$\{?EMAIL\}?\"?\s*;\s*\}"
    r"(?P<sending>\s*\|\s*(?P<sender>(/\S*/)?sendmail|\$\{?\w+\}?)\b[^|;&<>]*"
    r"\$\{?RECIPIENTS?\}?\"?(\s*\|\|\s*exit\s+\S+)?)\s*$"
)


def _resent_copy(code: Sequence[tuple[int, str]], text: str) -> Iterator[Mistake]:
    """Yield the line that sends a marked copy, if the proxy also delivers the message."""
    values = _constants(text)
    yield from _resent_group(code, values, text)
    for number, line in code:
        found = _MARKED_COPY.search(line)
        program = _expanded(found["sender"], values) if found else ""
        later = "\n".join(each for n, each in code if n > number)
        if found and "sendmail" in program and "OUTFILE" not in text and _PASSED.fullmatch(later):
            edit = replaced(number, found["sending"], ' > "$OUTFILE" || exit 2')
            yield Mistake(Kind.RESENT, line, number, edit)


#: The first line of a pipeline that prints header fields and the message, and the second line,
#: which sends this text to the recipients.
_GROUP = re.compile(
    r"\{\s*((echo|printf)\s[^;|&{}]*;\s*)+cat\s+\"?\$\{?EMAIL\}?\"?\s*;?\s*\}(?P<pipe>\s*\|)"
)
_GROUP_END = re.compile(
    r"(?P<sender>(/\S*/)?sendmail|\$\{?\w+\}?)\b[^|;&<>]*\$\{?RECIPIENTS?\}?\"?(\s*\|\|\s*exit\s+\S+)?"
)


def _resent_group(
    code: Sequence[tuple[int, str]], values: dict[str, str], text: str
) -> Iterator[Mistake]:
    """Yield the first line of a pipeline that sends a marked copy, as `_resent_copy` does."""
    for (number, line), (last, end) in pairwise(code):
        found, sent = _GROUP.fullmatch(line), _GROUP_END.fullmatch(end)
        program = _expanded(sent["sender"], values) if sent else ""
        later = "\n".join(each for n, each in code if n > last)
        if found and "sendmail" in program and "OUTFILE" not in text and _PASSED.fullmatch(later):
            edit = replaced(number, found["pipe"], ' > "$OUTFILE" || exit 2')
            yield Mistake(Kind.RESENT, line, number, f"{edit};{last}d")


#: A group of commands that prints the message, and sends this text with sendmail(1).
_ECHOED = re.compile(
    r"\{[^{}]*\n(?P<copy>cat\s+\"?\$\{?EMAIL\}?\"?)\n[^{}]*\}\s*\|\s*(/\S*/)?sendmail\b"
)


def _echoed(code: Sequence[tuple[int, str]]) -> Iterator[Mistake]:
    """Yield the line of a notice that contains the whole message."""
    text = "\n".join(line for _, line in code)
    if found := _ECHOED.search(text):
        number, line = code[text.count("\n", 0, found.start("copy"))]
        yield Mistake(
            Kind.ECHOED, line, number, replaced(number, found["copy"], 'sed "/^$/q" "$EMAIL"')
        )


_MAILER = r"(?:/\S*/)?(?:sendmail|mailx?|mutt)\b"
#: Patterns for the text of a notice in a here-document, in a group of commands, or in a single
#: command.
_NOTICES = (
    re.compile(
        rf"(?:^|[;&{{]|\b(?:then|do|else)\b)[ \t]*{_MAILER}[^;|&<>\n]*<<-?[ \t]*"
        r"[\"']?(?P<end>\w+)[\"']?[ \t]*\n(?P<text>(?:.*\n)*?)[ \t]*(?P=end)[ \t]*$",
        re.MULTILINE,
    ),
    re.compile(rf"[{{(][ \t]*\n(?P<text>(?:[^{{}}\n]*\n)*?)[ \t]*[}})][ \t]*\|[ \t]*{_MAILER}"),
    re.compile(rf"(?P<text>(?:echo|printf)\b[^|;&\n]*\|[ \t]*{_MAILER}[^|;&\n]*)"),
    re.compile(r"\|[ \t]*(?P<text>(?:/\S*/)?(?:mailx?|mutt)\b[^|;&\n]*)"),
)
#: A search for a fixed word in the message.
_SEARCHED = re.compile(
    r"\bgrep\s+(?P<options>(?:-\w+\s+)*)[\"']?(?P<word>[A-Za-z]{4,30})[\"']?\s+\"?\$\{?EMAIL\b"
)


def _announced(script: str) -> Iterator[Mistake]:
    """Yield a line of a notice if this line contains a word for which the script searches."""
    if not (search := _SEARCHED.search(script)):
        return
    any_case = "i" in search["options"]
    word = re.compile(re.escape(search["word"]), re.IGNORECASE if any_case else 0)
    found = {
        script.count("\n", 0, notice.start("text")) + number
        for pattern in _NOTICES
        for notice in pattern.finditer(script)
        for number, line in enumerate(notice["text"].split("\n"), 1)
        if word.search(line)
    }
    if found:
        flags = "gI" if any_case else "g"
        edits = [f"{number}s/{search['word']}/forbidden text/{flags}" for number in sorted(found)]
        line = script.split("\n")[min(found) - 1].strip()
        yield Mistake(Kind.ANNOUNCED, line, min(found), ";".join(edits))


def _looped(code: Sequence[tuple[int, str]], text: str) -> Iterator[Mistake]:
    """Yield the line that sends the message, if the script then discards the original."""
    sent = [(number, line, found) for number, line in code if (found := _SENT.search(line))]
    if len(sent) == 1 and _DISCARDED.search(text):
        number, line, found = sent[0]
        edit = replaced(number, f"| {found['sender']}", '> "$OUTFILE" ')
        is_simple = f"| {found['sender']}" in line
        yield Mistake(Kind.LOOPED, line, number, f"{edit};{number}a exit 0" if is_simple else "")


def _mended(script: str, read: Sequence[_Step], steps: Sequence[_Step]) -> str:
    """Return a script for sed(1) that makes the filter read $EMAIL and send nothing, or ""."""
    sent = [step for step in steps if not step.target]
    files = _copies({"": True}, steps)
    if len(read) != 1 or len(sent) > 1 or not re.match(r"cat\s*>", read[0].line):
        return ""
    parts = [rf'{read[0].number}s/cat[ \t]*>/cat "$EMAIL" >/']
    for step in sent:
        is_exact = files.get(step.source, False) and step.is_exact and step.source
        parts.append(_without_sending(script, step) if is_exact else "")
    return ";".join(parts) if all(parts) else ""


def _without_sending(script: str, step: _Step) -> str:
    """Return a script for sed(1) that replaces a sendmail(1) command by `exit 0`, or ""."""
    line = re.sub(r"\s*\|\|\s*exit\s+\w+$", "", script.split("\n")[step.number - 1])
    is_only = re.fullmatch(r"[^\s;&|(){}#][^;&|(){}#]*", re.sub(r"\$\{(\w+)\}", r"$\1", line))
    return f"{step.number}s/.*/exit 0/" if is_only else ""


_BEGIN = r"(?:^|[;&|({!]|\b(?:then|do|else|if)\b)\s*"
_SENDER = re.compile(rf"{_BEGIN}(?:exec\s+)?(?:/usr/s?bin/|/usr/lib/)?sendmail(?=\s|$|[;&|<])")
_PYTHON_SENDER = re.compile(
    r"\b(?:run|call|check_call|check_output|Popen)\(\s*\[\s*[\"']/?[\w/]*sendmail[\"']"
)
#: Options with which sendmail(1) does not queue a message, and another program or configuration.
_NOT_QUEUED = re.compile(
    r"sendmail\s(?:[^;&|]*\s)?-(b[pisdvh]|q|C|I|V)|MAIL_CONFIG|msmtp|\bsudo\b|sendmail\s*\(\)"
)


def notices(script: str, *, is_python: bool) -> Iterator[Mistake]:
    """Yield the first line that sends mail with sendmail(1), if no other mistake explains it."""
    code = list(code_lines(script))
    text = "\n".join(line for _, line in code)
    others = () if is_python else (each for each in mistakes(script) if each.kind != Kind.ANNOUNCED)
    if _NOT_QUEUED.search(text) or any(others):
        return
    values = {} if is_python else _constants(text)
    pattern = _PYTHON_SENDER if is_python else _SENDER
    for number, line in code:
        found = pattern.search(_expanded(line, values))
        if found and (is_python or is_bare(_expanded(line, values), found.start())):
            yield Mistake(Kind.NOTICE, line, number)
            return
