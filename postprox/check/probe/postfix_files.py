"""Reads files, users and addresses that a configuration of Postfix requires.

Rule: this module only reads data and makes no decisions.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import grp
import ipaddress
import os
import pwd
import re
import shutil
import socket
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from .. import delivery_rules, table_rules
from ..postconf import DEFAULTS, BrokenTable, Configuration
from . import accounts, postconf_command, system, units


def broken_tables(configuration: Configuration) -> Iterator[BrokenTable]:
    """Yield the tables whose type Postfix does not support, or whose index does not exist."""
    named = list(dict.fromkeys(table_rules.named_tables(configuration)))
    types: set[str] = set()
    if any(table.type in table_rules.PACKAGES for table in named):
        types = set(postconf_command.run("", "-m").split())
    for table in named:
        index = f"{table.path}{table_rules.INDEXES.get(table.type, '')}"
        if table.type in table_rules.PACKAGES and table.type not in types:
            yield replace(table, is_unsupported=True)
        elif table.type in table_rules.INDEXES and not Path(index).exists():
            yield replace(table, has_text=Path(table.path).exists())


def closed_programs(configuration: Configuration) -> Iterator[str]:
    """Yield the paths of the programs for local users whose group or mode is wrong."""
    group = configuration.parameter("setgid_group") or "postdrop"
    directory = configuration.parameter("command_directory") or "/usr/sbin"
    for name in ("postdrop", "postqueue"):
        with contextlib.suppress(OSError, KeyError):
            path = Path(directory, name)
            status = path.stat()
            is_right = status.st_gid == grp.getgrnam(group).gr_gid and status.st_mode & stat.S_ISGID
            if not is_right:
                yield str(path)


def closed_directories(configuration: Configuration) -> Iterator[str]:
    """Yield the queue directories that postdrop(1) and postqueue(1) cannot access."""
    group = configuration.parameter("setgid_group") or "postdrop"
    for name in ("maildrop", "public"):
        with contextlib.suppress(OSError, KeyError):
            path = Path(configuration.parameter("queue_directory"), name)
            status = path.stat()
            is_searchable = status.st_mode & stat.S_IXGRP
            if status.st_gid != grp.getgrnam(group).gr_gid or not is_searchable:
                yield str(path)


def foreign_directories(configuration: Configuration) -> Iterator[str]:
    """Yield the queue directories that do not belong to the user in mail_owner."""
    with contextlib.suppress(KeyError):
        owner = pwd.getpwnam(configuration.parameter("mail_owner") or "postfix")
        for name in table_rules.QUEUES:
            path = Path(configuration.parameter("queue_directory"), name)
            if path.is_dir() and path.stat().st_uid != owner.pw_uid:
                yield name


def foreign_interfaces(configuration: Configuration) -> Iterator[str]:
    """Yield the addresses in inet_interfaces that this machine does not have."""
    for word in re.split(r"[,\s]+", configuration.parameter("inet_interfaces")):
        with contextlib.suppress(ValueError):
            address = ipaddress.ip_address(word.strip("[]"))
            family = socket.AF_INET if address.version == 4 else socket.AF_INET6
            try:
                with socket.socket(family) as own:
                    own.bind((str(address), 0))
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL:
                    yield word


def free_space(directory: str) -> int | None:
    """Return the free space of a file system in octets, or None if unknown."""
    try:
        system = os.statvfs(directory)
    except OSError:
        return None
    return system.f_bavail * system.f_frsize


#: The program that a command runs, possibly with exec and after an assignment.
_COMMAND = re.compile(r"(?:\w+=\S*\s+)?(?:.*\bexec\s+)?(?P<program>/?[\w./+-]+)(?=\s|$)")
_BUILTINS = ("case", "cd", "exec", "exit", "for", "if", "test", "umask", "while")


def missing_delivery(configuration: Configuration) -> str:
    """Return the program of mailbox_command if it does not exist, or ""."""
    found = _COMMAND.match(configuration.parameter("mailbox_command").strip())
    program = found["program"] if found else ""
    is_known = (
        not program or program in _BUILTINS or shutil.which(program, path=system.SYSTEMD_PATH)
    )
    return "" if is_known else program


def closed_files(configuration: Configuration) -> Iterator[str]:
    """Yield main.cf and its directory, if sendmail(1) cannot read them as an ordinary user."""
    if configuration.directory:
        return
    directory = Path(postconf_command.default_directory())
    for path, mode in ((directory, stat.S_IXOTH), (directory / "main.cf", stat.S_IROTH)):
        with contextlib.suppress(OSError):
            if not path.stat().st_mode & mode:
                yield str(path)


def missing_sockets(configuration: Configuration) -> Iterator[tuple[str, str]]:
    """Yield each parameter with an LMTP transport whose socket does not exist, and the socket."""
    queue = Path(configuration.parameter("queue_directory"))
    for name in delivery_rules.TRANSPORTS:
        found = re.fullmatch(r"lmtp:unix:(?P<path>[\w./-]+)", configuration.main.get(name, ""))
        if found and not os.path.lexists(queue / found["path"]):
            yield name, str(queue / found["path"])


#: The mailbox directory that is common to all programs for local mail.
MAILBOXES = "/var/mail"


def closed_mailboxes(configuration: Configuration) -> Iterator[tuple[str, str]]:
    """Yield the paths to which local(8) cannot deliver, each with the right group or user."""
    directory = Path(configuration.parameter("mail_spool_directory").rstrip("/"))
    if not accounts.has_user("mail") or os.geteuid() or str(directory) != MAILBOXES:
        return
    group = grp.getgrgid(pwd.getpwnam("mail").pw_gid)
    try:
        status = directory.stat()
    except OSError:
        yield str(directory), group.gr_name
        return
    is_open = status.st_mode & stat.S_IWOTH or (
        status.st_gid == group.gr_gid and status.st_mode & stat.S_IWGRP
    )
    if not is_open:
        yield str(directory), group.gr_name
    for path in directory.iterdir():
        account = accounts.find(path.name)
        if account and path.is_file() and path.stat().st_uid != account.pw_uid:
            yield str(path), account.pw_name


def missing_certificates(configuration: Configuration) -> Iterator[tuple[str, str]]:
    """Yield the files for STARTTLS that do not exist, each with the parameter's name."""
    level = configuration.main.get("smtpd_tls_security_level", "")
    if os.geteuid() or level not in ("may", "encrypt"):
        return
    for name in delivery_rules.TLS_FILES:
        for path in re.split(r"[,\s]+", configuration.main.get(name, "")):
            if path.startswith("/") and "$" not in path and not Path(path).exists():
                yield name, path


