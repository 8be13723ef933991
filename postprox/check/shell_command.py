"""Splits the shell command of `-c` into its simple commands.

Rule: the functions depend only on the text and evaluate nothing. A command with expansions or
substitutions is split as far as its words are known.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: Commands that succeed without reading the message.
_ALWAYS = ("true", ":", "exit", "exit 0", "/bin/true", "/usr/bin/true")
#: Programs that exit with status 0 at the end of a pipeline, even if the filter fails.
SINKS = ("cat", "head", "logger", "sed", "sort", "systemd-cat", "tail", "tee")
#: Commands that report or clean up after the filter, and that succeed even if the filter fails.
_FOLLOWERS = ("date", "echo", "logger", "printf", "rm", "sleep", "touch")
#: Programs that run another program. Each value contains the letters of the options that take an
#: argument, and the number of operands before the other program's name.
_WRAPPERS = {
    "chrt": ("TPD", 1),
    "command": ("", 0),
    "env": ("uCS", 0),
    "exec": ("a", 0),
    "ionice": ("cn", 0),
    "nice": ("n", 0),
    "nohup": ("", 0),
    "setpriv": ("", 0),
    "setsid": ("", 0),
    "stdbuf": ("ioe", 0),
    "taskset": ("", 1),
    "timeout": ("ks", 1),
}
#: Long options of these programs that take the next word as their value.
_LONG_WITH_VALUE = re.compile(
    "--(adjustment|ambient-caps|apparmor-profile|bounding-set|chdir|class|classdata|error|inh-caps"
    "|input|kill-after|output|pdeathsig|sched-(deadline|period|runtime)|securebits|selinux-label"
    "|signal|split-string|unset)"
)
#: The wrappers that run their command with execve(2), so that the process ID remains the same. Each
#: value matches the options for which the wrapper requires a privilege, or changes the user or the
#: environment. setsid(1) is not listed, because it forks if systemd or spawn(8) runs it.
_REPLACED = {
    "chrt": re.compile(r"^(?!.*(-\w*[bio]|--batch|--idle|--other)\b)"),
    "env": re.compile(r"(^|\s)-"),
    "ionice": re.compile(r"-\w*c\s*[1r]|--class[ =][1r]"),
    "nice": None,
    "nohup": None,
    "setpriv": re.compile(r"uid|gid|groups"),
    "stdbuf": None,
    "taskset": None,
}
#: For each program that runs scripts, the letters of its options that take a value, such as program
#: text.
INTERPRETERS = {
    **dict.fromkeys(("sh", "dash", "bash", "ksh", "mksh", "zsh"), "c"),
    **dict.fromkeys(("python", "python3"), "cmWX"),
    "perl": "eEIMm",
    "ruby": "eIr",
}
#: Builtins that prepare the environment of the filter and cannot be the filter.
PREPARATIONS = (":", "cd", "export", "readonly", "set", "trap", "true", "ulimit", "umask", "unset")
SCANNERS = ("clamdscan", "clamscan", "spamc", "spamassassin", "rspamc")
_SCANNER = re.compile(rf"\b({'|'.join(SCANNERS)})\b")
#: A part of a script that can replace the filter's exit status, or that changes the message.
_OTHER_RESULT = re.compile(
    r"\bexit\b(?!\s+0\b)|\bset\s+-\w*e|errexit|\b(exec|return|trap|kill|OUTFILE|source)\b"
    r"|\$\{\w+:?\?|(^|[;&|]\s*)\.\s",
    re.MULTILINE,
)
#: A part of a command that can end the command before its last program.
_EARLY_END = re.compile(r"\bset\s+-|\b(exit|exec|return|trap|kill)\b")
_PIPE_TO_SINK = rf"\|&?[ \t]*(/[^ \t|;&]*/)?({'|'.join(SINKS)})([ \t][^|;&(){{}}]*)?$"
_ALWAYS_ZERO = r"(true|:|exit\s+0)\s*;?\s*$"
#: A command that searches standard input.
_SEARCH = re.compile(
    r"(if\s+|!\s+)*grep(\s+-[a-zA-Z]+)*\s+(\"[^\"]*\"|'[^']*'|[\w.^*-]+)\s*(;|&&|\|\||$)"
)
#: Code that uses the message or the arguments, or that runs another script.
_ANY_MESSAGE = re.compile(
    r"EMAIL|\$\{?[1-9@*]|\b(exec|source|eval|python3?|perl|sh|bash)\b|(^|[;&|]\s*)\.\s",
    re.MULTILINE,
)
_OPERATORS = re.compile(r"[;&|()\n]+")
_WORD = re.compile(r"[\w./+@%:,-]+")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.ASCII | re.DOTALL)
TYPOGRAPHIC = "\u2018\u2019\u201c\u201d"


@dataclass(frozen=True)
class Target:
    """A program that a command runs, and the script that this program reads."""

    program: str
    script: str = ""


def _tokens(command: str) -> list[str] | None:
    lexer = shlex.shlex(command, posix=True, punctuation_chars=";&|()<>")
    lexer.whitespace_split = True
    try:
        return list(lexer)
    except ValueError:
        return None


def does_nothing(command: str) -> bool:
    """Return whether the command always succeeds, so that all mail passes."""
    tokens = _tokens(command)
    return tokens is not None and (not tokens or " ".join(tokens).rstrip("; ") in _ALWAYS)


def without_lost_status(command: str) -> str:
    """Remove the end of a command if it hides the filter's exit status.

    Otherwise, return the command unchanged.
    """
    sinks, followers = "|".join(SINKS), "|".join(_FOLLOWERS)
    found = re.search(rf"\s*[;\n]\s*(/\S*/)?({followers})(\s[^|;&(){{}}\n]*)?;?\s*$", command)
    is_end = found and not _EARLY_END.search(command)
    if found and is_end and found.start() and is_bare(command, found.start()):
        return command[: found.start()]
    for pattern in (
        r"\s*(?<![&>])&\s*$",
        r"\s*(\|\||;)\s*(true|:|exit\s+0)\s*;?\s*$",
        rf"\s*(?<!\|)\|&?\s*(/\S*/)?({sinks})(\s[^|;&]*)?$",
    ):
        found = re.search(pattern, command)
        if found and found.start() and is_bare(command, found.start()):
            return command[: found.start()]
    return command


def lost_status(script: str) -> tuple[str, int]:
    """Return the last line of a script if this line hides a scanner's exit status.

    The number is the line number, or 0 if neither this line nor the previous one runs the scanner.
    If the script can end with another exit status, or changes the message, the result is ("", 0).
    """
    lines = [(n, line.strip()) for n, line in enumerate(script.split("\n"), 1)]
    code = [(n, line) for n, line in lines if line and not line.startswith("#")]
    text = "\n".join(line for _, line in code)
    if not code or not _SCANNER.search(text) or _OTHER_RESULT.search(text):
        return "", 0
    number, last = code[-1]
    if re.match(_ALWAYS_ZERO, last):
        before = "".join(line for _, line in code[-2:-1])
        return last, number if _SCANNER.search(before) else 0
    if re.search(rf"(\|\||;)\s*{_ALWAYS_ZERO}", last):
        return last, number if _SCANNER.search(last) else 0
    piped = re.search(rf"(?<!\|){_PIPE_TO_SINK}", last)
    is_scanned = piped and _SCANNER.search(last[: piped.start()]) and is_bare(last, piped.start())
    if is_scanned and "pipefail" not in text:
        return last, number
    return "", 0


def without_message(script: str) -> tuple[str, int]:
    """Return the first line that scans its input, if the script never uses the message.

    The second element is the number of this line. If the script uses EMAIL or its arguments, or
    runs another script, the result is ("", 0).
    """
    lines = [(n, line.strip()) for n, line in enumerate(script.split("\n"), 1)]
    code = [(line, n) for n, line in lines if line and not line.startswith("#")]
    if _ANY_MESSAGE.search("\n".join(line for line, _ in code)):
        return "", 0
    is_redirected = any("<" in line for line, _ in code)
    return next(
        (
            (line, n)
            for line, n in code
            if _SCANNER.search(line) or (_SEARCH.match(line) and not is_redirected)
        ),
        ("", 0),
    )


def with_message(line: str, number: int) -> str:
    """Return a script for `sed` that makes the message the input of a line.

    If the line is not a simple command, the message becomes the input of the whole script.
    """
    if re.fullmatch(r"[\w\s./=>@:-]+", line):
        return f'{number}s/$/ < "$EMAIL"/'
    return '1s/$/\\nexec < "$EMAIL" || exit 2/'


def without_sink(number: int) -> str:
    """Return a script for `sed -E` that removes the end of a pipeline, such as `| logger`."""
    return rf"{number}s,[ \t]*(2>&1[ \t]*)?{_PIPE_TO_SINK},,"


#: Redirections of standard error that lose the filter's reply.
_LOST_ERROR = re.compile(r"\s*(?<![0-9])(2>&-|(&>>?|>&|2>>?)\s*/[^\s;&|<>()]*)")
#: Redirections of standard error to standard output. The proxy ignores replies on standard output.
_TO_OUTPUT = re.compile(r"\s*(?<![0-9])2>&1|\|&(?!&)")
#: A redirection of standard output to standard error.
_TO_ERROR = re.compile(r"(?<![0-9&])1?>&2|/dev/(stderr|fd/2)")
#: A command that prints a reply. The filter's reply is the last line of its standard error.
_REPLY = re.compile(
    r"(?:^|[;&|({]|\b(?:then|do|else)\b|\))\s*(?:echo|printf)\s+(?:-\w+\s+)?"
    r"(?:[\"']?%s(?:\\n)?[\"']?\s+)?[\"']?[45][0-9][0-9][ -][45A-Za-z]",
    re.MULTILINE,
)


def without_lost_reply(command: str) -> str:
    """Remove a redirection at the end of a command if it loses the filter's reply.

    Otherwise, return the command unchanged. A command that also redirects output to standard
    error, such as one with `2>&1 1>&2`, is unchanged, because the reply may still arrive there.
    """
    if len(targets(command)) != 1 or _TO_ERROR.search(command):
        return command
    kept = command
    for pattern in (_LOST_ERROR, _TO_OUTPUT):
        for found in reversed(list(pattern.finditer(kept))):
            if found.start() and is_bare(kept, found.start()) and found[0].strip() != "|&":
                kept = kept[: found.start()] + kept[found.end() :]
    return kept.strip() if kept != command else command


def reply_to_output(script: str) -> tuple[str, tuple[int, ...]]:
    """Return the first line that prints a reply to standard output, and the numbers of all such
    lines.

    The result is ("", ()) if any part of the script may redirect output to standard error.
    """
    lines = [(n, line) for n, line in enumerate(script.split("\n"), 1)]
    code = [(n, line) for n, line in lines if not line.lstrip().startswith("#")]
    text = "\n".join(line for _, line in code)
    if _TO_ERROR.search(text) or re.search(r"\b(exec|logger)\b|\$\(|`", text):
        return "", ()
    found = [(n, line) for n, line in code if _REPLY.search(line) and not re.search("[|>]", line)]
    return (found[0][1].strip(), tuple(n for n, _ in found)) if found else ("", ())


#: For each interpreter, a pattern for lines that are typical of its language.
_WORDS = {
    "python3": re.compile(r"^(import [\w., ]+$|from [\w.]+ import |def \w+\(.*\):|print\()", re.M),
    "perl": re.compile(r"^(use (strict|warnings|[A-Z]\w*)\b.*;|my [$@%]\w+|sub \w+ *\{)", re.M),
    "ruby": re.compile(r"^(require ['\"]\w|puts |def \w+$|abort )", re.M),
    "php": re.compile(r"^<\?php", re.M),
    "node": re.compile(r"^(const|let|var) \w+ *= *require\(", re.M),
}
#: The constructs that bash supports, but sh(1) may not.
_BASH = re.compile(
    r"^\s*set\s+(-\w+\s+)*-\w*o\s+pipefail|(^|[;&|]|\b(if|while|elif|until|!))\s*\[\[\s|<<<"
    r"|\$\{\w+(\^\^?|,,?|//?)|(^|;)\s*(declare|mapfile|readarray|shopt|source)\s|\w+\+?=\("
    r"|[<>]\(|^\s*function\s+\w+|&>",
    re.MULTILINE,
)


_HERE_DOCUMENT = re.compile(r"(?<!<)<<(?P<tab>-?)\s*(?P<quote>[\"']?)\\?(?P<end>\w+)(?P=quote)")


def without_here_documents(script: str) -> str:
    """Return a shell script with empty lines instead of the texts of its here-documents."""
    kept: list[str] = []
    ends: list[tuple[str, str]] = []
    for line in script.split("\n"):
        if ends:
            tab, end = ends[0]
            if (line.lstrip("\t") if tab else line) == end:
                ends.pop(0)
            kept.append("")
        else:
            kept.append(line)
            is_comment = line.lstrip().startswith("#")
            ends = (
                [] if is_comment else [(m["tab"], m["end"]) for m in _HERE_DOCUMENT.finditer(line)]
            )
    return script if ends else "\n".join(kept)


def language(script: str) -> str:
    """Return the interpreter of the language in which a script is probably written, or "".

    A here-document can be a script in another language.
    """
    script = without_here_documents(script)
    return next((name for name, words in _WORDS.items() if words.search(script)), "")


def bash_feature(script: str) -> str:
    """Return the first construct in a script that requires bash, or ""."""
    code = "\n".join(re.sub(r"(^|\s)#.*", "", line) for line in script.split("\n"))
    code = re.sub(r"'[^']*'", "''", code)
    found = _BASH.search(code)
    return found[0].strip(" \t\n;&|") if found else ""


def needs_first_line(script: str) -> bool:
    """Return whether a script can fail if sh(1) runs it instead of the interpreter after #!.

    The result is False for sh without options, and for bash if the script needs no feature of bash.
    """
    words = script.lstrip().removeprefix("#!").partition("\n")[0].split()
    names = [word.rpartition("/")[2] for word in words]
    if names[:1] == ["env"]:
        names = names[1:]
    return names not in (["sh"], ["dash"]) and (names != ["bash"] or bool(bash_feature(script)))


#: The programs whose last operand is a path that they write to.
_WRITERS = ("cp", "mv", "install", "tee", "touch", "mkdir", "rsync", "ln")


def written_paths(script: str) -> list[str]:
    """Return the absolute paths that a shell or Python script writes to."""
    code = "\n".join(re.sub(r"(^|\s)#.*", "", line) for line in script.split("\n"))
    constants = dict(re.findall(r"^\s*(?:export\s+)?(\w+)=[\"']?(/[\w./-]+)[\"']?\s*$", code, re.M))
    code = re.sub(r"\$\{?(\w+)\}?", lambda m: constants.get(m[1], m[0]), code)
    path = r"[\"']?(/[\w.@/-]+)"
    found = re.findall(rf"(?<![0-9<&])[12]?>>?\|?\s*{path}", code)
    writers = "|".join(_WRITERS)
    for line in re.findall(
        rf"(?:^|[;&|({{!]|\b(?:then|do|else|if)\b|\))\s*(?:{writers})\s((?:\$\([^()\n]*\)|[^;&|\n])*)",
        code,
        re.M,
    ):
        line = re.sub(r"\$\([^()]*\)", "$x", line)  # noqa: PLW2901
        words = [
            word.strip("\"')}")
            for word in re.sub(r"[0-9&]*[<>]+\s*\S+", "", line).split()
            if not re.match("[0-9]?[<>]|-", word)
        ]
        found += [words[-1]] if words and words[-1].startswith("/") else []
    found += re.findall(rf"\bopen\(\s*f?{path}[^\n]*?,\s*[\"'][wax]", code)
    names = [re.split(r"[$`*?\"'{]", name)[0] for name in found]
    return [name for name in dict.fromkeys(names) if not name.startswith(("/dev/", "/proc/"))]


def expanded(command: str, variables: Mapping[str, str]) -> str:
    """Replace the variables of the environment whose values are single words."""
    return re.sub(
        r"\$(?:\{(\w+)\}|(\w+))",
        lambda found: (
            value
            if (name := found[1] or found[2])
            and _WORD.fullmatch(value := variables.get(name, ""))
            and not re.search(rf"\b{name}=", command)
            else found[0]
        ),
        command,
    )


def is_bare(command: str, position: int) -> bool:
    """Return whether a position in a command is outside quotes and comments."""
    return _tokens(command[:position]) is not None


def targets(command: str) -> list[Target]:
    """Return the known programs that the command runs.

    The result is empty if the first program is unknown.
    """
    found: list[Target] = []
    words: list[str] = []
    for token in [*(_tokens(command) or []), ";"]:
        if not _OPERATORS.fullmatch(token):
            words.append(token)
        elif words:
            target = _target(words)
            if target is None and not found:
                return []
            found += [target] if target else []
            words = []
    return found


def targets_of_words(words: Sequence[str]) -> list[str]:
    """Return the program of a simple command, and the script that this program reads."""
    target = _target(words)
    return [each for each in (target.program, target.script) if each] if target else []


def _target(words: Sequence[str]) -> Target | None:
    """Return the program of a simple command, or None if it is unknown."""
    left = list(words)
    while left and _ASSIGNMENT.fullmatch(left[0]):
        left.pop(0)
    if not left or not _WORD.fullmatch(left[0]):
        return None
    name = left[0].rpartition("/")[2]
    if name in _WRAPPERS:
        with_value, count = _WRAPPERS[name]
        rest = _without_options(left[1:], with_value)[count:]
        return _target(rest) if rest else None
    texts = INTERPRETERS.get(name.rstrip("0123456789.") if name.startswith("python") else name)
    if texts is not None:
        rest = left[1:]
        if not any(re.match(f"-[^-]*[{texts}]", word) for word in rest):
            rest = _without_options(rest, "")
            if rest and rest[0].startswith("/") and _WORD.fullmatch(rest[0]):
                return Target(left[0], rest[0])
    return Target(left[0])


def count_wrapper_words(words: Sequence[str]) -> int:
    """Count the leading words of wrappers that exec the program.

    An example of such a wrapper is nice(1). An unknown wrapper counts as the program.
    """
    left = list(words)
    while left:
        name = left[0].rpartition("/")[2]
        if name not in _REPLACED:
            break
        with_value, count = _WRAPPERS[name]
        rest = _without_options(left[1:], with_value)
        unknown = _REPLACED[name]
        if unknown and unknown.search(" ".join(left[1 : len(left) - len(rest)])):
            break
        left = rest[count:]
        while name == "env" and left and _ASSIGNMENT.fullmatch(left[0]):
            left.pop(0)
    return len(words) - len(left)


def _without_options(words: Sequence[str], with_value: str) -> list[str]:
    left = list(words)
    while left and left[0].startswith("-") and left[0] != "-":
        option = left.pop(0)
        if option == "--":
            break
        is_short = len(option) == 2 and option[1] in with_value
        if left and (is_short or _LONG_WITH_VALUE.fullmatch(option)):
            left.pop(0)
    return left
