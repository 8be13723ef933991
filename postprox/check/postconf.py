"""A configuration of Postfix, from what postconf(1) prints of it.

Rule: text in, objects out. `-n` and `-P` are read as printed with `-x`, which expands `$name`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from . import values

#: What is not in main.cf has these values (postconf(5)); only what is asked for here.
DEFAULTS = {
    "compatibility_level": "0",
    "default_destination_concurrency_limit": "20",
    "default_process_limit": "100",
    "message_size_limit": "10240000",
    "queue_directory": "/var/spool/postfix",
    "smtp_data_done_timeout": "600s",
    "smtp_send_xforward_command": "no",
    "smtpd_proxy_timeout": "100s",
}

#: What separates words; a line ends with LF, and with no other line end that Unicode has.
_BLANKS = " \t\r\n"


class UnreadableError(Exception):
    """The text is not what postconf prints; the message says which line."""


@dataclass(frozen=True, eq=False)
class Service:
    """A line of master.cf, with the parameters as they are in force for it."""

    name: str
    type: str
    #: Columns as they are written: y, n or -; a number or -.
    private: str
    unprivileged: str
    chroot: str
    process_limit: str
    #: The command and its arguments, as Postfix splits them.
    words: tuple[str, ...]
    #: Parameters of main.cf by name, and those that `-o` sets for this service alone.
    main: Mapping[str, str]
    own: Mapping[str, str]

    @property
    def label(self) -> str:
        """How postconf names it."""
        return f"{self.name}/{self.type}"

    @property
    def program(self) -> str:
        """The program of Postfix that serves it: smtpd, spawn ..."""
        return self.words[0]

    def parameter(self, name: str) -> str:
        """The value that is in force for this service."""
        return self.own.get(name, self.main.get(name, DEFAULTS.get(name, "")))

    def tokens(self, name: str) -> list[str]:
        """A parameter that is a list."""
        return re.split(r"[,\s]+", self.parameter(name).strip()) if self.parameter(name) else []

    def seconds(self, name: str) -> int:
        """A parameter that is a time; its default if Postfix refuses the value."""
        value = values.seconds(self.parameter(name))
        return int(DEFAULTS[name].removesuffix("s")) if value is None else value

    def limit(self) -> int:
        """How many processes there can be; 0 is no limit."""
        own = values.process_limit(self.process_limit)
        name = "default_process_limit"
        return _number(name, self.parameter(name)) if own is None else own

    def is_chrooted(self) -> bool:
        """Whether Postfix runs it in queue_directory; the default was y before level 1."""
        level = self.parameter("compatibility_level")
        default = "y" if re.match(r"0*(?![0-9])", level) else "n"
        return (default if self.chroot == "-" else self.chroot) != "n"


@dataclass(frozen=True)
class Configuration:
    """main.cf and master.cf; `directory` is where they are, if not in the usual place."""

    main: Mapping[str, str]
    services: tuple[Service, ...]
    directory: str = ""

    @property
    def postconf(self) -> str:
        """The command that reads and changes this configuration."""
        return f"postconf -c {shlex.quote(self.directory)}" if self.directory else "postconf"

    def parameter(self, name: str) -> str:
        """The value of main.cf, or the default."""
        return self.main.get(name, DEFAULTS.get(name, ""))

    def number(self, name: str) -> int:
        """A parameter that is a number; its default if Postfix refuses the value."""
        return _number(name, self.parameter(name))

    def transport(self, name: str) -> Service | None:
        """The service that delivers mail under this name."""
        return next((s for s in self.services if (s.name, s.type) == (name, "unix")), None)


def _number(name: str, text: str) -> int:
    value = values.number(name, text)
    return int(DEFAULTS[name]) if value is None else value


def parse(main: str, master: str, overrides: str, directory: str = "") -> Configuration:
    """Put together what `postconf -nx`, `postconf -M` and `postconf -Px` print.

    Raises:
        UnreadableError: it is something else.
    """
    parameters = dict(_assignments(main, "-n"))
    own: dict[str, dict[str, str]] = {}
    for path, value in _assignments(overrides, "-P"):
        label, _, name = path.rpartition("/")
        own.setdefault(label, {})[name] = value
    services = tuple(_service(line, parameters, own) for line in master.split("\n") if line)
    return Configuration(parameters, services, directory)


def _assignments(text: str, option: str) -> Iterator[tuple[str, str]]:
    for line in filter(None, text.split("\n")):
        name, equals, value = line.partition("=")
        if not equals:
            raise UnreadableError(f"postconf {option} printed {line!r}, which is no NAME = VALUE")
        yield name.strip(), value.strip()


def _service(line: str, main: Mapping[str, str], own: Mapping[str, Mapping[str, str]]) -> Service:
    fields = re.split(f"[{_BLANKS}]+", line.strip(_BLANKS), maxsplit=7)
    if len(fields) < 8:
        raise UnreadableError(f"postconf -M printed {line!r}, which has no 8 fields")
    name, kind, private, unprivileged, chroot, _, limit, command = fields
    return Service(
        name=name,
        type=kind,
        private=private,
        unprivileged=unprivileged,
        chroot=chroot,
        process_limit=limit,
        words=tuple(split_words(command)),
        main=main,
        own=own.get(f"{name}/{kind}", {}),
    )


def split_words(text: str) -> list[str]:
    """Split a command of master.cf: at blanks, but not within braces.

    Braces round a whole word are taken away (master(5)).
    """
    words, depth, start = [], 0, 0
    for index, character in enumerate(text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if character in _BLANKS and depth <= 0:
            words.append(text[start:index])
            start = index + 1
    words.append(text[start:])
    return [_bare(word) for word in words if word]


def _bare(word: str) -> str:
    return word[1:-1].strip() if word.startswith("{") and word.endswith("}") else word


def join_words(words: tuple[str, ...]) -> str:
    """Write a command for master.cf: the opposite of `split_words`."""
    return " ".join(f"{{{word}}}" if re.search(r"\s|^$|^\{", word) else word for word in words)
