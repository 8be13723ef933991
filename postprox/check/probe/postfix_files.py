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
import socket
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from .. import table_rules
from ..postconf import BrokenTable, Configuration
from . import accounts, postconf_command, units


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


def missing_delivery(configuration: Configuration) -> str:
    """Return the program of mailbox_command if it does not exist, or ""."""
    program = (configuration.parameter("mailbox_command").split() or [""])[0]
    return program if program.startswith("/") and not Path(program).exists() else ""


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


def missing_users(configuration: Configuration) -> Iterator[tuple[str, str]]:
    """Yield the label of each pipe(8) service whose user does not exist, and the user's name."""
    for service in configuration.services:
        users = [word[5:].partition(":")[0] for word in service.words if word.startswith("user=")]
        if service.program == "pipe" and users and not accounts.has_user(users[0]):
            yield service.label, users[0]


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
