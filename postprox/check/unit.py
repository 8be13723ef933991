"""The parser of a systemd unit that runs the proxy.

Rule: text in, one command out. It reads only the settings of systemd.unit(5) and systemd.exec(5)
that decide how the proxy runs. It takes linear time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass
class Unit:
    """The settings of a unit and its drop-ins that matter for the proxy."""

    name: str
    words: tuple[str, ...] = ()
    #: The user that runs the proxy; "" if unknown.
    user: str = "root"
    #: Whether the user exists only while the service runs.
    dynamic_user: bool = False
    private_tmp: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    environment_files: list[str] = field(default_factory=list)
    #: The reason why the command line is incomplete; or "".
    unclear: str = ""


_TRUE = ("1", "yes", "true", "on")

#: The maximum length of a command line, in characters. Without a limit the variables of a small
#: file can expand to gigabytes.
LARGEST_COMMAND = 1 << 15
_TOO_LONG = f"the command line is longer than {LARGEST_COMMAND} characters"

_BLANKS = " \t\r\n"
_PART = re.compile(
    r"""(?P<blanks>[ \t\r\n]+)
    | (?P<comment>\#)
    | '(?P<single>[^']*)'
    | "(?P<double>[^"\\]*(?:\\.[^"\\]*)*)"
    | \\(?P<escaped>.)
    | (?P<bare>[^ \t\r\n'"\\#]+)""",
    re.DOTALL | re.VERBOSE,
)


def parse(name: str, texts: Sequence[str], files: Mapping[str, str]) -> Unit:
    """Parse a unit and its drop-ins, in this order. `files` has its environment files by path.

    Raises:
        ValueError: a quotation is not closed, or the command line is too long.
    """
    unit = Unit(name)
    command = ""
    for key, value in _settings(texts):
        if key == "ExecStart":
            command = value
        elif key == "User":
            unit.user = value or "root"
        elif key == "DynamicUser":
            unit.dynamic_user = value in _TRUE
        elif key == "PrivateTmp":
            unit.private_tmp = value in _TRUE
        elif key == "Environment":
            unit.environment.update(_variables(split_words(value)))
        elif key == "EnvironmentFile" and value:
            unit.environment_files.append(value.removeprefix("-"))
    if unit.dynamic_user:
        unit.private_tmp = True
    for path in _last_of_each(unit.environment_files):
        unit.environment.update(_variables(split_words(files.get(path, ""), comments=True)))
    _expand(unit, command)
    return unit


def _settings(texts: Sequence[str]) -> list[tuple[str, str]]:
    found = []
    for text in texts:
        section = ""
        for line in text.replace("\\\n", " ").split("\n"):
            name, equals, value = line.partition("=")
            if header := re.fullmatch(r"\[(\w+)\]", line.strip(_BLANKS)):
                section = header[1]
            elif section == "Service" and equals:
                found.append((name.strip(_BLANKS), value.strip(_BLANKS)))
    return found


def _last_of_each(paths: Sequence[str]) -> list[str]:
    """Remove all but the last mention of each file. The result has the same variables."""
    return list(reversed(dict.fromkeys(reversed(paths))))


def _variables(words: Sequence[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words if "=" in word)


def split_words(text: str, *, comments: bool = False) -> list[str]:
    """Split a text like shlex.split, but in linear time.

    Raises:
        ValueError: a quotation is not closed, or a backslash is the last character.
    """
    words: list[list[str]] = []
    in_word = False
    position = 0
    while position < len(text):
        part = _PART.match(text, position)
        if part is None:
            raise ValueError("a quotation is not closed, or a backslash is the last character")
        position = part.end()
        kind = part.lastgroup or ""
        if kind == "comment" and comments:
            end = text.find("\n", position)
            position = len(text) if end < 0 else end
        if kind == "blanks" or (kind == "comment" and comments):
            in_word = False
            continue
        if not in_word:
            words.append([])
            in_word = True
        value = part[kind]
        words[-1].append(re.sub(r'\\(["\\])', r"\1", value) if kind == "double" else value)
    return ["".join(parts) for parts in words]


def _expand(unit: Unit, command: str) -> None:
    """Expand `$NAME` to words and `${NAME}` to a part of a word (systemd.service(5)).

    Raises:
        ValueError: the command line is longer than `LARGEST_COMMAND`.
    """
    words: list[str] = []
    room = LARGEST_COMMAND

    def value(name: str) -> str:
        nonlocal room
        text = unit.environment.get(name, "")
        room -= len(text)
        if room < 0:
            raise ValueError(_TOO_LONG)
        return text

    room -= len(command)
    if room < 0:
        raise ValueError(_TOO_LONG)
    for word in split_words(command.lstrip("-@:+!")):
        if alone := re.fullmatch(r"\$(\w+)", word):
            words += split_words(value(alone[1]))
        else:
            words.append(re.sub(r"\$\{(\w+)\}", lambda name: value(name[1]), word))
    unit.words = tuple(words)
    if specifier := re.search(r"%[a-zA-Z]", command):
        unit.unclear = f"the specifier {specifier[0]} in ExecStart, which is not expanded"
