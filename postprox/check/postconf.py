"""The Postfix configuration, parsed from the output of postconf(1).

Rule: this module only converts text to objects. The output must come from `-nx` and `-Px`, because
`-x` expands `$name`.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from . import values
from .source_text import Correction, Misplaced, Orphan

#: Default values of the parameters used in this package (postconf(5)).
DEFAULTS = {
    "command_time_limit": "1000s",
    "compatibility_level": "0",
    "default_destination_concurrency_limit": "20",
    "default_process_limit": "100",
    "inet_interfaces": "all",
    "mail_spool_directory": "/var/mail",
    "message_size_limit": "10240000",
    "queue_directory": "/var/spool/postfix",
    "smtp_data_done_timeout": "600s",
    "smtp_send_xforward_command": "no",
    "smtpd_proxy_timeout": "100s",
}

#: The characters that separate words. Unlike in str.splitlines(), only LF ends a line.
_BLANKS = " \t\r\n"


class UnreadableError(Exception):
    """An input cannot be read or parsed."""


@dataclass(frozen=True, eq=False)
class Service:
    """A service in master.cf, with the parameters that apply to it."""

    name: str
    type: str
    #: The columns as written in master.cf: y, n or -. The process limit is a number or -.
    private: str
    unprivileged: str
    chroot: str
    wakeup: str
    process_limit: str
    #: The command and its arguments, as Postfix splits them.
    words: tuple[str, ...]
    #: The parameters in main.cf.
    main: Mapping[str, str]
    #: The parameters that `-o` sets for this service only.
    own: Mapping[str, str]

    @property
    def label(self) -> str:
        """Return the name that postconf(1) uses for the service."""
        return f"{self.name}/{self.type}"

    def column(self, name: str) -> str:
        """Return the column that postconf(1) calls `name`."""
        if name == "command":
            return join_words(self.words)
        return str(getattr(self, {"service": "name"}.get(name, name)))

    @property
    def program(self) -> str:
        """Return the service's Postfix program, such as smtpd or spawn."""
        return self.words[0]

    def parameter(self, name: str) -> str:
        """Return the value of a parameter that applies to this service."""
        return self.own.get(name, self.main.get(name, DEFAULTS.get(name, "")))

    def tokens(self, name: str) -> list[str]:
        """Return the items of a list parameter."""
        return (
            re.split(f"[,{_BLANKS}]+", self.parameter(name).strip(_BLANKS))
            if self.parameter(name)
            else []
        )

    def milter_sockets(self) -> list[str]:
        """Return the absolute paths of the milters to which the service passes mail."""
        name = {"smtpd": "smtpd_milters", "cleanup": "non_smtpd_milters"}.get(self.program, "")
        if "no_milters" in self.tokens("receive_override_options"):
            return []
        return re.findall(r"(?:^|[\s,{])unix:(/[^\s,{}]+)", self.parameter(name))

    def seconds(self, name: str) -> int:
        """Return a time in seconds, or the default if Postfix does not accept the value."""
        value = values.seconds(self.parameter(name))
        return int(DEFAULTS[name].removesuffix("s")) if value is None else value

    def limit(self) -> int:
        """Return the process limit, or 0 if unlimited."""
        own = values.process_limit(self.process_limit)
        name = "default_process_limit"
        return _number(name, self.parameter(name)) if own is None else own

    def is_chrooted(self) -> bool:
        """Return whether Postfix chroots the service.

        At compatibility level 0, services are chrooted by default.
        """
        level = self.parameter("compatibility_level")
        default = "y" if re.match(r"0*(?![0-9])", level) else "n"
        return (default if self.chroot == "-" else self.chroot) != "n"


@dataclass(frozen=True)
class BrokenTable:
    """A table that a parameter names."""

    parameter: str
    type: str
    path: str
    #: True if Postfix does not support the type.
    is_unsupported: bool = False
    #: True if the text file exists from which postmap(1) creates the table.
    has_text: bool = True


