"""The values of `-c` in the README and in the filters in examples/."""

from __future__ import annotations

import re
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
README = (EXAMPLES / "README.md").read_text()
NAMES = sorted(path.name for path in EXAMPLES.glob("filters/*") if path.suffix in (".py", ".sh"))


def head(name: str) -> str:
    """Return the comment or docstring at the top of a filter, without comment signs."""
    text = (EXAMPLES / "filters" / name).read_text()
    if name.endswith(".py"):
        return text.split('"""')[1]
    return "".join(
        line[1:].removeprefix(" ")
        for line in text.partition("\n\n")[0].splitlines(keepends=True)[1:]
    )


def uses(name: str) -> list[str]:
    """Return the commands in a filter's comment or docstring."""
    return [single_line(braced or word) for braced, word in _found(head(name))]


def as_written() -> list[str]:
    """Return every command in all texts unchanged, including braces."""
    texts = [README, *map(head, NAMES)]
    return [f"{{{braced}}}" if braced else word for text in texts for braced, word in _found(text)]


def single_line(text: str) -> str:
    """Return the text with each run of whitespace replaced by one space."""
    return re.sub(r"\s+", " ", text)


def _found(text: str) -> list[tuple[str, str]]:
    """Return the text in braces or the word after each `--strict -c`."""
    return re.findall(r"--strict -c (?:\{([^}]*)\}|(\S+))", text)
