"""The step words of each actor, with the readers and writers of their arguments.

Rule: `GRAMMAR` is the complete grammar. Each kind of argument has one reader and one writer. To add
a step word, add it to `GRAMMAR` and describe it in docs/transcripts.md. Add its observation to
`play/observers.py` or its action to `play/engine.py`.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from dataclasses import dataclass

from .nodes import Argument, Named, ReplyPattern, TextTest
from .payload import Payload, PayloadError, did_you_mean, parse_payload

CRLF = b"\r\n"
FENCE = "+++"
DEFAULT_QUIET = 0.1


def _read_nothing(text: str) -> None:
    if text:
        raise PayloadError(f"unexpected text '{text}'")


def _read_lines(text: str) -> Payload:
    return parse_payload(text, CRLF)


def _read_plain(text: str) -> Payload:
    return parse_payload(text, b"")


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}


def _read_duration(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m)", text)
    if not found:
        raise PayloadError(f"a time must look like 200ms, 1.5s or 5m, not '{text}'")
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
            f"a reply code must look like 250, 45x, 5xx or 503|554, not '{wrong[0]}'; "
            "use C< for exact octets"
        )
    if enhanced and not _ENHANCED.fullmatch(enhanced):
        raise PayloadError(
            f"an enhanced code must look like 4.3.0, not '{enhanced}'; use C< for exact octets"
        )
    return ReplyPattern(tuple(codes.split("|")), enhanced or None)


def _write_reply(pattern: object) -> str:
    assert isinstance(pattern, ReplyPattern)
    return " ".join(["|".join(pattern.codes), *([pattern.enhanced] if pattern.enhanced else [])])


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _read_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise PayloadError(f"must be a name that consists of letters, digits and _, not '{text}'")
    return text


def _read_gate(text: str) -> str:
    return _read_name(text) if text else ""


def _read_named(text: str) -> Named:
    name, equals, value = text.partition("=")
    if not equals:
        raise PayloadError(f"must be NAME=value, not '{text}'")
    return Named(_read_name(name), parse_payload(value, b""))


def _write_named(named: object) -> str:
    assert isinstance(named, Named)
    return f"{named.name}={named.value.text(b'')}"


def _word(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise PayloadError(
                f"must be one of {', '.join(choices)}, not '{text}'{did_you_mean(text, choices)}"
            )
        return text

    return read


def _read_exit(text: str) -> str:
    if text not in ("nonzero", "any") and not (text.isdigit() and int(text) < 256):
        raise PayloadError(
            f"exit requires a status from 0 to 255, 'nonzero' or 'any', not '{text}'"
        )
    return text


def _read_size(text: str) -> int:
    found = re.fullmatch(r"below (\d+)M", text)
    if not found:
        raise PayloadError(f"memory and growth require a limit such as 'below 32M', not '{text}'")
    return int(found[1]) << 20


def _write_size(size: object) -> str:
    assert isinstance(size, int)
    return f"below {size >> 20}M"


TEXT_OPERATORS = ("contains", "lacks", "is", "matches", "empty")


def _read_text_test(text: str) -> TextTest:
    operator, _, rest = text.partition(" ")
    if operator not in TEXT_OPERATORS:
        raise PayloadError(
            f"must be one of {', '.join(TEXT_OPERATORS)}, not "
            f"'{operator}'{did_you_mean(operator, TEXT_OPERATORS)}"
        )
    if operator == "empty":
        _read_nothing(rest)
    elif not rest:
        raise PayloadError(f"'{operator}' must be followed by text")
    if operator != "matches":
        return TextTest(operator, parse_payload(rest, b""))
    try:
        re.compile(rest.encode())
    except re.error as error:
        raise PayloadError(f"invalid regular expression: {error}") from error
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
    """The reader and writer of one kind of argument."""

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

#: Every step, by actor and mark and then by verb. The verb "" is a line of plain octets.
GRAMMAR: dict[str, dict[str, ArgumentKind]] = {
    "C>": {
        "": LINE,
        "@connect": NOTHING,
        "@eof": NOTHING,
        "@close": NOTHING,
        "@reset": NOTHING,
        "@wait": DURATION,
        "@pause": NOTHING,
        "@resume": NOTHING,
    },
    "C+": {"": LINE},
    "C<": {"": LINE, "@eof": NOTHING, "@quiet": QUIET, "@no-2yz": QUIET},
    "C?": {"": REPLY},
    "U>": {
        "": LINE,
        "@eof": NOTHING,
        "@close": NOTHING,
        "@reset": NOTHING,
        "@wait": DURATION,
        "@pause": NOTHING,
        "@resume": NOTHING,
        "@refuse": NOTHING,
        "@listen": NOTHING,
    },
    "U+": {"": LINE},
    "U<": {
        "": LINE,
        "@connect": NOTHING,
        "@message": NOTHING,
        "@unfinished": QUIET,
        "@eof": NOTHING,
        "@quiet": QUIET,
    },
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
        "growth": SIZE,
        "idle": NOTHING,
        "listens": PLAIN,
        "tmp": ArgumentKind(_word("empty", "filled", "private")),
    },
}
