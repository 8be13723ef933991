"""A parsed transcript: a header and one ordered list of nodes.

Rule: nodes are plain values. Only the reader and the writer know their textual form.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from .header import Header
from .payload import Payload
from .requirements import Requirement, families_of, specification


class FormatError(Exception):
    """A transcript cannot be read. The error message has the file, the line and a suggestion."""

    def __init__(self, name: str, line: int, message: str) -> None:
        super().__init__(f"{name}:{line}: {message}")
        self.name = name
        self.line = line
        self.message = message


@dataclass(frozen=True)
class ReplyPattern:
    """The argument of `C?`: reply codes (`x` is any digit), and a prefix of the enhanced code."""

    codes: tuple[str, ...]
    enhanced: str | None = None


@dataclass(frozen=True)
class Named:
    """A pair `NAME=value`, as in `F< env SENDER=a@example`."""

    name: str
    value: Payload


@dataclass(frozen=True)
class TextTest:
    """A test of a text: one of TEXT_OPERATORS and its operand."""

    operator: str
    text: Payload | str


Argument = None | float | int | str | Payload | ReplyPattern | Named | TextTest


@dataclass(frozen=True)
class Step:
    """One line of the script, with its actor, mark, verb and argument."""

    actor: str  # C, U, F or P; more connections are C2, U2 and so on
    mark: str  # one of > + < ?
    verb: str  # "" for a line of plain octets
    argument: Argument
    line: int = field(default=0, compare=False)
    source: str = field(default="", compare=False)

    @property
    def kind(self) -> str:
        """The actor without the connection's number."""
        return self.actor[0]

    @property
    def observes(self) -> bool:
        """Whether the step waits for an event."""
        return self.mark in "<?"


@dataclass(frozen=True)
class Either:
    """Alternatives. The suite continues with the alternative whose first step is observed first."""

    branches: tuple[tuple[Node, ...], ...]
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Include:
    """A line `@include NAME`, which inserts the steps of another file."""

    name: str
    line: int = field(default=0, compare=False)
    source: str = field(default="", compare=False)
    steps: tuple[Node, ...] = ()


@dataclass(frozen=True)
class Note:
    """A comment or an empty line."""

    text: str
    line: int = field(default=0, compare=False)


Node = Step | Either | Include | Note
#: A step and the `+` lines that continue it.
Group = tuple[Step, ...]


@dataclass(frozen=True)
class Transcript:
    """A complete transcript. `name` is its path relative to transcripts/ and never changes."""

    name: str
    header: Header
    steps: tuple[Node, ...]

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        """The cited requirements, which the loader looks up in the specification."""
        known = specification().requirements
        return tuple(known[one] for one in self.header.requires)

    @property
    def subject(self) -> Requirement:
        """The first cited requirement, which determines the level and the harm."""
        return self.requirements[0]

    @property
    def families(self) -> tuple[str, ...]:
        """The families of the cited requirements, in order."""
        return families_of(self.requirements)


def walk(nodes: tuple[Node, ...]) -> list[Step]:
    """Yield every step in *nodes*, including steps of alternatives and included files."""
    steps: list[Step] = []
    for node in nodes:
        match node:
            case Step():
                steps.append(node)
            case Either(branches):
                for branch in branches:
                    steps.extend(walk(branch))
            case Include():
                steps.extend(walk(node.steps))
            case Note():
                pass
    return steps


def separated(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """Return a copy of *nodes* in which no two steps are the same object.

    A file that is included twice then has two copies of its steps, so that a failure marks only
    one.
    """
    return tuple(_separated(node) for node in nodes)


def _separated(node: Node) -> Node:
    match node:
        case Either(branches):
            return replace(node, branches=tuple(map(separated, branches)))
        case Include():
            return replace(node, steps=separated(node.steps))
        case _:
            return replace(node)


def grouped(nodes: tuple[Node, ...]) -> Iterator[Include | Either | Group]:
    """Group each step of *nodes* with the `+` lines that continue it, and omit notes."""
    group: list[Step] = []
    for node in nodes:
        if isinstance(node, Step) and node.mark == "+":
            group.append(node)
            continue
        if group:
            yield tuple(group)
            group = []
        if isinstance(node, Step):
            group = [node]
        elif not isinstance(node, Note):
            yield node
    if group:
        yield tuple(group)