#: The directories of the queue that contain messages.
_MESSAGES = ("maildrop", "incoming", "active", "deferred", "hold")


def old_queue(configuration: Configuration) -> str:
    """Return the default queue directory, if it is not in use but contains messages, or ""."""
    default = Path(DEFAULTS["queue_directory"])
    queue = configuration.parameter("queue_directory")
    if configuration.directory or not queue or default == Path(queue):
        return ""
    with contextlib.suppress(OSError):
        if default.samefile(queue):
            return ""
        files = (each for name in _MESSAGES for each in (default / name).rglob("*"))
        return str(default) if any(each.is_file() for each in files) else ""
    return ""


#: A plug-in of the package libsasl2-modules. libsasl2-2 itself has only ANONYMOUS, which Postfix
#: does not offer.
_SASL_PLUGINS = ("/usr/lib/*/sasl2/libplain.so*", "/usr/lib/sasl2/libplain.so*")


def missing_sasl(configuration: Configuration) -> Iterator[tuple[str, str]]:
    """Yield the services that require SASL, but lack Dovecot's socket or the plug-ins of Cyrus."""
    queue = Path(configuration.parameter("queue_directory"))
    has_plugins = any(map(glob.glob, _SASL_PLUGINS))
    for service in configuration.services:
        if service.program != "smtpd" or service.parameter("smtpd_sasl_auth_enable") != "yes":
            continue
        kind, path = (service.parameter(f"smtpd_sasl_{name}") for name in ("type", "path"))
        if kind == "dovecot" and path and "$" not in path and not path.startswith("inet:"):
            path = path.removeprefix("unix:")
            place = f"{queue}/{path}" if service.is_chrooted() else queue / path
            if not os.path.lexists(place):
                yield service.label, str(queue / path)
        elif kind in ("", "cyrus") and not has_plugins:
            yield service.label, ""


def is_dovecot_stopped() -> bool:
    has_unit = any(Path(each, "dovecot.service").exists() for each in units.UNIT_DIRECTORIES)
    return has_unit and not Path("/run/dovecot/master.pid").exists()


def unrunnable(configuration: Configuration) -> Iterator[tuple[str, str]]:
    """Yield the label of each pipe(8) or spawn(8) service that cannot run, and the reason.

    A missing proxy is left out, because other findings report it.
    """
    for service in configuration.services:
        values = dict(word.split("=", 1) for word in service.words if "=" in word)
        user, program = values.get("user", "").partition(":")[0], values.get("argv", "")
        if service.program not in ("pipe", "spawn") or "postprox" in program:
            continue
        if user and not accounts.has_user(user):
            yield service.label, f"runs a program as user {user}, who does not exist"
        elif program.startswith("/") and not os.path.lexists(program):
            yield service.label, f"runs {program}, which does not exist"


def is_shared(queue_directory: str, path: str) -> bool:
    """Return whether a mount or link may make a path the same file in and outside the chroot."""
    inner = Path(f"{queue_directory}{path}")
    parents = [each for each in inner.parents if each.is_relative_to(queue_directory)][:-1]
    with contextlib.suppress(OSError):
        if not Path(path).parent.is_dir():
            return False
        has_link = any(map(os.path.islink, parents))
        return has_link or os.path.lexists(inner) or inner.parent.samefile(Path(path).parent)
    return False


def is_hidden(queue_directory: str, path: str) -> bool:
    """Return whether a path is known to exist only outside the chroot."""
    with contextlib.suppress(OSError):
        is_outside = Path(path).parent.is_dir()
        is_clear = os.path.lexists(path) or not Path(f"{queue_directory}{path}").parent.exists()
        return is_outside and is_clear and not is_shared(queue_directory, path)
    return False
