"""Collects the facts about a proxy.

Rule: this module only reads data and makes no decisions.
"""

from __future__ import annotations

import difflib
import grp
import ipaddress
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from .. import machine, sandbox
from ..facts import ProgramFacts, ProxyFacts
from ..postconf import Configuration
from ..routes import Proxy, upstream, upstream_endpoint, without_wrappers
from ..scripts import shell_command
from ..unit import Unit
from . import accounts, programs, spool, system


def collect(configuration: Configuration, proxy: Proxy) -> ProxyFacts:
    """Collect the facts about a proxy."""
    user = accounts.identity(proxy)
    program, unchecked, command_error = None, "", ""
    if proxy.options is not None and proxy.options.command is not None:
        search = system.SPAWN_PATH if proxy.service else system.SYSTEMD_PATH
        if proxy.unit:
            search = proxy.unit.environment.get("PATH", search)
        wrappers = proxy.words[: len(proxy.words) - len(without_wrappers(proxy.words))]
        for word in wrappers:  # such as env PATH=/opt/bin
            search = word.removeprefix("PATH=") if word.startswith("PATH=") else search
        command_error = machine.shell_error(proxy.options.command)
        variables = proxy.unit.environment if proxy.unit else {}
        command = shell_command.expanded(proxy.options.command, variables)
        program, unchecked = programs.filter_facts(command, user, search)
    if proxy.unit:
        proxy.unit.links = _links(proxy, program)
    is_dynamic = proxy.unit is not None and proxy.unit.dynamic_user
    own = _found((*without_wrappers(proxy.words), "")[0])
    return ProxyFacts(
        user_exists=not user or is_dynamic or accounts.find(user) is not None,
        has_own_user=accounts.has_user(accounts.OWN_USER),
        program=programs.program_facts(own, user, system.SYSTEMD_PATH),
        has_group_of_postfix=_has_group_of_postfix(configuration, proxy),
        is_user_temporary=is_dynamic and accounts.find(user) is None,
        closed_library=_closed_library(own, user) if proxy.words else "",
        filter=program,
        filter_unchecked=unchecked,
        command_error=command_error,
        upstream_missing=_upstream_missing(configuration, proxy),
        rewriters=tuple(_rewriters(proxy)),
        is_upstream_unknown=_is_upstream_unknown(proxy),
        spool=spool.spool_facts(configuration, proxy),
        status_directories=dict(spool.status_directories(proxy)),
        missing_paths=tuple(_missing_paths(proxy.unit)) if proxy.unit else (),
        closed_working_directory=_closed_working_directory(proxy),
        missing_programs=tuple(_missing_programs(proxy.unit)) if proxy.unit else (),
        missing_groups=tuple(_missing_groups(proxy)),
        unknown_permissions=accounts.unknown_permissions(user),
    )


_CHAIN = re.compile(r"\s*/[\w./-]+(\s*&&\s*/[\w./-]+)+\s*")
#: A command that reads the result of an earlier filter.
_REREAD = re.compile(r"(<|\bcat|\b-s|\bcp|\bmv)\s*[\"']?\$\{?OUTFILE|\$1\b|\$\{?@")


def _rewriters(proxy: Proxy) -> Iterator[str]:
    """Yield the scripts of a filter command that write $OUTFILE, if there are several."""
    command = (proxy.options.command if proxy.options else "") or ""
    paths = command.split(" && ") if _CHAIN.fullmatch(command) else []
    texts = {path.strip(): system.read_script(path.strip()).decode("latin-1") for path in paths}
    found = [path for path, text in texts.items() if "EMAIL" in text and "OUTFILE" in text]
    if len(found) > 1 and not any(map(_REREAD.search, texts.values())):
        yield from found


def _links(proxy: Proxy, seen: ProgramFacts | None) -> dict[str, str]:
    """Return the real path of each unit or proxy path that contains a symbolic link."""
    unit = proxy.unit or Unit("")
    paths = [*sandbox.paths_of(unit), *without_wrappers(proxy.words)[:1], "/bin/sh", "/usr/bin/sh"]
    paths += [seen.path, seen.interpreter] if seen else []
    paths += [*(seen.targets if seen else ()), unit.setting("WorkingDirectory")]
    if wanted := proxy.options:
        files = [file for file in (wanted.metrics, wanted.pid_file) if file]
        paths += [wanted.directory, *(os.path.dirname(file) or "/" for file in files)]  # noqa: PTH120
    real = {path: os.path.realpath(path) for path in paths if path.startswith("/")}
    return {path: found for path, found in real.items() if found != path.rstrip("/")}


