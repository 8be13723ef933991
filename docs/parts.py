"""Updates the table of parts in transcripts/README.md: `python3 -m docs.parts`.

Rule: the first comment of a part describes it. The table is generated from these comments.
``tests/suite/test_docs.py`` checks that it is current.
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.conformance.paths import PART_SUFFIX, TRANSCRIPTS

README = TRANSCRIPTS / "README.md"
_BEGIN = "<!-- made by python3 -m docs.parts -->\n"
_END = "<!-- end -->\n"


def first_comment(path: Path) -> str:
    """Return the comment at the beginning of *path* as one line."""
    lines = []
    for line in path.read_text("ascii").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return " ".join(lines)


def table() -> str:
    """Return a table of all parts with their first comments."""
    rows = [
        f"| `{path.relative_to(TRANSCRIPTS).as_posix()}` | {first_comment(path)} |\n"
        for path in sorted(TRANSCRIPTS.rglob(f"*{PART_SUFFIX}"))
    ]
    return "".join(["| part | what it says |\n", "|---|---|\n", *rows])


def with_table(text: str) -> str:
    """Return *text* with the current table between its markers."""
    between = re.compile(rf"(?<={re.escape(_BEGIN)}).*?(?={re.escape(_END)})", re.DOTALL)
    return between.sub(lambda _: table(), text)


if __name__ == "__main__":
    README.write_text(with_table(README.read_text("utf-8")), "utf-8")
