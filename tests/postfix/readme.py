"""The text of the README and the files of the recipe, exactly as an administrator uses them.

Only names are put in other names' place (`own_names` and `own_places` of recipe.py); everything
else that the tests run is what is printed.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
#: The files appended to Postfix's main.cf and master.cf.
RECIPE = README.parent / "examples/postfix"

BEFORE, AFTER = "Before the queue", "After the queue"
#: How the names of a way's files begin.
_FILES = {BEFORE: "before-queue", AFTER: "after-queue"}


def section(heading: str, page: Path = README) -> str:
    """The text under a heading, up to the next one of any level."""
    pattern = rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)"
    found = re.search(pattern, page.read_text(), re.M | re.S)
    assert found, f"{page.name} has no section {heading!r}"
    return found[1]


def indented(text: str) -> list[str]:
    """The indented blocks of a text, each without its indent."""
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.M)
    return [textwrap.dedent(block).strip("\n") + "\n" for block in blocks]


def commands(heading: str) -> str:
    """The commands of a section."""
    return "".join(indented(section(heading)))


def main_cf(mode: str) -> str:
    """Return the text appended to main.cf."""
    return (RECIPE / f"{_FILES[mode]}.main.cf").read_text()


def spawned() -> str:
    """The service that starts the proxy, for master.cf."""
    return (RECIPE / "spawned.master.cf").read_text()


def master_cf(mode: str, part: str = "") -> str:
    """Return the text appended to master.cf. `part` is "users" or "submission" for local users."""
    name = "-".join(filter(None, (_FILES[mode], part)))
    return (RECIPE / f"{name}.master.cf").read_text()


def installation() -> str:
    """The command that installs the proxy."""
    (command,) = re.findall(r"```sh\n(.*?)```", section("Install"), re.S)
    return str(command)


def filter_script() -> str:
    """The filter that the README begins with."""
    (script,) = re.findall(r"```sh\n(#!/bin/sh\n.*?)```", README.read_text(), re.S)
    return str(script)
