"""The header of a transcript: its keys, their values and their defaults.

Rule: `KEYS` lists all keys. Any other key is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .payload import VARIABLES, did_you_mean
from .vocabulary import MODES

FORMAT = 2
DEFAULT_MODES = ("stdio", "listen")
UPSTREAMS = (
    "listening",
    "ipv6",
    "unix",
    "refused",
    "stalled",
    "127.0.0.2",
    "127.0.0.3",
    "port-25",
    "127.0.0.2:25",
    "127.0.0.3:25",
)
#: Upstream servers that require a private network namespace.
ON_PORT_25 = ("port-25", "127.0.0.2:25", "127.0.0.3:25")
TMPS = ("empty", "missing", "file", "readonly", "full")
FD2S = ("watched", "socket")
SYSLOGS = ("present", "absent")
BUFFERS = ("default", "small")
LIMITS = ("fsize", "nofile", "as", "stack", "nproc")
#: Limits in octets that a shell can only set in larger units.
_LIMITS_IN_OCTETS = ("fsize", "as", "stack")

#: Optional capabilities of an implementation, listed in its description.
IMPLEMENTATION_CAPABILITIES = (
    "stdio",
    "pipelining",
    "enhanced-codes",
    "8bitmime",
    "size",
    "spool-dir",
    "quit-on-eof",
    "filter",
    "listen",
    "foreground",
    "max-sessions",
    "listen-fds",
    "ipv6",
    "unix",
    "fractional-timeout",
    "strict",
    "env-more",
    "metrics",
    "pid-file",
    "smtp-only",
    "log",
)
#: Capabilities of the machine, and of the user who runs the suite.
HOST_CAPABILITIES = (
    "syslog",
    "ipv6-loopback",
    "root",
    "unprivileged",
    "mounts",
    "hosts",
    "localhost",
    "network",
)
CAPABILITIES = (*IMPLEMENTATION_CAPABILITIES, *HOST_CAPABILITIES)

#: Placeholders in argv and env. A name in braces is replaced anywhere within a word.
PLACEHOLDERS = ("filter", *VARIABLES)


class HeaderError(ValueError):
    """A header is invalid. `key` names the invalid entry."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


@dataclass(frozen=True)
class Header:
    """The settings of a transcript, which precede its first step."""

    title: str
    #: The identifiers of the requirements that the transcript asserts. The first one is its
    #: subject.
    requires: tuple[str, ...]
    format: int = FORMAT
    argv: tuple[str, ...] | None = None
    filter: str | None = None
    modes: tuple[str, ...] = DEFAULT_MODES
    needs: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    programs: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)
    inherits: tuple[int, ...] = ()
    clock: float | None = None
    takes: float | None = None
    upstream: str = "listening"
    tmp: str = "empty"
    fd2: str = "watched"
    syslog: str = "present"
    buffers: str = "default"
    background: bool = False
    listen_fds: bool = False

    @property
    def arguments(self) -> tuple[str, ...]:
        """Return the arguments of the implementation, with the default if there is no argv."""
        if self.argv is not None:
            return self.argv
        command = ("-c", "{filter}") if self.filter is not None else ()
        return (*command, "-d", "{tmp}", "{upstream}")


def read_header(table: Mapping[str, object]) -> Header:
    """Return the header in a parsed TOML table. HeaderError contains the problem and its key."""
    for key in table:
        if key in _KEYS_OF_FORMAT_1:
            raise HeaderError(key, f"'{key}' is a key from format 1; {_REPLACEMENT}")
        if key not in KEYS:
            raise HeaderError(
                key,
                f"unknown key '{key}'{did_you_mean(key, list(KEYS))}; "
                f"valid keys: {', '.join(KEYS)}",
            )
    for key in _REQUIRED:
        if key not in table:
            raise HeaderError("", f"missing key '{key}'")
    values: dict[str, Any] = {key: KEYS[key](key, value) for key, value in table.items()}
    header = Header(**values)
    _check_together(header)
    return header


def _check_together(header: Header) -> None:
    if "command" in header.modes and len(header.modes) > 1:
        raise HeaderError("modes", "mode 'command' cannot be combined with other modes")
    for key in ("background", "listen_fds"):
        if getattr(header, key) and header.modes != ("listen",):
            raise HeaderError(key, f'{key} = true requires modes = ["listen"]')
    if header.takes is not None and header.clock is None:
        raise HeaderError("takes", "'takes' requires 'clock'")
    if header.filter is not None and header.argv and "{filter}" not in "".join(header.argv):
        raise HeaderError("argv", "argv must contain {filter}, because the header has a filter")