#: The settings that contain paths. If one of these paths is missing, systemd does not start the
#: service.
_REQUIRED_PATHS = (
    *("EnvironmentFile", "ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "ExecPaths"),
    *("NoExecPaths", "BindPaths", "BindReadOnlyPaths", "WorkingDirectory"),
)


def _found(program: str) -> str:
    """Return the path of a program. Like systemd, search PATH for a name without a slash."""
    return program if "/" in program else shutil.which(program, path=system.SYSTEMD_PATH) or program


def _closed_library(program: str, user: str) -> str:
    """Return the first part of the installed package that the user cannot read, or "".

    The installed program is a launcher that names the directory of the package.
    """
    found = re.search(rb'^library = "(/[^"\n]+)"$', system.read_script(program), re.MULTILINE)
    if not found:
        return ""
    library = Path(os.path.realpath(os.fsdecode(found[1])))
    source = library / "postprox" / "__init__.py"
    if closed := accounts.closed_directory(str(source), user):
        return closed
    return (
        str(library)
        if source.exists() and accounts.may(user, os.R_OK, str(source)) is False
        else ""
    )


def _missing_paths(unit: Unit) -> Iterator[str]:
    """Yield the missing paths that the unit requires. Paths with the prefix `-` are optional."""
    for name in _REQUIRED_PATHS:
        for item in " ".join(unit.settings.get(name, ())).split():
            path = item.lstrip("+").partition(":")[0]
            is_known = path.startswith("/") and "%" not in path
            is_made = sandbox.is_made_by_systemd(unit, path)
            if is_known and not is_made and not Path(path).exists():
                yield path

    yield from (path for path in unit.required if "%" not in path and not Path(path).exists())


def _missing_programs(unit: Unit) -> Iterator[str]:
    """Yield the programs that must succeed before the unit starts the proxy, but are missing."""
    for name in ("ExecCondition", "ExecStartPre"):
        for command in unit.settings.get(name, ()):
            path = command.lstrip("@:+!").partition(" ")[0]
            if path.startswith("/") and "%" not in path and not Path(path).exists():
                yield path


#: The minimum similarity of a misspelt group name to the correct name.
_SIMILAR_GROUP = 0.8


def _missing_groups(proxy: Proxy) -> Iterator[tuple[str, str]]:
    """Yield the missing groups of a unit or a spawn(8) service, each with a similar group or ""."""
    names = [proxy.group] if proxy.service else []
    if proxy.unit:
        own = "" if proxy.unit.dynamic_user else proxy.unit.setting("Group")
        names = [own, *" ".join(proxy.unit.settings.get("SupplementaryGroups", ())).split()]
    for name in filter(None, names):
        if "#" in name:
            return  # a comment, which is reported as such
        if not name.isdigit() and "%" not in name:
            try:
                grp.getgrnam(name)
            except KeyError:
                known = [group.gr_name for group in grp.getgrall()]
                yield (
                    name,
                    next(iter(difflib.get_close_matches(name, known, 1, _SIMILAR_GROUP)), ""),
                )


def _closed_working_directory(proxy: Proxy) -> str:
    path = proxy.unit.setting("WorkingDirectory") if proxy.unit else ""
    account = accounts.find(proxy.user)
    if path == "~" and account:
        path = account.pw_dir
    if not path.startswith("/") or "%" in path or path in _missing_paths(proxy.unit or Unit("")):
        return ""
    if not Path(path).is_dir():
        return path
    return accounts.closed_directory(f"{path}/file", accounts.identity(proxy))


def _has_group_of_postfix(configuration: Configuration, proxy: Proxy) -> bool:
    """Return whether spawn(8) refuses the proxy's primary group, that of Postfix or root."""
    owner = configuration.parameter("mail_owner") or "postfix"
    own, postfix = accounts.find(proxy.user), accounts.find(owner)
    has_default = proxy.service is not None and not proxy.group
    return bool(own and postfix and has_default and own.pw_gid in (0, postfix.pw_gid))


def _upstream_missing(configuration: Configuration, proxy: Proxy) -> bool:
    """Return whether the upstream server is on this machine but refuses connections.

    A service in this Postfix configuration is not tested, because Postfix may be stopped during the
    check.
    """
    if proxy.options is None or upstream(configuration, proxy) is not None:
        return False
    place = upstream_endpoint(configuration, proxy.options)
    if not place.is_here() and not _is_own(place.host):
        return False
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    try:
        with socket.socket(socket.AF_UNIX if place.path else family) as client:
            client.settimeout(1.0)
            client.connect(place.path or (place.host, place.port))
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    except OSError:
        pass
    return False


def _is_own(address: str) -> bool:
    """Return whether an IP address belongs to this machine."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family) as own:
            own.bind((str(ipaddress.ip_address(address)), 0))
    except (OSError, ValueError):
        return False
    return True


def _is_upstream_unknown(proxy: Proxy) -> bool:
    """Return whether the host name of the upstream server has no address."""
    host = proxy.options.target.host if proxy.options else b""
    try:
        if host:
            socket.getaddrinfo(host, None)
    except socket.gaierror:
        return True
    except (OSError, UnicodeError):
        pass
    return False
