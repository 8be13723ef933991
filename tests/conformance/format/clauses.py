"""The clauses, read from the tables of docs/specification.md.

Rule: only the tables define clauses. No other text does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .vocabulary import LEVELS

_CELL_BORDER = re.compile(r"(?<!\\)\|")
_NAME = re.compile(r"[a-z]+\.[a-z0-9]+(?:-[a-z0-9]+)*")
# A statement starts at the level of its row. A part at another level follows after "should:".
_FURTHER_PART = re.compile(rf"\b({'|'.join(LEVELS)}):\s")


@dataclass(frozen=True)
class Clause:
    """One rule of the specification."""

    name: str
    level: str
    statement: str

    @property
    def group(self) -> str:
        """The first word of the name: cli, relay, data and so on."""
        return self.name.partition(".")[0]

    @property
    def parts(self) -> tuple[str, ...]:
        """All levels of this clause. The level of its row comes first."""
        further = _FURTHER_PART.findall(self.statement)
        return tuple(dict.fromkeys((self.level, *further)))


def load_clauses(text: str) -> list[Clause]:
    """Return every clause in the tables of *text*, in order; ValueError names a wrong line."""
    clauses: dict[str, Clause] = {}
    for number, (names, level, statement) in _rows(text):
        if level not in LEVELS:
            raise ValueError(f"line {number}: level {level!r} must be one of {', '.join(LEVELS)}")
        for name in re.split(r"\s*/\s*", names):
            if not _NAME.fullmatch(name):
                raise ValueError(f"line {number}: {name!r} must be a clause name (group.rule)")
            if name in clauses:
                raise ValueError(f"line {number}: duplicate clause {name}")
            clauses[name] = Clause(name, level, statement)
    if not clauses:
        raise ValueError("missing table of clauses (a row: | group.rule | must | statement |)")
    return list(clauses.values())


def _rows(text: str) -> Iterator[tuple[int, tuple[str, str, str]]]:
    """Yield the number and the cells of every table row except headings and rulers."""
    for number, line in enumerate(text.splitlines(), 1):
        row = line.strip()
        if not row.startswith("|"):
            continue
        cells = [cell.strip().replace("\\|", "|") for cell in _CELL_BORDER.split(row)[1:-1]]
        if len(cells) != 3:
            raise ValueError(f"line {number}: a row must have three cells, not {len(cells)}")
        if cells[0] == "clause" or set(cells[0]) <= set(":-"):
            continue
        yield number, (cells[0], cells[1], cells[2])
