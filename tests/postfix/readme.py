"""The README's own text: what an administrator pastes, word for word.

Only names are put in other names' place (`own_names` and `own_places` of recipe.py); everything
else that the tests run is what is printed.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def section(heading: str) -> str:
    """The text under a heading, up to the next one of any level."""
    pattern = rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)"
    found = re.search(pattern, README.read_text(), re.M | re.S)
    assert found, f"README has no section {heading!r}"
    return found[1]


def indented(text: str) -> list[str]:
    """The indented blocks of a text, each without its indent."""
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.M)
    return [textwrap.dedent(block).strip("\n") + "\n" for block in blocks]


def configuration(heading: str, file: str) -> str:
    """What the section says to put into the file: the block after its name."""
    named = re.search(rf"`{re.escape(file)}`:\n\n((?:    .*\n|\n(?=    ))+)", section(heading))
    assert named, f"README's section {heading!r} has no text for {file}"
    return textwrap.dedent(named[1])


def installation() -> str:
    """The command that installs the proxy."""
    (command,) = re.findall(r"```sh\n(.*?)```", section("Install"), re.S)
    return str(command)


def filter_script() -> str:
    """The filter that the README begins with."""
    (script,) = re.findall(r"```sh\n(#!/bin/sh\n.*?)```", README.read_text(), re.S)
    return str(script)
