"""Transcripts: text to steps and back, without touching a file or a socket.

Rule: `GRAMMAR` is the whole language. A line it does not know is an error that names the file,
the line and what was probably meant; what it reads, `write_transcript` writes again.
"""

from __future__ import annotations

import re
import signal
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field

from .header import Header, HeaderError, read_header, write_header
from .payload import Payload, PayloadError, did_you_mean, parse_payload

CRLF = b"\r\n"
FENCE = "+++"
DEFAULT_QUIET = 0.1


class FormatError(Exception):
    """A transcript that cannot be read: where, and what was meant."""

    def __init__(self, name: str, line: int, message: str) -> None:
        super().__init__(f"{name}:{line}: {message}")
        self.name = name
        self.line = line
        self.message = message


@dataclass(frozen=True)
class ReplyPattern:
    """What `C?` accepts: reply codes (`x` for any digit), perhaps an enhanced code's beginning."""

    codes: tuple[str, ...]
    enhanced: str | None = None


@dataclass(frozen=True)
class Named:
    """`NAME=value`, as in `F< env SENDER=a@example`."""

    name: str
    value: Payload


@dataclass(frozen=True)
class TextTest:
    """How a text is judged: one of TEXT_OPERATORS and what it compares with."""

    operator: str
    text: Payload | str


Argument = None | float | int | str | Payload | ReplyPattern | Named | TextTest


@dataclass(frozen=True)
class Step:
    """One line of the script: who, in which direction, what."""

    actor: str  # C U F P; C2 U2 ... for further connections
    mark: str  # > + < ?
    verb: str  # "" where the line is nothing but octets
    argument: Argument
    line: int = field(default=0, compare=False)
    source: str = field(default="", compare=False)

    @property
    def kind(self) -> str:
        """The actor without its number."""
        return self.actor[0]

    @property
    def observes(self) -> bool:
        """Whether the step waits for something."""
        return self.mark in "<?"


@dataclass(frozen=True)
class Either:
    """Alternatives; the first whose first step is observed is the one that goes on."""

    branches: tuple[tuple[Node, ...], ...]
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Include:
    """`@include NAME`: the steps of another file stand here."""

    name: str
    line: int = field(default=0, compare=False)
    source: str = field(default="", compare=False)
    steps: tuple[Node, ...] = ()


@dataclass(frozen=True)
class Note:
    """A comment or an empty line."""

    text: str
    line: int = field(default=0, compare=False)


Node = Step | Either | Include | Note


@dataclass(frozen=True)
class Transcript:
    """A whole file. `name` is its path under transcripts/, for good."""

    name: str
    header: Header
    steps: tuple[Node, ...]


# --- arguments: one reader and one writer for each kind -------------------------------------------


def _read_nothing(text: str) -> None:
    if text:
        raise PayloadError(f"nothing is expected behind it, but there is '{text}'")


def _read_lines(text: str) -> Payload:
    return parse_payload(text, CRLF)


def _read_plain(text: str) -> Payload:
    return parse_payload(text, b"")


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}


def _read_duration(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m)", text)
    if not found:
        raise PayloadError(f"a time reads 200ms, 1.5s or 5m, not '{text}'")
    return round(float(found[1]) * _UNITS[found[2]], 6)


def _write_duration(seconds: object) -> str:
    assert isinstance(seconds, float)
    return f"{seconds * 1000:g}ms" if seconds < 1 else f"{seconds:g}s"


def _read_quiet(text: str) -> float:
    return _read_duration(text) if text else DEFAULT_QUIET


_CODE = re.compile(r"[2-5](?:\d\d|\dx|xx)")
_ENHANCED = re.compile(r"[245](?:\.\d{1,3}|\.x){0,2}")


def _read_reply(text: str) -> ReplyPattern:
    codes, _, enhanced = text.partition(" ")
    wrong = [code for code in codes.split("|") if not _CODE.fullmatch(code)]
    if wrong:
        raise PayloadError(
            f"a reply code reads 250, 45x or 5xx (or 503|554), not '{wrong[0]}'; "
            "exact octets are awaited with C<"
        )
    if enhanced and not _ENHANCED.fullmatch(enhanced):
        raise PayloadError(
            f"behind the code an enhanced code such as 4.3.0 may follow, "
            f"not '{enhanced}'; exact octets are awaited with C<"
        )
    return ReplyPattern(tuple(codes.split("|")), enhanced or None)


