"""Finds lines of a shell script that change the filter's result by mistake.

Rule: the functions depend only on the text and evaluate nothing. A line is not reported if another
part of the script may make it harmless.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .shell_command import SINKS, is_bare

#: The kinds of mistakes.
PIPE = "pipe"
STATUS = "status"
ZERO = "zero"
EXEC = "exec"
CHANGE = "change"
OUTPUT = "output"
TRACE = "trace"
LEFT = "left"
LOGIN = "login"
UNANSWERED = "unanswered"
SLEEP = "sleep"
DIRECTORY = "directory"
MISSING = "missing"
UNREADABLE = "unreadable"
DATA = "data"
PRIVATE = "private"
REFUSED = "refused"
QUOTES = "quotes"
LOCK = "lock"
PATTERNS = "patterns"
HIDDEN = "hidden"
SOCKET = "socket"
CLOSED = "closed"
#: A scanner whose exit status reports a virus or spam.
_VERDICT = re.compile(
    r"\b(clamdscan|clamscan)\b|\bspamc\b.*\s(-\w*[cE]|--check|--exitcode)"
    r"|\bspamassassin\b.*\s(-\w*e|--exit-code)"
)
_SINK = re.compile(
    rf"(?P<before>([ \t]*2>&1)?[ \t]*(?<!\|)\|(?P<both>&?))[ \t]*(/[^ \t|;&]*/)?"
    rf"(?P<name>{'|'.join(SINKS)})\b"
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
_STATUS = re.compile(r"[^;|#]*\$\{?\?")
#: A part of a script that reads the scanner's output, or the status of each command in a pipeline.
_OTHER_STATUS = re.compile(r"pipefail|PIPESTATUS|pipestatus|mispipe|FOUND|nfected|>&[3-9]|<<")
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


@dataclass(frozen=True)
class Mistake:
    """A line of a script that changes the filter's result by mistake."""

    kind: str
    line: str
    number: int
    #: A script for sed(1) that corrects the line, or "" if the correction is not certain. For an
    #: unreadable file, a mode for chmod(1).
    correction: str = ""
    #: The path of the file that the line reads, or "".
    path: str = ""


def mistakes(script: str) -> Iterator[Mistake]:
    """Yield the mistakes in a shell script."""
    code = list(code_lines(script))
    yield from _pipes(code)
    yield from _statuses(code)
    yield from _redirections(code)
    yield from _changes(code)
    yield from _outputs(code)
    yield from _traces(code)
    yield from _left_files(code)
    yield from _unanswered(code)
    yield from _sleeps(code)
    yield from _refused(code)
    yield from _quotes(code)
    yield from _locks(code)


