"""The configuration files that docs/filters.md contains for other programs."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "filters.md"
TEXT = PAGE.read_text()


def section(heading: str) -> str:
    """Return the text under a heading, up to the next heading."""
    found = re.search(rf"(?ms)^#+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", TEXT)
    assert found, f"no section {heading!r}"
    return found[1]


def files(heading: str, folder: str) -> list[tuple[str, str]]:
    """Return the name and content of each of the section's files that belong in a folder."""
    pattern = rf"(?ms)`{re.escape(folder)}/([\w.]+)`:\n\n```\w+\n(.*?)^```$"
    return re.findall(pattern, section(heading))


def file(heading: str, path: str) -> str:
    """Return the content of the section's file with this path."""
    folder, _, wanted = path.rpartition("/")
    (content,) = (content for name, content in files(heading, folder) if name == wanted)
    return content


def script(heading: str) -> str:
    """Return the section's commands."""
    (commands,) = re.findall(r"(?ms)^```sh\n(.*?)^```$", section(heading))
    return str(commands)
