"""The files and commands in docs/containers.md."""

from __future__ import annotations

import re
import textwrap

from .containerfile import ROOT

PAGE = (ROOT / "docs/containers.md").read_text()


def section(heading: str) -> str:
    """Return the text under a heading."""
    found = re.search(rf"(?ms)^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE)
    assert found, f"no section {heading!r}"
    return found[1]


def block(language: str, after: str = "") -> str:
    """Return the only code block in a language. `after` ends the text before the block."""
    blocks = re.findall(rf"(?ms){re.escape(after)}\n\n?```{language}\n(.*?)^```$", PAGE)
    (text,) = blocks
    return str(text)


def commands(heading: str) -> list[str]:
    """Return a section's indented lines outside of fenced blocks."""
    text = re.sub(r"(?ms)^```.*?^```$", "", section(heading))
    return [textwrap.dedent(line) for line in re.findall(r"(?m)^    \S.*$", text)]


#: The Containerfile that adds a filter to the image.
DERIVED = block("dockerfile")
