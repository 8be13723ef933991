"""The values of `-c` in the texts of examples/."""

from __future__ import annotations

import re
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
README = (EXAMPLES / "README.md").read_text()
NAMES = sorted(path.name for path in EXAMPLES.glob("filters/*") if path.suffix in (".py", ".sh"))


def head(name: str) -> str:
    """Return the lines at the top of a filter, before its code, without comment signs."""
    text = (EXAMPLES / "filters" / name).read_text()
    if name.endswith(".py"):
        return text.split('"""')[1]
    return "".join(
        line[1:].removeprefix(" ")
        for line in text.partition("\n\n")[0].splitlines(keepends=True)[1:]
    )


def uses(name: str) -> list[str]:
    """Return the commands at the top of a filter."""
    return [single_line(braced or word) for braced, word in _found(head(name))]


def as_written() -> list[str]:
    """Return each command in all texts unchanged, with its braces."""
    texts = [README, *map(head, NAMES)]
    return [f"{{{braced}}}" if braced else word for text in texts for braced, word in _found(text)]


def single_line(text: str) -> str:
    """Return a text with each of its blanks and line breaks as one blank."""
    return re.sub(r"\s+", " ", text)


def _found(text: str) -> list[tuple[str, str]]:
    """Return the text in braces or the word that follows each `--strict -c`."""
    return re.findall(r"--strict -c (?:\{([^}]*)\}|(\S+))", text)
