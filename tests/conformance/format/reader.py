"""Parses the text of a transcript into nodes, without access to files or sockets.

Rule: a line that does not match the grammar is an error with a file name, a line number and a
suggestion.
"""

from __future__ import annotations

import re
import tomllib

from .grammar import FENCE, GRAMMAR, ArgumentKind
from .header import Header, HeaderError, read_header
from .nodes import Either, FormatError, Include, Node, Note, Step, Transcript, walk
from .payload import PayloadError, did_you_mean

_STEP = re.compile(r"([CUFP])([2-9]?)([>+<?])(?: (.*))?")


def parse_transcript(text: str, name: str) -> Transcript:
    """Parse the transcript in *text*. FormatError contains the position and cause of an error."""
    lines = _printable_lines(text, name)
    if not lines or lines[0] != FENCE:
        raise FormatError(name, 1, f"the first line must be {FENCE}, which opens the TOML header")
    if FENCE not in lines[1:]:
        raise FormatError(name, len(lines), f"the header must be closed by a {FENCE} line")
    end = lines.index(FENCE, 1)
    header = _parse_header(lines[1:end], name)
    steps = _parse_steps(lines[end + 1 :], name, end + 2)
    _check_script(steps, header, name)
    return Transcript(name, header, steps)


def parse_part(text: str, name: str) -> tuple[Node, ...]:
    """Return the steps of an included file, which is a script without a header."""
    return _parse_steps(_printable_lines(text, name), name, 1)


def _printable_lines(text: str, name: str) -> list[str]:
    for number, line in enumerate(text.split("\n"), 1):
        for character in line:
            if not " " <= character <= "~":
                raise FormatError(
                    name,
                    number,
                    f"{character!a} is not printable ASCII; write it as \\xHH",
                )
    if not text.endswith("\n"):
        raise FormatError(name, text.count("\n") + 1, "missing newline after the last line")
    return text.split("\n")[:-1]


def _parse_header(lines: list[str], name: str) -> Header:
    try:
        return read_header(tomllib.loads("\n".join(lines)))
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"at line (\d+)", str(error))
        line = int(at[1]) + 1 if at else len(lines) + 1
        raise FormatError(name, line, f"the header is not TOML: {error}") from error
    except HeaderError as error:
        raise FormatError(name, line_of_key(lines, error.key), str(error)) from error


def line_of_key(lines: list[str], key: str) -> int:
    """Return the number of the line that sets *key* in a header, or 1 if it is missing."""
    for number, line in enumerate(lines, 2):
        if key and re.match(rf'\[?"?{re.escape(key)}\b', line):
            return number
    return 1


def _parse_steps(lines: list[str], name: str, first: int) -> tuple[Node, ...]:
    return _ScriptReader(lines, name, first).read()


class _ScriptReader:
    """A parser for script lines. `either` can be nested. Any other line is one node."""

    def __init__(self, lines: list[str], name: str, first: int) -> None:
        self._lines = lines
        self._name = name
        self._first = first
        self._at = 0

    def read(self) -> tuple[Node, ...]:
        nodes = self._nodes()
        if self._at < len(self._lines):
            raise self._error(f"'{self._lines[self._at]}' requires an 'either' before it")
        return nodes

    def _error(self, message: str, at: int | None = None) -> FormatError:
        return FormatError(self._name, self._first + (self._at if at is None else at), message)

    def _nodes(self) -> tuple[Node, ...]:
        nodes: list[Node] = []
        while self._at < len(self._lines) and self._lines[self._at] not in ("or", "end"):
            nodes.append(self._either() if self._lines[self._at] == "either" else self._line())
        self._check_joins(nodes)
        return tuple(nodes)

    def _either(self) -> Either:
        start = self._at
        branches = []
        while self._lines[self._at] != "end":
            self._at += 1
            branches.append(self._nodes())
            if self._at == len(self._lines):
                raise self._error("missing 'end' for this 'either'", start)
        self._at += 1
        if len(branches) < 2:
            raise self._error("'either' requires at least one 'or' before its 'end'", start)
        for branch in branches:
            self._check_branch(branch, start)
        return Either(tuple(branches), self._first + start)

    def _check_branch(self, branch: tuple[Node, ...], start: int) -> None:
        steps = [node for node in branch if not isinstance(node, Note)]
        if steps and not (isinstance(steps[0], Step) and steps[0].observes):
            raise self._error(
                "each alternative of 'either' must begin with a < or ? step, which the suite uses "
                "to select it",
                start,
            )

    def _line(self) -> Node:
        line, number = self._lines[self._at], self._first + self._at
        self._at += 1
        if not line or line.startswith("#"):
            return Note(line, number)
        try:
            if line.startswith("@"):
                return _parse_include(line, number)
            return _parse_step(line, number)
        except PayloadError as error:
            raise FormatError(self._name, number, str(error)) from error

    def _check_joins(self, nodes: list[Node]) -> None:
        for before, node in zip([None, *nodes], nodes, strict=False):
            if isinstance(node, Step) and node.mark == "+" and not _may_join(before, node):
                raise FormatError(self._name, node.line, _JOIN_HINT[node.kind].format(node.actor))