def code_lines(script: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that contain code, and their numbers, without comments."""
    for number, line in enumerate(script.split("\n"), 1):
        for found in re.finditer(r"(^|\s)#", line):
            if is_bare(line, found.start()):
                line = line[: found.start()]  # noqa: PLW2901
                break
        if line.strip():
            yield number, line.strip()


def replaced(number: int, old: str, new: str) -> str:
    """Return a script for sed(1) that replaces text in a line."""
    old = re.sub(r"[][\\.*^$/]", r"\\\g<0>", old)
    new = re.sub(r"[\\&/]", r"\\\g<0>", new)
    return f"{number}s/{old}/{new}/"


def constants(code: list[tuple[int, str]]) -> Iterator[tuple[str, str]]:
    """Yield the variables that a script sets only once, to a number or an absolute path."""
    text = "\n".join(line for _, line in code)
    names = re.findall(r"\b(\w+)\+?=", text)
    for name, value in re.findall(
        r"^(?:export\s+)?(\w+)=[\"']?([0-9]+|/[\w./@-]+)[\"']?;?$", text, re.M
    ):
        if names.count(name) == 1:
            yield name, value


def _pipes(code: list[tuple[int, str]]) -> Iterator[Mistake]:
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
            if (
                _VERDICT.search(command)
                and is_bare(line, found.start())
                and _uses_status(head, found["end"], following.lstrip("; "))
                and not _reads(code, position, found["arguments"])
                and not (found["name"] == "sed" and re.search("[qQ]", found["arguments"]))
            ):
                yield Mistake(PIPE, line, number, _without_pipe(number, found))


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


def _reads(code: list[tuple[int, str]], position: int, arguments: str) -> bool:
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


def _statuses(code: list[tuple[int, str]]) -> Iterator[Mistake]:
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
                kind = ZERO if status.isdigit() and int(status) % 256 == 0 else STATUS
                yield Mistake(kind, line, number, text if line.count(command) == 1 else "")


def _follows_rejection(code: list[tuple[int, str]], position: int, start: int) -> bool:
    """Return whether the previous commands of the same branch print a reply that rejects mail."""
    before = [code[position][1][:start], *(line for _, line in reversed(code[:position]))]
    for line in before[:4]:
        replies = list(_REJECTION.finditer(line))
        if replies or _BRANCH_END.search(line):
            return bool(replies) and not _BRANCH_END.search(line[replies[-1].end() :])
    return False


def _redirections(code: list[tuple[int, str]]) -> Iterator[Mistake]:
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
            yield Mistake(EXEC, line, number, ";".join(edits))
        return


_TRACE = re.compile(r"set\s+-(?P<letters>[a-zA-Z]*[xv][a-zA-Z]*)\s*;?|set\s+-o\s+(xtrace|verbose)")


def _traces(code: list[tuple[int, str]]) -> Iterator[Mistake]:
    """Yield the line that lets the shell print each command, if the script also prints a reply."""
    text = "\n".join(line for _, line in code)
    if re.search(r"set\s+\+|\bexec\b|BASH_XTRACEFD", text) or not _REPLY.search(text):
        return
    for position in outer_positions(code):
        number, line = code[position]
        if found := _TRACE.fullmatch(line):
            kept = re.sub("[xv]", "", found["letters"] or "")
            edit = replaced(number, line, f"set -{kept}") if kept else f"{number}d"
            yield Mistake(TRACE, line, number, edit)


#: A text that may be a reply, and a way to print or replace the reply elsewhere.
_ANY_REPLY = re.compile(
    r"[245][0-9][0-9]|clam|spam|\bexec\b|\beval\b|<<|^\s*\.\s|\bsource\b|cat\b.*>&2", re.M
)
_REFUSED = re.compile(rf"{_BEGIN}(?P<command>exit\s+1)\s*(?=$|[;&|)}}])")


def _unanswered(code: list[tuple[int, str]]) -> Iterator[Mistake]:
    """Yield a line that rejects the message, if the script never prints a reply."""
    text = "\n".join(line for _, line in code)
    found = [(number, line) for number, line in code if _REFUSED.search(line)]
    # Other programs than grep(1) may print a reply.
    if not found or _ANY_REPLY.search(text) or not re.search(r"\bgrep\b.*EMAIL", text):
        return
    new = "{ echo '550 5.7.1 The message was rejected' >\\&2; exit 1; }"
    edits = [rf"{number}s/\bexit[ \t]\+1\b/{new}/" for number, _ in found]
    yield Mistake(UNANSWERED, found[0][1], found[0][0], ";".join(edits))


def _sleeps(code: list[tuple[int, str]]) -> Iterator[Mistake]:
    """Yield the lines that always wait, with the seconds in `path`."""
    for position in outer_positions(code):
        number, line = code[position]
        if found := re.fullmatch(r"sleep\s+([0-9]{1,6})\s*;?", line):
            yield Mistake(SLEEP, line, number, f"{number}d", path=found[1])


#: A part of a script that can end it with status 0 before its last line, or run other commands.
_OTHER_END = re.compile(
    r"\bexit\b(?!\s+[1-9])|\b(exec|return|trap|kill|source|eval)\b|<<|(^|[;&|]\s*)\.\s", re.M
)
#: A list of commands whose exit status is never 0.
_NEVER_ZERO = re.compile(
    r"(?!(?:if|case|for|while|until|function)\b|[\w-]+\s*\(\)|[{(])(?:[^;|{}\n]|\|(?!\|))+&&\s*"
    r"(?:exit\s+[1-9][0-9]*|\{(?:[^{}|]|\|(?!\|))*\bexit\s+[1-9][0-9]*\s*;?\s*\})\s*;?"
)


def _refused(code: list[tuple[int, str]]) -> Iterator[Mistake]:
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
        yield Mistake(REFUSED, line, number, "$a exit 0")


#: Typographic quotes in UTF-8, each octet as one character.
_DOUBLE = r"\xe2\x80[\x9c\x9d\x9e]"
_SINGLE = r"\xe2\x80[\x98\x99\x9a]"
#: A word in typographic quotes that is an expansion, a path or part of an assignment, or that
#: contains a blank. The quotes of other words can be intended.
_QUOTED = re.compile(
    rf"(?P<before>=?)(?P<all>{_DOUBLE}(?P<double>[^\xe2\"]+?){_DOUBLE}"
    rf"|{_SINGLE}(?P<single>[^\xe2']+?){_SINGLE})"
)
_PRINTED = re.compile(r"(?:^|[;&|({]|\b(?:then|do|else)\b)\s*(?:echo|printf|logger)\s[^;&|]*$")


def _quotes(code: list[tuple[int, str]]) -> Iterator[Mistake]:
    """Yield a line with typographic quotes, which the shell does not remove."""
    if any("<<" in line for _, line in code):
        return
    edits, lines, before = [], [], ""
    for number, line in code:
        for found in _QUOTED.finditer(line):
            text = found["double"] or found["single"]
            is_quoted = found["before"] or re.match("[$/]", text) or " " in text
            start = found.start("all")
            is_code = is_bare(before + line, len(before) + start)
            if is_quoted and is_code and not _PRINTED.search(line[:start]):
                mark = '"' if found["double"] else "'"
                edits.append(replaced(number, found["all"], f"{mark}{text}{mark}"))
                lines.append((number, line))
        before += f"{line}\n"
    if lines:
        yield Mistake(QUOTES, lines[0][1], lines[0][0], ";".join(edits))


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


def _locks(code: list[tuple[int, str]]) -> Iterator[Mistake]:
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
        yield Mistake(LOCK, line, number, f"{number}s/^\\([ \\t]*\\).*/\\1{new}/{rest}")


def _rest(code: list[tuple[int, str]], position: int) -> str:
    """Return a script for sed(1) that deletes the other lines of a loop."""
    first = code[position][0] + 1
    last = next(number for number, line in code[position + 1 :] if re.search(r"\bdone\b", line))
    return f";{first},{last}d"


#: A use of grep(1) with a file of patterns. The options can reverse or restrict the match.
_PATTERN_FILE = re.compile(
    r"\b[ef]?grep\s(?P<options>(?:[^|;&<>\n]*\s)?)(?:-(?P<short>\w*)f\s*|--file[= ])"
    r"(?P<path>\"[^\"]+\"|[^\s\"';&|<>]+)(?P<more>[^|;&\n]*)"
)


def pattern_files(script: str) -> Iterator[Mistake]:
    """Yield the lines in which grep(1) reads a file of patterns, with the path of the file."""
    code = list(code_lines(script))
    text = "\n".join(line for _, line in code)
    for number, line in code:
        for found in _PATTERN_FILE.finditer(line):
            path, options = found["path"].strip('"'), f"{found['options']} {found['more']}"
            if name := re.fullmatch(r"\$\{?(\w+)\}?", path):
                values = re.findall(rf"^{name[1]}=[\"']?(/[\w./@-]+)[\"']?;?$", text, re.MULTILINE)
                is_single = len(re.findall(rf"\b{name[1]}\b", text)) == 2
                path = values[0] if len(values) == 1 and is_single else ""
            is_other = re.search(
                r"(^|\s)(-\w*[vwx]|--(invert|word|line-r))", f"{options} -{found['short']}"
            )
            is_used = re.search(r"EMAIL|SENDER|RECIPIENT|HELO|REMOTEIP|CLIENT_NAME", line)
            is_path = re.match(r"/[\w./@-]+$", path) and text.count(path) == 1
            if is_path and is_used and not is_other:
                yield Mistake(PATTERNS, line, number, path=path)


#: A command that changes the working directory, or ends the script.
_CHANGED = re.compile(r"cd\s+[\"']?(?P<path>/[\w./@-]+)[\"']?\s*(\|\|\s*exit\b.*|;?)")


def working_directories(script: str) -> Iterator[Mistake]:
    """Yield the commands that enter a directory or end the script, with the path."""
    code = list(code_lines(script))
    is_strict = any(re.match(r"set\s+-[a-z]*e", line) for _, line in code)
    for position in outer_positions(code):
        number, line = code[position]
        found = _CHANGED.fullmatch(line)
        if found and (is_strict or "exit" in line):
            yield Mistake(DIRECTORY, line, number, path=found["path"])


_TEMPORARY = re.compile(r"(?P<name>\w+)=([\"']?)\$\(mktemp\b[^()]*\)\2(\s*(;|\|\|).*)?")


def _left_files(code: list[tuple[int, str]]) -> Iterator[Mistake]:
    """Yield a line that creates a temporary file, if the script never removes or moves a file, or
    if it rejects a message before it removes the file.
    """
    text = "\n".join(line for _, line in code)
    if re.search(r"\b(trap|unlink|mv|shred|exec|tmpfiles)\b", text):
        return
    for position in outer_positions(code):
        number, line = code[position]
        found = _TEMPORARY.fullmatch(line)
        if found and (not re.search(r"\brm\b", text) or _is_left(code[position + 1 :])):
            trap = f"trap 'rm -rf \"${found['name']}\"' EXIT"
            yield Mistake(LEFT, line, number, f"{number}a {trap}")


def _is_left(later: list[tuple[int, str]]) -> bool:
    """Return whether a script removes a file only at its end, but has a branch that exits."""
    outer = {later[position] for position in outer_positions(later)}
    removals = [each for each in later if re.search(r"\brm\b", each[1])]
    exits = [each for each in later if re.match(r"exit\b", each[1]) and each not in outer]
    return len(removals) == 1 and removals[0] in outer and any(each < removals[0] for each in exits)


#: mktemp(1) without a directory, and the functions of Python's module tempfile.
_MADE = re.compile(r"\bmktemp\b(?![^;&|()]*(/|\s-\w*p|--tmpdir=))|\btempfile\.\w+\((?![^()]*dir=)")


def temporary_files(script: str) -> Iterator[Mistake]:
    """Yield the lines that create a file in the directory for temporary files."""
    for number, line in code_lines(script):
        if _MADE.search(line):
            yield Mistake(CLOSED, line, number, path="/tmp")  # noqa: S108


#: A use of a variable that login(1) sets, in Python and in a shell that exits at an unset variable.
_LOGIN = r"(?P<name>HOME|USER|LOGNAME)\b"
_PYTHON_LOGIN = re.compile(rf"\benviron\[[\"']{_LOGIN}")
_SHELL_LOGIN = re.compile(rf"\$(?:\{{{_LOGIN}[:?}}]|(?P<bare>HOME|USER|LOGNAME)\b)")
_STRICT_SHELL = re.compile(r"^\s*set\s+(-[a-z]*u|-o\s+nounset)", re.MULTILINE)


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
            yield Mistake(LOGIN, line, number, path=name)
            return


def outer_positions(code: list[tuple[int, str]]) -> Iterator[int]:
    """Yield the positions of the lines that are in no branch, loop or function."""
    depth = 0
    for position, (_, line) in enumerate(code):
        depth += len(re.findall(r"(?:^|[;&|])\s*(?:if|case|for|while|until)\b|[{(](?=\s|$)", line))
        depth -= len(re.findall(r"(?:^|[;&|])\s*(?:fi|esac|done)\b|(?:^|\s)[)}]", line))
        if depth == 0:
            yield position


def read_files(script: str) -> Iterator[Mistake]:
    """Yield the lines that read commands from a file with `.`, with the path of the file.

    Files that the script mentions elsewhere are omitted, because the script may check whether they
    exist.
    """
    code = list(code_lines(script))
    text = "\n".join(line for _, line in code)
    if "<<" in text:
        return
    for position in outer_positions(code):
        number, line = code[position]
        found = re.fullmatch(r"\.\s+([\"']?)(/[\w./@-]+|\$\{?(\w+)\}?)\1\s*;?", line)
        if found is None:
            continue
        name, path = found[3], found[2]
        if name:
            values = re.findall(rf"^{name}=[\"']?(/[\w./@-]+)[\"']?;?$", text, re.MULTILINE)
            is_single = len(re.findall(rf"\b{name}\b", text)) == 2
            path = values[0] if len(values) == 1 and is_single else ""
        if path and text.count(path) == 1:
            yield Mistake(MISSING, line, number, path=path)


#: A command that reads a file of data, such as a list of words.
_DATA = re.compile(
    r"(?:\bgrep\b[^|;&<>]*\s(?:-\w*f\s*|--file=)|\b(?:awk|sed)\s+-f\s*|\bcat\s+|(?<![<0-9])<\s*)"
    r"[\"']?(?P<path>/[\w./@-]+)"
)


def data_files(script: str) -> Iterator[Mistake]:
    """Yield the lines that read a file of data, with the path of the file.

    A file that the script also mentions elsewhere is left out, because the script can test it.
    """
    code = list(code_lines(script))
    text = "\n".join(line for _, line in code)
    for number, line in code:
        for found in _DATA.finditer(line):
            if text.count(found["path"]) == 1 and is_bare(line, found.start()):
                yield Mistake(DATA, line, number, path=found["path"])


_EMAIL = r"\"?\$\{?EMAIL\}?\"?(?=\s*(?:$|[;&|)}]))"
#: A command that changes the file EMAIL, and the form of the command that the check can correct.
_CHANGE = re.compile(
    rf"(?P<sed>\bsed\s+(?:-[nErs]+\s+)*-i\s[^|;&<>]*{_EMAIL})"
    rf"|\b(?P<mover>(?:mv|cp)\s[^|;&<>]*{_EMAIL})"
    rf"|\bsed\s[^|;&]*-i[^|;&]*{_EMAIL}"
    rf"|\bperl\s+-\w*i[^|;&]*{_EMAIL}|[^>]>\s*{_EMAIL}"
)


def _changes(code: list[tuple[int, str]]) -> Iterator[Mistake]:
    """Yield the line that changes EMAIL, if no later code uses EMAIL and no code uses OUTFILE."""
    text = "\n".join(line for _, line in code)
    found = [(n, line, each) for n, line in code if (each := _CHANGE.search(line))]
    if "OUTFILE" in text or "<<" in text or len(found) != 1:
        return
    number, line, change = found[0]
    later = [line[change.end() :], *(other for n, other in code if n > number)]
    if re.search("EMAIL|exec|source|eval", "\n".join(later)) or not is_bare(line, change.start()):
        return
    old, new = change[0], ""
    if change["mover"]:
        new = re.sub(rf"{_EMAIL}$", lambda _: '"$OUTFILE"', old)
    elif change["sed"]:
        new = re.sub(r"\s-i(?=\s)", "", old, count=1) + ' > "$OUTFILE"'
    yield Mistake(CHANGE, line, number, replaced(number, old, new) if new else "")


#: A command that prints the message with new header fields, and the end of its line.
_MARKED = re.compile(
    r"(?P<command>(cat\s+\"?\$\{?EMAIL\}?\"?\s*\|\s*)?(/\S+/)?(spamc|spamassassin)\b"
    r"(?P<arguments>[^|;&<>`()]*)(<\s*\"?\$\{?EMAIL\}?\"?)?)(?P<end>\s*(1?>\s*/dev/null)?)"
)
#: The options with which the command prints another text, or with which its exit status matters.
_NOT_MARKED = re.compile(
    r"\s(-\w*[cCKLRryEe]|--(check|exitcode|exit-code|reporter|learntype|lint))"
)


def _outputs(code: list[tuple[int, str]]) -> Iterator[Mistake]:
    """Yield a line that prints the changed message, if the script has no OUTFILE."""
    text = "\n".join(line for _, line in code)
    if "OUTFILE" in text or "<<" in text or "exec" in text:
        return
    for position in outer_positions(code):
        number, line = code[position]
        found = _MARKED.fullmatch(line)
        if found and "EMAIL" in line and not _NOT_MARKED.search(found["arguments"]):
            new = found["command"].rstrip() + ' > "$OUTFILE"'
            yield Mistake(OUTPUT, line, number, replaced(number, line, new))


#: A command that passes the name of the file EMAIL to clamd, instead of the file itself.
_BY_NAME = re.compile(
    r"\bclamdscan\b(?![^|;&]*\s(--fdpass|--stream|-c|--config-file)\b)[^|;&<>]*\s\"?\$\{?EMAIL\b"
)


def scans_by_name(script: str) -> Iterator[Mistake]:
    """Yield the lines that pass only the path in EMAIL to clamd, which runs as another user."""
    for number, line in code_lines(script):
        if _BY_NAME.search(line):
            edit = replaced(number, "clamdscan", "clamdscan --fdpass")
            yield Mistake(PRIVATE, line, number, edit if line.count("clamdscan") == 1 else "")


#: A part of a script that may reach the server in another way, or that tests its permissions.
_OTHER_SERVER = re.compile(
    r"\bAF_INET|create_connection|access\(|\s-[wrx]\s|\b(sudo|doas|sg|newgrp|setpriv)\b|\bnc\s+(?!-\w*U)"
)
_ABSOLUTE = re.compile(r"(?<![\w/.$}-])/(?:[\w.@-]+/)+[\w.@-]+")


#: A scan with clamdscan(1), which connects to the socket in the configuration of clamd.
_CLAMDSCAN = re.compile(r"\bclamdscan\b(?![^|;&]*\s(-c|--config-file|-V|--version)\b)[^|;&]*EMAIL")


def absolute_paths(script: str, clamd: str) -> Iterator[Mistake]:
    """Yield the lines of a shell or Python script with the absolute paths of possible sockets.

    `clamd` is the socket of clamd, which clamdscan(1) uses, or "".
    """
    code = list(code_lines(script))
    if not _OTHER_SERVER.search("\n".join(line for _, line in code)):
        for number, line in code:
            for found in _ABSOLUTE.finditer(line):
                yield Mistake(SOCKET, line, number, path=found[0])
            if clamd and _CLAMDSCAN.search(line):
                yield Mistake(SOCKET, line, number, path=clamd)
