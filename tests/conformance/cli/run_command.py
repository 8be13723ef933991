"""The subcommands `run` and `compare`. They run pytest and derive the exit status from its results.

Rule: the current directory and the environment have no effect. Configuration files, pytest options
and other plugins are ignored.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from ..format.loader import ChoiceError, check_names_differ, chosen
from ..format.vocabulary import BINDS, SOURCES
from ..paths import (
    COMPARISON,
    COMPARISON_TEST,
    PACKAGE,
    PACKAGE_NAME,
    PROPERTIES,
    SUFFIX,
    TRANSCRIPTS,
)
from ..play.process import kill_children_since
from ..play.procfs import children
from ..properties.compare import ASPECTS
from ..report.command import add_outputs, check_outputs, write_outputs
from ..report.results import ResultFileError, read_run
from ..run.junit import write_nothing_judged
from ..run.verdict import NOT_JUDGED, STALE, Verdict
from .options import keywords, number, one_of

EXIT_CONFORMANT, EXIT_NOT, EXIT_SUITE = 0, 1, 2
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_DONE = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
#: The number of workers. Transcripts spend more time waiting than computing.
_JOBS = 3 * len(os.sched_getaffinity(0))

_RUN = """\
The exit status is 0 if the implementation meets every requirement at level MUST. A failure that the
implementation file lists as a known divergence does not count. With --strict, the requirements at
level SHOULD count as well. The exit status is 1 if such a requirement is not met, or if a known
divergence no longer occurs. It is 2 if the implementation could not be tested, for example because
an option is invalid or the program cannot be started."""


def add_run(words: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand `run`."""
    parser = words.add_parser("run", help="test an implementation", epilog=_RUN)
    add = parser.add_argument
    add(
        "implementation",
        metavar="IMPLEMENTATION",
        help="a command line, or a description FILE.toml",
    )
    # Without a default, argparse would also report NAME as missing if IMPLEMENTATION is missing.
    add("names", nargs="*", default=[], metavar="NAME",
        help="select groups, families, requirements, transcripts or NAME::MODE")  # fmt: skip
    add("--name", metavar="TEXT", help="the implementation's name in the report")
    add(
        "--failed",
        type=Path,
        metavar="RESULTS",
        help="select the transcripts that failed in an earlier run",
    )
    add("--exitfirst", action="store_true", help="stop at the first failure")
    add("--shard", metavar="I/N", help="run only part I of N of the selected transcripts")
    add("--source", metavar="WORD",
        help=f"test only the requirements from one source: {', '.join(SOURCES)}")  # fmt: skip
    add(
        "--profile",
        metavar="NAME",
        help="test only the requirements of the given profile: one or more of "
        f"{', '.join(BINDS)}, separated by commas",
    )
    add("--strict", action="store_true", help="let SHOULD requirements also affect the exit status")
    add(
        "--level",
        default="may",
        help=("test requirements up to this level: must, should or may (default: may)"),
    )
    add(
        "--modes",
        default="stdio,listen,command",
        metavar="LIST",
        help="select modes (default: all)",
    )
    add(
        "-k",
        dest="keywords",
        type=keywords,
        metavar="WORDS",
        help="select with a pytest -k expression",
    )
    add(
        "--slow",
        action="store_true",
        help="also run transcripts that test long time limits, in real time",
    )
    add("--time-scale", default="1", metavar="F",
        help="multiply the suite's timeouts by F: 3 for a slow machine, 0.2 to save "
        "time if the program causes many timeouts")  # fmt: skip
    add("-j", "--jobs", type=number, default=_JOBS, metavar="N",
        help=f"number of parallel workers (default: {_JOBS})")  # fmt: skip
    add("--results", type=Path, metavar="FILE", help="write the results as JSON lines")
    add("--junit", type=Path, metavar="FILE", help="write the results as JUnit XML")
    add_outputs(parser)
    parser.set_defaults(do=_run)


