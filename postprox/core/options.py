"""The command-line options.

Rule: this module checks every option and argument. A `UsageError` names the option, its value and
the problem. `TABLE` has one record per option. The parser, --help and the test for the manual page
use these records. To add an option, add a record to `TABLE` and an attribute to `Options`. The
parser is handwritten, because importing argparse or getopt takes longer than a session.
"""

from .. import TYPE_CHECKING
from . import limits, log_levels
from .address import UpstreamAddress, port_number, split_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Record = tuple[str, str, str, str, Callable[[str, str], object], str, str]

#: The possible values of --log. If `Options.log` is "", the server selects one of them
#: (log.stderr).
SYSLOG, STDERR = LOGS = ("syslog", "stderr")
LISTEN_ADDRESS = "127.0.0.1"

#: The possible scopes of an option: it applies to every proxy, it applies only to a server, or it
#: prints information and exits.
EVERYWHERE, LISTENING, INFORMATION = "everywhere", "listening", "information"

#: The environment variable that contains the divisor for all timeouts. With a large divisor, tests
#: take seconds instead of minutes (docs/conformance.md).
CLOCK_SPEED = b"POSTPROX_CLOCK_SPEED"
#: The environment variable in which a systemd unit specifies its options file.
ENVIRONMENT_FILE = b"POSTPROX_ENVIRONMENT_FILE"

_LOG_LEVELS = (log_levels.WARNING, log_levels.INFO, log_levels.DEBUG)


class UsageError(Exception):
    """The command line is invalid. The text of this error is the message for the user."""


class Options:
    """The values of all options and of HOST:PORT."""

    __slots__ = (
        "clock_speed",
        "command",
        "directory",
        "foreground",
        "information",
        "listen",
        "log",
        "log_level",
        "max_sessions",
        "metrics",
        "pid_file",
        "reject",
        "strict",
        "target",
        "timeout",
    )

    def __init__(self) -> None:
        #: The name of the given option if it prints information and exits, or else "".
        self.information = ""
        #: The address of the upstream server.
        self.target: UpstreamAddress
        #: The filter command, which is run with `sh -c`. Without a command, the proxy passes every
        #: message.
        self.command: str | None = None
        #: The directory for stored messages, as given on the command line.
        self.directory = "/tmp"  # noqa: S108 - the documented default
        #: The filter's timeout in seconds.
        self.timeout = limits.FILTER_TIMEOUT
        #: True if the proxy refuses a message when the filter fails.
        self.reject = False
        #: True if exit status 1 without a reply code counts as a failure. This implies `reject`.
        self.strict = False
        #: The least important level to log.
        self.log_level = log_levels.WARNING
        #: The address and port to listen on, or None for one session on standard input and output.
        self.listen: tuple[str, int] | None = None
        #: True if a server stays in the foreground.
        self.foreground = False
        #: One of `LOGS`, or "" if not specified.
        self.log = ""
        #: The maximum number of concurrent sessions.
        self.max_sessions = limits.SESSIONS
        #: The file for metrics, or "".
        self.metrics = ""
        #: The file for a server's process ID, or "".
        self.pid_file = ""
        #: The speed of the clock for all timeouts, relative to real time.
        self.clock_speed = 1.0


def parse(arguments: "Iterable[str]", clock_speed: bytes = b"") -> Options:
    """Parse the command line, with `clock_speed` as the value of `CLOCK_SPEED`.

    Raises:
        UsageError: an option or an argument is invalid.
    """
    options = Options()
    targets = []
    verbosity = 0
    listening_only = ""
    for name, shown, value in _read(list(arguments)):
        if not name:
            targets.append(value)
            continue
        _, _, applies = _LONG[name]
        if applies == INFORMATION:
            options.information = name
            return options
        if applies == LISTENING:
            listening_only = shown
        if name == "verbose":
            verbosity += 1
        else:
            _set(options, name, shown, value)
    options.log_level = _LOG_LEVELS[min(verbosity, len(_LOG_LEVELS) - 1)]
    options.target = _target(targets)
    if clock_speed:
        shown = f"{CLOCK_SPEED.decode()} in the environment"
        options.clock_speed = _number(shown, clock_speed.decode("latin-1"))
    if listening_only and options.listen is None:
        raise UsageError(f"{listening_only} requires --listen [IP:]PORT")
    _check_together(options)
    return options


