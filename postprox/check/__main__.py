"""The command `postprox-check`, which reports configuration errors on a mail server.

Rule: this module only calls the other modules. The exit status depends on the levels of the
findings and on whether an item could not be checked.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import NoReturn, TextIO

from .. import __version__
from . import loading, recipe, report, running, sample_runs, selection
from .facts import SampleRuns, UnitState
from .findings import DANGER, Finding
from .machine import Machine
from .postconf import UnreadableError
from .probe import accounts, installation, postfix, proxy_facts, units
from .routes import Proxy, is_proxy
from .rules import judge, unchecked
from .setup import Setup
from .unit import Unit

#: The exit status if the check failed or its output could not be written. A finding of the highest
#: level (DANGER) causes the same exit status.
UNREADABLE = 2

DESCRIPTION = """\
Check that the configurations of Postfix and its proxies are consistent, and that the proxies are
running. Each finding consists of the problem, its effect on mail, and the commands that correct it.
The check changes nothing. It connects to each proxy's port, which can start a socket-activated
service. With --run-filter, it also runs each filter on harmless test messages, which are not
delivered. Run the command as root, because only root can test the permissions of the proxy's user.
The exit status is 0 if there are no findings, 1 if there are only warnings, 2 if mail is refused,
lost or not filtered, or if the check failed, and 3 if there are no findings but an item could not
be checked.
"""


def main() -> int:
    """Run the command and return its exit status."""
    output, errors = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(output), redirect_stderr(errors):
            status = run(sys.argv[1:])
        problem = _write(sys.stdout, output.getvalue())
        if problem:
            status = UNREADABLE
            errors.write(f"postprox-check: cannot write to standard output: {problem}\n")
        _write(sys.stderr, errors.getvalue())
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return status


def run(words: list[str]) -> int:
    """Print the report or an error, and return the exit status."""
    wanted = None
    try:
        wanted = _arguments(words)
        if wanted.recipe:
            sys.stdout.write(report.recipe_as_text(_recipe(wanted)))
            return 0
        setup = _setup(wanted)
    except SystemExit as end:  # argparse has already printed the help or an error
        return int(end.code or 0)
    except (UnreadableError, OSError, ValueError) as error:
        reason = _in_words(error)
        print(f"postprox-check: {report.printable(reason)}", file=sys.stderr)
        if wanted and wanted.json:
            sys.stdout.write(report.error_as_json(reason, UNREADABLE))
        return UNREADABLE
    findings = list(judge(setup))
    if wanted.run_filter:
        setup = replace(setup, samples=run_filters(setup, findings))
        findings = list(judge(setup))
    result = report.Result(
        setup, findings, list(unchecked(setup)), loading.command(setup, findings)
    )
    sys.stdout.write(report.as_json(result) if wanted.json else report.as_text(result))
    return result.status


def _setup(wanted: argparse.Namespace) -> Setup:
    """Collect the input for the rules."""
    configuration = postfix.read_configuration(wanted.config)
    machine = Machine()
    known = _units(wanted)
    states: tuple[dict[str, UnitState], str] = ({}, "")
    if not wanted.offline:
        states = running.states_of(machine, [unit for unit in known if unit.installed])
    if wanted.unit or wanted.command_line:
        proxies = selection.chosen(configuration, known)
    else:
        proxies = selection.installed(configuration, known, states[0])
    facts = {proxy: proxy_facts.collect(configuration, proxy) for proxy in proxies}
    seen = None
    if not wanted.offline:
        files = installation.configuration_files(configuration, facts)
        seen = running.running_facts(machine, configuration, proxies, states, files)
    tables = postfix.table_texts(configuration)
    return Setup(
        configuration,
        proxies,
        facts,
        seen,
        tables,
        installation.examples(),
        installation.public_program(),
    )


def run_filters(setup: Setup, findings: Sequence[Finding]) -> dict[Proxy, SampleRuns]:
    """Run the filters on test messages.

    A filter with a finding of level DANGER may do harm, for example by sending the message itself.
    A test would only show a consequence of the finding.
    """
    broken = {finding.where for finding in findings if finding.level == DANGER}
    return {
        proxy: SampleRuns(unchecked="first correct the other findings")
        if proxy.where in broken
        else sample_runs.sample_runs(proxy, _script(setup, proxy))
        for proxy in setup.proxies
    }


def _script(setup: Setup, proxy: Proxy) -> str:
    seen = setup.facts[proxy].filter
    return seen.path if seen else ""


def _recipe(wanted: argparse.Namespace) -> list[str]:
    """Return the commands and comments that --recipe prints, one per line."""
    configuration = postfix.read_configuration(wanted.config)
    unit = None
    if not wanted.spawn:
        units = [unit for unit in _units(wanted) if not unit.name.endswith("@.service")]
        if not units:
            raise UnreadableError("postprox.service is not installed; install it or use --spawn")
        unit = units[0]
    command = recipe.filter_command(unit)
    installed = recipe.Installation(
        examples=installation.example_texts(),
        program=installation.installed_program(),
        unit=unit,
        used_ports=frozenset() if wanted.offline else running.used_ports(Machine(), unit),
        has_user=accounts.has_user(recipe.USER),
        has_spool=Path(recipe.SPOOL).is_dir(),
        has_filter=Path(command.partition(" ")[0]).exists(),
    )
    stage = recipe.STAGES[wanted.recipe]
    return recipe.commands(configuration, stage, installed)


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _write(stream: TextIO | None, text: str) -> str:
    """Write text to a stream. Return an error message, or "" if there was no error."""
    if not text:
        return ""
    if stream is None:
        return "it is closed"
    try:
        stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]
        stream.write(text)
        stream.flush()
    except OSError as error:
        # Python flushes the buffer again at exit. A second failure would change the exit status, so
        # redirect the stream to /dev/null.
        with Path(os.devnull).open("wb") as null:
            os.dup2(null.fileno(), stream.fileno())
        return error.strerror or str(error)
    return ""


class _Parser(argparse.ArgumentParser):
    """An argument parser that escapes unprintable characters in its error messages."""

    def error(self, message: str) -> NoReturn:
        super().error(report.printable(message))


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = _Parser(
        "postprox-check",
        usage="postprox-check [--config DIR] [--unit FILE] [--offline] [--run-filter] [--json] "
        "[-V]\n                      [-- COMMAND LINE]\n"
        "       postprox-check --recipe before-queue|after-queue [--spawn] [--config DIR] "
        "[--unit FILE] [--offline]",
        description=DESCRIPTION,
        epilog="After --, specify the command line of a proxy that neither master.cf nor systemd "
        "starts.",
    )
    parser.add_argument(
        "--config", default="", metavar="DIR", help="the directory with main.cf and master.cf"
    )
    parser.add_argument("--unit", metavar="FILE", help="the systemd unit of a listening proxy")
    parser.add_argument("--offline", action="store_true", help="do not check the running system")
    parser.add_argument(
        "--run-filter",
        action="store_true",
        help="also run the filter on harmless test messages, which are not delivered",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--recipe",
        choices=recipe.STAGES,
        metavar="WHERE",
        help="print the commands that set up a before-queue or after-queue proxy",
    )
    parser.add_argument(
        "--spawn", action="store_true", help="with --recipe: let Postfix start the proxy"
    )
    parser.add_argument("-V", "--version", action="version", version=f"%(prog)s {__version__}")
    index = words.index("--") if "--" in words else len(words)
    own, command_line = words[:index], words[index + 1 :]
    wanted = parser.parse_args(own)
    if index < len(words) and not is_proxy(command_line):
        parser.error("-- requires a complete command line, such as: postprox -l 10025 HOST:PORT")
    wanted.command_line = tuple(command_line)
    if wanted.spawn and not wanted.recipe:
        parser.error("--spawn requires --recipe")
    if wanted.recipe and (wanted.json or wanted.command_line):
        parser.error("--recipe cannot be combined with --json or a command line")
    if wanted.run_filter and wanted.recipe:
        parser.error("--run-filter cannot be combined with --recipe")
    if wanted.spawn and wanted.unit:
        parser.error("--spawn cannot be combined with --unit")
    return wanted


def _units(wanted: argparse.Namespace) -> list[Unit]:
    """Read the units that the options select, or else all installed units."""
    if wanted.unit:
        return [units.read_unit(Path(wanted.unit).absolute())]
    if wanted.command_line:
        return [Unit("command line after --", wanted.command_line, user="")]
    return list(units.installed_units())


if __name__ == "__main__":
    sys.exit(main())
