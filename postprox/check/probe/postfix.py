"""Reads the configuration of Postfix with postconf(1).

Rule: this module only reads data and makes no decisions.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from .. import source_text, tables
from ..postconf import Configuration, UnreadableError, host_names, parse
from ..routes import proxy_filter
from . import postconf_command, postfix_files, system

#: The maximum size in octets of a table to search.
LARGEST_TABLE = 1 << 22
HOSTS = Path("/etc/hosts")


def read_configuration(directory: str) -> Configuration:
    """Read main.cf and master.cf with postconf(1). The directory "" means Postfix's default.

    Raises:
        UnreadableError: postconf(1) is missing, failed or timed out.
    """
    for name in ("main.cf", "master.cf"):
        path = Path(directory, name)
        if directory and path.exists() and not path.is_file():
            raise UnreadableError(f"{path} is not a regular file")
    own = directory or postconf_command.default_directory()
    texts = _source_texts(own)
    orphans = tuple(source_text.orphans(texts[source_text.MASTER]) if texts else ())
    misplaced = source_text.misplaced(*texts.values()) if texts else []
    for lines in misplaced:
        texts = lines.applied(texts)
    corrections = source_text.corrections(*texts.values()) if texts else []
    earlier = source_text.replaced_value(texts[source_text.MAIN], "content_filter") if texts else ""
    written = source_text.assignments(texts[source_text.MAIN]) if texts else ()
    if not corrections and not misplaced:
        main, master, overrides = postconf_command.outputs(directory)
        configuration = parse(main, master, overrides, directory)
        configuration = replace(
            configuration, orphans=orphans, replaced_filter=earlier, written=written
        )
        return _with_files(configuration)
    # postconf(1) cannot read these files, or misreads them, so it gets corrected copies.
    with tempfile.TemporaryDirectory() as copy:
        for name, text in texts.items():
            new = text
            for each in corrections:
                new = each.applied(new) if each.file == name else new
            Path(copy, name).write_text(new, errors="surrogateescape")
            os.utime(Path(copy, name), (0, 0))  # postconf(1) waits if main.cf was modified recently
        try:
            main, master, overrides = (
                text.replace(copy, own) for text in postconf_command.outputs(copy)
            )
        except UnreadableError as error:
            raise UnreadableError(str(error).replace(copy, own)) from None
    configuration = parse(main, master, overrides, directory)
    configuration = replace(
        configuration,
        corrections=tuple(corrections),
        misplaced=tuple(misplaced),
        orphans=orphans,
        corrected=own,
        written=written,
    )
    return _with_files(configuration)


def _with_files(configuration: Configuration) -> Configuration:
    """Add the contents of /etc/hosts, and the sockets that chrooted services can reach."""
    queue = configuration.parameter("queue_directory")
    paths = {
        endpoint.path
        for service in configuration.services
        if (endpoint := proxy_filter(service.parameter("smtpd_proxy_filter"), queue))
    }
    shared = frozenset(path for path in paths if path and postfix_files.is_shared(queue, path))
    hidden = frozenset(
        path
        for service in configuration.services
        for path in service.milter_sockets()
        if postfix_files.is_hidden(queue, path)
    )
    return replace(
        configuration,
        hosts=_hosts(),
        shared=shared,
        hidden_milters=hidden,
        broken_tables=tuple(postfix_files.broken_tables(configuration)),
        closed_programs=tuple(postfix_files.closed_programs(configuration)),
        closed_directories=tuple(postfix_files.closed_directories(configuration)),
        missing_sockets=dict(postfix_files.missing_sockets(configuration)),
        closed_mailboxes=dict(postfix_files.closed_mailboxes(configuration)),
        missing_certificates=dict(postfix_files.missing_certificates(configuration)),
        closed_files=tuple(postfix_files.closed_files(configuration)),
        old_queue=postfix_files.old_queue(configuration),
        foreign_directories=tuple(postfix_files.foreign_directories(configuration)),
        is_queue_in_memory=system.is_tmpfs(configuration.parameter("queue_directory")),
        foreign_interfaces=tuple(postfix_files.foreign_interfaces(configuration)),
        unrunnable=dict(postfix_files.unrunnable(configuration)),
        missing_delivery=postfix_files.missing_delivery(configuration),
        missing_sasl=dict(postfix_files.missing_sasl(configuration)),
        is_dovecot_stopped=postfix_files.is_dovecot_stopped(),
        free_space=postfix_files.free_space(configuration.parameter("queue_directory")),
        open_instances=tuple(_open_instances(configuration)),
    )


def _open_instances(configuration: Configuration) -> Iterator[tuple[str, str]]:
    """Yield the Postfix instances that receive mail from other machines without a filter.

    An instance that passes its mail to another server is left out, because that server can filter.
    """
    if configuration.directory or configuration.parameter("multi_instance_enable") != "yes":
        return
    for directory in re.split(r"[,\s]+", configuration.parameter("multi_instance_directories")):
        try:
            other = parse(*postconf_command.outputs(directory), directory) if directory else None
        except UnreadableError:
            continue
        if other and other.parameter("multi_instance_enable") == "yes":
            yield from ((directory, label) for label in _open_services(other))


def _open_services(other: Configuration) -> Iterator[str]:
    """Yield the services of an instance that receive mail from other machines without a filter."""
    passed = ("relayhost", "transport_maps", "default_transport", "content_filter")
    is_local = re.fullmatch(
        r"(loopback-only|localhost|127\S*|\[?::1\]?|[,\s])+", other.parameter("inet_interfaces")
    )
    if is_local or any(other.main.get(name) for name in passed):
        return
    if "inet" in re.split(r"[,\s]+", other.parameter("master_service_disable")):
        return
    for service in other.services:
        names = {"smtpd_proxy_filter", "content_filter"}
        is_here = service.name.startswith(("127.", "localhost:", "[::1]"))
        is_filtered = any(service.parameter(name) or name in service.own for name in names)
        if service.program == "smtpd" and service.type == "inet" and not (is_here or is_filtered):
            yield service.label


def _source_texts(directory: str) -> dict[str, str]:
    """Return the text of main.cf and of master.cf, or {} if they cannot be read."""
    try:
        names = (source_text.MAIN, source_text.MASTER)
        return {name: _source_text(Path(directory, name)) for name in names} if directory else {}
    except (UnreadableError, OSError):
        return {}


def _hosts() -> dict[str, tuple[str, ...]]:
    try:
        return host_names(_source_text(HOSTS))
    except (UnreadableError, OSError):
        return {}


def _source_text(path: Path) -> str:
    with system.open_regular(path) as file:
        octets = file.read(LARGEST_TABLE + 1) or b""
    if len(octets) > LARGEST_TABLE:
        raise UnreadableError(f"{path} is larger than {LARGEST_TABLE} octets")
    return octets.decode(errors="surrogateescape")


def table_texts(configuration: Configuration) -> dict[str, str]:
    """Read the text files of all tables that can route mail, except unreadable files."""
    found: dict[str, str] = {}
    for path in dict.fromkeys(tables.table_files(configuration)):
        with contextlib.suppress(OSError, UnreadableError), system.open_regular(path) as file:
            octets = file.read(LARGEST_TABLE + 1) or b""
            if len(octets) <= LARGEST_TABLE:
                found[path] = octets.decode("latin-1")
    return found
