"""Reads the requirements from the tables of docs/specification.md.

Rule: only tables whose first heading is `id` define requirements. The level of a requirement
follows from its harm and its source.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from ..paths import SPECIFICATION
from .vocabulary import BINDS, HARMS, LEVELS, MAIL_HARMS, SOURCES

_CELL_BORDER = re.compile(r"(?<!\\)\|")
_COLUMNS = ("id", "level", "harm", "binds", "source", "requirement")
_FAMILY = re.compile(r"[a-z]+\.[a-z0-9]+(?:-[a-z0-9]+)*")
_ID = re.compile(rf"({_FAMILY.pattern})-([1-9][0-9]*)")
_SOURCE = re.compile(r"manual|Postfix|safety|RFC [0-9]+(?: [0-9]+(?:\.[0-9]+)*)?|CVE-[0-9]+-[0-9]+")
_NOTE = re.compile(r"\*(Rationale|Source|Reference)\.\*\s*")
_VERSION = re.compile(r"^Version ([0-9.]*[0-9])\b", re.MULTILINE)


@dataclass(frozen=True)
class Requirement:
    """One sentence of the specification that an implementation can violate on its own."""

    id: str
    level: str
    #: The harm, or "" if the level is may.
    harm: str
    #: The class of programs to which the requirement applies.
    binds: str
    sources: tuple[str, ...]
    sentence: str

    @property
    def family(self) -> str:
        """The identifier without its number."""
        return self.id.rpartition("-")[0]

    def is_from(self, source: str) -> bool:
        """Whether *source*, one of SOURCES, is a source of the requirement."""
        return any(re.split("[ -]", one)[0] == source for one in self.sources)


@dataclass(frozen=True)
class Family:
    """The requirements of one heading, with the notes below their table."""

    name: str
    requirements: tuple[Requirement, ...]
    rationale: str = ""
    source: str = ""
    reference: str = ""

    @property
    def group(self) -> str:
        """The first word of the name, such as cli, relay or data."""
        return self.name.partition(".")[0]

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels of the requirements, strictest first."""
        there = {one.level for one in self.requirements}
        return tuple(level for level in LEVELS if level in there)


@dataclass(frozen=True)
class Specification:
    """All families, in the order of the document."""

    version: str
    families: tuple[Family, ...]

    @functools.cached_property
    def requirements(self) -> dict[str, Requirement]:
        """Each requirement by its identifier."""
        return {one.id: one for family in self.families for one in family.requirements}

    def has(self, name: str) -> bool:
        """Whether *name* is a family or a requirement."""
        return name in self.requirements or any(name == one.name for one in self.families)


def families_of(requirements: Iterable[Requirement]) -> tuple[str, ...]:
    """Return the families of *requirements*, in order and without duplicates."""
    return tuple(dict.fromkeys(one.family for one in requirements))


@functools.cache
def specification() -> Specification:
    """Return the suite's own specification."""
    return parse_specification(SPECIFICATION.read_text(encoding="utf-8"))


def as_json(read: Specification) -> str:
    """Return the specification as JSON."""
    table = {"version": read.version, "families": [asdict(one) for one in read.families]}
    return json.dumps(table, indent=1) + "\n"


def parse_specification(text: str) -> Specification:
    """Parse the specification in *text*. ValueError names an invalid line."""
    version = _VERSION.search(text)
    if version is None:
        raise ValueError("missing line 'Version N' in the specification")
    families = tuple(_family(*section) for section in _sections(text))
    with_requirements = tuple(family for family in families if family.requirements)
    if not with_requirements:
        raise ValueError(f"missing table of requirements (headings: {', '.join(_COLUMNS)})")
    return Specification(version[1], with_requirements)


#: A line and its number.
_Line = tuple[int, str]


def _sections(text: str) -> Iterator[tuple[str, list[_Line]]]:
    """Yield each heading with the lines that follow it."""
    name, lines = "", list[_Line]()
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("#"):
            yield name, lines
            name, lines = line.lstrip("#").strip(), []
        else:
            lines.append((number, line.strip()))
    yield name, lines


def _family(name: str, lines: list[_Line]) -> Family:
    requirements: list[Requirement] = []
    for number, cells in _rows(lines):
        try:
            requirements.append(_requirement(cells, name, requirements))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
    text = "\n".join(line for _, line in lines if not line.startswith("|"))
    _, *notes = _NOTE.split(text)
    found = {
        label.lower(): note.strip() for label, note in zip(notes[::2], notes[1::2], strict=True)
    }
    return Family(name, tuple(requirements), **found)


def _rows(lines: list[_Line]) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the cells of each row of a table of requirements."""
    inside = False
    for number, line in lines:
        cells = [cell.strip().replace("\\|", "|") for cell in _CELL_BORDER.split(line)[1:-1]]
        if cells[:1] == ["id"]:
            inside = True
            if tuple(cells) != _COLUMNS:
                raise ValueError(f"line {number}: the headings must be {', '.join(_COLUMNS)}")
        elif not line.startswith("|"):
            inside = False
        elif inside and not set(line) <= set("|:- "):
            yield number, cells


def _requirement(cells: list[str], family: str, earlier: list[Requirement]) -> Requirement:
    if len(cells) != len(_COLUMNS):
        raise ValueError(f"a row must have {len(_COLUMNS)} cells, not {len(cells)}")
    name, level, harm, binds, source, sentence = cells
    _check_id(name, family, earlier)
    sources = tuple(one.strip() for one in source.split(","))
    for one in sources:
        if not _SOURCE.fullmatch(one):
            raise ValueError(f"source '{one}' must begin with one of {', '.join(SOURCES)}")
    _one_of("level", level, tuple(map(str.upper, LEVELS)))
    _one_of("binds", binds, BINDS)
    _one_of("harm", harm, ("", *HARMS))
    required = level_of(harm, sources)
    if level.lower() != required:
        raise ValueError(
            f"the level of {name} must be {required.upper()}, not {level} "
            f"(harm '{harm}', source '{source}')"
        )
    if not sentence:
        raise ValueError(f"{name}: the requirement is empty")
    return Requirement(name, required, harm, binds, sources, sentence)


def _check_id(name: str, family: str, earlier: list[Requirement]) -> None:
    found = _ID.fullmatch(name)
    if not found or found[1] != family:
        raise ValueError(f"'{name}' must be '{family}-N' to match the heading above it")
    if earlier and int(found[2]) <= int(earlier[-1].id.rpartition("-")[2]):
        raise ValueError(f"{name} must have a higher number than {earlier[-1].id}")


def level_of(harm: str, sources: tuple[str, ...]) -> str:
    """Return the level for a *harm* and its *sources*."""
    if not harm:
        return "may"
    return "must" if harm in MAIL_HARMS or "manual" in sources else "should"


def _one_of(column: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{column} '{value}' must be one of {', '.join(filter(None, choices))}")
