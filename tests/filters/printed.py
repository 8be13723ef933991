"""The configuration files that the pages contain for rspamd, postgrey, Postfix and OpenDKIM."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "filters.md").read_text()
#: The pages in which `section` looks for a heading.
PAGES = (TEXT, (DOCS / "rspamd.md").read_text(), (DOCS / "opendkim.md").read_text())


def section(heading: str) -> str:
    """Return the text under a heading, up to the next heading."""
    pattern = rf"(?ms)^#+ {re.escape(heading)}\n(.*?)(?=^##|\Z)"
    found = [text for page in PAGES for text in re.findall(pattern, page)]
    assert len(found) == 1, f"{len(found)} sections {heading!r}"
    return str(found[0])


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
