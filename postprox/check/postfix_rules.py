"""Problems with the connections between a proxy and the Postfix services before and after it.

Rule: each check is a pure function.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches

from ..core import limits
from ..core.options import Options
from . import fixes, master_rules, xforward
from .findings import Fault
from .fixes import Edit, Own, Place
from .milter_rules import has_milters, is_missing
from .postconf import Configuration, Service, join_words
from .routes import (
    ENTRANCES,
    Endpoint,
    FilterStage,
    Proxy,
    Route,
    is_proxy,
    malformed_routes,
    next_hop,
    proxy_filter,
    routes,
    spawned_command,
    target_endpoint,
    upstream,
    upstream_endpoint,
)
from .setup import Setup, distinct
from .unit import Ignored
from .values import TRANSPORT_LIMIT, number

#: With speed_adjust, a proxy is busy only while its filter is running, so five smtpd(8) processes
#: can share one proxy. Each message then gets one fifth of smtpd_proxy_timeout (20 s by default).
SPEED_ADJUST_FACTOR = 5

#: At these TLS security levels, smtp(8) delivers no mail to a server without STARTTLS.
_TLS_DEMANDED = ("encrypt", "dane-only", "fingerprint", "verify", "secure")

#: The name of a service that was meant to listen on a TCP port.
_TCP_NAME = re.compile(r"([0-9.]+|localhost|\[[0-9a-fA-F:]+\]):[0-9]+", re.ASCII)
#: The milter in the recipe.
_OVERRIDES = "receive_override_options"
_NO_MAPPINGS = "no_address_mappings"
#: The minimum similarity of two names at which one is probably a misspelling of the other.
_SIMILAR = 0.85
#: The ports for users' mail clients (RFC 8314).
_SUBMISSION_PORTS = (465, 587)
_STAGES = ("client", "helo", "sender", "relay", "recipient")


def no_proxy(setup: Setup) -> Iterator[Fault]:
    """Report that Postfix does not filter any mail.

    A filter on another machine is reported as unchecked.
    """
    if setup.proxies or any(map(has_filter, setup.configuration.services)):
        return
    directory = f'"$({setup.configuration.postconf} -h config_directory)"'
    files = {"spawned.master.cf": "master.cf", "before-queue.master.cf": "master.cf"}
    files["before-queue.main.cf"] = "main.cf"
    yield Fault(
        "no-proxy",
        "master.cf",
        "no proxy in master.cf or systemd receives mail; mail passes unfiltered",
        tuple(
            fixes.run(f"cat {shlex.quote(f'{setup.examples}/{file}')} >> {directory}/{own}")
            for file, own in files.items()
        ),
    )


def soft_bounce(setup: Setup) -> Iterator[Fault]:
    """Report soft_bounce, which turns all rejections into temporary errors."""
    name = "soft_bounce"
    if setup.proxies and setup.configuration.parameter(name) == "yes":
        is_after = any(
            route.stage is FilterStage.AFTER_QUEUE
            for proxy in setup.proxies
            for route in setup.routes_to(proxy)
        )
        where = "rejected mail stays in the queue" if is_after else "senders try again"
        yield Fault(
            "no-reject",
            "main.cf",
            f"{name} = yes turns each rejection of the filter into a temporary error; {where} for "
            "days",
            (fixes.set_main(name, "no"),),
        )


def no_way(setup: Setup, proxy: Proxy) -> Iterator[Fault]:
    """Report a proxy that receives no mail, unless a table may route mail to it."""
    endpoint = proxy.endpoint
    has_way = setup.routes_to(proxy) or setup.possible_routes(proxy)
    # The commands that correct these findings also give the proxy a route.
    faults = [*malformed(setup), *unfiltered(setup), *master_rules.postscreen(setup)]
    faults += [fault for route in routes(setup.configuration) for fault in bypass(setup, route)]
    is_corrected = bool(faults or setup.lost_routes())
    is_behind = any(setup.proxy_behind(each) is proxy for each in setup.proxies)
    if endpoint is None or has_way or is_corrected or is_behind:
        return
    lost = [route for route in routes(setup.configuration) if setup.proxy_at(route) is None]
    if any(route.endpoint.port == endpoint.port for route in lost):
        return  # a host name in a route may be the name of this machine
    problem = f"no Postfix service sends mail to {endpoint}"
    if any(map(setup.routes_to, setup.proxies)):
        yield Fault(
            "unused",
            proxy.where,
            f"{problem}; the proxy is not used",
            tuple(_use(setup, proxy)),
        )
        return
    stage, value = _way(setup, proxy, endpoint)
    name = stage.value
    unset = [each for each in setup.configuration.services if _is_in_vain(setup, each, name, value)]
    if unset:
        problem += f", because {_labels(unset)} in master.cf sets {name}"
        problem += " to an empty value" if not unset[0].own[name] else ", which has no effect there"
    cause, causes = ("", []) if unset else _cause(setup, proxy, name)
    problem += cause
    behind = setup.reinjection_service(proxy)
    edits = [*causes, *(_remove_own(setup, each, name) for each in unset)]
    if behind and behind.own.get(name) != "":
        edits.append(fixes.set_own(behind, name, ""))
    if setup.configuration.parameter(name) != value:
        edits.append(fixes.set_main(name, value))
    fronts = [each for each in setup.configuration.services if setup.is_public(each)]
    edits += _unchrooted(setup, fronts, endpoint)
    if not any(map(setup.is_public, setup.configuration.services)):
        yield Fault(
            "no-way",
            proxy.where,
            f"{problem}, because no smtpd(8) service in master.cf receives mail from outside",
            (fixes.add_entry(setup.configuration, "smtp inet n - n - - smtpd"), *edits),
        )
        return
    effect = "mail passes unfiltered"
    if setup.configuration.parameter(name).startswith(('"', "'")):
        problem += f", because the quotation marks are part of the value of {name}"
        is_after = stage is FilterStage.AFTER_QUEUE
        effect = "mail stays in the queue" if is_after else "mail is deferred (451)"
    yield Fault("no-way", proxy.where, f"{problem}; {effect}", tuple(edits))


def _cause(setup: Setup, proxy: Proxy, name: str) -> tuple[str, list[Edit]]:
    """Return the mistake in main.cf that leaves a parameter empty, and its correction."""
    configuration = setup.configuration
    lines, written = configuration.written, dict(configuration.written)
    values = [value for _, value in lines]
    values += [value for each in configuration.services for value in each.own.values()]
    used = {name for value in values for name in re.findall(r"\$[({]?(\w+)", value)}
    if configuration.parameter(name):
        return "", []
    for variable in re.findall(r"\$[({]?(\w+)", written.get(name, "")):
        if not written.get(variable):
            similar = get_close_matches(variable, written.keys() - used, 1, _SIMILAR)
            hint = f" (${similar[0]} is defined, but not used)" if similar else ""
            return f", because ${variable} in {name} has no value{hint}", []
    earlier = [value for other, value in lines if other == name and _leads(setup, proxy, value)]
    if earlier:
        return f", because a later line in main.cf sets {name} to an empty value", []
    unused = [
        other
        for other, value in lines
        if other not in used and other not in configuration.main and _leads(setup, proxy, value)
    ]
    similar = get_close_matches(name, unused, 1, _SIMILAR)
    if not similar:
        return "", []
    remove = fixes.run(f"{configuration.postconf} -X {shlex.quote(similar[0])}")
    return f", because main.cf sets {similar[0]} instead of {name}", [remove]


def _leads(setup: Setup, proxy: Proxy, value: str) -> bool:
    """Return whether a value of smtpd_proxy_filter or content_filter is a proxy's address."""
    queue = setup.configuration.parameter("queue_directory")
    endpoint = proxy_filter(value, queue) or next_hop(value.partition(":")[2], queue)
    return endpoint is not None and proxy.is_at(endpoint)


