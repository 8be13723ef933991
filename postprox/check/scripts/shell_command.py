"""Splits the shell command of `-c` into its simple commands.

Rule: the functions depend only on the text and evaluate nothing. A command with expansions or
substitutions is split as far as its words are known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from . import lines
from .lines import is_bare

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
SCANNER = re.compile(rf"\b({'|'.join(SCANNERS)})\b")
#: A part of a command that can end the command before its last program.
_EARLY_END = re.compile(r"\bset\s+-|\b(exit|exec|return|trap|kill)\b")
_OPERATORS = re.compile(r"[;&|()\n]+")
_WORD = re.compile(r"[\w./+@%:,-]+")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.ASCII | re.DOTALL)
TYPOGRAPHIC = "\u2018\u2019\u201c\u201d"


@dataclass(frozen=True)
class Target:
    """A program that a command runs, and the script that this program reads."""

    program: str
    script: str = ""


def does_nothing(command: str) -> bool:
    """Return whether the command always succeeds, so that all mail passes."""
    tokens = lines.tokens(command)
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


#: Redirections of standard error that lose the filter's reply.
_LOST_ERROR = re.compile(r"\s*(?<![0-9])(2>&-|(&>>?|>&|2>>?)\s*/[^\s;&|<>()]*)")
#: Redirections of standard error to standard output. The proxy ignores replies on standard output.
_TO_OUTPUT = re.compile(r"\s*(?<![0-9])2>&1|\|&(?!&)")
#: A redirection of standard output to standard error.
TO_ERROR = re.compile(r"(?<![0-9&])1?>&2|/dev/(stderr|fd/2)")


def without_lost_reply(command: str) -> str:
    """Remove a redirection at the end of a command if it loses the filter's reply.

    Otherwise, return the command unchanged. A command that also redirects output to standard
    error, such as one with `2>&1 1>&2`, is unchanged, because the reply may still arrive there.
    """
    if len(targets(command)) != 1 or TO_ERROR.search(command):
        return command
    kept = command
    for pattern in (_LOST_ERROR, _TO_OUTPUT):
        for found in reversed(list(pattern.finditer(kept))):
            if found.start() and is_bare(kept, found.start()) and found[0].strip() != "|&":
                kept = kept[: found.start()] + kept[found.end() :]
    return kept.strip() if kept != command else command


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


def targets(command: str) -> list[Target]:
    """Return the known programs that the command runs.

    The result is empty if the first program is unknown.
    """
    found: list[Target] = []
    words: list[str] = []
    for token in [*(lines.tokens(command) or []), ";"]:
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
