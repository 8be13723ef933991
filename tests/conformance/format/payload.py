"""The parser and writer of octets in the notation of transcripts (ASCII, escapes, repeats).

Rule: `parse_payload` reads the text, `Payload.text` writes it, `Payload.octets` evaluates it.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

#: The names allowed in `\{name}`. The engine supplies their values when it runs a transcript.
VARIABLES = ("tmp", "upstream", "host", "port", "listen", "listen-port", "files")

_ESCAPES = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\", "@": b"@", "}": b"}"}
_VISIBLE = {13: "\\r", 10: "\\n", 9: "\\t", 0: "\\0", 92: "\\\\"}
_MAXIMUM_REPEAT = 1 << 30
#: The number of octets of a repeat that are kept for analysis, more than any significant line.
_ABRIDGED = 1 << 18
#: The characters that end plain text, outside and inside a repeat.
_SPECIAL = {False: re.compile(r"\\"), True: re.compile(r"[\\}]")}


class PayloadError(ValueError):
    """The notation is invalid. The error message may suggest a correction."""


@dataclass(frozen=True)
class Repeat:
    """`\\{N*text}`: N copies of a text."""

    count: int
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Variable:
    """`\\{name}`: a value that exists only during a run."""

    name: str


Part = bytes | Repeat | Variable


@dataclass(frozen=True)
class Payload:
    """Octets to send or to await. `end` is the implied line end, empty after a final `\\`."""

    parts: tuple[Part, ...]
    end: bytes = b""

    def octets(self, variables: Mapping[str, bytes]) -> bytes:
        """Return the octets, with the variables' values in this run."""
        return b"".join(_octets(part, variables) for part in self.parts) + self.end

    def abridged(self) -> bytes:
        """Return the octets for analysis, with shortened repeats and the names of variables."""
        return b"".join(map(_abridged, self.parts)) + self.end

    def text(self, implied: bytes) -> str:
        """Return the text in a transcript, without *implied*, which is the implied line end."""
        text = "".join(_text(part) for part in self.parts)
        if text.startswith("@"):
            text = "\\" + text
        if text.endswith(" "):
            text = text[:-1] + "\\x20"
        return text if self.end == implied else text + "\\"


def _octets(part: Part, variables: Mapping[str, bytes]) -> bytes:
    match part:
        case bytes():
            return part
        case Repeat(count, parts):
            return b"".join(_octets(one, variables) for one in parts) * count
        case Variable(name):
            return variables[name]


def _abridged(part: Part) -> bytes:
    match part:
        case bytes():
            return part
        case Repeat(count, parts):
            once = b"".join(map(_abridged, parts))
            return once * min(count, _ABRIDGED // max(1, len(once)) + 1)
        case Variable(name):
            return name.encode()


def _text(part: Part) -> str:
    match part:
        case bytes():
            return visible(part)
        case Repeat(count, parts):
            inner = "".join(
                _text(one).replace("}", "\\}") if isinstance(one, bytes) else _text(one)
                for one in parts
            )
            return f"\\{{{count}*{inner}}}"
        case Variable(name):
            return f"\\{{{name}}}"


def visible(octets: bytes) -> str:
    """Return octets as printable ASCII, with the escapes of the format."""
    return "".join(
        _VISIBLE.get(octet) or (chr(octet) if 32 <= octet < 127 else f"\\x{octet:02x}")
        for octet in octets
    )


def parse_payload(text: str, implied: bytes) -> Payload:
    """Parse *text*. *implied* is the line end of a line without a final `\\`."""
    if text.startswith("@"):
        word = text.partition(" ")[0]
        raise PayloadError(f"unknown step {word}; text that begins with @ must be written as \\@")
    if text.endswith(" "):
        raise PayloadError("a space at the end of a line must be written as \\x20")
    reader = _Reader(text)
    parts = reader.parts(inside=False)
    return Payload(parts, b"" if reader.ends_open else implied)


class _Reader:
    """A parser for one line. `ends_open` is true after a single final `\\`."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self.ends_open = False

    def parts(self, *, inside: bool) -> tuple[Part, ...]:
        parts: list[Part] = []
        plain = bytearray()
        while self._at < len(self._text):
            end = _SPECIAL[inside].search(self._text, self._at)
            stop = end.start() if end else len(self._text)
            plain += self._text[self._at : stop].encode("ascii")
            self._at = stop + 1
            if end is None:
                break
            if end[0] == "}":
                return _joined(parts, plain)
            part = self._escape(inside=inside)
            if isinstance(part, bytes):
                plain += part
            else:
                parts = list(_joined(parts, plain))
                plain = bytearray()
                parts.append(part)
        if inside:
            raise PayloadError("\\{N*text without a closing }")
        return _joined(parts, plain)

    def _escape(self, *, inside: bool) -> Part:
        if self._at == len(self._text):
            if inside:
                raise PayloadError("\\{N*text without a closing }")
            self.ends_open = True
            return b""
        letter = self._text[self._at]
        self._at += 1
        if letter == "x":
            return self._hexadecimal()
        if letter == "{":
            return self._braces()
        if letter not in _ESCAPES:
            raise PayloadError(
                f"unknown escape \\{letter}; valid escapes: \\r \\n \\t \\0 \\\\ \\@ \\}} \\xHH "
                "\\{N*text} \\{name}, and \\ at the end of a line (no CRLF)"
            )
        return _ESCAPES[letter]

    def _hexadecimal(self) -> bytes:
        digits = self._text[self._at : self._at + 2]
        if len(digits) != 2 or not all(digit in string.hexdigits for digit in digits):
            raise PayloadError(f"\\x{digits} requires two hexadecimal digits, such as \\x0d")
        self._at += 2
        return bytes([int(digits, 16)])

    def _braces(self) -> Part:
        end = self._at
        while end < len(self._text) and self._text[end] not in "*}":
            end += 1
        word, mark = self._text[self._at : end], self._text[end : end + 1]
        self._at = end + 1
        if mark == "}":
            return _variable(word)
        if mark != "*" or not word.isdigit():
            raise PayloadError(
                f"\\{{{word}: write a repetition as \\{{N*text}} and a variable as \\{{name}}"
            )
        if int(word) > _MAXIMUM_REPEAT:
            raise PayloadError(
                f"\\{{{word}*...}}: the number of repetitions must not exceed {_MAXIMUM_REPEAT}"
            )
        return Repeat(int(word), self.parts(inside=True))


def _joined(parts: list[Part], plain: bytearray) -> tuple[Part, ...]:
    return (*parts, bytes(plain)) if plain else tuple(parts)


def _variable(name: str) -> Variable:
    if name not in VARIABLES:
        raise PayloadError(
            f"unknown variable \\{{{name}}}{did_you_mean(name, VARIABLES)}; "
            "to repeat text, write \\{N*text}"
        )
    return Variable(name)


def did_you_mean(word: str, choices: tuple[str, ...] | list[str]) -> str:
    """Return ` (did you mean 'x'?)` if a choice resembles *word*, else ""."""
    close = get_close_matches(word, choices, n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""
