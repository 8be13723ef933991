"""The subcommands `list` and `show`, which print transcripts without running them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from ..format.by_profile import for_profile
from ..format.loader import ChoiceError, chosen, load_transcript
from ..format.nodes import FormatError, Transcript
from ..format.profiles import POSTPROX
from ..format.vocabulary import LEVELS
from ..format.writer import write_unfolded
from ..paths import SUFFIX, TRANSCRIPTS
from .options import profile

_EXIT_WRONG = 2


def add_list(words: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand `list`."""
    parser = words.add_parser(
        "list", help="list transcripts, one per line, with levels and requirements"
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="a group, family, requirement or transcript"
    )
    parser.add_argument("--level", choices=LEVELS, help="select one level")
    parser.add_argument(
        "--profile",
        type=profile,
        default=POSTPROX,
        metavar="NAME",
        help="select a profile's transcripts and requirements",
    )
    parser.set_defaults(do=_list)


def add_show(words: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand `show`."""
    parser = words.add_parser("show", help="print a transcript with its included files expanded")
    parser.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help="a transcript, or any other name that 'list' accepts",
    )
    parser.set_defaults(do=_show)


def _list(options: argparse.Namespace) -> int:
    def line(transcript: Transcript) -> str:
        header = transcript.header
        return "\t".join(
            (transcript.name, transcript.subject.level, ",".join(header.modes),
             ",".join(header.requires), header.title)
        )  # fmt: skip

    return _print(
        line(for_profile(transcript, options.profile))
        for transcript in _transcripts(options.names)
        if options.level in (None, transcript.subject.level)
        and options.profile.has(transcript.subject)
    )


def _show(options: argparse.Namespace) -> int:
    return _print(
        f"# {transcript.name}\n{write_unfolded(transcript)}"
        for transcript in _transcripts(options.names)
    )


def _transcripts(names: list[str]) -> Iterator[Transcript]:
    places = [Path(place.partition("::")[0]) for name in names for place in chosen(name)]
    for place in places or [TRANSCRIPTS]:
        paths = sorted(place.rglob(f"*{SUFFIX}")) if place.is_dir() else [place]
        yield from map(load_transcript, paths)


def _print(texts: Iterator[str]) -> int:
    try:
        for text in texts:
            print(text)
    except (ChoiceError, FormatError) as error:
        print(f"conformance: {error}", file=sys.stderr)
        return _EXIT_WRONG
    except BrokenPipeError:  # the reader has closed the pipe, so there is nothing to flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