_JOIN_HINT = {
    "C": "{0}+ continues the previous line, which must be {0}> or {0}+",
    "U": "{0}+ continues the previous line, which must be {0}> or {0}+",
    "F": "F+ continues the previous line, which must be F< email or F+",
}


def _may_join(before: Node | None, node: Step) -> bool:
    if not isinstance(before, Step) or before.actor != node.actor:
        return False
    if node.kind == "F":
        return before.mark == "+" or before.verb == "email"
    return before.mark in ">+" and before.verb == ""


def _parse_include(line: str, number: int) -> Include:
    word, _, name = line.partition(" ")
    if word != "@include" or not name or " " in name:
        raise PayloadError(
            "a line that begins with @ must be '@include FILE'; other @-words follow "
            "an actor, as in 'C> @close'"
        )
    return Include(name, number, line)


def _parse_step(line: str, number: int) -> Step:
    found = _STEP.fullmatch(line)
    if not found:
        raise PayloadError(_unknown_line(line))
    kind, index, mark, text = found[1], found[2], found[3], found[4] or ""
    verbs = GRAMMAR.get(kind + mark)
    if verbs is None:
        marks = [key for key in GRAMMAR if key[0] == kind]
        raise PayloadError(f"unknown step {kind}{mark}; valid steps: {', '.join(marks)}")
    if index and kind in "FP":
        raise PayloadError(f"{kind}{index} must be {kind}; only C and U can have a number")
    verb, argument = _split_verb(text, verbs)
    return Step(kind + index, mark, verb, verbs[verb].read(argument), number, line)


def _split_verb(text: str, verbs: dict[str, ArgumentKind]) -> tuple[str, str]:
    """Split a step into verb and argument. A line of octets has no verb."""
    word, _, rest = text.partition(" ")
    if word in verbs and word:
        return word, rest
    if "" in verbs and not word.startswith("@"):
        return "", text
    known = [verb for verb in verbs if verb]
    raise PayloadError(
        f"unknown step '{word}'{did_you_mean(word, known)}; expected one of {', '.join(known)}"
    )


def _unknown_line(line: str) -> str:
    word = line.partition(" ")[0]
    choices = [*GRAMMAR, "either", "or", "end", "@include"]
    if word[:2] in GRAMMAR and len(word) > 2:
        return f"missing space after {word[:2]}: '{word[:2]} {line[2:]}'"
    return (
        f"unknown step '{word}'{did_you_mean(word, choices)}; a line must begin with "
        "an actor and a mark (C> C+ C< C? U> U+ U< F> F< F+ P> P<), or be 'either', "
        "'or', 'end', '@include FILE', a comment that begins with #, or empty"
    )


def _check_script(nodes: tuple[Node, ...], header: Header, name: str) -> None:
    for step in walk(nodes):
        message = _misfit(step, header)
        if message:
            raise FormatError(name, step.line, message)


def _misfit(step: Step, header: Header) -> str | None:
    """Return the reason why *step* contradicts *header*, or None."""
    if step.kind == "F" and header.filter is None:
        return "a filter step requires 'filter' in the header"
    if step.kind in "CU" and header.modes == ("command",):
        return "mode 'command' has no session, so C and U steps are not allowed"
    if step.kind == "C" and step.actor != "C" and header.modes != ("listen",):
        return f'{step.actor}: several clients require modes = ["listen"]'
    if step.verb == "stdout" and header.modes != ("command",):
        return (
            "P< stdout requires mode 'command'; in other modes standard output is the SMTP channel"
        )
    if step.verb == "stderr" and header.fd2 == "socket":
        return 'with fd2 = "socket", standard error is the client\'s connection'
    return None
