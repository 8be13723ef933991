"""The subcommand `explain`, which prints requirements with their reasons and transcripts."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Iterator

from ..format.loader import citing, load_transcript
from ..format.payload import did_you_mean
from ..format.requirements import Family, Requirement, as_json, specification

_EXIT_WRONG = 2
_WIDTH = 100


def add_explain(words: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand `explain`."""
    parser = words.add_parser(
        "explain", help="print a requirement with its rationale and its transcripts"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a requirement or family")
    parser.add_argument("--json", action="store_true", help="print the whole specification as JSON")
    parser.set_defaults(do=_explain)


def _explain(options: argparse.Namespace) -> int:
    read = specification()
    if options.json:
        sys.stdout.write(as_json(read))
        return 0
    families = {one.name: one for one in read.families}
    for name in options.names:
        if name in families:
            _print(_family_lines(families[name]))
        elif name in read.requirements:
            requirement = read.requirements[name]
            _print(_requirement_lines(requirement, families[requirement.family]))
        else:
            known = [*families, *read.requirements]
            print(f"conformance: unknown requirement {name}{did_you_mean(name, known)}",
                  file=sys.stderr)  # fmt: skip
            return _EXIT_WRONG
    if not options.names:
        _print(f"{one.name:24} {len(one.requirements):3}  {', '.join(one.levels)}"
               for one in read.families)  # fmt: skip
    return 0


def _print(lines: Iterator[str]) -> None:
    for line in lines:
        print(line)


def _family_lines(family: Family) -> Iterator[str]:
    for one in family.requirements:
        yield from _statement(one)
    yield from _notes(family)


def _requirement_lines(requirement: Requirement, family: Family) -> Iterator[str]:
    yield from _statement(requirement)
    yield f"source: {', '.join(requirement.sources)}; binds: {requirement.binds}"
    yield from _notes(family)
    yield ""
    paths = citing(requirement.id)
    yield "transcripts:" if paths else "No transcript cites this requirement."
    for path in paths:
        transcript = load_transcript(path)
        modes = ", ".join(transcript.header.modes)
        yield f"  {transcript.name} [{modes}] {transcript.header.title}"


def _statement(one: Requirement) -> Iterator[str]:
    yield f"{one.id} ({one.level.upper()}, {one.harm or 'permitted'})"
    yield from _wrapped(one.sentence)


def _notes(family: Family) -> Iterator[str]:
    notes = {
        "Rationale": family.rationale,
        "Source": family.source,
        "Reference implementation": family.reference,
    }
    for label, note in notes.items():
        if note:
            yield ""
            yield from _wrapped(f"{label}. {note}")


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()), _WIDTH, initial_indent="  ", subsequent_indent="  "
    )