def _way(setup: Setup, proxy: Proxy, endpoint: Endpoint) -> tuple[FilterStage, str]:
    """Return the parameter that routes all mail to a proxy, and its value.

    If Postfix maps addresses only before the filter, the proxy must be after the queue.
    """
    address = setup.relative(nearest(endpoint))
    behind = setup.reinjection_service(proxy)
    transport = _recipe_transport(setup)
    if transport and behind and _NO_MAPPINGS in behind.tokens(_OVERRIDES):
        return FilterStage.AFTER_QUEUE, _hop(transport, address)
    return FilterStage.BEFORE_QUEUE, str(address)


def _is_in_vain(setup: Setup, service: Service, name: str, value: str) -> bool:
    """Return whether a service sets a parameter in a way that leaves its mail unfiltered.

    The value is empty and overrides the value in main.cf, or the service's program does not use the
    parameter.
    """
    own = service.own.get(name)
    if own is None:
        return False
    uses = ("smtpd",) if name == FilterStage.BEFORE_QUEUE.value else ENTRANCES
    if service.program not in uses:
        return bool(own)
    is_overridden = setup.configuration.parameter(name) == value and not own
    return is_overridden and setup.is_public(service) and not is_for_users(service)


def _remove_own(setup: Setup, service: Service, name: str) -> Edit:
    """Remove a parameter from a service in master.cf."""
    label = shlex.quote(f"{service.label}/{name}")
    return fixes.run(f"{setup.configuration.postconf} -PX {label}")


def _use(setup: Setup, proxy: Proxy) -> list[Edit]:
    """Route local users' mail to the proxy if milters follow it. Otherwise, stop the proxy."""
    behind = setup.reinjection_service(proxy)
    fronts = [each for each in setup.configuration.services if each.program == "smtpd"]
    unsigned_fronts = [
        each
        for each in fronts
        if is_for_users(each) and has_milters(each) and setup.routes_from(each)
    ]
    if behind and has_milters(behind) and unsigned_fronts:
        return _signed(setup, unsigned_fronts[0])
    return [fixes.stop(setup.configuration, proxy)]


def nearest(endpoint: Endpoint) -> Endpoint:
    """Return an address at which this machine can connect to a listener."""
    return endpoint._replace(host="127.0.0.1") if endpoint.is_open() else endpoint


def wrong_port(setup: Setup, route: Route) -> Iterator[Fault]:
    """Report a route to a local address on which no server listens."""
    if setup.proxy_outside(route):
        yield from _hidden(setup, route)
        return
    idle = [proxy for proxy in setup.proxies if proxy.endpoint and not setup.routes_to(proxy)]
    nothing_listens = setup.running is not None and setup.listener_at(route.endpoint) is None
    if not idle and not (nothing_listens and setup.running and setup.running.postfix):
        return
    if setup.listener_at(route.endpoint) is not None:
        return
    name, effect = route.stage.value, "all its mail is deferred (451)"
    if route.stage is FilterStage.AFTER_QUEUE:
        effect = "all its mail stays in the queue"
    unread = [each.path for proxy in idle for each in _ignored(proxy) if each.is_unread_socket]
    address = _proxy_for(setup)
    edits = [fixes.redirect(route, str(address)) if address else fixes.run("ss -ltnp")]
    if address:
        edits += _unchrooted(setup, [route.source], address)
    if _is_leftover(setup, route):
        edits = [fixes.set_main(name, "")]
    hint = f" ({unread[0]} is not read)" if unread else ""
    yield Fault(
        "wrong-port",
        f"master.cf, {route.source.label}",
        f"it sends mail to {route.endpoint} ({name}), but no server listens on that address"
        f"{_origin(route)}{hint}; {effect}",
        () if unread else tuple(edits),  # the drop-in probably sets this address
    )


def _is_leftover(setup: Setup, route: Route) -> bool:
    """Return whether main.cf sets content_filter, although a proxy filters before the queue."""
    stages = {each.stage for proxy in setup.proxies for each in setup.routes_to(proxy)}
    is_own = route.stage.value in route.source.own
    return (
        route.stage is FilterStage.AFTER_QUEUE
        and not is_own
        and (FilterStage.BEFORE_QUEUE in stages)
    )


def _ignored(proxy: Proxy) -> tuple[Ignored, ...]:
    return proxy.unit.ignored if proxy.unit else ()


def _origin(route: Route) -> str:
    """Return an explanation if the parameter does not contain the route's address, or ""."""
    value = route.source.parameter(route.stage.value)
    return "" if route.endpoint.host in value else f", which /etc/hosts gives for {value}"


def bypass(setup: Setup, route: Route) -> Iterator[Fault]:
    """Report a route that leads to a Postfix service instead of a filter."""
    service = setup.service_at(route.endpoint)
    if service is None or service.program != "smtpd" or setup.proxy_at(route):
        return
    if proxy := _proxy_for(setup):
        yield Fault(
            "no-way",
            f"master.cf, {route.source.label}",
            f"it sends mail to {service.label} ({route.stage.value}), which is not a filter; "
            "this mail passes unfiltered or loops",
            (fixes.redirect(route, str(proxy)), *_mapped_once(setup, route, proxy)),
        )


def _mapped_once(setup: Setup, route: Route, address: Endpoint) -> list[Edit]:
    """Return the edits with which addresses are mapped only once after a route moves to a proxy."""
    proxy = next((each for each in setup.proxies if each.is_at(address)), None)
    behind = setup.reinjection_service(proxy) if proxy else None
    if proxy is None or behind is None or route.source is behind:
        return []
    is_mapped_behind = _NO_MAPPINGS not in behind.tokens(_OVERRIDES)
    if route.stage is not FilterStage.AFTER_QUEUE or _is_mapped_before(route) != is_mapped_behind:
        return []
    if not is_mapped_behind:
        return [fixes.remove_item(route.source, _OVERRIDES, _NO_MAPPINGS)]
    # If other mail already reaches the proxy, the service after the proxy might have to map the
    # addresses of that mail.
    place = route.source if setup.routes_to(proxy) else behind
    return [fixes.add_item(place, _OVERRIDES, _NO_MAPPINGS)]


def _proxy_for(setup: Setup) -> Endpoint | None:
    """Return the address of a proxy to which no mail is routed, or else that of the first proxy."""
    proxies = sorted(setup.proxies, key=lambda proxy: bool(setup.routes_to(proxy)))
    found = next((nearest(each.endpoint) for each in proxies if each.endpoint), None)
    return setup.relative(found) if found else None


def _unchrooted(setup: Setup, services: Sequence[Service], address: Endpoint) -> list[Edit]:
    """Run services without a chroot if they cannot reach the filter's socket from it."""
    path = setup.relative(address).path
    if not path.startswith("/") or path in setup.configuration.shared:
        return []
    return [fixes.set_field(each, "chroot", "n") for each in services if each.is_chrooted()]


