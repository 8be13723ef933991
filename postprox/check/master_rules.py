"""Problems with the entries in master.cf and main.cf, and with the proxies' ports.

Rule: each check is a pure function.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations, pairwise, permutations

from . import fixes
from .facts import Listener
from .findings import Fault
from .fixes import Edit
from .postconf import Configuration, Service, join_words
from .routes import (
    Endpoint,
    FilterStage,
    Proxy,
    Route,
    endpoint_of,
    has_ports,
    is_host,
    is_port,
    listening_endpoint,
    routes,
    upstream,
    upstream_endpoint,
)
from .setup import Setup, distinct
from .source_text import Orphan
from .unit import Unit

_COLUMNS = re.compile(
    r"(?P<name>\S+) (?P<type>inet|unix|fifo|pass|unix-dgram)( [yn-]){3} [0-9?-]+ [0-9-]+ [a-z]\S*"
)
_LARGEST_PORT = 65535
#: The names of the ports on which Postfix receives mail (services(5)).
_PUBLIC_PORTS = ("smtp", "smtps", "submission", "submissions")
_NO_BREAK = "\u00a0"
#: The parameters for which a no-break space changes the meaning of the value. It has no effect in a
#: parameter that contains text, such as smtpd_banner.
_READ_BY_PROGRAMS = re.compile(
    r"^smtpd_proxy_|^content_filter$|_restrictions$|^mynetworks$|_override_options$|^inet_"
    r"|_transport$|_limit$|_milters$"
)
#: The main.cf parameters that the recipe sets.
_RECIPE = (
    *("smtpd_proxy_filter", "smtpd_proxy_options", "smtpd_proxy_timeout", "content_filter"),
    *("smtpd_client_connection_count_limit", "scan_destination_recipient_limit"),
)


def mistyped(configuration: Configuration) -> Iterator[Fault]:
    """Report mistakes in the text of main.cf and master.cf."""
    for lines in configuration.misplaced:
        commands = lines.commands(configuration.corrected, configuration.postconf)
        yield Fault("arguments", lines.file, lines.problem, tuple(map(fixes.run, commands)))
    for each in configuration.corrections:
        if each.problem:
            yield Fault("arguments", each.file, each.problem, (fixes.correct(configuration, each),))


def orphaned(setup: Setup) -> Iterator[Fault]:
    """Report the remaining continuation lines of an entry that is commented out."""
    path = f'"$({setup.configuration.postconf} -h config_directory)/master.cf"'
    for each in setup.configuration.orphans:
        is_needed = _is_needed(setup, each)
        is_remark = each.program == each.owner_program and not _is_submission(setup, each.owner)
        if not is_needed and is_remark:
            continue  # the comment is probably a remark between a service and its parameters
        script = each.uncomment if is_needed else each.comment_out
        effect = ", whose mail is deferred or refused"
        if is_needed:
            effect = f", and {each.name} does not run, so mail is deferred"
        yield Fault(
            "arguments",
            "master.cf",
            f"the entry {each.name}/{each.type} is commented out, but the lines that follow it are "
            f"not; Postfix reads them as arguments of {each.owner}{effect}",
            (fixes.run(f"sed -E -i {shlex.quote(script)} {path}"),),
        )


def _is_submission(setup: Setup, label: str) -> bool:
    """Return whether the service listens on port 25 but has parameters of a submission service."""
    services = [each for each in setup.configuration.services if each.label == label]
    endpoints = [setup.endpoint_of(each) for each in services]
    if not any(endpoint and endpoint.port == 25 for endpoint in endpoints):
        return False
    own = services[0].own
    return (
        own.get("smtpd_tls_security_level") == "encrypt"
        or own.get("smtpd_tls_wrappermode") == "yes"
        or own.get("syslog_name", "").startswith("postfix/submission")
    )


def _is_needed(setup: Setup, orphan: Orphan) -> bool:
    """Return whether a service receives mail from a proxy, another service or the network."""
    configuration = setup.configuration
    service = Service(
        *(orphan.name, orphan.type, "-", "-", "-", "-", "-"), (orphan.program,), {}, {}
    )
    if any((each.name, each.type) == (orphan.name, orphan.type) for each in configuration.services):
        return False
    endpoint = endpoint_of(configuration, replace(service, main=configuration.main))
    # A unit that is installed, but not enabled, does not replace a spawned proxy.
    unused = [each for each in setup.proxies if each.unit and not each.unit.enabled]
    targets = [
        route.endpoint
        for route in routes(configuration)
        if setup.service_at(route.endpoint) is None
        and not _is_served(setup, route.endpoint)
        and setup.proxy_at(route) in (None, *unused)
    ]
    targets += [
        upstream_endpoint(configuration, proxy.options)
        for proxy in setup.proxies
        if proxy.options and upstream(configuration, proxy) is None
    ]
    is_transport = orphan.type != "inet" and any(
        route.transport_name == orphan.name and route.transport is None
        for route in routes(configuration)
    )
    # The lines may also have become arguments of the proxy, so that its options are unknown.
    is_named = any(orphan.name in proxy.words for proxy in setup.proxies)
    is_public = orphan.type == "inet" and orphan.name in ("smtp", "25")
    is_target = endpoint is not None and any(target.is_at(endpoint) for target in targets)
    return is_target or is_transport or is_named or is_public


def _is_served(setup: Setup, endpoint: Endpoint) -> bool:
    """Return whether a program other than master(8) listens on the endpoint."""
    listener = setup.listener_at(endpoint)
    return listener is not None and "master" not in listener.programs


def names(configuration: Configuration) -> Iterator[Fault]:
    """Report an inet service whose name is not a valid address. master(8) then terminates."""
    queue = configuration.parameter("queue_directory")
    for service in configuration.services:
        if service.type != "inet":
            continue
        host = service.name.rpartition(":")[0].removeprefix("[").removesuffix("]")
        new = _corrected_name(service.name)
        is_misread = bool(new) and not re.fullmatch("[0-9.]+", host)  # such as 127.0.0.l
        if listening_endpoint(service, queue) and is_host(host) and not is_misread:
            continue
        labels = [each.label for each in configuration.services]
        similar = difflib.get_close_matches(service.name.lower(), _PUBLIC_PORTS, 1, 0.7)
        if not new and similar and f"{similar[0]}/inet" not in labels:
            new = similar[0]
        edit = fixes.set_field(service, "service", new) if new else None
        if edit is None and ":" not in service.name and service.program in ("smtp", "lmtp"):
            edit = fixes.set_field(service, "type", "unix")
        if edit is None and is_host(host):
            continue  # unknown_port reports it
        hint = "" if edit else "; the name must be HOST:PORT"
        yield Fault(
            "arguments",
            f"master.cf, {service.label}",
            f"the service's name {service.name!r} is not an address on which Postfix can listen; "
            f"no mail is received or delivered{hint}",
            (edit,) if edit else (),
        )


def _corrected_name(name: str) -> str:
    """Return the address that was probably intended, or ""."""
    digits = name.translate(str.maketrans("OolI", "0011"))
    found = re.fullmatch(r"\[?([0-9]+(?:\.[0-9]+){3})\]?[:;.,]+([0-9]{1,5})", digits)
    if found and is_host(found[1]) and 0 < int(found[2]) <= _LARGEST_PORT:
        return f"{found[1]}:{found[2]}"
    return ""


def indented(configuration: Configuration) -> Iterator[Fault]:
    """Report lines that begin with whitespace and therefore continue the previous line."""
    yield from _indented_services(configuration)
    yield from _indented_parameters(configuration)


def _indented_services(configuration: Configuration) -> Iterator[Fault]:
    """Report an entry in master.cf that begins with whitespace."""
    for service in configuration.services:
        found = [each for each in _COLUMNS.finditer(" ".join(service.words)) if each.start()]
        if found:
            yield _indented(
                "master.cf",
                f"the entry {found[0]['name']} begins with whitespace; Postfix reads it as "
                f"arguments of {service.label}, not as a service",
                [
                    _unindent(configuration, "master.cf", f"{each['name']} {each['type']}")
                    for each in found
                ],
            )


def _indented_parameters(configuration: Configuration) -> Iterator[Fault]:
    """Report a parameter in main.cf that begins with whitespace."""
    for name, value in configuration.main.items():
        found = [each for each in _RECIPE if re.search(rf"(^|\s){each}\s*=", value)]
        if found:
            yield _indented(
                "main.cf",
                f"the line that sets {found[0]} begins with whitespace; Postfix reads it as part "
                f"of {name}, so it has no effect",
                [_unindent(configuration, "main.cf", each) for each in found],
            )


def no_break_spaces(configuration: Configuration) -> Iterator[Fault]:
    """Report no-break spaces, which Postfix does not treat as blanks."""
    for service in configuration.services:
        words = [word for word in service.words if _NO_BREAK in word]
        # The parameter cannot be determined here, because postconf(1) splits a word such as
        # -oNAME=VALUE.
        if words or any(_NO_BREAK in column for column in _columns(service)):
            yield _no_break(configuration, "master.cf", f"master.cf, {service.label}", "the entry")
    for name, value in configuration.main.items():
        if _NO_BREAK in value and _READ_BY_PROGRAMS.search(name):
            yield _no_break(configuration, "main.cf", "main.cf", f"the value of {name}")


def _columns(service: Service) -> tuple[str, ...]:
    return service.name, service.type, service.process_limit


def _no_break(configuration: Configuration, file: str, where: str, place: str) -> Fault:
    path = f'"$({configuration.postconf} -h config_directory)/{file}"'
    return Fault(
        "arguments",
        where,
        f"{place} contains a no-break space (U+00A0), which Postfix reads as part of a word; mail "
        "is deferred (451), loops or passes unfiltered",
        (fixes.run(f"LC_ALL=C sed -i 's/\\xc2\\xa0/ /g' {path}"),),
    )


def _indented(where: str, problem: str, edits: Sequence[Edit]) -> Fault:
    return Fault("indented", where, problem, tuple(edits))


def _unindent(configuration: Configuration, file: str, start: str) -> Edit:
    pattern = re.sub(r"([][.*/+?])", r"\\\1", start).replace(" ", "[ \\t]+")
    path = f'"$({configuration.postconf} -h config_directory)/{file}"'
    return fixes.run(f"sed -E -i 's/^[ \\t]+({pattern}[ \\t=])/\\1/' {path}")


def unknown_port(setup: Setup) -> Iterator[Fault]:
    """Report a service whose port is neither a number nor a known name."""
    behind = [setup.place_for_filtered(proxy) for proxy in setup.proxies]
    for service in setup.configuration.services:
        if service.type != "inet" or setup.endpoint_of(service) is not None or not has_ports():
            continue
        host, colon, port = service.name.rpartition(":")
        edits: tuple[Edit, ...] = ()
        if service in behind:
            continue  # reported as no-upstream
        if is_port(port.lower()):
            edits = (fixes.set_field(service, "service", f"{host}{colon}{port.lower()}"),)
        yield Fault(
            "arguments",
            f"master.cf, {service.label}",
            f"the port {port!r} is unknown; master(8) does not run, so no mail is received",
            edits,
        )


def private(setup: Setup) -> Iterator[Fault]:
    """Report an inet service that is private. Another rule reports private spawned proxies."""
    for service in setup.configuration.services:
        is_proxy = any(proxy.service is service for proxy in setup.proxies)
        if service.type == "inet" and service.private != "n" and not is_proxy:
            yield Fault(
                "columns",
                f"master.cf, {service.label}",
                "private must be n for an inet service; master(8) does not run, so no mail is "
                "received",
                (fixes.set_field(service, "private", "n"),),
            )


def defined_twice(setup: Setup) -> Iterator[Fault]:
    """Report a service that is replaced by a later service with the same name."""
    for earlier in distinct(setup.configuration.ignored):
        last = next(s for s in setup.configuration.services if s.label == earlier.label)
        proxy = next((proxy for proxy in setup.proxies if proxy.service is last), None)
        if proxy is None or earlier.program == "spawn":
            yield Fault(
                "defined-twice",
                f"master.cf, {last.label}",
                "it is defined twice; Postfix uses only the last definition",
                (fixes.keep(last),),
            )
        else:
            yield Fault(
                "port-twice",
                f"master.cf, {last.label}",
                f"it replaces an earlier {earlier.program}(8) service with the same name; mail for "
                "that service goes to the proxy and can loop",
                tuple(_apart(setup, proxy, earlier)),
            )


def _apart(setup: Setup, proxy: Proxy, earlier: Service) -> Iterator[Edit]:
    """Move the proxy to a free port, so that its entry no longer replaces the earlier service."""
    host, _, port = earlier.name.rpartition(":")
    number = free_port(setup, int(port) + 100 if port.isdigit() else 10125)
    address = f"{host or '127.0.0.1'}:{number}"
    yield fixes.set_address(proxy, address)
    yield fixes.keep(earlier)
    yield fixes.set_main(FilterStage.BEFORE_QUEUE.value, address)
    yield fixes.set_own(earlier, FilterStage.BEFORE_QUEUE.value, "")


def free_port(setup: Setup, first: int) -> int:
    """Return the first port that is used neither by this configuration nor by a known listener."""
    queue = setup.configuration.parameter("queue_directory")
    services = (listening_endpoint(each, queue) for each in setup.configuration.services)
    used = {endpoint.port for endpoint in services if endpoint}
    used |= {endpoint.port for proxy in setup.proxies for endpoint in proxy.endpoints}
    used |= {each.endpoint.port for each in (setup.running.listeners if setup.running else ())}
    return next(port for port in range(first, 65536) if port not in used)


def port_twice(setup: Setup) -> Iterator[Fault]:
    """Report a service in master.cf that has the same address as a proxy.

    master(8) can bind an address twice (SO_REUSEPORT), and the kernel then distributes the
    connections. master(8) cannot bind an address that a unit uses.
    """
    queue = setup.configuration.parameter("queue_directory")
    for proxy in setup.proxies:
        for service in setup.configuration.services:
            endpoint = listening_endpoint(service, queue)
            if endpoint is None or service is proxy.service:
                continue
            if any(_is_same(endpoint, own, proxy) for own in proxy.endpoints):
                yield _taken(setup, proxy, service, endpoint)


def units_on_one_port(setup: Setup) -> Iterator[tuple[Proxy, Fault]]:
    """Yield the superfluous one of two enabled units that have the same address."""
    units = [proxy for proxy in setup.proxies if proxy.unit and proxy.unit.enabled]
    for pair in combinations(units, 2):
        shared = [each for each in pair[0].endpoints if pair[1].is_at(each)]
        # With ReusePort=yes, the instances of a template share a port.
        is_same = len({re.sub("@.*", "@", each.where) for each in pair}) == 1
        if shared and not is_same:
            kept, extra = sorted(pair, key=lambda proxy: _is_superfluous(setup, proxy))
            yield (
                extra,
                Fault(
                    "port-twice",
                    extra.where,
                    f"{kept.where} also listens on {shared[0]}; only one of the two can start, and "
                    "it may be the wrong one",
                    (fixes.stop(setup.configuration, extra),),
                ),
            )


def shared_port(setup: Setup) -> Iterator[Fault]:
    """Report instances that share a port, although they have different filters."""
    units = [proxy for proxy in setup.proxies if proxy.unit and proxy.unit.enabled]
    for proxy, other in permutations(units, 2):
        own = [each for each in proxy.endpoints if not other.is_at(each)]
        shared = [each for each in proxy.endpoints if other.is_at(each)]
        is_same = proxy.options and other.options and proxy.options.command == other.options.command
        socket = proxy.unit.socket if proxy.unit else None
        if socket and shared and len(own) == 1 and not is_same:
            yield Fault(
                "port-twice",
                socket.name,
                f"it also listens on {shared[0]}, the port of {other.where}, whose filter is "
                "another one; each of them filters a part of the mail",
                (fixes.set_setting(socket, "ListenStream", str(own[0])),),
            )


def _is_superfluous(setup: Setup, proxy: Proxy) -> tuple[bool, bool]:
    """Return a unit's sort key.

    Running units come first, and then units in /etc, because the administrator wrote them.
    """
    unit = proxy.unit or Unit("")
    names = [*unit.instances, *(unit.socket.instances if unit.socket else ())]
    states = setup.running.units if setup.running else {}
    is_active = any(states[name].active == "active" for name in names if name in states)
    return not is_active, not unit.path.startswith("/etc/")


def _is_same(one: Endpoint, other: Endpoint, proxy: Proxy) -> bool:
    if proxy.service and (one.is_open() or other.is_open()):
        return one == other  # Linux prefers a specific address to a wildcard
    return one.is_at(other) or other.is_at(one)


def _taken(setup: Setup, proxy: Proxy, service: Service, endpoint: Endpoint) -> Fault:
    edits = (
        *_moved(setup, proxy, endpoint),
        fixes.set_own(service, FilterStage.BEFORE_QUEUE.value, ""),
    )
    if any(each.service is service for each in setup.proxies):
        edits = (fixes.stop(setup.configuration, proxy),)
    effect = (
        "the proxy and this service each receive part of the mail"
        if proxy.service
        else "the proxy or this service cannot start, and a failed `postfix reload` terminates "
        "Postfix"
    )
    return Fault(
        "port-twice",
        proxy.where,
        f"{service.label} in master.cf also listens on {endpoint}; {effect}",
        edits,
    )


def foreign_port(setup: Setup, proxy: Proxy) -> Iterator[Fault]:
    """Report a proxy port on which another program listens."""
    for endpoint in proxy.endpoints:
        found = setup.listener_at(endpoint)
        if found and not _may_be_of(proxy, found):
            yield Fault(
                "port-twice",
                proxy.where,
                f"{min(found.programs)} listens on {found.endpoint}; the proxy cannot listen "
                "there, and a failed `postfix reload` terminates Postfix",
                _moved(setup, proxy, endpoint),
            )


def _may_be_of(proxy: Proxy, found: Listener) -> bool:
    """Return whether the proxy's own server may have opened the socket.

    If master.cf starts the proxy, master(8) opens the socket. If a unit starts the proxy, systemd
    or the proxy opens the socket. If the program that opened the socket is unknown, the result is
    True.
    """
    expected = ("master",) if proxy.service else ("systemd", "postprox", "python")
    return not found.programs or any(name.startswith(expected) for name in found.programs)


def _moved(setup: Setup, proxy: Proxy, endpoint: Endpoint) -> tuple[Edit, ...]:
    new = endpoint._replace(port=free_port(setup, endpoint.port + 100))
    routes_here = setup.routes_to(proxy)
    return (
        fixes.set_address(proxy, str(new)),
        *(fixes.redirect(route, str(new)) for route in routes_here),
    )


def open_relay(setup: Setup, proxy: Proxy) -> Iterator[Fault]:
    """Report a proxy that other machines can connect to.

    The Postfix service after the filter sees all mail as coming from this machine.
    """
    endpoints = [endpoint for endpoint in proxy.endpoints if endpoint.is_open()]
    if endpoints:
        own = endpoints[0]._replace(host="::1" if endpoints[0].host == "::" else "127.0.0.1")
        yield Fault(
            "open-relay",
            proxy.where,
            f"the proxy listens on all addresses (port {own.port}) and is an open relay: Postfix "
            "treats mail from any machine as local mail",
            (fixes.set_address(proxy, str(own)),),
        )
        return
    found = setup.running.listeners if setup.running else ()
    # systemd's `ListenStream=10025` is [::], which also accepts IPv4 connections.
    open_ports = {
        each.endpoint.port for each in found if each.endpoint.is_open() and _may_be_of(proxy, each)
    }
    for endpoint in proxy.endpoints:
        if endpoint.port in open_ports:
            yield Fault(
                "open-relay",
                proxy.where,
                "a server started with an earlier configuration listens on all addresses (port "
                f"{endpoint.port}) and is an open relay",
                (fixes.run(_restart(setup, proxy)),),
            )


def _restart(setup: Setup, proxy: Proxy) -> str:
    unit = proxy.unit
    if unit is None:
        return f"{setup.configuration.postfix} stop; {setup.configuration.postfix} start"
    sockets = " ".join(unit.socket.instances) if unit.socket else ""
    services = " ".join(unit.instances)
    if not sockets:
        return f"systemctl daemon-reload; systemctl restart {services}"
    return f"systemctl daemon-reload; systemctl stop {services}; systemctl restart {sockets}"


def missing_transport(setup: Setup) -> Iterator[Fault]:
    """Report a content_filter transport that is missing from master.cf."""
    seen: set[str] = set()
    for route in routes(setup.configuration):
        name = route.transport_name
        if route.stage is FilterStage.AFTER_QUEUE and route.transport is None and name not in seen:
            seen.add(name)
            edit = fixes.add_line(
                setup.configuration, name, f"- - n - {_size(setup, route)} {fixes.SCAN}"
            )
            yield Fault(
                "transport",
                f"master.cf, {route.source.label}",
                f"content_filter uses the transport {name}, which is not in master.cf; mail for "
                "this transport stays in the queue",
                (edit,),
            )


def postscreen(setup: Setup) -> Iterator[Fault]:
    """Report a postscreen(8) service that cannot pass connections to smtpd(8)."""
    configuration = setup.configuration
    for service in configuration.services:
        if service.program != "postscreen":
            continue
        name = service.parameter("smtpd_service_name") or "smtpd"
        if not any(each.name == name and each.type == "pass" for each in configuration.services):
            own = [word for pair in _own_pairs(service) for word in pair]
            line = f"{name} pass - - {service.chroot} - - {join_words(('smtpd', *own))}"
            yield Fault(
                "postscreen",
                f"master.cf, {service.label}",
                f"postscreen(8) passes connections to {name}/pass, which is not in master.cf; all "
                "mail from outside is refused (421)",
                (fixes.add_entry(configuration, line),),
            )
        if service.limit() != 1:
            yield Fault(
                "postscreen",
                f"master.cf, {service.label}",
                "postscreen(8) runs only with a process limit of 1; no mail from outside arrives",
                (fixes.set_field(service, "process_limit", "1"),),
            )


def _own_pairs(service: Service) -> Iterator[tuple[str, str]]:
    """Yield the `-o` parameters of a postscreen(8) service that are meant for smtpd(8)."""
    for option, word in pairwise(service.words):
        if option == "-o" and not word.startswith("postscreen_"):
            yield option, word


def _size(setup: Setup, route: Route) -> str:
    proxy = setup.proxy_at(route)
    return str(proxy.capacity) if proxy and proxy.capacity else "20"
