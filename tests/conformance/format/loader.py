"""Loads transcripts and the parts that they include.

Rule: this module only finds and reads files, whose names are paths under transcripts/. The reader
interprets their text.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ..paths import SUFFIX, TRANSCRIPTS
from .nodes import Either, FormatError, Include, Node, Transcript
from .payload import did_you_mean
from .reader import line_of_key, parse_part, parse_transcript
from .requirements import specification
from .vocabulary import GROUPS

_MAXIMUM_DEPTH = 8


class ChoiceError(Exception):
    """A transcript or mode does not exist. The error message suggests a similar name."""


def transcript_paths() -> list[Path]:
    """Return the paths of all transcripts of the suite, sorted."""
    return sorted(TRANSCRIPTS.rglob(f"*{SUFFIX}"))


def transcript_name(path: Path) -> str:
    """Return a transcript's path relative to transcripts/, or its file name if it is elsewhere."""
    resolved = path.resolve()
    if resolved.is_relative_to(TRANSCRIPTS):
        return resolved.relative_to(TRANSCRIPTS).as_posix()
    return resolved.name


def load_transcript(path: Path) -> Transcript:
    """Return the transcript in *path* with its included files."""
    name = transcript_name(path)
    text = _text(path, name)
    transcript = parse_transcript(text, name)
    known = specification().requirements
    for one in transcript.header.requires:
        if one not in known:
            line = line_of_key(text.split("\n")[1:], "requires")
            meant = did_you_mean(one, list(known))
            raise FormatError(name, line, f"unknown requirement '{one}'{meant}")
    return replace(transcript, steps=_with_includes(transcript.steps, name, 0))


def _text(path: Path, name: str) -> str:
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise FormatError(name, 0, f"cannot be read: {error.strerror}") from error


def _with_includes(nodes: tuple[Node, ...], name: str, depth: int) -> tuple[Node, ...]:
    return tuple(_with_include(node, name, depth) for node in nodes)


def _with_include(node: Node, name: str, depth: int) -> Node:
    match node:
        case Include(part):
            if depth == _MAXIMUM_DEPTH:
                raise FormatError(name, node.line, f"'{part}' includes itself")
            try:
                return replace(node, steps=_part(part, depth + 1))
            except FileNotFoundError as error:
                text = f"missing file transcripts/{part}"
                raise FormatError(name, node.line, text) from error
        case Either(branches):
            return replace(
                node, branches=tuple(_with_includes(branch, name, depth) for branch in branches)
            )
        case _:
            return node


@functools.cache
def _part(name: str, depth: int) -> tuple[Node, ...]:
    """Return the nodes of an included file from a cache, because transcripts share a few files."""
    path = TRANSCRIPTS / name
    if not path.is_file() or ".." in Path(name).parts:
        raise FileNotFoundError(name)
    return _with_includes(parse_part(_text(path, name), name), name, depth)


def included_names(nodes: tuple[Node, ...]) -> set[str]:
    """Return the names of all files that *nodes* include, directly or indirectly."""
    names: set[str] = set()
    for node in nodes:
        match node:
            case Include(name):
                names |= {name} | included_names(node.steps)
            case Either(branches):
                names |= set().union(*map(included_names, branches))
    return names


def check_choice(text: str, directory: Path) -> None:
    """Raise if *text*, a PATH or PATH::MODE relative to *directory*, cannot be run."""
    place, _, mode = text.partition("::")
    path = (directory / place).resolve()
    if path.suffix != SUFFIX:
        return
    if not path.is_file():
        known = [str(path.relative_to(TRANSCRIPTS)) for path in transcript_paths()]
        raise ChoiceError(f"unknown transcript {place}{did_you_mean(_end(path), known)}")
    modes = load_transcript(path).header.modes
    if mode and mode not in modes:
        raise ChoiceError(f"{place} has no mode {mode}; its modes are {', '.join(modes)}")


def _end(path: Path) -> str:
    """Return the group and file of a name, for comparison with other names."""
    return "/".join(path.parts[-2:])


def chosen(name: str) -> list[str]:
    """Return the paths selected by *name*, with ::MODE if given.

    A name is a group, a family, a requirement, a transcript or a directory of transcripts. The
    suite's own names take precedence, but a path that begins with a dot or a slash is never one of
    these.
    """
    place, colons, mode = name.partition("::")
    cited = citing(place) if specification().has(place) else None
    path = TRANSCRIPTS if cited is not None else _found(place)
    if path.is_dir() and colons:
        raise ChoiceError(
            f"{name}: a mode can be appended only to the name of a single transcript; "
            f"use --modes {mode}"
        )
    if cited == []:
        raise ChoiceError(f"no transcript cites {place}")
    if cited is not None:
        return [str(one) for one in cited]
    if path.is_dir():
        below = _transcripts_below(path, place)
        return [str(path)] if path.is_relative_to(TRANSCRIPTS) else [str(one) for one in below]
    if path.suffix != SUFFIX:
        raise ChoiceError(f"{place} is not a transcript; the name must end with {SUFFIX}")
    return [f"{path}{colons}{mode}"]


def citing(name: str) -> list[Path]:
    """Return the transcripts that cite the requirement or family *name*."""
    transcripts = {path: load_transcript(path) for path in transcript_paths()}
    return [
        path
        for path, transcript in transcripts.items()
        if name in (*transcript.header.requires, *transcript.families)
    ]


def _found(place: str) -> Path:
    paths = [Path(place)]
    if not place.startswith((".", "/")):
        paths = [TRANSCRIPTS / place, TRANSCRIPTS / f"{place}{SUFFIX}", *paths]
    for path in paths:
        if path.exists():
            return path.resolve()
    known = [*GROUPS, *(str(path.relative_to(TRANSCRIPTS)) for path in transcript_paths())]
    known += specification().requirements
    raise ChoiceError(
        "unknown transcript, group or requirement "
        f"{place}{did_you_mean(place, known) or did_you_mean(f'{place}{SUFFIX}', known)}"
    )


def _transcripts_below(directory: Path, place: str) -> list[Path]:
    paths = sorted(directory.rglob(f"*{SUFFIX}"))
    if not paths:
        raise ChoiceError(f"no transcript in {place}")
    return paths


def check_names_differ(places: Iterable[str]) -> None:
    """Raise an error if two of *places* would have the same name in the results."""
    paths: dict[str, Path] = {}
    for place in places:
        path = Path(place.partition("::")[0])
        earlier = paths.setdefault(transcript_name(path), path)
        if earlier != path:
            raise ChoiceError(f"{earlier} and {path} have the same name; run them separately")