def _hidden(setup: Setup, route: Route) -> Iterator[Fault]:
    """Report a proxy whose socket a service cannot reach because the service is chrooted."""
    name = route.stage.value
    queue = setup.configuration.parameter("queue_directory")
    path = route.endpoint.path.removeprefix(queue)
    address = setup.relative(Endpoint("", 0, path))
    edits = _unchrooted(setup, [route.source], address)
    yield Fault(
        "wrong-port",
        f"master.cf, {route.source.label}",
        f"it runs in the chroot {queue} and cannot reach the socket {path} ({name}); all its mail "
        "is deferred (451)",
        tuple(edits or [fixes.redirect(route, str(address))]),
    )


def malformed(setup: Setup) -> Iterator[Fault]:
    """Report a value that is not a valid filter address."""
    for service, stage, value in malformed_routes(setup.configuration):
        address = _proxy_for(setup)
        if address is None:
            continue
        if stage is FilterStage.AFTER_QUEUE and _is_pipe(setup, value):
            yield from _other_filter(setup, service, value)
            continue
        transport = _intended_transport(setup, value) if stage is FilterStage.AFTER_QUEUE else ""
        route = Route(stage, service, address, None, transport)
        edits = [fixes.redirect(route, str(address)), *_unchrooted(setup, [service], address)]
        if transport and setup.configuration.transport(transport) is None:
            edits.append(fixes.add_line(setup.configuration, transport, f"- - n - 20 {fixes.SCAN}"))
        is_after = stage is FilterStage.AFTER_QUEUE
        effect = "stays in the queue" if is_after else "is deferred (451)"
        effect = f"mail {effect} or is sent elsewhere unfiltered"
        if is_after and ":inet:" in value:
            effect = "smtp(8) does not support inet: here, and all mail stays in the queue"
        yield Fault(
            "wrong-port",
            f"master.cf, {service.label}",
            f"{stage.value} = {value!r} is not a valid filter address; {effect}",
            tuple(edits),
        )


def _is_pipe(setup: Setup, name: str) -> bool:
    transport = setup.configuration.transport(name)
    return transport is not None and transport.program == "pipe"


def _other_filter(setup: Setup, service: Service, value: str) -> Iterator[Fault]:
    """Report a service whose mail gets a pipe(8) filter instead of the proxy.

    If pickup sends the filter's mail to the proxy, both filters run.
    """
    name = FilterStage.AFTER_QUEUE.value
    local = [each for each in setup.configuration.services if each.program == "pickup"]
    if name in service.own and any(each.own.get(name) == "" for each in local):
        yield Fault(
            "no-way",
            f"master.cf, {service.label}",
            f"{name} = {value} replaces the filter in main.cf by a filter that pipe(8) runs, and "
            "pickup does not send the filtered mail to the proxy; all its mail bypasses the proxy",
            tuple(
                _remove_own(setup, each, name)
                for each in (service, *(each for each in local if each.own.get(name) == ""))
            ),
        )


def piped(setup: Setup) -> Iterator[Fault]:
    """Report a transport that runs the proxy with pipe(8) instead of connecting to it by SMTP."""
    configuration, name = setup.configuration, FilterStage.AFTER_QUEUE.value
    for service in configuration.services:
        user, command = spawned_command(service.words)
        sources = [
            each
            for each in configuration.services
            if each.program in ENTRANCES and each.parameter(name).partition(":")[0] == service.name
        ]
        if (service.type, service.program) != ("unix", "pipe") or not is_proxy(command):
            continue
        if not sources:
            continue  # not_spawned reports it
        edits: list[Edit] = []
        address = _proxy_for(setup)
        if address is None or address.path:  # smtp(8) does not support unix: here
            address = Endpoint("127.0.0.1", master_rules.free_port(setup, 10025))
            words = ("spawn", *([f"user={user}"] if user else []), f"argv={command[0]}")
            line = f"{address} inet n n n - 20 {join_words((*words, *command[1:]))}"
            edits.append(fixes.add_entry(configuration, line))
        transport = _recipe_transport(setup)
        is_replaced = transport is None and service.name == "scan"
        if is_replaced or (transport is None and configuration.transport("scan") is None):
            edits.append(fixes.add_line(configuration, "scan", f"- - n - 20 {fixes.SCAN}"))
        for source in sources:
            hop = transport.name if transport else "scan"
            route = Route(FilterStage.AFTER_QUEUE, source, address, None, hop)
            edits.append(fixes.redirect(route, str(address)))
        yield Fault(
            "transport",
            f"master.cf, {service.label}",
            "pipe(8) runs the proxy without an SMTP connection, so the proxy fails; all mail "
            f"bounces ({name})",
            tuple(edits if is_replaced else [*edits, fixes.remove(configuration, service)]),
        )


def _intended_transport(setup: Setup, value: str) -> str:
    """Return the transport that a malformed value of content_filter was meant to name."""
    names = [each.name for each in setup.configuration.services if each.type == "unix"]
    begun = [name for name in names if re.match(rf"{re.escape(name)}\b", value)]
    recipe = _recipe_transport(setup)
    given, _, where = value.partition(":")
    if begun or recipe:
        return max(begun, key=len) if begun else recipe.name if recipe else ""
    is_name = re.fullmatch(r"[a-z][a-z0-9_-]*", given) and not where.isdigit()
    return given if is_name else "scan"


def unfiltered(setup: Setup) -> Iterator[Fault]:
    """Report a service that receives mail from outside and does not send it to a filter.

    If a service sets both filter parameters to an empty value in master.cf, this is considered
    intentional, unless one of the proxies receives no mail. On a submission port, one empty filter
    parameter is also considered intentional. On another port, one empty filter parameter could be
    left over from a test.
    """
    address = _proxy_for(setup)
    if address is None or any(map(setup.possible_routes, setup.proxies)):
        return
    names = {stage.value for stage in FilterStage}
    both = " and ".join(sorted(names, reverse=True))
    is_idle = any(proxy.endpoint and not setup.routes_to(proxy) for proxy in setup.proxies)
    is_used = any(map(setup.routes_to, setup.proxies))
    for service in setup.configuration.services:
        own = names & service.own.keys()
        endpoint = setup.endpoint_of(service)
        is_submission = endpoint is not None and endpoint.port in _SUBMISSION_PORTS
        is_intended = not is_idle and (own == names or (own and is_submission))
        is_for_strangers = setup.is_public(service) and not is_for_users(service)
        if is_used and is_for_strangers and not is_intended and not has_filter(service):
            yield Fault(
                "unfiltered" if own and not is_idle else "no-way",
                f"master.cf, {service.label}",
                "it does not send mail to a filter, so its mail passes unfiltered; if this is "
                f"intended, set {both} to an empty value for this service",
                (_filtered(setup, service, address),),
            )


def unfiltered_local_mail(setup: Setup) -> Iterator[Fault]:
    """Report a service other than smtpd(8) that overrides an after-queue filter in main.cf.

    Such a service does not use smtpd_proxy_filter. If the service sets smtpd_proxy_filter, the
    override is considered intentional.
    """
    name, mark = FilterStage.AFTER_QUEUE.value, FilterStage.BEFORE_QUEUE.value
    for service in _excluded(setup):
        if service.program != "smtpd":
            mail = "mail from local programs" if service.program == "pickup" else "its mail"
            yield Fault(
                "unfiltered",
                f"master.cf, {service.label}",
                f"it sets {name} to an empty value, so {mail} passes unfiltered; if this is "
                f"intended, also set {mark} to an empty value for this service",
                (_remove_own(setup, service, name),),
            )


