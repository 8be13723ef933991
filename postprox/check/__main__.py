"""The command `postprox-check`: look at a mail server's configuration, and say what is wrong.

Rule: puts together what the others see and decide; the exit status is the answer.
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

#: Nothing could be judged: as bad as the worst that could have been found.
UNREADABLE = 2

DESCRIPTION = """\
Read Postfix's configuration, and that of the proxies in it, and say what does not fit together,
each with the command to run or the line to write. Nothing is changed. Exit status: 0, all is well,
and nothing is printed; 1, warnings; 2, mail will be refused or pass unfiltered. Run it as root:
nobody else can see what the proxy's user may do.
"""


def main() -> int:
    """Run the command; return its exit status."""
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
    """Write the report to `sys.stdout`, errors to `sys.stderr`. Return the exit status."""
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
    """Write a text. Return the reason if that fails; otherwise ""."""
    if not text:
        return ""
    if stream is None:
        return "it is closed"
    try:
        stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]
        stream.write(text)
        stream.flush()
    except OSError as error:
        # At exit Python writes what is left in the buffer. A second failure would change the
        # exit status.
        with Path(os.devnull).open("wb") as null:
            os.dup2(null.fileno(), stream.fileno())
        return error.strerror or str(error)
    return ""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors hold nothing but printable characters."""

    def error(self, message: str) -> NoReturn:
        super().error(report.printable(message))


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = _Parser(
        "postprox-check",
        usage="postprox-check [--config DIR] [--unit FILE] [--json] [-V] [-- COMMAND LINE]",
        description=DESCRIPTION,
        epilog="After --, the command line of a listening proxy that is started in another route.",
    )
    parser.add_argument("--config", default="", metavar="DIR", help="where main.cf is")
    parser.add_argument("--unit", metavar="FILE", help="the systemd unit of a listening proxy")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("-V", "--version", action="version", version=f"%(prog)s {__version__}")
    index = words.index("--") if "--" in words else len(words)
    own, command_line = words[:index], words[index + 1 :]
    wanted = parser.parse_args(own)
    if index < len(words) and not is_proxy(command_line):
        parser.error("after -- give a whole command line, such as: postprox -l 10025 HOST:PORT")
    wanted.command_line = tuple(command_line)
    return wanted


def _proxies(configuration: Configuration, wanted: argparse.Namespace) -> Iterator[Proxy]:
    """Those of master.cf; those that are named, or else the installed units that get mail."""
    spawned = list(spawned_proxies(configuration))
    yield from spawned
    if wanted.unit:
        yield listening_proxy(probe.read_unit(Path(wanted.unit)))
    if wanted.command_line:
        yield listening_proxy(Unit("the command line given", wanted.command_line, user=""))
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
