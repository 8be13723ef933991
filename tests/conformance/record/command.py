"""The subcommand `record`.

Rule: a transcript is only written if it can be parsed again. Otherwise, the reason is printed.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from ..format.header import Header, read_header
from ..format.nodes import FormatError, Transcript
from ..format.payload import did_you_mean
from ..format.reader import parse_transcript
from ..format.requirements import specification
from ..format.writer import write_transcript
from ..paths import INSTALLED, SUFFIX
from ..play.harness import HarnessError, Settings
from ..play.host import Host
from ..play.implementation import ImplementationError, default_implementation, find_implementation
from ..play.preflight import CannotStartError, check_program
from ..play.process import adopt_orphans, start_children_with_default_signals
from .address import Address, listen, parse_address
from .session import Plan, RecordError, Recording

_EXIT_FAILED = 2
#: ValueError: an invalid address, header or character.
_ERRORS = (
    RecordError,
    FormatError,
    HarnessError,
    ImplementationError,
    CannotStartError,
    ValueError,
)
_USAGE = """\
%(prog)s --upstream HOST:PORT -o FILE.smtp --title TEXT --requires ID ...
           [options] [-- ARGUMENT ...]"""
_EPILOG = (
    "The arguments after -- are passed to the proxy, after {upstream}, {tmp} and "
    "{filter} are replaced.\nThe default is -d {tmp} {upstream}, preceded by -c "
    "{filter} if there is a filter."
)


def add_record(words: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand `record`."""
    parser = words.add_parser(
        "record",
        help="record a dialogue between client, implementation and upstream as a transcript",
        usage=_USAGE,
        description="Listen for a client, run the proxy on its connection as spawn(8) does, and "
        "record the dialogue between client, upstream and filter as a transcript.",
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add("--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="default: any free port")
    add(
        "--upstream",
        required=True,
        metavar="HOST:PORT",
        help="the real upstream server (HOST:PORT or unix:/path)",
    )
    add("-o", "--output", required=True, type=Path, metavar="FILE.smtp", help="the file to create")
    add(
        "--title",
        required=True,
        metavar="TEXT",
        help=("the title, which describes the behaviour in one sentence"),
    )
    add("--requires", required=True, action="append", metavar="ID", help="a requirement that the "
        "transcript asserts; may be repeated")  # fmt: skip
    add("--filter", type=Path, metavar="FILE", help="the filter, as a shell command")
    add("--email", action="store_true", help="also record the content of the filter's EMAIL file")
    add(
        "--comment",
        action="append",
        default=[],
        metavar="TEXT",
        help="a comment line above the script",
    )
    add("--sessions", type=int, default=1, metavar="N", help="record N sessions, one after another")
    default = "" if INSTALLED else "; default: this checkout"
    add("--implementation", metavar="TOML|CMD", required=INSTALLED, help=f"the proxy{default}")
    add("arguments", nargs="*", metavar="ARGUMENT", help=argparse.SUPPRESS)
    parser.set_defaults(do=main)


def _header(options: argparse.Namespace) -> Header:
    known = list(specification().requirements)
    for name in options.requires:
        if name not in known:
            raise RecordError(f"unknown requirement '{name}'{did_you_mean(name, known)}")
    table = {"title": options.title, "requires": options.requires}
    if options.filter is not None:
        table["filter"] = options.filter.read_text(encoding="ascii")
    if options.arguments:
        table["argv"] = options.arguments
        if "{upstream}" not in "".join(options.arguments):
            raise RecordError("missing {upstream} in the proxy's arguments")
    return read_header(table)


def _path(output: Path, number: int) -> Path:
    return output if number == 1 else output.with_name(f"{output.stem}-{number}{output.suffix}")


def _check_paths(options: argparse.Namespace) -> None:
    if options.output.suffix != SUFFIX:
        raise RecordError(f"{options.output}: the name of a transcript must end with {SUFFIX}")
    if options.sessions < 1:
        raise RecordError("--sessions must be at least 1")
    for number in range(1, options.sessions + 1):
        if _path(options.output, number).exists():
            raise RecordError(f"{_path(options.output, number)} already exists")


def _text(transcript: Transcript, comments: list[str]) -> str:
    """Return the transcript as text with *comments*. Raise an error if it cannot be parsed."""
    text = write_transcript(transcript)
    if parse_transcript(text, transcript.name).steps != transcript.steps:
        raise RecordError(f"{transcript.name} cannot be written in the transcript format")
    header, end, script = text.rpartition("\n+++\n")
    return header + end + "".join(f"# {comment}\n" for comment in comments) + script


def _record_all(options: argparse.Namespace, plan: Plan) -> None:
    with listen(parse_address(options.listen)) as listener:
        host, port = listener.getsockname()[:2]
        print(f"listening on {Address(host, port)}", flush=True)
        for number in range(1, options.sessions + 1):
            client, _ = listener.accept()
            path = _path(options.output, number)
            transcript = Recording(_numbered(plan, number)).run(client, path.name)
            text = _text(transcript, options.comment)
            with path.open("x", encoding="ascii") as file:
                file.write(text)
            print(f"wrote {path}: {len(transcript.steps)} steps", flush=True)


def _numbered(plan: Plan, number: int) -> Plan:
    """Return *plan* for one of several sessions, with a unique title."""
    if number == 1:
        return plan
    return replace(plan, header=replace(plan.header, title=f"{plan.header.title} ({number})"))


def _record(options: argparse.Namespace) -> None:
    _check_paths(options)
    header, upstream = _header(options), parse_address(options.upstream)
    named = options.implementation
    implementation = default_implementation() if named is None else find_implementation(named)
    check_program(implementation)
    settings = Settings(implementation, Host())
    try:
        _record_all(options, Plan(header, upstream, settings, options.email))
    finally:
        settings.host.close()


def main(options: argparse.Namespace) -> int:
    """Record as specified by *options* and return the exit status."""
    adopt_orphans()
    start_children_with_default_signals()
    try:
        _record(options)
    except _ERRORS as error:
        print(f"record: {error}", file=sys.stderr)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"record: {where}{error.strerror or error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("record: interrupted; nothing was written", file=sys.stderr)
    else:
        return 0
    return _EXIT_FAILED