def _write_reply(pattern: object) -> str:
    assert isinstance(pattern, ReplyPattern)
    return " ".join(["|".join(pattern.codes), *([pattern.enhanced] if pattern.enhanced else [])])


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _read_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise PayloadError(f"a name of letters, digits and _ is expected, not '{text}'")
    return text


def _read_gate(text: str) -> str:
    return _read_name(text) if text else ""


def _read_named(text: str) -> Named:
    name, equals, value = text.partition("=")
    if not equals:
        raise PayloadError(f"NAME=value is expected, not '{text}'")
    return Named(_read_name(name), parse_payload(value, b""))


def _write_named(named: object) -> str:
    assert isinstance(named, Named)
    return f"{named.name}={named.value.text(b'')}"


def _word(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise PayloadError(
                f"one of {', '.join(choices)} is expected, not '{text}'"
                f"{did_you_mean(text, choices)}"
            )
        return text

    return read


def _read_exit(text: str) -> str:
    if text not in ("nonzero", "any") and not (text.isdigit() and int(text) < 256):
        raise PayloadError(f"exit is followed by a status (0 to 255), nonzero or any, not '{text}'")
    return text


def _read_size(text: str) -> int:
    found = re.fullmatch(r"below (\d+)M", text)
    if not found:
        raise PayloadError(f"memory reads 'below 32M', not '{text}'")
    return int(found[1]) << 20


def _write_size(size: object) -> str:
    assert isinstance(size, int)
    return f"below {size >> 20}M"


TEXT_OPERATORS = ("contains", "lacks", "is", "matches", "empty")


def _read_text_test(text: str) -> TextTest:
    operator, _, rest = text.partition(" ")
    if operator not in TEXT_OPERATORS:
        raise PayloadError(
            f"one of {', '.join(TEXT_OPERATORS)} is expected, not '{operator}'"
            f"{did_you_mean(operator, TEXT_OPERATORS)}"
        )
    if operator == "empty":
        _read_nothing(rest)
    elif not rest:
        raise PayloadError(f"'{operator}' what?")
    if operator != "matches":
        return TextTest(operator, parse_payload(rest, b""))
    try:
        re.compile(rest.encode())
    except re.error as error:
        raise PayloadError(f"no regular expression: {error}") from error
    return TextTest(operator, rest)


def _write_text_test(test: object) -> str:
    assert isinstance(test, TextTest)
    text = test.text if isinstance(test.text, str) else test.text.text(b"")
    return f"{test.operator} {text}".rstrip(" ")


def _write_lines(payload: object) -> str:
    assert isinstance(payload, Payload)
    return payload.text(CRLF)


def _write_plain(payload: object) -> str:
    assert isinstance(payload, Payload)
    return payload.text(b"")


def _write_word(word: object) -> str:
    return "" if word is None else str(word)


@dataclass(frozen=True)
class ArgumentKind:
    """How what stands behind a verb is read and written."""

    read: Callable[[str], Argument]
    write: Callable[[object], str] = _write_word


NOTHING = ArgumentKind(_read_nothing)
LINE = ArgumentKind(_read_lines, _write_lines)
PLAIN = ArgumentKind(_read_plain, _write_plain)
DURATION = ArgumentKind(_read_duration, _write_duration)
QUIET = ArgumentKind(_read_quiet, _write_duration)
REPLY = ArgumentKind(_read_reply, _write_reply)
NAME = ArgumentKind(_read_name)
GATE = ArgumentKind(_read_gate)
NAMED = ArgumentKind(_read_named, _write_named)
EXIT = ArgumentKind(_read_exit)
SIZE = ArgumentKind(_read_size, _write_size)
TEXT = ArgumentKind(_read_text_test, _write_text_test)

SIGNALS = tuple(sorted(one.name for one in signal.Signals))

#: Actor and mark, then verb: every step there is. The verb "" is a line of nothing but octets.
GRAMMAR: dict[str, dict[str, ArgumentKind]] = {
    "C>": {
        "": LINE,
        "@connect": NOTHING,
        "@eof": NOTHING,
        "@close": NOTHING,
        "@reset": NOTHING,
        "@wait": DURATION,
    },
    "C+": {"": LINE},
    "C<": {"": LINE, "@eof": NOTHING, "@quiet": QUIET},
    "C?": {"": REPLY},
    "U>": {
        "": LINE,
        "@eof": NOTHING,
        "@close": NOTHING,
        "@reset": NOTHING,
        "@wait": DURATION,
        "@refuse": NOTHING,
        "@listen": NOTHING,
    },
    "U+": {"": LINE},
    "U<": {"": LINE, "@connect": NOTHING, "@eof": NOTHING, "@quiet": QUIET},
    "F>": {"gate": GATE},
    "F<": {
        "run": NOTHING,
        "none": NOTHING,
        "killed": NOTHING,
        "gate": GATE,
        "exit": EXIT,
        "env": NAMED,
        "unset": NAME,
        "email": PLAIN,
        "email-mode": ArgumentKind(_word("private")),
        "outfile": ArgumentKind(_word("empty")),
    },
    "F+": {"": PLAIN},
    "P>": dict.fromkeys(SIGNALS, NOTHING),
    "P<": {
        "exit": EXIT,
        "stdout": TEXT,
        "stderr": TEXT,
        "syslog": TEXT,
        "memory": SIZE,
        "tmp": ArgumentKind(_word("empty", "filled")),
    },
}

_STEP = re.compile(r"([CUFP])([2-9]?)([>+<?])(?: (.*))?")


# --- reading --------------------------------------------------------------------------------------


def parse_transcript(text: str, name: str) -> Transcript:
    """The transcript in *text*; FormatError says where it cannot be read, and why."""
    lines = _printable_lines(text, name)
    if not lines or lines[0] != FENCE:
        raise FormatError(name, 1, f"the first line is {FENCE}, which opens the TOML header")
    if FENCE not in lines[1:]:
        raise FormatError(name, len(lines), f"the header is not closed by a line {FENCE}")
    end = lines.index(FENCE, 1)
    header = _parse_header(lines[1:end], name)
    steps = _parse_steps(lines[end + 1 :], name, end + 2)
    _check_script(steps, header, name)
    return Transcript(name, header, steps)


def parse_part(text: str, name: str) -> tuple[Node, ...]:
    """The steps of a file that is only included: a script without a header."""
    return _parse_steps(_printable_lines(text, name), name, 1)


def _printable_lines(text: str, name: str) -> list[str]:
    for number, line in enumerate(text.split("\n"), 1):
        for character in line:
            if not " " <= character <= "~":
                raise FormatError(
                    name,
                    number,
                    f"{character!a} in the text: a transcript is "
                    "printable ASCII and LF, the rest is written \\xHH",
                )
    if not text.endswith("\n"):
        raise FormatError(name, text.count("\n") + 1, "the last line lacks its line end")
    return text.split("\n")[:-1]


def _parse_header(lines: list[str], name: str) -> Header:
    try:
        return read_header(tomllib.loads("\n".join(lines)))
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"at line (\d+)", str(error))
        line = int(at[1]) + 1 if at else len(lines) + 1
        raise FormatError(name, line, f"the header is no TOML: {error}") from error
    except HeaderError as error:
        raise FormatError(name, _line_of_key(lines, error.key), str(error)) from error


