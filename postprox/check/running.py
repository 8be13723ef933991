"""Facts about the running system, from `systemctl show` and the kernel's socket tables.

Rule: this module converts text to facts. All input comes from a `Machine`, which tests can
replace.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from . import mail_log, milter_rules, policy_rules
from .facts import Listener, LogFacts, RunningFacts, UnitState
from .machine import Machine
from .postconf import Configuration, UnreadableError
from .routes import Endpoint, Proxy, endpoint_of, listening_proxy, proxy_filter, routes
from .unit import Unit

#: The properties of a unit that the rules use (org.freedesktop.systemd1(5)).
PROPERTIES = (
    *("Id", "LoadState", "ActiveState", "SubState", "UnitFileState", "Result", "ExecMainStatus"),
    *("NeedDaemonReload", "DropInPaths", "MainPID", "ActiveEnterTimestampMonotonic"),
)

_LISTEN = "0A"


def unit_states(text: str) -> Iterator[tuple[UnitState, int]]:
    """Parse the output of `systemctl show` into units, each with its main PID."""
    for block in text.strip().split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if name := values.get("Id", ""):
            state = UnitState(
                name,
                load=values.get("LoadState", ""),
                active=values.get("ActiveState", ""),
                sub=values.get("SubState", ""),
                file=values.get("UnitFileState", ""),
                result=values.get("Result", "success"),
                status=_number(values.get("ExecMainStatus", "")),
                needs_reload=values.get("NeedDaemonReload") == "yes",
                drop_ins=frozenset(
                    path.rpartition("/")[2] for path in values.get("DropInPaths", "").split()
                ),
                started=_number(values.get("ActiveEnterTimestampMonotonic", "")) / 1e6,
            )
            yield state, _number(values.get("MainPID", ""))


def _number(text: str) -> int:
    return int(text[:18]) if text.isascii() and text.isdigit() else 0


def listening_sockets(table: str) -> Iterator[tuple[Endpoint, int]]:
    """Parse /proc/net/tcp or tcp6 into the addresses of listening sockets and their inodes."""
    for line in table.splitlines():
        words = line.split()
        if len(words) > 9 and words[3] == _LISTEN and words[9].isdigit():
            host, _, port = words[1].partition(":")
            yield Endpoint(_address(host), int(port, 16)), int(words[9])


def _address(text: str) -> str:
    """Convert an address in the kernel's notation, in which 32-bit words are in host byte order."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    octets = struct.pack(f"={len(words)}I", *words)
    return str(ipaddress.ip_address(octets))


def states_of(machine: Machine, units: Sequence[Unit]) -> tuple[dict[str, UnitState], str]:
    """Return the states of units and sockets, and the reason if they are unknown.

    The states are indexed by name. The reason is "" if the states are known.
    """
    names = [
        name
        for unit in units
        for name in (*unit.instances, *(unit.socket.instances if unit.socket else ()))
    ]
    if not names:
        return {}, ""
    try:
        text = machine.show(names, PROPERTIES)
    except UnreadableError as error:
        return {}, str(error)
    return {
        state.name: replace(
            state,
            words=machine.command_line(pid) if pid else (),
            removed=machine.removed_mounts(pid) if pid else (),
            missing_groups=machine.missing_groups(pid) if pid else (),
            started=machine.boot_time() + state.started if state.started else 0.0,
        )
        for state, pid in unit_states(text)
    }, ""


def used_ports(machine: Machine, unit: Unit | None) -> frozenset[int]:
    """Return the ports in use, except ports on which systemd or the proxy listens for the unit."""
    own = {endpoint.port for endpoint in listening_proxy(unit).endpoints} if unit else set()
    found = list(listening_sockets(machine.sockets()))
    owners = machine.owners({inode for endpoint, inode in found if endpoint.port in own})
    return frozenset(
        endpoint.port
        for endpoint, inode in found
        if endpoint.port not in own
        or any(
            not name.startswith(("systemd", "postprox", "python")) for name in owners.get(inode, ())
        )
    )


def running_facts(
    machine: Machine,
    configuration: Configuration,
    proxies: Sequence[Proxy],
    states: tuple[Mapping[str, UnitState], str],
    files: Iterable[str] = (),
) -> RunningFacts:
    """Collect the facts about the running system.

    files: configuration files and directories. Errors in the mail log count only if they are newer
    than the last change of these files.
    """
    postfix = machine.master_runs(configuration.parameter("queue_directory"))
    own = [endpoint for proxy in proxies for endpoint in proxy.endpoints]
    ports = {endpoint.port for endpoint in own}
    ports |= {route.endpoint.port for route in routes(configuration)}
    ports |= {
        endpoint.port
        for service in configuration.services
        for milter in service.tokens("smtpd_milters")
        if (endpoint := proxy_filter(milter, "/"))
    }
    ports |= {
        endpoint.port
        for place in policy_rules.places(configuration)
        if (endpoint := proxy_filter(place, "/"))
    }
    ports |= {endpoint.port for endpoint in _front_ports(configuration, postfix)}
    found = [each for each in listening_sockets(machine.sockets()) if each[0].port in ports]
    owners = machine.owners({inode for _, inode in found})
    return RunningFacts(
        postfix=postfix,
        has_postfix_unit=machine.has_unit("postfix.service") and not configuration.directory,
        units=states[0],
        units_unknown=states[1],
        listeners=tuple(
            Listener(endpoint, frozenset(owners.get(inode, ()))) for endpoint, inode in found
        ),
        milter_units=tuple(unit for unit in milter_rules.UNITS if machine.has_unit(unit)),
        policy_units=tuple(unit for unit in policy_rules.UNITS if machine.has_unit(unit)),
        sessions={
            **{endpoint: machine.session(endpoint) for endpoint in _proxy_ports(proxies, postfix)},
            **{
                endpoint: machine.session(_listener(endpoint, [each for each, _ in found]))
                for endpoint in _front_ports(configuration, postfix)
            },
        },
        log=_log(machine, files, states[0]),
    )


def _log(machine: Machine, files: Iterable[str], states: Mapping[str, UnitState]) -> LogFacts:
    started = (state.started for state in states.values())
    text, command = machine.mail_log(max(machine.changed(files), *started, 0.0))
    return LogFacts(mail_log.logged_errors(text), command)


def _proxy_ports(proxies: Sequence[Proxy], postfix: bool | None) -> Iterator[Endpoint]:
    """Yield the addresses of the proxies. If Postfix is not running, omit the proxies that it
    spawns.
    """
    for proxy in proxies:
        if proxy.options and (postfix or proxy.service is None):
            yield from proxy.endpoints


def _front_ports(configuration: Configuration, postfix: bool | None) -> Iterator[Endpoint]:
    """Yield the addresses of the services that receive mail and pass it to a filter."""
    for route in routes(configuration) if postfix else ():
        endpoint = endpoint_of(configuration, route.source)
        is_plain = route.source.own.get("smtpd_tls_wrappermode") != "yes"
        if route.source.program == "smtpd" and is_plain and endpoint is not None:
            yield endpoint


def _listener(endpoint: Endpoint, listening: Sequence[Endpoint]) -> Endpoint:
    """Return the listening socket of a service, or `endpoint` if none is known. inet_interfaces can
    restrict the addresses of a service.
    """
    found = [each for each in listening if each.port == endpoint.port]
    reached = [each for each in found if endpoint.is_at(each)]
    return next(iter(reached or (found if endpoint.is_open() else [])), endpoint)
