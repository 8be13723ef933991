"""Finds lines of a shell script that damage the message, mix up messages or run remote text.

Rule: the functions depend only on the text and evaluate nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .script_mistakes import Mistake, code_lines, constants, replaced
from .shell_command import is_bare

#: The kinds of mistakes.
SUBSHELL = "subshell"
LOOP_EXIT = "loop-exit"
READ = "read"
BLANK = "blank"
PARTIAL = "partial"
UNSAVED = "unsaved"
SHARED = "shared"
INJECTION = "injection"
LOGGED = "logged"
_Code = list[tuple[int, str]]
_EMAIL = r"\"?\$\{?EMAIL\}?\"?"
_PIPED_LOOP = re.compile(
    r"(?P<command>[^|;]+?)\s*\|\s*(?P<loop>while\s+[^;]*read\s[^;]*?(?P<line>\w+)\s*;\s*do)"
)
_ASSIGNMENT = re.compile(r"(?:^|[;&|]|\b(?:then|else|do)\b)\s*(?P<name>\w+)=")
_READ_LOOP = re.compile(r"while\s+read\s+(?:-\w+\s+)*(?P<name>\w+)\s*;\s*do")
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
    rf"cat\s+{_EMAIL}(?P<rest>[^\n]*(?:\n[}})][^\n]*)?)"
)
#: A file that all running filters share, because its name is fixed.
_FIXED = re.compile(
    rf"(?:\bcp\s+{_EMAIL}\s+|{_EMAIL}[^;&>]*(;\s*\}})?\s*(?<![0-9])>\s*)\"?(?P<path>/(?:var/)?tmp/[\w./-]+)\"?(?=\s|;|$)"
)
_TEMPORARY = re.compile(r"/(?:var/)?tmp/[\w./-]+")
#: A line that defines a file's name or changes the file, but does not read the file.
_UNREAD = re.compile(r"(export\s+)?\w+=[\"']?/|(chmod|chown|rm|ls)\s")
#: A part of a script that lets only one filter run at the same time.
_SERIAL = re.compile(r"flock|lockfile|setlock|(until|while)\b[^\n]*\b(mkdir|ln|noclobber)\b")
_COMMAND = re.compile(
    r"(?<![\w.-])(?P<shell>(?:/\S*/)?(?:sh|bash|dash)\s+(?:-\w+\s+)*-\w*c\s+)"
    r"\"(?P<text>(?:[^\"\\]|\\.)*)\""
)
_EVAL = re.compile(r"(?:^|[;&|{]|\b(?:then|do|else)\b)\s*eval\s+(?P<rest>[^;&|]*)")
#: An assignment without a command substitution. A command substitution may remove unsafe
#: characters.
_ASSIGNED = re.compile(r"(?:^|[;&|]\s*|\blocal\s+)(\w+)=(\"[^\"()`]*\"|[^\s;&|()`]+)(?=\s|;|$)")
#: An assignment in the text of eval. In single quotes, only eval expands the variables.
_EVALUATED = re.compile(r"\"(?P<text>\w+=[^\s\"'`\\$;&|()]*\$\{?\w+\}?)\"")


def mistakes(script: str, *, echo_expands: bool = True) -> Iterator[Mistake]:
    """Yield the mistakes in a shell script.

    `echo_expands` is true if echo interprets backslashes, as in dash(1) and not in bash(1).
    """
    code = list(code_lines(script))
    if "<<" in script:
        return
    if not re.match(r"#!.*(\b(ksh|mksh|zsh)\b|\s-\w*e)", script):
        yield from _subshells(code)
    yield from _reads(code)
    yield from _blanks(code, echo_expands=echo_expands)
    yield from _partial(code)
    yield from _unsaved(code)
    yield from _logged(code, script)
    yield from _shared(code)
    yield from _injections(code)


def _subshells(code: _Code) -> Iterator[Mistake]:
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
            yield Mistake(SUBSHELL if is_set else LOOP_EXIT, line, number, edit)


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
            return
    yield from _read_lines(code)


#: The beginning of a loop that reads lines with read(1) and its default separators.
_READ_LINES = re.compile(r"while\s+read\s+(?P<option>-r\s+)?(?P<name>\w+)\s*;\s*do\s*$")


def _read_lines(code: _Code) -> Iterator[Mistake]:
    """Yield a loop that examines each line of the message and prints most lines with echo."""
    starts = [(i, found) for i, (_, line) in enumerate(code) if (found := _READ_LINES.match(line))]
    if len(starts) != 1:
        return
    (position, found), name = starts[0], starts[0][1]["name"]
    end = next((i for i in range(position, len(code)) if code[i][1].startswith("done")), 0)
    printed = rf"echo\s+\"?\$\{{?{name}\}}?\"?(?=\s|;|$)"
    lines = [(n, each) for n, line in code[position:end] if (each := re.search(printed, line))]
    if lines and re.match(rf"done\s*<\s*{_EMAIL}", code[end][1]):
        number, line = code[position]
        condition = f'while IFS= read -r {name} || [ -n "${name}" ]; do'
        edits = [replaced(number, found[0].rstrip(), condition)]
        edits += [replaced(n, each[0], f"printf '%s\\n' \"${name}\"") for n, each in lines]
        yield Mistake(READ, line, number, ";".join(edits))


def _blanks(code: _Code, *, echo_expands: bool) -> Iterator[Mistake]:
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
            yield Mistake(BLANK, line, number, edit)
        elif (new := _as_field(found, echo_expands=echo_expands)) != found["header"]:
            yield Mistake(BLANK, line, number, replaced(number, found["header"], new))


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


def _partial(code: _Code) -> Iterator[Mistake]:
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
            yield Mistake(PARTIAL, line, number, replaced(number, command, f"{command} || exit 2"))


#: A command that copies the message, and the next command, which prints a reply that discards the
#: message.
_UNSAVED = re.compile(
    r"(?:^|[;{]|\b(?:then|do|else)\b)[ \t]*(?P<copy>(?:/\S*/)?(?:cp|mv|ln|install|cat|gzip|zstd|xz)"
    r"\s(?:[^;&|\n{}]|\$\{\w+\}|2>&1)*?\$\{?EMAIL\b(?:[^;&|\n{}]|\$\{\w+\}|2>&1)*?)[ \t]*[;\n]\s*"
    r"(?:(?:logger|echo)\s[^;&|\n>]*[;\n]\s*)?"
    r"(?:echo|printf)\s+(?:[\"']?%s(?:\\n)?[\"']?\s+)?[\"']?2[0-9][0-9][ -][^;|\n]*>&2",
    re.MULTILINE,
)


def _unsaved(code: _Code) -> Iterator[Mistake]:
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
            yield Mistake(UNSAVED, line, number, edit)


#: A command that appends a text to the result.
_APPENDED = re.compile(
    r"(?:^|[;&|{]|\b(?:then|do|else)\b)\s*(?P<print>(?:echo|printf|date)\b[^|;&<>]*?)"
    r"\s*(?P<target>>>\s*\"?\$\{?OUTFILE\}?\"?)"
)


def _logged(code: _Code, text: str) -> Iterator[Mistake]:
    """Yield a line that writes a log entry to $OUTFILE, if no line writes a message there."""
    found = [(number, line, _APPENDED.search(line)) for number, line in code]
    lines = [(number, line, each) for number, line, each in found if each]
    if not lines or len(re.findall(r"\$\{?OUTFILE\b", text)) != len(lines):
        return
    edits = [
        replaced(number, each["target"], "| logger -t mail-filter") for number, _, each in lines
    ]
    yield Mistake(LOGGED, lines[0][1], lines[0][0], ";".join(edits))


def _shared(code: _Code) -> Iterator[Mistake]:
    """Yield the line that writes the message to a file with a fixed name."""
    text = "\n".join(line for _, line in code)
    files = {name: path for name, path in constants(code) if _TEMPORARY.fullmatch(path)}
    if _SERIAL.search(text):
        return
    if directory := next(_shared_directories(code, text), None):
        yield directory
        return
    used = "\n".join(_expanded(line, files) for _, line in code if not _UNREAD.match(line))
    for number, line in code:
        found = _FIXED.search(_expanded(line, files))
        if found is None or used.count(found["path"]) < 2:
            continue
        names = [name for name, path in files.items() if path == found["path"]]
        if names:
            edit = _as_temporary(code, files, names[0])
        else:
            path = re.sub(r"[.]", r"\\.", found["path"])
            edit = (
                f's,"{path}","$copy",g;s,{path},"$copy",g;'
                "1a copy=$(mktemp) || exit 2; trap 'rm -f \"$copy\"' EXIT"
            )
        yield Mistake(SHARED, line, number, edit)
        return


def _shared_directories(code: _Code, text: str) -> Iterator[Mistake]:
    """Yield the line that names a directory which every run of the filter empties before use."""
    for number, line in code:
        found = re.fullmatch(r"(?:export\s+)?(?P<name>\w+)=[\"']?/[\w./-]+[\"']?;?", line)
        if found is None:
            continue
        name = rf"[\"']?\$\{{?{found['name']}\}}?/?\*?[\"']?(?=[\s;&|]|$)"
        is_emptied = re.search(rf"^rm\s+-\w*r\w*\s+{name}", text, re.MULTILINE)
        if is_emptied and re.search(rf"\bmkdir\s+(-\w+\s+)*{name}", text):
            new = f"{found['name']}=$(mktemp -d) || exit 2; trap 'rm -rf \"${found['name']}\"' EXIT"
            yield Mistake(SHARED, line, number, f"{number}s,{found['name']}=.*,{new},")


def _expanded(line: str, values: dict[str, str]) -> str:
    """Replace the variables with known values."""
    return re.sub(
        r"\$(?:\{(\w+)\}|(\w+))", lambda each: values.get(each[1] or each[2], each[0]), line
    )


def _as_temporary(code: _Code, files: dict[str, str], first: str) -> str:
    """Return a script for sed(1) that gives each filter its own files.

    This applies to all variables whose files contain the message or a part of the result.
    """
    uses = [set(re.findall(r"\$\{?(\w+)", line)) for _, line in code]
    names, found = {first}, {first, "EMAIL", "OUTFILE"}
    for _ in files:
        names |= {name for each in uses if each & found for name in each & files.keys()}
        found |= names
    lines = {
        name: number
        for number, line in code
        for name in names
        if re.match(rf"(export\s+)?{name}=", line)
    }
    edits = [rf"{n}s,{name}=.*,{name}=$(mktemp) || exit 2," for name, n in lines.items()]
    if not any(line.startswith("trap") for _, line in code):
        last = max(lines, key=lambda name: lines[name])
        removed = " ".join(f'"${name}"' for name in lines)
        edits.append(f"{lines[last]}a trap 'rm -f {removed}' EXIT")
    return ";".join(edits)


def _injections(code: _Code) -> Iterator[Mistake]:
    """Yield a line that makes text from the SMTP session part of a command."""
    remote = "|".join(_remote_variables(code))
    variable = rf"(?<!\\)\$(?:(?:{remote})\b|\{{(?:{remote})\}})"
    for number, line in code:
        found = _COMMAND.search(line)
        if found and is_bare(line, found.start()) and re.search(variable, found["text"]):
            yield Mistake(INJECTION, line, number, replaced(number, found[0], _as_text(found)))
        elif (found := _EVAL.search(line)) and re.search(variable, found["rest"]):
            if found["rest"].startswith("'"):
                continue  # eval expands the variables only once
            text = _EVALUATED.fullmatch(found["rest"].strip())
            new = replaced(number, f'"{text["text"]}"', f"'{text['text']}'") if text else ""
            yield Mistake(INJECTION, line, number, new)


def _remote_variables(code: _Code) -> list[str]:
    """Return the variables with text from the SMTP session, except those that the script tests."""
    names = ["HELO", "SENDER", "RECIPIENT", "RECIPIENTS", "CLIENT_NAME"]
    for _, line in code:
        for name, value in _ASSIGNED.findall(line):
            if re.search(rf"\$(?:({'|'.join(names)})\b|\{{({'|'.join(names)})\}})", value):
                names.append(name)
    text = "\n".join(line for _, line in code)
    return [
        name
        for name in names
        if not re.search(rf"case\s+\"?\$\{{?{name}\b|\$\{{?{name}\}}?\"?\s+=~", text)
    ] or ["^"]


#: The variables that the proxy exports to the filter.
_EXPORTED = (
    *("EMAIL", "OUTFILE", "SENDER", "RECIPIENT", "RECIPIENTS", "RECIPIENTCOUNT", "HELO"),
    *("REMOTEIP", "CLIENT_NAME", "QUEUE_ID", "PATH"),
)


def _as_text(found: re.Match[str]) -> str:
    """Return a command in which the inner shell expands the variables, so that it does not execute
    their values.
    """
    text = re.sub(r"\\([\"$`\\])", r"\1", found["text"]).replace("'", "'\"'\"'")
    names = dict.fromkeys(re.findall(r"(?<!\\)\$\{?([A-Za-z_]\w*)", found["text"]))
    own = "".join(f'{name}="${name}" ' for name in names if name not in _EXPORTED)
    arguments = ' sh "$@"' if re.search(r"(?<!\\)\$\{?[1-9@*]", found["text"]) else ""
    return f"{own}{found['shell']}'{text}'{arguments}"