def _excluded(setup: Setup) -> list[Service]:
    """Return the services that override only the after-queue filter in main.cf.

    The result is empty if this filter is not a proxy.
    """
    name, mark = FilterStage.AFTER_QUEUE.value, FilterStage.BEFORE_QUEUE.value
    value = setup.configuration.parameter(name)
    is_used = any(
        route.source.parameter(name) == value
        for proxy in setup.proxies
        for route in setup.routes_to(proxy)
        if route.stage is FilterStage.AFTER_QUEUE
    )
    return [
        service
        for service in setup.configuration.services
        if service.program in ENTRANCES
        and (is_used and service.own.get(name) == "" and mark not in service.own)
    ]


def unfiltered_smtp(setup: Setup) -> Iterator[Fault]:
    """Report services that override an after-queue filter in main.cf if no SMTP mail is filtered.

    If a submission service has a filter, mail from outside may be intentionally unfiltered.
    """
    name, mark = FilterStage.AFTER_QUEUE.value, FilterStage.BEFORE_QUEUE.value
    behind = [setup.reinjection_service(proxy) for proxy in setup.proxies]
    if any(
        has_filter(service) and service not in behind and not setup.is_for_filtered(service)
        for service in setup.configuration.services
        if service.program == "smtpd"
    ):
        return
    for service in _excluded(setup):
        if setup.is_public(service) and not is_for_users(service):
            yield Fault(
                "no-way",
                f"master.cf, {service.label}",
                f"it sets {name} to an empty value, and no other service sends mail that arrives "
                "by SMTP to a filter, so mail from outside passes unfiltered; if this is intended, "
                f"also set {mark} to an empty value for this service",
                (_remove_own(setup, service, name),),
            )


def overridden(setup: Setup) -> list[str]:
    """Return the services that override the filter in main.cf with an empty value.

    If another service sends incoming mail to a filter, empty values are considered intentional, and
    the result is empty. The result does not contain services that `unfiltered_smtp` reports.
    """
    if list(unfiltered_smtp(setup)):
        return []
    services = [
        each
        for each in setup.configuration.services
        if setup.is_public(each) and not is_for_users(each)
    ]
    if any(map(has_filter, services)):
        return []
    return [
        each.label
        for each in services
        for name in (stage.value for stage in FilterStage)
        if each.own.get(name) == "" and setup.configuration.parameter(name)
    ]


def _filtered(setup: Setup, service: Service, address: Endpoint) -> Edit:
    """Return the edit that sends a service's mail to the proxy.

    If the recipe's after-queue transport exists, the edit uses it.
    """
    if transport := _recipe_transport(setup):
        return fixes.set_main(FilterStage.AFTER_QUEUE.value, _hop(transport, address))
    return fixes.set_own(service, FilterStage.BEFORE_QUEUE.value, str(address))


def _recipe_transport(setup: Setup) -> Service | None:
    """Return a transport like the one in the after-queue recipe, or None."""
    for transport in setup.configuration.services:
        is_transport = (transport.type, transport.program) == ("unix", "smtp")
        if is_transport and transport.own.get("smtp_send_xforward_command") == "yes":
            return transport
    return None


def _hop(transport: Service, address: Endpoint) -> str:
    """Return the value of content_filter that sends mail through a transport to an address."""
    if address.path:
        return f"{transport.name}:{address}"
    return f"{transport.name}:[{address.host.strip('[]')}]:{address.port}"


def has_filter(service: Service) -> bool:
    """Return whether a service sends mail to any filter."""
    return any(service.parameter(stage.value) for stage in FilterStage)


def time_limit(setup: Setup, proxy: Proxy, wanted: Options) -> Iterator[Fault]:
    """Report a Postfix timeout that is not longer than the filter's timeout."""
    found = setup.routes_to(proxy)
    fronts = distinct(route.source for route in found if route.stage is FilterStage.BEFORE_QUEUE)
    waiting = [(service, "smtpd_proxy_timeout") for service in fronts]
    waiting += [(service, "smtp_data_done_timeout") for service in setup.smtp_transports_to(proxy)]
    chain = setup.chain(proxy)
    longest = sum(each.options.timeout for each in chain if each.options)
    filters = "the filter" if len(chain) == 1 else f"the filters of {len(chain)} proxies in a row"
    for service, name in waiting:
        timeout = service.seconds(name)
        if longest >= timeout:
            yield Fault(
                "time-limit",
                proxy.where,
                f"{filters} may run for {longest:g} s (-t), but {service.label} aborts "
                f"after {timeout} s ({name}); messages that take longer are "
                + ("never delivered" if service in fronts else "delivered again at each attempt"),
                (fixes.raise_own(service, name, longest + timeout),),
            )


