"""A unit of systemd that runs the proxy, from its text.

Rule: text in, one command out; the units of systemd.unit(5) and systemd.exec(5), as far as they
decide how the proxy is run.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass
class Unit:
    """What a unit and its drop-ins say of the proxy."""

    name: str
    words: tuple[str, ...] = ()
    #: Who runs it; "" if not to be told.
    user: str = "root"
    #: The user exists only while the service runs.
    dynamic_user: bool = False
    private_tmp: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    environment_files: list[str] = field(default_factory=list)
    #: Why the command line is not all that systemd makes of it; or "".
    unclear: str = ""


_TRUE = ("1", "yes", "true", "on")


def parse(name: str, texts: Sequence[str], files: Mapping[str, str]) -> Unit:
    """Read a unit and its drop-ins, in this order; `files` are its environment files by path."""
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
            unit.environment.update(_variables(shlex.split(value)))
        elif key == "EnvironmentFile" and value:
            unit.environment_files.append(value.removeprefix("-"))
    if unit.dynamic_user:
        unit.private_tmp = True
    for path in unit.environment_files:
        unit.environment.update(_variables(shlex.split(files.get(path, ""), comments=True)))
    _expand(unit, command)
    return unit


def _settings(texts: Sequence[str]) -> list[tuple[str, str]]:
    found = []
    for text in texts:
        section = ""
        for line in re.sub(r"\\\n", " ", text).split("\n"):
            if header := re.fullmatch(r"\[(\w+)\]", line.strip()):
                section = header[1]
            elif section == "Service" and (setting := re.match(r"\s*(\w+)\s*=\s*(.*?)\s*$", line)):
                found.append((setting[1], setting[2]))
    return found


def _variables(words: Sequence[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words if "=" in word)


def _expand(unit: Unit, command: str) -> None:
    """`$NAME` as a word of its own becomes words, `${NAME}` stays one (systemd.service(5))."""
    words: list[str] = []
    for word in shlex.split(command.lstrip("-@:+!")):
        if alone := re.fullmatch(r"\$(\w+)", word):
            words += shlex.split(unit.environment.get(alone[1], ""))
        else:
            words.append(
                re.sub(r"\$\{(\w+)\}", lambda name: unit.environment.get(name[1], ""), word)
            )
    unit.words = tuple(words)
    if specifier := re.search(r"%[a-zA-Z]", command):
        unit.unclear = f"{specifier[0]} in its ExecStart is not expanded here"