def _check_together(options: Options) -> None:
    """Reject invalid combinations of options."""
    # `parse` has already rejected --foreground without --listen.
    if options.log == STDERR and not options.foreground:
        raise UsageError("--log stderr requires --listen [IP:]PORT and --foreground")
    if options.metrics and options.metrics == options.pid_file:
        raise UsageError(f"--metrics and --pid-file {options.metrics!r}: must be different files")


def _target(given: list[str]) -> UpstreamAddress:
    if not given:
        raise UsageError("HOST:PORT is missing; give the address of the upstream server")
    target, *unexpected = given
    if unexpected:
        raise UsageError(f"unexpected argument {unexpected[0]!r}; HOST:PORT is already {target!r}")
    try:
        return UpstreamAddress(target)
    except ValueError as error:
        raise UsageError(f"HOST:PORT {target!r}: {error}") from None


def _set(options: Options, name: str, shown: str, value: str) -> None:
    """Store the value of the option `name`, which is spelled `shown` on the command line."""
    attribute, check, _ = _LONG[name]
    setattr(options, attribute, check(shown, value))
    if options.strict:
        options.reject = True


def _text(_shown: str, value: str) -> str:
    return value


def _flag(_shown: str, _value: str) -> bool:
    return True


def _directory(shown: str, value: str) -> str:
    if not value:
        raise UsageError(f"{shown}: the directory name is missing")
    return value


def _file(shown: str, value: str) -> str:
    if not value:
        raise UsageError(f"{shown}: the file name is missing")
    return value


def _log(shown: str, value: str) -> str:
    if value not in LOGS:
        raise UsageError(f"{shown} {value!r}: must be {' or '.join(LOGS)}")
    return value


def _number(shown: str, value: str) -> float:
    digits = value.replace(".", "", 1)
    if digits.isascii() and digits.isdigit() and 0 < float(value) < float("inf"):
        return float(value)
    raise UsageError(f"{shown} {value!r}: must be a positive number, such as 30 or 0.5")


def _count(shown: str, value: str) -> int:
    count = int(value[:9]) if value.isascii() and value.isdigit() else 0
    if count:
        return count
    raise UsageError(f"{shown} {value!r}: must be a positive whole number")


def _address(shown: str, value: str) -> tuple[str, int]:
    try:
        host, port = split_port(value) if ":" in value else ("", value)
        return host or LISTEN_ADDRESS, port_number(port)
    except ValueError as error:
        raise UsageError(f"{shown} {value!r}: {error}") from None