@dataclass(frozen=True)
class Configuration:
    """The main.cf and master.cf in `directory` ("" means Postfix's default directory)."""

    main: Mapping[str, str]
    #: The services that Postfix runs. If several services have the same name, Postfix uses the last
    #: one.
    services: tuple[Service, ...]
    directory: str = ""
    #: The services that Postfix ignores because a later service has the same name.
    ignored: tuple[Service, ...] = ()
    #: The corrections made in copies of the files before postconf(1) read them.
    corrections: tuple[Correction, ...] = ()
    #: The lines that were moved between the copies of main.cf and master.cf before the corrections.
    misplaced: tuple[Misplaced, ...] = ()
    #: The entries of master.cf whose first line is commented out, but whose continuation lines are
    #: not.
    orphans: tuple[Orphan, ...] = ()
    #: The directory of the original files, to which the corrections apply.
    corrected: str = ""
    #: The value of an earlier content_filter line in main.cf, or "".
    replaced_filter: str = ""
    #: The names and values in main.cf as written, including lines that have no effect.
    written: tuple[tuple[str, str], ...] = ()
    #: The addresses of each host name in /etc/hosts.
    hosts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: The absolute paths of filters that chrooted services can also reach, for example because
    #: of a bind mount.
    shared: frozenset[str] = frozenset()
    #: The absolute paths of milters that chrooted services cannot reach.
    hidden_milters: frozenset[str] = frozenset()
    #: The tables that Postfix cannot open.
    broken_tables: tuple[BrokenTable, ...] = ()
    #: The programs of Postfix for local users whose group or mode is wrong.
    closed_programs: tuple[str, ...] = ()
    #: The reason why a pipe(8) or spawn(8) service cannot run, indexed by the service's label.
    unrunnable: Mapping[str, str] = field(default_factory=dict)
    #: The free space in the file system of the queue in octets, or None if unknown.
    free_space: int | None = None
    #: The program of mailbox_command if it does not exist, or "".
    missing_delivery: str = ""
    #: The missing SASL socket of each smtpd(8) service, indexed by the label of the service. The
    #: socket is "" if the plug-ins of Cyrus SASL are missing.
    missing_sasl: Mapping[str, str] = field(default_factory=dict)
    #: True if Dovecot is installed, but not running.
    is_dovecot_stopped: bool = False
    #: The queue directories that postdrop(1) and postqueue(1) cannot access.
    closed_directories: tuple[str, ...] = ()
    #: True if a tmpfs is mounted on the queue directory.
    is_queue_in_memory: bool = False
    #: The addresses in inet_interfaces that this machine does not have.
    foreign_interfaces: tuple[str, ...] = ()
    #: The socket of each transport for local mail, if the socket does not exist, indexed by the
    #: name of the parameter.
    missing_sockets: Mapping[str, str] = field(default_factory=dict)
    #: The paths to which local(8) cannot deliver. The value is the group that the directory for
    #: mailboxes requires, or the user that the mailbox requires.
    closed_mailboxes: Mapping[str, str] = field(default_factory=dict)
    #: The files for STARTTLS that do not exist, indexed by the name of the parameter.
    missing_certificates: Mapping[str, str] = field(default_factory=dict)
    #: main.cf and its directory, if ordinary users cannot read them.
    closed_files: tuple[str, ...] = ()
    #: The default queue directory, if it is not in use but contains messages, or "".
    old_queue: str = ""
    #: The names of the queue directories that do not belong to the user in mail_owner.
    foreign_directories: tuple[str, ...] = ()
    #: The directory of each other Postfix instance that receives mail without a filter, and the
    #: label of the service that receives it.
    open_instances: tuple[tuple[str, str], ...] = ()

    @property
    def postconf(self) -> str:
        """Return the command that reads and changes this configuration."""
        return f"postconf -c {shlex.quote(self.directory)}" if self.directory else "postconf"

    @property
    def postfix(self) -> str:
        """Return the postfix(1) command for this configuration."""
        return f"postfix -c {shlex.quote(self.directory)}" if self.directory else "postfix"

    def parameter(self, name: str) -> str:
        """Return the parameter's value in main.cf, or its default value."""
        return self.main.get(name, DEFAULTS.get(name, ""))

    def number(self, name: str) -> int:
        """Return a number, or the default if Postfix does not accept the value."""
        return _number(name, self.parameter(name))

    def transport(self, name: str) -> Service | None:
        """Return the service that implements a transport."""
        return next((s for s in self.services if (s.name, s.type) == (name, "unix")), None)


