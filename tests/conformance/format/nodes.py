"""What a transcript is once it has been read: a header, and one ordered list of nodes.

Rule: plain values; how they are written is the reader's and the writer's business.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .header import Header
from .payload import Payload


class FormatError(Exception):
    """A transcript that cannot be read: where, and what was meant."""

    def __init__(self, name: str, line: int, message: str) -> None:
        super().__init__(f"{name}:{line}: {message}")
        self.name = name
        self.line = line
        self.message = message


@dataclass(frozen=True)
class ReplyPattern:
    """What `C?` accepts: reply codes (`x` for any digit), perhaps an enhanced code's beginning."""

    codes: tuple[str, ...]
    enhanced: str | None = None


@dataclass(frozen=True)
class Named:
    """`NAME=value`, as in `F< env SENDER=a@example`."""

    name: str
    value: Payload


@dataclass(frozen=True)
class TextTest:
    """How a text is judged: one of TEXT_OPERATORS and what it compares with."""

    operator: str
    text: Payload | str


Argument = None | float | int | str | Payload | ReplyPattern | Named | TextTest


@dataclass(frozen=True)
class Step:
    """One line of the script: who, in which direction, what."""

    actor: str  # C U F P; C2 U2 ... for further connections
    mark: str  # > + < ?
    verb: str  # "" where the line is nothing but octets
    argument: Argument
    line: int = field(default=0, compare=False)
    source: str = field(default="", compare=False)

    @property
    def kind(self) -> str:
        """The actor without its number."""
        return self.actor[0]

    @property
    def observes(self) -> bool:
        """Whether the step waits for something."""
        return self.mark in "<?"


@dataclass(frozen=True)
class Either:
    """Alternatives; the first whose first step is observed is the one that goes on."""

    branches: tuple[tuple[Node, ...], ...]
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Include:
    """`@include NAME`: the steps of another file stand here."""

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


@dataclass(frozen=True)
class Transcript:
    """A whole file. `name` is its path under transcripts/, for good."""

    name: str
    header: Header
    steps: tuple[Node, ...]


def walk(nodes: tuple[Node, ...]) -> list[Step]:
    """Every step in *nodes*, those of alternatives and included files among them."""
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
