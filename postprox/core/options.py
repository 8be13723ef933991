"""What the command line asks for.

Rule: everything given is checked here; what is wrong is said with the option, the value and what
would be right. Written by hand, because argparse and getopt cost more than the session itself.
"""

from .. import TYPE_CHECKING
from . import limits, log_levels
from .address import UpstreamAddress, port_number, split_port

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Long names by short ones, and the options with a long name only.
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
#: Where the log can go; "" in `Options.log` lets the server choose (log.stderr).
SYSLOG, STDERR = LOGS = ("syslog", "stderr")
LISTEN_ADDRESS = "127.0.0.1"
INFORMATION = ("help", "license", "version")

#: In the environment: divides every time limit, for tests that cannot wait for minutes
#: (docs/conformance.md).
CLOCK_SPEED = b"POSTPROX_CLOCK_SPEED"

_LOG_LEVELS = (log_levels.WARNING, log_levels.INFO, log_levels.DEBUG)


class UsageError(Exception):
    """The command line is wrong; the message says where and what would be right."""


class Options:
    """What the command line asks for."""

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
        #: Which of `INFORMATION` is asked for, instead of a proxy; or "".
        self.information = ""
        #: Where upstream is.
        self.target: UpstreamAddress
        #: What `sh -c` runs; None lets every message pass.
        self.command: str | None = None
        #: Where messages are spooled, as it is given.
        self.directory = "/tmp"  # noqa: S108 - the manual's default
        #: The filter's time limit in seconds.
        self.timeout = limits.FILTER_TIMEOUT
        #: Whether a filter's failure refuses the message.
        self.reject = False
        #: Whether a rejection without a reply code is a failure; it implies `reject`.
        self.strict = False
        #: The least important level that is logged.
        self.log_level = log_levels.WARNING
        #: Address and port to listen on, None for a session on standard input and output.
        self.listen: tuple[str, int] | None = None
        self.foreground = False
        #: One of `LOGS`, "" if not given.
        self.log = ""
        self.max_sessions = limits.SESSIONS
        #: Files that a server writes: what it has done, and its process id; "" for none.
        self.metrics = ""
        self.pid_file = ""
        #: How much faster than the wall's the clock runs that time limits are measured with.
        self.clock_speed = 1.0


def parse(arguments: "Iterable[str]", clock_speed: bytes = b"") -> Options:
    """Return what the command line asks for; `clock_speed` is the value of `CLOCK_SPEED`.

    Raises:
        UsageError: it is wrong.
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
        raise UsageError(f"{listening_only} is for listening: give --listen [IP:]PORT too")
    _check_together(options)
    return options


def _check_together(options: Options) -> None:
    """Refuse options that would write to one file, or to a descriptor that is not the proxy's."""
    if options.log == STDERR and not (options.listen and options.foreground):
        raise UsageError("--log stderr requires --listen [IP:]PORT and --foreground")
    if options.metrics and options.metrics == options.pid_file:
        raise UsageError(f"--metrics and --pid-file {options.metrics!r}: give two different files")


def _target(given: list[str]) -> UpstreamAddress:
    if not given:
        raise UsageError("HOST:PORT is missing, the mail server to pass the mail to")
    target, *unexpected = given
    if unexpected:
        raise UsageError(f"unexpected argument {unexpected[0]!r}: HOST:PORT is {target!r} already")
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
        raise UsageError(f"{shown}: the name of a directory is missing")
    return value


def _file(shown: str, value: str) -> str:
    if not value:
        raise UsageError(f"{shown}: the name of a file is missing")
    return value


def _log(shown: str, value: str) -> str:
    if value not in LOGS:
        raise UsageError(f"{shown} {value!r}: must be {' or '.join(LOGS)}")
    return value


def _number(shown: str, value: str) -> float:
    digits = value.replace(".", "", 1)
    if digits.isascii() and digits.isdigit() and 0 < float(value) < float("inf"):
        return float(value)
    raise UsageError(f"{shown} {value!r}: give a positive number, such as 30 or 0.5")


def _count(shown: str, value: str) -> int:
    count = int(value[:9]) if value.isascii() and value.isdigit() else 0
    if count:
        return count
    raise UsageError(f"{shown} {value!r}: give a positive whole number")


def _address(shown: str, value: str) -> tuple[str, int]:
    try:
        host, port = split_port(value) if ":" in value else ("", value)
        return host or LISTEN_ADDRESS, port_number(port)
    except ValueError as error:
        raise UsageError(f"{shown} {value!r}: {error}") from None


def _read(arguments: list[str]) -> "Iterable[tuple[str, str, str]]":
    """Yield (long name, option as given, value) for options, ("", word, word) for other words.

    GNU habits (cli.getopt): options may follow words, short ones cluster, long ones may be
    shortened, `--` ends options.
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
        raise UsageError(f"option {shown} could be --{' or --'.join(names)}")
    (name,) = names
    if name not in _WITH_VALUE:
        if equals:
            raise UsageError(f"option --{name} takes no value, not {value!r}")
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
    """Return a word as it can be shown in a line."""
    return word if word.isprintable() else ascii(word)


def _next(shown: str, arguments: list[str]) -> str:
    if not arguments:
        raise UsageError(f"option {shown} needs a value")
    return arguments.pop(0)