#: All options in the order of --help. The fields of a record are:
#: - the letter of the short form, or ""
#: - the long form
#: - the argument as shown by --help, or ""
#: - the attribute of `Options`
#: - a function that takes the option as spelled and its argument, and returns the value
#: - the scope of the option: EVERYWHERE, LISTENING or INFORMATION
#: - the description for --help, with `{}` for the default value
#: `parse` counts --verbose instead of storing a value. A record is a tuple, because a class would
#: cost 0.1 ms per process.
# fmt: off
TABLE: "tuple[Record, ...]" = (
    ("c", "command", "CMD", "command", _text, EVERYWHERE,
     "run CMD with `sh -c` on every message\n(default: none, all mail passes)"),
    ("d", "tempdir", "DIR", "directory", _directory, EVERYWHERE,
     "store messages in DIR (default: {})"),
    ("t", "timeout", "SEC", "timeout", _number, EVERYWHERE,
     "kill CMD after SEC seconds (default: {:g})"),
    ("r", "reject", "", "reject", _flag, EVERYWHERE,
     "refuse a message with 451 if CMD fails, instead of\nletting it pass"),
    ("", "strict", "", "strict", _flag, EVERYWHERE,
     "treat status 1 without a reply code as a failure;\nimplies -r"),
    ("v", "verbose", "", "log_level", _flag, EVERYWHERE,
     "log every message; if given twice, also every command"),
    ("l", "listen", "[IP:]PORT", "listen", _address, EVERYWHERE,
     f"listen on this address as a background server\n(default IP: {LISTEN_ADDRESS})"),
    ("", "foreground", "", "foreground", _flag, LISTENING,
     "with -l: stay in the foreground"),
    ("", "log", "syslog|stderr", "log", _log, EVERYWHERE,
     "with -l --foreground: the log destination (default:\nsyslog, or stderr without /dev/log)"),
    ("", "max-sessions", "N", "max_sessions", _count, LISTENING,
     "with -l: serve at most N clients (default: {})"),
    ("", "metrics", "FILE", "metrics", _file, LISTENING,
     "with -l: write metrics for Prometheus to FILE"),
    ("", "pid-file", "FILE", "pid_file", _file, LISTENING,
     "with -l: write the process ID to FILE"),
    ("h", "help", "", "information", _flag, INFORMATION, "print this help"),
    ("L", "license", "", "information", _flag, INFORMATION, "print the licence"),
    ("V", "version", "", "information", _flag, INFORMATION, "print the version"),
)
# fmt: on
_LONG = {name: (attribute, check, applies) for _, name, _, attribute, check, applies, _ in TABLE}
_SHORT = {letter: name for letter, name, _, _, _, _, _ in TABLE if letter}
_WITH_VALUE = {name for _, name, argument, _, _, _, _ in TABLE if argument}


def _read(arguments: list[str]) -> "Iterable[tuple[str, str, str]]":
    """Yield (long name, option as spelled, value) for each option.

    For each argument that is not an option, yield ("", argument, argument).

    As with GNU getopt (cli.getopt), options may follow arguments, short options can be combined,
    long options can be abbreviated, and `--` ends the options.
    """
    while arguments:
        word = arguments.pop(0)
        if word == "--":
            yield from (("", rest, rest) for rest in arguments)
            return
        if word.startswith("--"):
            yield _read_long(word, arguments)
        elif word.startswith("-") and word != "-":
            yield from _read_cluster(word, arguments)
        else:
            yield "", word, word


def _read_long(word: str, arguments: list[str]) -> tuple[str, str, str]:
    shown, equals, value = word.partition("=")
    given = shown.removeprefix("--")
    names = [name for name in _LONG if name.startswith(given)]
    if not names:
        raise UsageError(f"unknown option {_one_line(shown)}")
    if len(names) > 1:
        raise UsageError(f"ambiguous option {shown}; use --{' or --'.join(names)}")
    (name,) = names
    if name not in _WITH_VALUE:
        if equals:
            raise UsageError(f"option --{name} takes no value; got {value!r}")
        return name, f"--{name}", ""
    return name, f"--{name}", value if equals else _next(f"--{name}", arguments)


def _read_cluster(word: str, arguments: list[str]) -> "Iterable[tuple[str, str, str]]":
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        name = _SHORT.get(letter)
        if name is None:
            within = f" in {_one_line(word)}" if word[2:] else ""
            raise UsageError(f"unknown option {_one_line('-' + letter)}{within}")
        if name in _WITH_VALUE:
            yield name, f"-{letter}", letters or _next(f"-{letter}", arguments)
            return
        yield name, f"-{letter}", ""


def _one_line(word: str) -> str:
    """Return `word`, escaped if it contains unprintable characters."""
    return word if word.isprintable() else ascii(word)


def _next(shown: str, arguments: list[str]) -> str:
    if not arguments:
        raise UsageError(f"option {shown} requires a value")
    return arguments.pop(0)
