"""The parser of the command line. Add an option here.

Rule: this module checks every value. An error names the option, the value, the problem and the
remedy. The parser is hand-written, because argparse and getopt cost more than a whole session.
"""

from .. import TYPE_CHECKING
from . import limits, log_levels
from .address import UpstreamAddress, port_number, split_port

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Short names to long names, and the options without a short name.
_SHORT = {
    "c": "command",
    "d": "tempdir",
    "t": "timeout",
    "r": "reject",
    "v": "verbose",
    "l": "listen",
    "h": "help",
    "L": "license",
    "V": "version",
}
_LONG = (*_SHORT.values(), "foreground", "log", "max-sessions", "metrics", "pid-file", "strict")
_WITH_VALUE = (
    *("command", "tempdir", "timeout", "listen"),
    *("log", "max-sessions", "metrics", "pid-file"),
)
#: The destinations of the log. If `Options.log` is "", the server chooses (log.stderr).
SYSLOG, STDERR = LOGS = ("syslog", "stderr")
LISTEN_ADDRESS = "127.0.0.1"
INFORMATION = ("help", "license", "version")

#: The environment variable that divides every timeout, for fast tests (docs/conformance.md).
CLOCK_SPEED = b"POSTPROX_CLOCK_SPEED"

_LOG_LEVELS = (log_levels.WARNING, log_levels.INFO, log_levels.DEBUG)


class UsageError(Exception):
    """An invalid command line. The message names the problem and the remedy."""


class Options:
    """The values of the command line."""

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
        #: The requested text, one of `INFORMATION`, or "" if the proxy is to run.
        self.information = ""
        #: The address of the upstream server.
        self.target: UpstreamAddress
        #: The command that `sh -c` runs on each message, or None if there is no filter.
        self.command: str | None = None
        #: The directory of the spool, as given.
        self.directory = "/tmp"  # noqa: S108 - the manual's default
        #: The timeout of the filter in seconds.
        self.timeout = limits.FILTER_TIMEOUT
        #: Whether a failure of the filter refuses the message.
        self.reject = False
        #: Whether a rejection without a reply code is a failure. It implies `reject`.
        self.strict = False
        #: The least important level of the log.
        self.log_level = log_levels.WARNING
        #: The address and port to listen on, or None for a session on standard input and output.
        self.listen: tuple[str, int] | None = None
        self.foreground = False
        #: The destination of the log, one of `LOGS`, or "" if not given.
        self.log = ""
        self.max_sessions = limits.SESSIONS
        #: The files of a server for its metrics and its process id, or "" if not given.
        self.metrics = ""
        self.pid_file = ""
        #: The factor by which the clock of all timeouts is faster than real time.
        self.clock_speed = 1.0


def parse(arguments: "Iterable[str]", clock_speed: bytes = b"") -> Options:
    """Parse the command line.

    clock_speed: the value of the environment variable `CLOCK_SPEED`, or b"" if not set.

    Raises:
        UsageError: the command line is invalid.
    """
    options = Options()
    targets = []
    verbosity = 0
    listening_only = ""
    for name, shown, value in _read(list(arguments)):
        if name in INFORMATION:
            options.information = name
            return options
        if name == "verbose":
            verbosity += 1
        elif name:
            _set(options, name, shown, value)
        else:
            targets.append(value)
        if name in ("foreground", "max-sessions", "metrics", "pid-file"):
            listening_only = shown
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
    """Refuse two outputs in one file, and a log on a standard error that is not the proxy's."""
    if options.log == STDERR and not (options.listen and options.foreground):
        raise UsageError("--log stderr requires --listen [IP:]PORT and --foreground")
    if options.metrics and options.metrics == options.pid_file:
        raise UsageError(f"--metrics and --pid-file {options.metrics!r}: must be different files")


def _target(given: list[str]) -> UpstreamAddress:
    if not given:
        raise UsageError("HOST:PORT is missing; give the address of the upstream mail server")
    target, *unexpected = given
    if unexpected:
        raise UsageError(f"unexpected argument {unexpected[0]!r}; HOST:PORT is already {target!r}")
    try:
        return UpstreamAddress(target)
    except ValueError as error:
        raise UsageError(f"HOST:PORT {target!r}: {error}") from None


def _set(options: Options, name: str, shown: str, value: str) -> None:
    if name == "command":
        options.command = value
    elif name == "tempdir":
        options.directory = _directory(shown, value)
    elif name == "timeout":
        options.timeout = _number(shown, value)
    elif name == "reject":
        options.reject = True
    elif name == "strict":
        options.strict = options.reject = True
    elif name == "listen":
        options.listen = _address(shown, value)
    elif name == "foreground":
        options.foreground = True
    elif name == "log":
        options.log = _log(shown, value)
    elif name == "max-sessions":
        options.max_sessions = _count(shown, value)
    else:
        setattr(options, name.replace("-", "_"), _file(shown, value))


def _directory(shown: str, value: str) -> str:
    if not value:
        raise UsageError(f"{shown} {value!r}: must be the name of a directory")
    return value


def _file(shown: str, value: str) -> str:
    if not value:
        raise UsageError(f"{shown} {value!r}: must be the name of a file")
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
    raise UsageError(f"{shown} {value!r}: must be a positive integer")


def _address(shown: str, value: str) -> tuple[str, int]:
    try:
        host, port = split_port(value) if ":" in value else ("", value)
        return host or LISTEN_ADDRESS, port_number(port)
    except ValueError as error:
        raise UsageError(f"{shown} {value!r}: {error}") from None


def _read(arguments: list[str]) -> "Iterable[tuple[str, str, str]]":
    """Yield (long name, option as given, value) for options and ("", word, word) for other words.

    The syntax is that of getopt_long(3) (cli.getopt): options may follow words, short options
    cluster, long options may be abbreviated, and `--` ends the options.
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
        raise UsageError(f"option {shown} is ambiguous; use --{' or --'.join(names)}")
    (name,) = names
    if name not in _WITH_VALUE:
        if equals:
            raise UsageError(f"--{name} {value!r}: the option takes no value")
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
    """Escape a word that is not printable, for an error message of one line."""
    return word if word.isprintable() else ascii(word)


def _next(shown: str, arguments: list[str]) -> str:
    if not arguments:
        raise UsageError(f"option {shown} requires a value")
    return arguments.pop(0)
