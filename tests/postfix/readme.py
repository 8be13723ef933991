"""The text of the README and docs/setup.md, and the recipe's files, as an administrator uses them.

The tests replace only names and addresses (`own_names` and `own_places` in recipe.py).
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

README = Path(__file__).parents[2] / "README.md"
#: The page with every step of the set-up. The README contains the shortest way.
SETUP = README.parent / "docs/setup.md"
#: The files appended to Postfix's main.cf and master.cf.
RECIPE = README.parent / "examples/postfix"

BEFORE, AFTER = "Before the queue", "After the queue"
#: The prefixes of the file names for each mode.
_FILES = {BEFORE: "before-queue", AFTER: "after-queue"}


def section(heading: str, page: Path = README) -> str:
    """Return the text under a heading, up to the next heading of any level."""
    pattern = rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)"
    found = re.search(pattern, page.read_text(), re.M | re.S)
    assert found, f"{page.name} has no section {heading!r}"
    return found[1]


def indented(text: str) -> list[str]:
    """Return the indented blocks of a text without their indentation."""
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.M)
    return [textwrap.dedent(block).strip("\n") + "\n" for block in blocks]


def commands(heading: str, page: Path = SETUP) -> str:
    """Return the commands of a section."""
    return "".join(indented(section(heading, page)))


class Start(NamedTuple):
    """The command blocks under "Start the proxy"."""

    #: Create the user and the spool directory.
    user: str
    #: Start the listening proxy.
    service: str
    #: Let Postfix spawn the proxy.
    spawned: str
    #: Remove the files of killed proxies after a day.
    cleaning: str


def start() -> Start:
    """Return the commands that start the proxy."""
    return Start(*indented(section("Start the proxy", SETUP)))


class Trial(NamedTuple):
    """The command blocks under "See that it works"."""

    check: str
    message: str


def trial() -> Trial:
    """Return the commands that test the set-up."""
    return Trial(*indented(section("See that it works", SETUP)))


def shortest() -> str:
    """Return the README's commands."""
    return commands("Set up Postfix", README)


def main_cf(mode: str) -> str:
    """Return the text appended to main.cf."""
    return (RECIPE / f"{_FILES[mode]}.main.cf").read_text()


def spawned() -> str:
    """Return the master.cf service that starts the proxy."""
    return (RECIPE / "spawned.master.cf").read_text()


def master_cf(mode: str, part: str = "") -> str:
    """Return the text appended to master.cf. `part` is "users" or "submission" for local users."""
    name = "-".join(filter(None, (_FILES[mode], part)))
    return (RECIPE / f"{name}.master.cf").read_text()


def installation() -> str:
    """Return the command that installs the proxy."""
    (command,) = re.findall(r"```sh\n(.*?)```", section("Install"), re.S)
    return str(command)


def filter_script() -> str:
    """Return the README's first filter."""
    (script,) = re.findall(r"```sh\n(#!/bin/sh\n.*?)```", README.read_text(), re.S)
    return str(script)