def fronts_limit(setup: Setup, proxy: Proxy) -> Iterator[Fault]:
    """Report services that can run more smtpd(8) processes than the proxy can serve at once."""
    behind = setup.reinjection_service(proxy)
    fronts = [
        route.source
        for route in setup.routes_to(proxy)
        if route.stage is FilterStage.BEFORE_QUEUE and route.source is not behind
    ]
    yield from _single_processes(proxy, fronts)
    # Local clients rarely use all processes that the default limit permits.
    busy = [each for each in fronts if each.process_limit != "-" or not is_for_own_clients(each)]
    fronts = busy or fronts
    sharing_factor = min((_sharing_factor(front) for front in fronts), default=1)
    process_count = _total(fronts)
    if not fronts or not proxy.capacity or 0 < process_count <= sharing_factor * proxy.capacity:
        return
    if 0 < process_count <= _usual_capacity(proxy):
        yield _few_sessions(proxy, process_count, fronts)
        return
    without = "" if sharing_factor == SPEED_ADJUST_FACTOR else ", and speed_adjust is not set"
    share = max(SPEED_ADJUST_FACTOR * proxy.capacity // len(fronts), 1)
    yield Fault(
        "process-limit",
        proxy.where,
        f"{process_count or 'an unlimited number of'} processes of {_labels(fronts)} share "
        f"{proxy.capacity} proxies{without}; under load, mail is deferred (451)",
        (
            fixes.set_main("smtpd_proxy_options", "speed_adjust"),
            *(
                fixes.set_field(front, "process_limit", str(share))
                for front in fronts
                if not 0 < front.limit() <= share
            ),
        ),
    )


def is_for_own_clients(front: Service) -> bool:
    """Return whether a service refuses clients outside mynetworks that do not authenticate."""
    own = ["permit_sasl_authenticated", "permit_mynetworks"]
    lists = (front.tokens(f"smtpd_{stage}_restrictions") for stage in _STAGES)
    return any(each[-1:] == ["reject"] and {*each[:-1]} & {*own} == {*each[:-1]} for each in lists)


def _single_processes(proxy: Proxy, fronts: Sequence[Service]) -> Iterator[Fault]:
    """Report services that serve one client at a time, although the proxy can serve several."""
    for front in fronts:
        if front.limit() == 1 and proxy.capacity > SPEED_ADJUST_FACTOR:
            yield Fault(
                "process-limit",
                f"master.cf, {front.label}",
                "the process limit is 1, so each client waits until the previous client's session "
                "ends; under load, clients give up",
                (fixes.set_field(front, "process_limit", str(proxy.capacity)),),
            )


def _usual_capacity(proxy: Proxy) -> int:
    """Return the capacity that a listening proxy would have without `--max-sessions`, or 0 if no
    unit starts the proxy.
    """
    return max(len(proxy.unit.instances), 1) * limits.SESSIONS if proxy.unit else 0


def _few_sessions(proxy: Proxy, process_count: int, clients: Sequence[Service]) -> Fault:
    """Report `--max-sessions` if the default would be sufficient."""
    return Fault(
        "process-limit",
        proxy.where,
        f"--max-sessions is lower than the number of processes of {_labels(clients)} that use the "
        f"proxy ({process_count}); under load, the other sessions wait, and mail is deferred (451)",
        (fixes.remove_option(proxy, "--max-sessions"),),
    )


def _sharing_factor(front: Service) -> int:
    return SPEED_ADJUST_FACTOR if "speed_adjust" in front.tokens("smtpd_proxy_options") else 1


def _total(services: Sequence[Service]) -> int:
    limits = [service.limit() for service in services]
    return 0 if 0 in limits else sum(limits)


def _labels(services: Sequence[Service]) -> str:
    return ", ".join(service.label for service in services)


def lmtp(setup: Setup, proxy: Proxy) -> Iterator[Fault]:
    """Report a transport that uses lmtp(8). The proxy does not support clients that send LHLO."""
    for transport in setup.transports_to(proxy):
        if transport.program == "lmtp":
            other = _recipe_transport(setup)
            edits: tuple[Edit, ...] = (
                fixes.set_program(transport, "smtp"),
                fixes.set_own(transport, "smtp_send_xforward_command", "yes"),
            )
            if other:  # the transport may also deliver to mailboxes
                edits = tuple(
                    fixes.redirect(replace(route, transport_name=other.name), str(route.endpoint))
                    for route in setup.routes_to(proxy)
                    if route.transport is transport
                )
            yield Fault(
                "lmtp",
                proxy.where,
                f"{transport.label} uses lmtp(8), which the proxy does not support; "
                "no mail is delivered",
                edits,
            )


def transports_limit(setup: Setup, proxy: Proxy) -> Iterator[Fault]:
    """Report a transport that can run more smtp(8) processes than the proxy can serve."""
    for transport in setup.transports_to(proxy):
        process_count = _concurrency(setup.configuration, transport)
        if proxy.capacity < process_count <= _usual_capacity(proxy):
            yield _few_sessions(proxy, process_count, [transport])
        elif proxy.capacity and not 0 < process_count <= proxy.capacity:
            yield Fault(
                "process-limit",
                proxy.where,
                f"{process_count or 'an unlimited number of'} processes of {transport.label} "
                f"share {proxy.capacity} proxies; under load, these processes "
                "wait for a greeting",
                (fixes.set_field(transport, "process_limit", str(proxy.capacity)),),
            )


def _concurrency(configuration: Configuration, transport: Service) -> int:
    name = f"{transport.name}{TRANSPORT_LIMIT}"
    own = number(name, configuration.parameter(name))
    default = configuration.number("default_destination_concurrency_limit")
    limits = [default if own is None else own, transport.limit()]
    return min((limit for limit in limits if limit > 0), default=0)


def loop(setup: Setup, proxy: Proxy, behind: Service) -> Iterator[Fault]:
    """Report a mail loop through the filter."""
    for route in setup.routes_from(behind):
        if setup.comes_back(route, proxy):
            name = route.stage.value
            edits: tuple[Edit, ...] = (fixes.set_own(behind, name, ""),)
            other = setup.place_for_filtered(proxy)
            if is_wrong_service(setup, proxy, behind):
                edits = sent_to(setup, proxy, other) if other else _sent_to_new(setup, proxy)
            yield Fault(
                "loop",
                proxy.where,
                f"{behind.label} sends filtered mail back to the filter ({name}); "
                "mail loops and is never delivered",
                edits,
            )


def is_wrong_service(setup: Setup, proxy: Proxy, behind: Service) -> bool:
    """Return whether the proxy sends mail back to a service that filters it, such as port 25."""
    endpoint = setup.endpoint_of(behind)
    is_loop = any(setup.comes_back(route, proxy) for route in setup.routes_from(behind))
    is_public = endpoint is None or not endpoint.is_here()
    is_replaced = is_public or setup.place_for_filtered(proxy) is not None
    return is_loop and is_replaced and not setup.is_for_filtered(behind)


def _sent_to_new(setup: Setup, proxy: Proxy) -> tuple[Edit, ...]:
    """Return the edits that add the recipe's service for filtered mail on a free port."""
    address = f"127.0.0.1:{master_rules.free_port(setup, 10026)}"
    return add_service(setup, proxy, address), fixes.send_to(proxy, address)


def add_service(setup: Setup, proxy: Proxy, target: str) -> Edit:
    """Append the recipe's service for filtered mail."""
    is_after = any(route.stage is FilterStage.AFTER_QUEUE for route in setup.routes_to(proxy))
    file = f"{setup.examples}/{'after' if is_after else 'before'}-queue.master.cf"
    start = "/^127.0.0.1:10026/"
    script = shlex.quote(f"{start},$ {{ s{start[:-1]}/{target}/; p; }}")
    path = f'"$({setup.configuration.postconf} -h config_directory)/master.cf"'
    return fixes.run(f"sed -n {script} {shlex.quote(file)} >> {path}")


def return_loop(setup: Setup, proxy: Proxy, behind: Service) -> Iterator[Fault]:
    """Report a service that gets mail from another filter and sends it back to the proxy."""
    name = FilterStage.BEFORE_QUEUE.value
    onward = [each for each in setup.routes_from(behind) if setup.proxy_at(each) is None]
    for route in setup.routes_to(proxy) if onward else ():
        front = route.source
        endpoint = setup.endpoint_of(front)
        is_return = front.own.get(FilterStage.AFTER_QUEUE.value) == "" and name not in front.own
        is_return = is_return and not is_for_users(front) and front is not behind
        if is_return and endpoint and endpoint.is_here():
            yield Fault(
                "loop",
                f"master.cf, {front.label}",
                f"it sends mail to the proxy ({name} in main.cf), and the service behind the "
                f"proxy, {behind.label}, sends mail to the filter at {onward[0].endpoint}; if this "
                f"filter returns mail to {front.label}, mail loops until Postfix bounces it",
                (fixes.set_own(front, name, ""),),
            )


#: The parameters that determine where Postfix delivers mail to other sites, and their defaults.
_OUTGOING = {"relayhost": "", "default_transport": "smtp", "relay_transport": "relay"}


def outgoing_loop(setup: Setup, proxy: Proxy) -> Iterator[Fault]:
    """Report outgoing mail that Postfix sends to a proxy, which sends it back to Postfix.

    If no service passes mail to the proxy, the parameter is not reported, because it may be the
    intended route.
    """
    queue = setup.configuration.parameter("queue_directory")
    for name, default in _OUTGOING.items():
        value = setup.configuration.parameter(name)
        where = value if name == "relayhost" else value.partition(":")[2]
        endpoint = next_hop(where, queue)
        if endpoint and proxy.is_at(endpoint) and setup.routes_to(proxy):
            yield Fault(
                "loop",
                proxy.where,
                f"{name} = {value} sends outgoing mail to the filter, which sends it back to "
                "Postfix; mail to other sites loops until it is returned to its sender",
                (fixes.set_main(name, default),),
            )


def own_loop(setup: Setup, proxy: Proxy, wanted: Options) -> Iterator[Fault]:
    """Report a proxy that sends mail to itself, directly or through another proxy."""
    seen: list[Proxy] = []
    current: Proxy | None = proxy
    while current and current not in seen and current.options:
        seen.append(current)
        target = target_endpoint(current.options.target)
        current = next((each for each in setup.proxies if each.is_at(target)), None)
    if current is proxy:
        other = setup.place_for_filtered(proxy)
        edits = sent_to(setup, proxy, other) if other else (fixes.run("postprox --help"),)
        yield Fault(
            "loop",
            proxy.where,
            f"the proxy sends filtered mail to {wanted.target.text}, which is its own address; no "
            "mail is delivered",
            edits,
        )


def sent_to(setup: Setup, proxy: Proxy, service: Service) -> tuple[Edit, ...]:
    """Return the edits that make the proxy send its mail to a service for filtered mail.

    Such a service accepts mail only from this machine. If the proxy cannot reach the service from a
    permitted address, the edits also change the address on which the service listens.
    """
    endpoint = setup.endpoint_of(service)
    old = upstream_endpoint(setup.configuration, proxy.options) if proxy.options else None
    if service.type != "inet" and _TCP_NAME.fullmatch(service.name):
        moved = [] if str(old) == service.name else [fixes.send_to(proxy, service.name)]
        closed = [] if service.private == "n" else [fixes.set_field(service, "private", "n")]
        # Change the type last, because the type is part of the service's label.
        return (*moved, *closed, fixes.set_field(service, "type", "inet"))
    if endpoint is None:
        if old and old.is_here() and not old.path:
            return (fixes.set_field(service, "service", str(old)),)
        return (fixes.send_to(proxy, service.name),)
    own = nearest(endpoint)
    edits = []
    networks = service.tokens("mynetworks")
    is_refused = not own.path and networks and xforward.permits(networks, own.host) is False
    if not own.is_here() or is_refused:
        is_better = old and old.is_here() and xforward.permits(networks, old.host)
        own = own._replace(host=old.host if old and is_better else "127.0.0.1")
        edits.append(fixes.set_field(service, "service", str(own)))
    if old != own:
        edits.append(fixes.send_to(proxy, str(own)))
    return tuple(edits)


def wrong_program(setup: Setup, proxy: Proxy) -> Iterator[Fault]:
    """Report an upstream service in master.cf that is not smtpd(8)."""
    service = upstream(setup.configuration, proxy)
    if service and service.program not in ("smtpd", "spawn", "lmtpd"):
        yield Fault(
            "no-upstream",
            proxy.where,
            f"{service.label}, the proxy's upstream server, is {service.program}(8), not "
            "smtpd(8); all mail is deferred (451)",
            (fixes.set_program(service, "smtpd"),),
        )


def open_service(setup: Setup, proxy: Proxy, behind: Service) -> Iterator[Fault]:
    """Report a service after the filter if other machines can send mail to this service."""
    endpoint = setup.endpoint_of(behind)
    if not setup.is_for_filtered(behind) or endpoint is None or not endpoint.is_open():
        return
    is_closed = "reject" in behind.tokens("smtpd_relay_restrictions")
    outside = [each for each in behind.tokens("mynetworks") if not _is_loopback(each)]
    if not is_closed or outside or not behind.tokens("mynetworks"):
        own = f"127.0.0.1:{endpoint.port}"
        yield Fault(
            "open-relay",
            proxy.where,
            f"{behind.label}, the service after the filter, listens on all addresses; mail that "
            "other machines send to it passes unfiltered",
            (fixes.set_field(behind, "service", own),),
        )


def _is_loopback(network: str) -> bool:
    return network.startswith(("127.", "[::1]", "::1"))


def session_limit(proxy: Proxy, wanted: Options) -> Iterator[Fault]:
    """Report a spawn(8) time limit that ends the proxy before the filter times out."""
    name = "command_time_limit"
    if proxy.service and wanted.timeout >= proxy.service.seconds(name):
        yield Fault(
            "time-limit",
            proxy.where,
            f"the filter may run for {wanted.timeout:g} s (-t), but spawn(8) kills the proxy after "
            f"{proxy.service.seconds(name)} s ({name}); messages that take longer "
            "are never delivered",
            (fixes.raise_own(proxy.service, name, wanted.timeout + 940),),
        )


def protocol(setup: Setup, proxy: Proxy) -> Iterator[Fault]:
    """Report a proxy with an IPv6 address if Postfix uses only IPv4, and vice versa."""
    unused = {"ipv4": ":", "ipv6": "."}.get(setup.configuration.parameter("inet_protocols"))
    service = upstream(setup.configuration, proxy)
    hosts = [setup.endpoint_of(each) for each in (proxy.service, service) if each]
    if unused and any(host and unused in host.host for host in hosts):
        yield Fault(
            "wrong-port",
            proxy.where,
            "the proxy or its upstream server uses an IP version that Postfix does not use "
            f"(inet_protocols = {setup.configuration.parameter('inet_protocols')}); Postfix does "
            "not start, or all mail is deferred (451)",
            (fixes.set_main("inet_protocols", "all"),),
        )


def behind_limit(setup: Setup, proxy: Proxy, behind: Service) -> Iterator[Fault]:
    """Report an upstream service that can run fewer smtpd(8) processes than there are proxies."""
    found = setup.routes_to(proxy)
    fronts = distinct(route.source for route in found if route.transport is None)
    limits_of = [
        *(front.limit() for front in fronts),
        *(_concurrency(setup.configuration, each) for each in setup.transports_to(proxy)),
    ]
    clients = 0 if 0 in limits_of else sum(limits_of)
    most = min(filter(None, (proxy.capacity, clients)), default=0)
    if 0 < behind.limit() < most:
        yield Fault(
            "process-limit",
            proxy.where,
            f"{most} proxies share {behind.limit()} processes of {behind.label}; under load, mail "
            "is deferred (451)",
            (fixes.set_field(behind, "process_limit", str(most)),),
        )


def milters(setup: Setup, proxy: Proxy, behind: Service) -> Iterator[Fault]:
    """Report milters that may mistake mail from outside for local mail."""
    milter_list = behind.parameter("smtpd_milters")
    outside = [route.source for route in setup.routes_to(proxy) if not is_for_users(route.source)]
    if has_milters(behind) and outside:
        # The proxy may pass mail from outside to the service for users' mail by mistake.
        other = setup.place_for_filtered(proxy)
        is_other = other and other is not behind and not has_milters(other)
        edits: tuple[Edit, ...] = (fixes.add_item(behind, _OVERRIDES, "no_milters"),)
        yield Fault(
            "milters",
            proxy.where,
            f"{behind.label} passes all filtered mail to milters ({milter_list}), including mail "
            f"from {outside[0].label}; a signing milter treats all of it as local mail",
            sent_to(setup, proxy, other) if other and is_other else edits,
        )


def disabled_milters(proxy: Proxy, behind: Service) -> Iterator[Fault]:
    """Report milters that a service for filtered mail sets but also disables."""
    if behind.own.get("smtpd_milters") and not has_milters(behind):
        yield Fault(
            "unsigned",
            proxy.where,
            f"{behind.label} sets smtpd_milters, but no_milters in {_OVERRIDES} disables these "
            "milters, so they cannot sign mail",
            (fixes.remove_item(behind, _OVERRIDES, "no_milters"),),
        )


def unsigned(setup: Setup, proxy: Proxy, wanted: Options) -> Iterator[Fault]:
    """Report milters that run before the filter and therefore cannot sign the message.

    With smtpd_proxy_filter, Postfix passes only SMTP commands to these milters, and not the
    message (MILTER_README).
    """
    services = [each for each in setup.configuration.services if each.program == "smtpd"]
    has_own_service = any(map(is_for_users, services))
    for route in setup.routes_to(proxy):
        front = route.source
        milter_list = front.parameter("smtpd_milters")
        behind = setup.reinjection_service(proxy)
        signing = setup.place_for_filtered(proxy)
        is_left_out = behind and not has_milters(behind) and signing and has_milters(signing)
        if signing and is_left_out and is_for_users(front):
            yield Fault(
                "unsigned",
                proxy.where,
                f"mail from {front.label} is not signed, because the proxy sends it to "
                f"{wanted.target.text}; no mail reaches {signing.label}, which has milters",
                sent_to(setup, proxy, signing),
            )
            return
        if route.stage is not FilterStage.BEFORE_QUEUE or not has_milters(front):
            continue
        if front is behind or (behind and has_milters(behind)):
            continue
        if any(is_missing(setup, each) for each in front.tokens("smtpd_milters")):
            continue  # another finding reports this milter
        if _SCANNING_MILTER.search(milter_list) and not _SIGNING_MILTER.search(milter_list):
            yield _unscanned(front, milter_list)
            continue
        if not _takes_users(front, has_own_service):
            continue
        edits = _signed(setup, front)
        if not is_for_users(front):
            edits = _own_path(setup, milter_list)
        yield Fault(
            "unsigned",
            f"master.cf, {front.label}",
            f"milters ({milter_list}) do not receive the message if smtpd_proxy_filter is set; "
            f"mail from your own users is not signed{_cost(edits)} (docs/opendkim.md, A milter "
            "that signs)",
            tuple(edits),
        )


#: The addresses of common milters that scan mail, and of common milters that sign it.
_SCANNING_MILTER = re.compile(r":11332\b|rspamd|clam|spamass")
_SIGNING_MILTER = re.compile(r":8891\b|:12301\b|dkim|sign|arc")


def _unscanned(front: Service, milter_list: str) -> Fault:
    return Fault(
        "unscanned",
        f"master.cf, {front.label}",
        f"milters ({milter_list}) do not receive the message if smtpd_proxy_filter is set, so they "
        "cannot scan it. Let the filter call the scanner (docs/rspamd.md), or remove "
        "smtpd_proxy_filter and filter after the queue (postprox-check --recipe after-queue)",
        (fixes.run("postconf smtpd_milters smtpd_proxy_filter"),),
    )


def _cost(edits: Sequence[Edit]) -> str:
    """Return the disadvantage of edits that remove a service's only filter, or ""."""
    if len(edits) > 1:
        return ""
    return (
        ". With the command below, this mail is signed but passes unfiltered. To filter and sign "
        "it, add a second proxy"
    )


def _signed(setup: Setup, front: Service) -> list[Edit]:
    """Send a service's mail to a proxy that is followed by milters.

    If no such proxy exists, do not filter this mail.
    """
    name = FilterStage.BEFORE_QUEUE.value
    for proxy in setup.proxies:
        behind = setup.reinjection_service(proxy)
        if behind and has_milters(behind) and proxy.endpoint:
            address = str(setup.relative(nearest(proxy.endpoint)))
            return [
                *_unchrooted(setup, [front], proxy.endpoint),
                fixes.set_own(front, name, address),
                fixes.set_own(front, "smtpd_milters", ""),
                fixes.set_own(front, "smtpd_milter_maps", ""),
            ]
    return [fixes.set_own(front, name, "")]


def _own_path(setup: Setup, milter_list: str) -> list[Edit]:
    """Add the services for local users: submission, a second proxy, and a service for signing."""
    postconf = setup.configuration.postconf
    path = f'"$({postconf} -h config_directory)/master.cf"'
    own = shlex.quote(f"127.0.0.1:10028/inet/smtpd_milters={milter_list}")
    files = [f"{setup.examples}/before-queue-{part}.master.cf" for part in ("users", "submission")]
    return [
        *(fixes.run(f"cat {shlex.quote(file)} >> {path}") for file in files),
        fixes.run(f"{postconf} -P {own}"),
    ]


def _takes_users(front: Service, has_own_service: bool) -> bool:
    """Return whether local users can send mail through the service."""
    is_open = front.parameter("smtpd_sasl_auth_enable") == "yes" or not has_own_service
    return is_for_users(front) or is_open


def is_for_users(front: Service) -> bool:
    """Return whether a service accepts mail from local users only."""
    return front.program == "pickup" or any(
        front.tokens(f"smtpd_{stage}_restrictions")[-2:] == ["permit_sasl_authenticated", "reject"]
        for stage in _STAGES
    )


def mappings(setup: Setup, proxy: Proxy, behind: Service) -> Iterator[Fault]:
    """Report addresses that Postfix maps both before and after the filter, or not at all."""
    if any(not setup.comes_back(route, proxy) for route in setup.routes_from(behind)):
        return  # another filter follows, whose upstream service may map addresses
    is_mapped_behind = _NO_MAPPINGS not in behind.tokens(_OVERRIDES)
    # A route from the service after the filter to the proxy is a loop, which another finding
    # reports and corrects.
    found = [route for route in setup.routes_to(proxy) if route.source is not behind]
    mapped = [route for route in found if _is_mapped_before(route)]
    unmapped = [route for route in found if not _is_mapped_before(route)]
    # Before-queue mail is mapped only after the filter.
    is_needed = any(route.stage is FilterStage.BEFORE_QUEUE for route in unmapped)
    unmap = [fixes.add_item(each.source, _OVERRIDES, _NO_MAPPINGS) for each in mapped]
    if mapped and is_mapped_behind:
        edits = [fixes.add_item(behind, _OVERRIDES, _NO_MAPPINGS), *_mapped_edits(unmapped)]
        yield Fault(
            "mapped-twice",
            proxy.where,
            f"{mapped[0].source.label} and {behind.label} both map addresses; copies such as those "
            "for always_bcc are delivered twice",
            tuple(unmap if is_needed else edits),
        )
    elif unmapped and not is_mapped_behind:
        # If the service after the filter also mapped addresses, they would be mapped twice.
        edits = [fixes.remove_item(behind, _OVERRIDES, _NO_MAPPINGS), *unmap]
        yield Fault(
            "mapped-never",
            proxy.where,
            f"addresses in mail from {unmapped[0].source.label} are never mapped "
            f"({_NO_MAPPINGS}); mail for virtual aliases is not delivered",
            tuple(_mapped_edits(unmapped) if mapped and not is_needed else edits),
        )


def unused_filter(setup: Setup, proxy: Proxy, behind: Service) -> Iterator[Fault]:
    """Report a service's content_filter that has no effect beside smtpd_proxy_filter."""
    name = FilterStage.AFTER_QUEUE.value
    for route in setup.routes_to(proxy):
        value = route.source.own.get(name, "")
        is_before = route.stage is FilterStage.BEFORE_QUEUE
        if is_before and value and not behind.parameter(name):
            yield Fault(
                "replaced-filter",
                f"master.cf, {route.source.label}",
                f"{name} = {value} has no effect beside smtpd_proxy_filter; mail does not pass "
                "through this filter",
                (fixes.set_own(behind, name, value), fixes.set_own(route.source, name, "")),
            )


def replaced_filter(setup: Setup, proxy: Proxy, behind: Service) -> Iterator[Fault]:
    """Report a content_filter line that has no effect, because this proxy's line follows it."""
    configuration, name = setup.configuration, FilterStage.AFTER_QUEUE.value
    earlier, current = configuration.replaced_filter, configuration.parameter(name)
    transports = [value.partition(":")[0] for value in (earlier, current)]
    is_ours = any(
        route.stage is FilterStage.AFTER_QUEUE and route.source.parameter(name) == current
        for route in setup.routes_to(proxy)
    )
    is_used = any(each.own.get(name) == earlier for each in configuration.services)
    if not earlier or not is_ours or is_used or transports[0] == transports[1]:
        return
    edits = (fixes.run(f"{configuration.postconf} -e {shlex.quote(f'{name}={current}')}"),)
    if configuration.transport(transports[0]) and not behind.parameter(name):
        edits = (fixes.set_own(behind, name, earlier),)
    yield Fault(
        "replaced-filter",
        proxy.where,
        f"main.cf sets {name} more than once, and only the last line has an effect; mail no longer "
        f"passes through {earlier}",
        edits,
    )


_CHECKS = ("header_checks", "mime_header_checks", "nested_header_checks", "body_checks")


def disabled_checks(setup: Setup, proxy: Proxy, behind: Service) -> Iterator[Fault]:
    """Report header and body checks that no service applies to mail filtered before the queue."""
    option = "no_header_body_checks"
    checks = [name for name in _CHECKS if behind.parameter(name)]
    found = setup.routes_to(proxy)
    is_before = all(route.stage is FilterStage.BEFORE_QUEUE for route in found)
    if found and is_before and checks and option in behind.tokens(_OVERRIDES):
        yield Fault(
            "disabled-checks",
            proxy.where,
            f"{behind.label} does not apply {', '.join(checks)} ({option}), and neither does the "
            "service in front of the filter",
            (fixes.remove_item(behind, _OVERRIDES, option),),
        )


def _is_mapped_before(route: Route) -> bool:
    is_after = route.stage is FilterStage.AFTER_QUEUE
    return is_after and _NO_MAPPINGS not in route.source.tokens(_OVERRIDES)


def _mapped_edits(unmapped: Sequence[Route]) -> list[Edit]:
    """Return the edits that enable address mapping in services with an after-queue filter."""
    return [
        fixes.remove_item(each.source, _OVERRIDES, _NO_MAPPINGS)
        for each in unmapped
        if each.stage is FilterStage.AFTER_QUEUE
    ]


def xforward_refused(
    setup: Setup, proxy: Proxy, wanted: Options, behind: Service
) -> Iterator[Fault]:
    """Report an upstream service that does not permit XFORWARD from the proxy."""
    name = "smtpd_authorized_xforward_hosts"
    keywords = "smtpd_discard_ehlo_keywords"
    if "xforward" in behind.parameter(keywords).lower():
        yield Fault(
            "xforward",
            proxy.where,
            f"{behind.label} does not offer XFORWARD ({keywords}); "
            "the filter does not get the sender's REMOTEIP and HELO",
            (fixes.set_own(behind, keywords, ""),),
        )
    if xforward.permits(behind.tokens(name), target_endpoint(wanted.target).host) is False:
        yield Fault(
            "xforward",
            proxy.where,
            f"{behind.label} does not permit XFORWARD from the proxy ({name}); "
            "the filter does not get the sender's REMOTEIP and HELO",
            (fixes.set_own(behind, name, "127.0.0.0/8,[::1]/128"),),
        )


def xforward_unsent(setup: Setup, proxy: Proxy) -> Iterator[Fault]:
    """Report a transport that does not send XFORWARD to the proxy."""
    name = "smtp_send_xforward_command"
    for transport in setup.smtp_transports_to(proxy):
        if transport.parameter(name) != "yes":
            yield Fault(
                "xforward",
                proxy.where,
                f"{transport.label} does not send XFORWARD ({name}); "
                "the filter does not get the sender's REMOTEIP and HELO",
                (fixes.set_own(transport, name, "yes"),),
            )


#: The transports that must not send XFORWARD, because they also deliver to other servers.
_GENERAL_TRANSPORTS = ("smtp", "relay")


def _scan_transport(setup: Setup, proxy: Proxy, transport: Service) -> list[Edit]:
    """Return the edits that replace `transport` with the recipe's transport to the proxy."""
    name, configuration = "scan", setup.configuration
    size = str(proxy.capacity or 20)
    edits = [fixes.add_line(configuration, name, f"- - n - {size} {fixes.SCAN}")]
    if configuration.transport(name):
        edits = []
    for route in setup.routes_to(proxy):
        if route.transport is transport:
            edits.append(fixes.redirect(replace(route, transport_name=name), str(route.endpoint)))
    return edits


def apart(setup: Setup, proxy: Proxy, faults: Iterable[Fault]) -> Iterator[Fault]:
    """Replace the edits that change a transport which also delivers to other servers.

    For example, smtp/unix without TLS would send all outgoing mail in the clear.
    """
    general = [each for each in setup.smtp_transports_to(proxy) if each.name in _GENERAL_TRANSPORTS]
    for fault in faults:
        places = [edit.place for edit in fault.edits]
        changed = [each for each in general if any(_is_own(place, each) for place in places)]
        if changed:
            yield replace(fault, edits=tuple(_scan_transport(setup, proxy, changed[0])))
        else:
            yield fault


def _is_own(place: Place, service: Service) -> bool:
    return isinstance(place, Own) and place.service is service


def starttls_behind(setup: Setup, proxy: Proxy, behind: Service) -> Iterator[Fault]:
    """Report an upstream service that requires STARTTLS."""
    name = "smtpd_tls_security_level"
    if behind.parameter(name) == "encrypt":
        yield Fault(
            "starttls",
            proxy.where,
            f"{behind.label} requires STARTTLS, which the proxy does not support; "
            "all mail is refused",
            (fixes.set_own(behind, name, "none"),),
        )


def starttls_before(setup: Setup, proxy: Proxy) -> Iterator[Fault]:
    """Report a transport that requires STARTTLS."""
    name = "smtp_tls_security_level"
    for transport in setup.smtp_transports_to(proxy):
        if transport.parameter(name) in _TLS_DEMANDED:
            yield Fault(
                "starttls",
                proxy.where,
                f"{transport.label} requires STARTTLS, which the proxy does not support; "
                "all mail is deferred",
                (fixes.set_own(transport, name, "none"),),
            )