def add_compare(words: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand `compare`."""
    parser = words.add_parser(
        "compare", help="search for the shortest dialogue in which two implementations differ"
    )
    parser.add_argument("one", metavar="A", help="a command line, or a description FILE.toml")
    parser.add_argument("other", metavar="B", help="a command line, or a description FILE.toml")
    parser.add_argument("-k", dest="aspect", type=one_of("aspect", list(ASPECTS)), metavar="ASPECT",
        help=f"compare one aspect only: {', '.join(ASPECTS)}")  # fmt: skip
    parser.add_argument(
        "-j", "--jobs", type=number, default=_JOBS, metavar="N", help="number of parallel workers"
    )
    parser.set_defaults(do=_compare)


def _pytest(arguments: list[str]) -> int:
    plain = ["-p", f"{PACKAGE_NAME}.plugin", "-p", "xdist.plugin", "-p", "no:cacheprovider"]
    plain += ["-c", os.devnull, "--rootdir", str(PACKAGE), "--noconftest"]
    # Without tmpdir, pytest does not remove other runs' directories, which can take a long time.
    plain += ["-q", "--no-header", "--assert=plain", "-p", "no:tmpdir"]
    with _no_other_plugins(), _stopped_by_signals():
        return int(pytest.main([*plain, *arguments]))


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Make SIGINT, SIGTERM and SIGHUP end the run and all its processes."""
    there = children()

    def stop(_number: int, _frame: object) -> NoReturn:
        for number in handlers:
            signal.signal(number, signal.SIG_IGN)
        # Otherwise, each worker would first finish its transcript.
        kill_children_since(there)
        raise KeyboardInterrupt

    handlers = {number: signal.signal(number, stop) for number in _STOPPING}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _no_other_plugins() -> Iterator[None]:
    """Give pytest and its workers an environment without pytest options and plugins."""
    before = dict(os.environ)
    for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS"):
        os.environ.pop(name, None)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _run(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="postprox-conformance-") as directory:
        results = options.results or Path(directory) / "results.jsonl"
        try:
            check_outputs(options, results=options.results, junit=options.junit)
            arguments = _run_arguments(options, results)
            _remove(results, options.junit)
            status = _pytest(arguments)
            if not results.exists():
                return EXIT_SUITE  # an invalid option, which was already reported
            run = read_run(results)
            write_outputs(options, [run])
            if options.junit and not options.junit.exists():
                write_nothing_judged(options.junit, "; ".join(run.gaps))
        except (ChoiceError, ResultFileError, OSError) as error:
            print(f"conformance: {error}", file=sys.stderr)
            return EXIT_SUITE
    if status not in _DONE:
        return EXIT_SUITE
    return _exit_status(run.verdict, strict=options.strict)


def _remove(*paths: Path | None) -> None:
    """Remove an earlier run's output files, which an interrupted run would not replace."""
    for path in paths:
        if path is not None and path.is_file():
            path.unlink()


def _run_arguments(options: argparse.Namespace, results: Path) -> list[str]:
    arguments = ["--implementation", options.implementation, "--results", str(results)]
    arguments += ["--level", options.level, "--modes", options.modes]
    arguments += ["--time-scale", options.time_scale, "--tb=no", "-rN", "--progress"]
    arguments += ["--slow"] if options.slow else []
    arguments += ["--exitfirst"] if options.exitfirst else []
    values = {
        "--source": options.source,
        "--profile": options.profile,
        "--name": options.name,
        "--shard": options.shard,
        "-k": options.keywords,
        "--junitxml": options.junit,
    }
    for option, value in values.items():
        arguments += [option, str(value)] if value else []
    names = [*options.names, *(_failed(options.failed) if options.failed else ())]
    places = [place for name in names for place in chosen(name)]
    check_names_differ(places)
    single = bool(places) and all(SUFFIX in place for place in places)
    if options.jobs > 1 and not (single and len(places) <= options.jobs):
        arguments += ["-n", str(options.jobs)]
    else:
        # Otherwise, pytest would capture the progress lines while a transcript is running.
        arguments.append("--capture=no")
    if single:
        return [*arguments, *places]
    return [*arguments, "--smoke", *(places or [str(TRANSCRIPTS), str(PROPERTIES)])]


def _failed(path: Path) -> list[str]:
    """Return the names of the transcripts that failed in the result file *path*."""
    missed = [one for one in read_run(path).results if one.outcome in ("failed", STALE)]
    names = [f"{one.transcript}::{one.mode}" for one in missed if one.is_transcript]
    if not names:
        raise ChoiceError(f"{path}: no transcript failed")
    return names


def _exit_status(verdict: Verdict, *, strict: bool) -> int:
    missing = strict and (bool(verdict.missed) or verdict.word == NOT_JUDGED)
    return EXIT_NOT if verdict.unexpected or missing else EXIT_CONFORMANT


def _compare(options: argparse.Namespace) -> int:
    searches = f"{COMPARISON}::{COMPARISON_TEST}"
    arguments = ["--implementation", options.one, "--compare", options.other]
    arguments.append(f"{searches}[{options.aspect}]" if options.aspect else searches)
    if options.jobs > 1 and not options.aspect:
        arguments += ["-n", str(options.jobs)]
    status = _pytest(arguments)
    return status if status in _DONE else EXIT_SUITE
