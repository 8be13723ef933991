"""The command line of `postprox-rehearse`.

Rule: this module checks all arguments before any process is started. The proxy's own parser checks
the proxy's options.
"""

from __future__ import annotations

import argparse
import grp
import ipaddress
import os
import pwd
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from .. import __version__
from ..core import options as proxy_options
from . import target
from .filterrun import parses
from .outcome import EXPECTATIONS
from .proxy import User
from .sources import STANDARD_INPUT
from .text import printable, without_commands

# The name of this command in examples.
_INSTALLED = "postprox-rehearse"
PROGRAM = _INSTALLED if Path(sys.argv[0]).name == _INSTALLED else "python3 -m postprox.rehearse"


def _short(path: Path) -> Path:
    """Return `path`, relative to the working directory if possible."""
    try:
        return path.relative_to(Path.cwd())
    except (ValueError, OSError):
        return path


_DEMO = Path(__file__).resolve().parent / "demo"
_BUNDLED_FILTER = f"sh {shlex.quote(str(_short(_DEMO / 'filter.sh')))}"
_DESCRIPTION = """\
Run a filter with the real proxy before Postfix uses it on real mail. A test
client sends each message just as Postfix would, and a test server
receives it. Nothing leaves this machine.

Without -c, a sample filter is run. Without MESSAGE, three sample messages are
sent. A MESSAGE is a file with one message, an mbox, a Maildir, a directory
that contains any of these, or - for standard input."""
_EPILOG = f"""\
examples:
  {PROGRAM}
  {PROGRAM} -c ./my-filter message.eml
  {PROGRAM} -c ./my-filter -r -t 5 --sender '' *.eml
  {PROGRAM} -c ./my-filter --json message.eml
  {PROGRAM} -c ./my-filter --watch message.eml
  {PROGRAM} -c ./my-filter --expect reject --junit out.xml spam/

To list the keys of the JSON document, run
  python3 -m pydoc postprox.rehearse.document

exit status:
  0  the proxy processed each message and, with --expect, each verdict was
     expected
  1  a verdict differed from --expect, or an error occurred (for example, the
     filter could not be started)
  2  the command line is invalid
"""


@dataclass(frozen=True)
class Settings:
    """The settings from the command line."""

    #: The filter command.
    command: str
    #: True if the command runs the sample filter.
    bundled_filter: bool
    messages: tuple[Path, ...]
    bundled_messages: bool
    #: The proxy options except -c and -d.
    proxy_arguments: tuple[str, ...]
    #: The value of -d, or "".
    directory: str
    timeout: float
    reject: bool
    strict: bool
    #: The envelope. If the sender is None, each message's own sender is used.
    sender: bytes | None
    recipients: tuple[bytes, ...]
    client_ip: bytes
    helo: bytes
    #: The user that runs the proxy and the filter, or None for the current user.
    user: User | None
    #: The number of times that each message is sent.
    repeat: int
    #: The allowed verdicts, as keys of `EXPECTATIONS`. If the value is empty, all verdicts are
    #: allowed.
    expected: tuple[str, ...]
    #: True if the full report is printed, or None if that depends on the number of messages.
    full: bool | None
    #: True if the shell can parse the filter command.
    parses: bool
    json: bool
    #: True if GitHub annotations are printed.
    github: bool
    #: The file for JUnit XML.
    junit: Path | None
    #: True if a change to a file starts a new run.
    watch: bool


def parse(arguments: list[str]) -> Settings:
    """Parse `arguments`, or exit with status 2 if they are invalid."""
    parser = _parser()
    given = parser.parse_intermixed_args(arguments)
    passed = [
        *_pair("-t", given.timeout),
        *(["-r"] * given.reject),
        *(["--strict"] * given.strict),
        *(["-v"] * given.verbose),
    ]
    try:
        # The upstream server's address is not known yet.
        proxy = proxy_options.parse([*passed, *_pair("-d", given.tempdir), "127.0.0.1:25"])
    except proxy_options.UsageError as error:
        parser.error(str(error))
    if given.messages.count(Path(STANDARD_INPUT)) and (given.watch or len(given.messages) > 1):
        parser.error("-: must be the only message and cannot be combined with --watch")
    if given.json and given.github:
        parser.error("--github: cannot be combined with --json")
    mixed = given.junit is not None and target.is_descriptor(given.junit)
    if mixed and (given.json or given.github):
        parser.error("--junit: must be a file if --json or --github is specified")
    command = _BUNDLED_FILTER if given.command is None else given.command
    return Settings(
        command=command,
        parses=parses(command),
        bundled_filter=given.command is None,
        messages=tuple(given.messages) or tuple(map(_short, sorted(_DEMO.glob("*.eml")))),
        bundled_messages=not given.messages,
        proxy_arguments=tuple(passed),
        directory=given.tempdir or "",
        timeout=proxy.timeout,
        reject=proxy.reject,
        strict=proxy.strict,
        sender=given.sender,
        recipients=tuple(given.recipient),
        client_ip=given.client_ip,
        helo=given.helo,
        user=given.user,
        repeat=given.repeat,
        expected=tuple(given.expect),
        full=given.full,
        json=given.json,
        github=given.github,
        junit=given.junit,
        watch=given.watch,
    )


