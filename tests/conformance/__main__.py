"""The command `postprox-conformance`, which is `python -m tests.conformance` in a checkout.

Rule: a command-line error prints one line and sets exit status 2. Each subcommand is a module.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .cli import explain_command, list_command, run_command
from .cli.options import refuse
from .format.header import FORMAT
from .format.requirements import specification
from .record import command as recording
from .report import command as reporting
from .run.results import SUITE_VERSION

_DESCRIPTION = (
    "Test whether a program conforms to the postprox specification, requirement by requirement."
)


class _Versions(argparse.Action):
    """Print the versions of the suite, the specification and the transcript format."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        text = "show the versions of the suite, the specification and the format, and exit"
        super().__init__(option_strings, dest, nargs=0, help=text)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(
            f"{parser.prog} {SUITE_VERSION} (specification {specification().version}, "
            f"transcript format {FORMAT})"
        )
        parser.exit()


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Return the parser of the command and the parsers of the subcommands."""
    parser = argparse.ArgumentParser(prog="postprox-conformance", description=_DESCRIPTION)
    parser.add_argument("--version", action=_Versions)
    words = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    run_command.add_run(words)
    list_command.add_list(words)
    list_command.add_show(words)
    explain_command.add_explain(words)
    reporting.add_report(words)
    recording.add_record(words)
    run_command.add_compare(words)
    return parser, words.choices


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the subcommand in *arguments* and return the exit status."""
    parser, words = _parsers()
    options, further = parser.parse_known_args(arguments)
    # argparse accepts names only before the options, but users also write them after the options.
    if further and not (hasattr(options, "names") and all(word[:1] != "-" for word in further)):
        refuse(words[options.command], further)
    if further:
        options.names += further
    status: int = options.do(options)
    return status


if __name__ == "__main__":
    sys.exit(main())
