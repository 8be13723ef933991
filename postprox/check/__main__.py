"""The command `postprox-check`, which reports faults in the configuration of a mail server.

Rule: combines the other modules and makes no decision itself. The exit status is the highest level.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NoReturn, TextIO

from .. import __version__
from . import probe, report
from .postconf import Configuration, UnreadableError
from .routes import Proxy, is_proxy, listening_proxy, routes, spawned_proxies
from .rules import judge, unchecked
from .setup import Setup
from .unit import Unit

#: The exit status if the check or its output failed. It equals the highest level of a finding.
UNREADABLE = 2

DESCRIPTION = """\
Check whether the configurations of Postfix and of its proxies fit together. Each finding has the
problem, its effect on mail, and the command to run or the line to write. Nothing is changed. Run
the command as root, because only root can test the permissions of the proxy's user. Exit status:
0, no findings; 1, warnings; 2, mail is refused, lost or not filtered, or the check failed.
"""


def main() -> int:
    """Run the command. Return its exit status."""
    output, errors = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(output), redirect_stderr(errors):
            status = _run(sys.argv[1:])
        problem = _write(sys.stdout, output.getvalue())
        if problem:
            status = UNREADABLE
            errors.write(f"postprox-check: cannot write to standard output: {problem}\n")
        _write(sys.stderr, errors.getvalue())
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return status


def _run(words: list[str]) -> int:
    """Print the report or an error. Return the exit status."""
    try:
        wanted = _arguments(words)
        configuration = probe.read_configuration(wanted.config)
        proxies = list(_proxies(configuration, wanted))
        facts = {proxy: probe.probe(configuration, proxy) for proxy in proxies}
    except SystemExit as end:  # argparse has printed a help text or an error
        return int(end.code or 0)
    except (UnreadableError, OSError, ValueError) as error:
        print(f"postprox-check: {report.printable(_in_words(error))}", file=sys.stderr)
        return UNREADABLE
    setup = Setup(configuration, proxies, facts)
    findings = list(judge(setup))
    write = report.as_json if wanted.json else report.as_text
    sys.stdout.write(write(findings, list(unchecked(setup))))
    return report.status(findings)


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _write(stream: TextIO | None, text: str) -> str:
    """Write a text. Return "", or the reason for a failure."""
    if not text:
        return ""
    if stream is None:
        return "it is closed"
    try:
        stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]
        stream.write(text)
        stream.flush()
    except OSError as error:
        # Python flushes the buffer again at exit. A second failure would change the exit status.
        with Path(os.devnull).open("wb") as null:
            os.dup2(null.fileno(), stream.fileno())
        return error.strerror or str(error)
    return ""


class _Parser(argparse.ArgumentParser):
    """A parser that prints only printable characters in its errors."""

    def error(self, message: str) -> NoReturn:
        super().error(report.printable(message))


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = _Parser(
        "postprox-check",
        usage="postprox-check [--config DIR] [--unit FILE] [--json] [-V] [-- COMMAND LINE]",
        description=DESCRIPTION,
        epilog="After --, give the command line of a proxy outside master.cf and systemd.",
    )
    parser.add_argument(
        "--config", default="", metavar="DIR", help="directory of main.cf and master.cf"
    )
    parser.add_argument("--unit", metavar="FILE", help="systemd unit of a listening proxy")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("-V", "--version", action="version", version=f"%(prog)s {__version__}")
    index = words.index("--") if "--" in words else len(words)
    own, command_line = words[:index], words[index + 1 :]
    wanted = parser.parse_args(own)
    if index < len(words) and not is_proxy(command_line):
        parser.error("-- requires a complete command line, such as: postprox -l 10025 HOST:PORT")
    wanted.command_line = tuple(command_line)
    return wanted


def _proxies(configuration: Configuration, wanted: argparse.Namespace) -> Iterator[Proxy]:
    """Return the proxies of master.cf and of the options.

    Without an option, the installed units that receive mail are added.
    """
    spawned = list(spawned_proxies(configuration))
    yield from spawned
    if wanted.unit:
        yield listening_proxy(probe.read_unit(Path(wanted.unit)))
    if wanted.command_line:
        yield listening_proxy(Unit("command line after --", wanted.command_line, user=""))
    if wanted.unit or wanted.command_line:
        return
    used = [route.endpoint for route in routes(configuration)]
    taken = [proxy.endpoint for proxy in spawned]
    for proxy in map(listening_proxy, probe.installed_units()):
        place = proxy.endpoint
        if place and place not in taken and any(other.is_at(place) for other in used):
            taken.append(place)
            yield proxy


if __name__ == "__main__":
    sys.exit(main())