def _line_of_key(lines: list[str], key: str) -> int:
    for number, line in enumerate(lines, 2):
        if key and re.match(rf'\[?"?{re.escape(key)}\b', line):
            return number
    return 1


def _parse_steps(lines: list[str], name: str, first: int) -> tuple[Node, ...]:
    return _ScriptReader(lines, name, first).read()


class _ScriptReader:
    """Reads the lines of a script; `either` nests, all else is one line, one node."""

    def __init__(self, lines: list[str], name: str, first: int) -> None:
        self._lines = lines
        self._name = name
        self._first = first
        self._at = 0

    def read(self) -> tuple[Node, ...]:
        nodes = self._nodes()
        if self._at < len(self._lines):
            raise self._error(f"'{self._lines[self._at]}' without an 'either' before it")
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
                raise self._error("this 'either' is never closed by 'end'", start)
        self._at += 1
        if len(branches) < 2:
            raise self._error("'either' wants at least one 'or' before its 'end'", start)
        for branch in branches:
            self._check_branch(branch, start)
        return Either(tuple(branches), self._first + start)

    def _check_branch(self, branch: tuple[Node, ...], start: int) -> None:
        steps = [node for node in branch if not isinstance(node, Note)]
        if steps and not (isinstance(steps[0], Step) and steps[0].observes):
            raise self._error(
                "each alternative of 'either' begins with something that is observed "
                "(a step with < or ?): by it the suite knows which one it is",
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
    "C": "{0}+ goes on with the write on the line before it, so that line must be {0}> or {0}+",
    "U": "{0}+ goes on with the write on the line before it, so that line must be {0}> or {0}+",
    "F": "F+ goes on with the text on the line before it, so that line must be F< email or F+",
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
            "a line that begins with @ reads '@include FILE'; "
            "all other @-words follow an actor, as in 'C> @close'"
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
        raise PayloadError(f"there is no step {kind}{mark}; {kind} knows {', '.join(marks)}")
    if index and kind in "FP":
        raise PayloadError(f"there is only one {kind}")
    verb, argument = _split_verb(text, verbs)
    return Step(kind + index, mark, verb, verbs[verb].read(argument), number, line)


def _split_verb(text: str, verbs: dict[str, ArgumentKind]) -> tuple[str, str]:
    """Verb and the rest; a line of octets is one whose first word is no verb and has no @."""
    word, _, rest = text.partition(" ")
    if word in verbs and word:
        return word, rest
    if "" in verbs and (not word.startswith("@") or word.startswith("@include")):
        return "", text
    known = [verb for verb in verbs if verb]
    raise PayloadError(
        f"unknown step '{word}'{did_you_mean(word, known)}; "
        f"here one of {', '.join(known)} is expected"
    )


def _unknown_line(line: str) -> str:
    word = line.partition(" ")[0]
    choices = [*GRAMMAR, "either", "or", "end", "@include"]
    if word[:2] in GRAMMAR and len(word) > 2:
        return f"a blank belongs behind {word[:2]}: '{word[:2]} {line[2:]}'"
    return (
        f"'{word}' begins no step{did_you_mean(word, choices)}; a line begins with an actor "
        "and a mark (C> C+ C< C? U> U+ U< F> F< F+ P> P<), or is either, or, end, "
        "@include FILE, a # comment or empty"
    )


def _check_script(nodes: tuple[Node, ...], header: Header, name: str) -> None:
    for step in walk(nodes):
        message = _misfit(step, header)
        if message:
            raise FormatError(name, step.line, message)


def walk(nodes: tuple[Node, ...]) -> list[Step]:
    """Every step in *nodes*, those of alternatives and included files among them."""
    steps: list[Step] = []
    for node in nodes:
        match node:
            case Step():
                steps.append(node)
            case Either(branches):
                for branch in branches:
                    steps.extend(walk(branch))
            case Include():
                steps.extend(walk(node.steps))
            case Note():
                pass
    return steps


def _misfit(step: Step, header: Header) -> str | None:
    """Why *step* cannot stand under *header*, if so."""
    if step.kind == "F" and header.filter is None:
        return "a step of the filter, but the header has no filter"
    if step.kind in "CU" and header.modes == ("command",):
        return "mode 'command' has no session: there is no client and no upstream"
    if step.kind == "C" and step.actor != "C" and header.modes != ("listen",):
        return f'{step.actor}: several clients need modes = ["listen"]'
    if step.verb == "stdout" and header.modes != ("command",):
        return "standard output is the SMTP channel, except in mode 'command'"
    if step.verb == "stderr" and header.fd2 == "socket":
        return 'with fd2 = "socket" standard error is the client\'s connection'
    return None


# --- writing --------------------------------------------------------------------------------------


def write_transcript(transcript: Transcript) -> str:
    """The text of *transcript*; reading it again gives an equal one."""
    body = "".join(f"{line}\n" for line in _node_lines(transcript.steps))
    return f"{FENCE}\n{write_header(transcript.header)}{FENCE}\n{body}"


def _node_lines(nodes: tuple[Node, ...]) -> list[str]:
    lines: list[str] = []
    for node in nodes:
        match node:
            case Note(text):
                lines.append(text)
            case Include(name):
                lines.append(f"@include {name}")
            case Step():
                lines.append(write_step(node))
            case Either(branches):
                for position, branch in enumerate(branches):
                    lines += ["or" if position else "either", *_node_lines(branch)]
                lines.append("end")
    return lines


def write_step(step: Step) -> str:
    """The line of one step."""
    kind = GRAMMAR[step.kind + step.mark][step.verb]
    words = (step.actor + step.mark, step.verb, kind.write(step.argument))
    return " ".join(word for word in words if word)