def _number(name: str, text: str) -> int:
    value = values.number(name, text)
    return int(DEFAULTS[name]) if value is None else value


def parse(main: str, master: str, overrides: str, directory: str = "") -> Configuration:
    """Parse the output of `postconf -nx`, `postconf -M` and `postconf -Px`.

    Raises:
        UnreadableError: an input has an unexpected format.
    """
    parameters = dict(_assignments(main, "-n"))
    own: dict[str, dict[str, str]] = {}
    for path, value in _assignments(overrides, "-P"):
        label, _, name = path.rpartition("/")
        own.setdefault(label, {})[name] = value
    lines = [_service(line, parameters, own) for line in master.split("\n") if line]
    last = {service.label: service for service in lines}
    counts = Counter(service.label for service in lines)
    services = tuple(
        replace(each, own=_own(each.words)) if counts[each.label] > 1 else each
        for each in last.values()
    )
    ignored = tuple(
        replace(each, own=_own(each.words)) for each in lines if last[each.label] is not each
    )
    return Configuration(parameters, services, directory, ignored)


def host_names(text: str) -> dict[str, tuple[str, ...]]:
    """Return the addresses of each name in the text of /etc/hosts (hosts(5))."""
    found: dict[str, tuple[str, ...]] = {}
    for line in text.split("\n"):
        address, *names = line.partition("#")[0].split() or [""]
        for name in names:
            found[name.lower()] = (*found.get(name.lower(), ()), address)
    return found


def _own(words: Sequence[str]) -> dict[str, str]:
    """Parse `-o` parameters here, because postconf(1) confuses services with the same name."""
    pairs = [word.partition("=") for option, word in pairwise(words) if option == "-o"]
    return {name.strip(_BLANKS): value.strip(_BLANKS) for name, _, value in pairs}


def _assignments(text: str, option: str) -> Iterator[tuple[str, str]]:
    for line in filter(None, text.split("\n")):
        name, equals, value = line.partition("=")
        if not equals:
            raise UnreadableError(
                f"postconf {option} printed {line!r}; each line must be NAME = VALUE"
            )
        yield name.strip(_BLANKS), value.strip(_BLANKS)


def _service(line: str, main: Mapping[str, str], own: Mapping[str, Mapping[str, str]]) -> Service:
    fields = re.split(f"[{_BLANKS}]+", line.strip(_BLANKS), maxsplit=7)
    if len(fields) < 8:
        raise UnreadableError(f"postconf -M printed {line!r}; each line must have 8 fields")
    name, kind, private, unprivileged, chroot, wakeup, limit, command = fields
    return Service(
        name=name,
        type=kind,
        private=private,
        unprivileged=unprivileged,
        chroot=chroot,
        wakeup=wakeup,
        process_limit=limit,
        words=tuple(split_words(command)),
        main=main,
        own=own.get(f"{name}/{kind}", {}),
    )


def split_words(text: str) -> list[str]:
    """Split a command in master.cf at whitespace outside braces.

    Braces around a whole word are removed (master(5)).
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
    return word[1:-1].strip(_BLANKS) if word.startswith("{") and word.endswith("}") else word


def join_words(words: tuple[str, ...]) -> str:
    """Format a command for master.cf. `split_words` is the inverse function."""
    return " ".join(f"{{{word}}}" if re.search(r"\s|^$|^\{", word) else word for word in words)