class _Parser(argparse.ArgumentParser):
    """A parser that escapes unprintable characters in errors.

    File names that match *.eml can contain unprintable characters.
    """

    def error(self, message: str) -> NoReturn:
        super().error(without_commands(printable(message)))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        usage="%(prog)s [-c CMD] [option ...] [MESSAGE ...]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "messages",
        nargs="*",
        type=Path,
        metavar="MESSAGE",
        help="one or more messages, with LF or CRLF line endings",
    )
    parser.add_argument("-V", "--version", action="version", version=f"{_INSTALLED} {__version__}")
    parser.add_argument("-c", "--command", metavar="CMD", help="the filter command (postprox -c)")
    parser.add_argument(
        "--repeat", type=_count, default=1, metavar="N", help="send each message N times"
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="run again after each change to the filter or a message",
    )
    _add_output_options(parser.add_argument_group("output and exit status"))
    _add_proxy_options(parser.add_argument_group("options for the proxy"))
    _add_envelope_options(parser.add_argument_group("the envelope"))
    return parser


def _add_output_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--expect",
        action="append",
        choices=tuple(EXPECTATIONS),
        default=[],
        help="the expected verdict; repeat the option to allow several",
    )
    length = group.add_mutually_exclusive_group()
    length.add_argument(
        "--full",
        action="store_true",
        default=None,
        help="print a full report for each message (the default for ten messages or fewer)",
    )
    length.add_argument(
        "--brief",
        action="store_false",
        dest="full",
        default=None,
        help="print one line for each message (the default for more than ten messages)",
    )
    group.add_argument(
        "--json", action="store_true", help="print one JSON document instead of the report"
    )
    group.add_argument(
        "--github", action="store_true", help="print a GitHub annotation for each problem"
    )
    group.add_argument("--junit", type=_file, metavar="FILE", help="also write JUnit XML to FILE")


def _add_proxy_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("-d", "--tempdir", metavar="DIR", help="the directory for EMAIL and OUTFILE")
    group.add_argument(
        "-t", "--timeout", metavar="SEC", help="the filter's time limit in seconds (default: 30)"
    )
    group.add_argument(
        "-r",
        "--reject",
        action="store_true",
        help="refuse the message with 451 if the filter fails",
    )
    group.add_argument(
        "--strict",
        action="store_true",
        help="like -r; also treat status 1 without a reply code as a failure",
    )
    group.add_argument(
        "--user",
        type=_user,
        metavar="NAME[:GROUP]",
        help="run the proxy and the filter as this user, and with this group, as spawn(8) does "
        "(root only)",
    )
    group.add_argument(
        "-v", "--verbose", action="count", default=0, help="make the proxy log more lines to syslog"
    )


def _add_envelope_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--sender",
        type=_address,
        metavar="ADDRESS",
        help="the address in MAIL FROM, '' for a bounce (default: from the Return-Path or From "
        "field)",
    )
    group.add_argument(
        "--recipient",
        type=_recipient,
        action="append",
        default=[],
        metavar="ADDRESS",
        help="an address in RCPT TO; may be repeated (default: from the To field)",
    )
    group.add_argument(
        "--client-ip",
        type=_client_ip,
        default=b"192.0.2.1",
        metavar="IP",
        help="the address of the sending server, '' if unknown (default: 192.0.2.1)",
    )
    group.add_argument(
        "--helo",
        type=_harmless,
        default=b"mail.example.net",
        metavar="NAME",
        help="the HELO name of the sending server, '' if unknown (default: mail.example.net)",
    )


def _count(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number from 1 to 999999999")


def _file(text: str) -> Path:
    path = Path(text)
    try:
        problem = target.problem(path)
    except OSError as error:
        problem = error.strerror or "invalid"
    if problem:
        raise argparse.ArgumentTypeError(f"{text!r}: {problem}")
    return path


def _user(text: str) -> User:
    name, _, group = text.partition(":")
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise argparse.ArgumentTypeError(f"{name!r}: unknown user") from None
    try:
        gid = grp.getgrnam(group).gr_gid if group else entry.pw_gid
    except KeyError:
        raise argparse.ArgumentTypeError(f"{group!r}: unknown group") from None
    if os.geteuid() not in (0, entry.pw_uid) or (os.geteuid() != 0 and gid != entry.pw_gid):
        raise argparse.ArgumentTypeError(f"{text!r}: only root can specify another user or group")
    return User(name, entry.pw_uid, gid)


def _pair(option: str, value: str | None) -> list[str]:
    return [] if value is None else [option, value]


def _harmless(text: str) -> bytes:
    value = os.fsencode(text)
    if any(octet < 32 or octet == 127 for octet in value):
        raise argparse.ArgumentTypeError(f"{text!r} must not contain control characters")
    return value


def _address(text: str) -> bytes:
    value = _harmless(text)
    return value[1:-1] if value[:1] + value[-1:] == b"<>" else value


def _recipient(text: str) -> bytes:
    address = _address(text)
    if not address:
        raise argparse.ArgumentTypeError(f"{text!r} must be an address such as me@home.org")
    return address


def _client_ip(text: str) -> bytes:
    try:
        return str(ipaddress.ip_address(text)).encode() if text else b""
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be an IP address such as 192.0.2.1 or 2001:db8::1"
        ) from None