def _text(key: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise HeaderError(key, f"'{key}' must be a string with a visible character, not {value!r}")
    return value


def _texts(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise HeaderError(key, f"'{key}' must be a list of strings, not {value!r}")
    return tuple(value)


def _some_texts(key: str, value: object) -> tuple[str, ...]:
    if not (texts := _texts(key, value)):
        raise HeaderError(key, f"'{key}' must not be empty")
    return texts


def _one_of(choices: Iterable[str]) -> Callable[[str, object], str]:
    allowed = list(choices)

    def read(key: str, value: object) -> str:
        if value not in allowed:
            raise HeaderError(
                key,
                f"'{key}' must be one of {', '.join(allowed)}, not "
                f"{value!r}{did_you_mean(str(value), allowed)}",
            )
        return str(value)

    return read


def _several_of(choices: Iterable[str]) -> Callable[[str, object], tuple[str, ...]]:
    one = _one_of(choices)

    def read(key: str, value: object) -> tuple[str, ...]:
        return tuple(one(key, text) for text in _some_texts(key, value))

    return read


def _positive(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise HeaderError(key, f"'{key}' must be a positive number, not {value!r}")
    return value


def _boolean(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise HeaderError(key, f"'{key}' must be true or false, not {value!r}")
    return value


def _format(key: str, value: object) -> int:
    if value != FORMAT:
        raise HeaderError(key, f"format must be {FORMAT}, not {value!r}; {_REPLACEMENT}")
    return FORMAT


def _string_table(key: str, value: object) -> Mapping[str, str]:
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise HeaderError(key, f"'{key}' must be a table of strings, not {value!r}")
    return dict(value)


def _limits(key: str, value: object) -> Mapping[str, int]:
    if not isinstance(value, dict):
        raise HeaderError(key, f"'{key}' must be a table such as {{ fsize = 4096 }}, not {value!r}")
    for name, number in value.items():
        if name not in LIMITS:
            raise HeaderError(
                key,
                f"unknown limit '{name}'{did_you_mean(name, LIMITS)}; "
                f"valid limits: {', '.join(LIMITS)}",
            )
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise HeaderError(key, f"the limit '{name}' must be an integer, not {number!r}")
        if name in _LIMITS_IN_OCTETS and number % 1024:
            raise HeaderError(key, f"the limit '{name}' must be a multiple of 1024, not {number}")
    return dict(value)


def _descriptors(key: str, value: object) -> tuple[int, ...]:
    # The shell opens these file descriptors, and POSIX shells only accept single digits.
    if not isinstance(value, list) or not all(type(one) is int and 3 <= one <= 9 for one in value):
        raise HeaderError(
            key, f"'{key}' must be a list of file descriptors from 3 to 9, not {value!r}"
        )
    return tuple(value)


#: The reader for each key's value. The keys are written in this order.
KEYS: dict[str, Callable[[str, object], object]] = {
    "format": _format,
    "title": _text,
    "requires": _some_texts,
    "modes": _several_of(MODES),
    "needs": _several_of(CAPABILITIES),
    "argv": _texts,
    "env": _string_table,
    "files": _string_table,
    "programs": _string_table,
    "limits": _limits,
    "inherits": _descriptors,
    "clock": _positive,
    "takes": _positive,
    "upstream": _one_of(UPSTREAMS),
    "tmp": _one_of(TMPS),
    "fd2": _one_of(FD2S),
    "syslog": _one_of(SYSLOGS),
    "buffers": _one_of(BUFFERS),
    "background": _boolean,
    "listen_fds": _boolean,
    "filter": _text,
}

_REQUIRED = ("title", "requires")
_KEYS_OF_FORMAT_1 = ("clauses", "level")
_REPLACEMENT = 'use requires = ["relay.idle-1"], with identifiers from the specification'


def write_header(header: Header) -> str:
    """Return TOML for every key of *header* whose value differs from the default."""
    plain = Header(header.title, header.requires)
    lines = [
        f"{key} = {_toml(getattr(header, key))}\n"
        for key in KEYS
        if key in _REQUIRED or getattr(header, key) != getattr(plain, key)
    ]
    return "".join(lines)


def _toml(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _toml_string(value)
        case tuple():
            return f"[{', '.join(_toml(one) for one in value)}]"
        case Mapping():
            return (
                "{ "
                + ", ".join(f"{_toml_string(name)} = {_toml(one)}" for name, one in value.items())
                + " }"
            )
        case _:
            return repr(value)


def _toml_string(text: str) -> str:
    if "\n" in text and "'''" not in text and not text.endswith("'"):
        return f"'''\n{text}'''"
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    escaped = "".join(
        escapes.get(one) or (one if 32 <= ord(one) < 127 else f"\\u{ord(one):04x}") for one in text
    )
    return f'"{escaped}"'
