"""The application of all rules to all proxies.

Rule: calls the rules with their input. The conditions are in proxy_rules.py, postfix_rules.py and
parameters.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..core.options import Options
from . import parameters, postfix_rules, proxy_rules
from .findings import Finding
from .routes import FilterStage, Proxy, routes, upstream
from .setup import Setup


def judge(setup: Setup) -> Iterator[Finding]:
    """Find all faults."""
    yield from parameters.numbers(setup.configuration)
    if not setup.proxies:
        yield Finding(
            "no-proxy",
            "master.cf",
            "no postprox is in master.cf or in a unit that receives mail; no proxy was checked",
            "postprox-check --unit FILE, or postprox-check -- postprox -l PORT ...",
        )
    for proxy in setup.proxies:
        if proxy.options is None:
            yield from proxy_rules.command_line(proxy)
        else:
            yield from _proxy_findings(setup, proxy, proxy.options)
            yield from _postfix_findings(setup, proxy, proxy.options)


def _proxy_findings(setup: Setup, proxy: Proxy, wanted: Options) -> Iterator[Finding]:
    facts = setup.facts[proxy]
    yield from proxy_rules.columns(setup, proxy)
    yield from proxy_rules.user(setup, proxy, facts)
    yield from proxy_rules.program(proxy, facts)
    yield from proxy_rules.filter_command(setup, proxy, wanted, facts)
    yield from proxy_rules.no_reject(setup, proxy, wanted)
    yield from proxy_rules.no_strict(setup, proxy, wanted)
    yield from proxy_rules.no_upstream(proxy, wanted, facts)
    yield from proxy_rules.spool(proxy, wanted, facts)
    yield from proxy_rules.spool_open(setup, proxy, wanted, facts)
    yield from proxy_rules.spool_full(setup, proxy, wanted, facts)


def _postfix_findings(setup: Setup, proxy: Proxy, wanted: Options) -> Iterator[Finding]:
    yield from postfix_rules.no_way(setup, proxy)
    yield from postfix_rules.time_limit(setup, proxy, wanted)
    yield from postfix_rules.fronts_limit(setup, proxy)
    yield from postfix_rules.lmtp(setup, proxy)
    yield from postfix_rules.transports_limit(setup, proxy)
    yield from postfix_rules.xforward_unsent(setup, proxy)
    yield from postfix_rules.starttls_before(setup, proxy)
    if behind := setup.reinjection_service(proxy):
        yield from postfix_rules.loop(setup, proxy, behind)
        yield from postfix_rules.milters(setup, proxy, behind)
        yield from postfix_rules.mappings(setup, proxy, behind)
        yield from postfix_rules.xforward_refused(setup, proxy, wanted, behind)
        yield from postfix_rules.starttls_behind(setup, proxy, behind)


def unchecked(setup: Setup) -> Iterator[str]:
    """List the items that could not be checked."""
    found = list(routes(setup.configuration))
    if setup.proxies:
        for place in dict.fromkeys(
            route.endpoint for route in found if setup.proxy_at(route) is None
        ):
            yield f"the server that listens at {place} (give --unit FILE or -- COMMAND LINE)"
    for route in found:
        if route.stage is FilterStage.AFTER_QUEUE and route.transport is None:
            yield f"the transport from {route.source.label} to {route.endpoint} (not in master.cf)"
    for proxy in setup.proxies:
        if proxy.options is not None:
            yield from (
                f"{proxy.where}: {text}" for text in _unchecked(setup, proxy, proxy.options)
            )


def _unchecked(setup: Setup, proxy: Proxy, wanted: Options) -> Iterator[str]:
    facts = setup.facts[proxy]
    if proxy.endpoint is None:
        yield "the address at which the proxy listens"
    if upstream(setup.configuration, proxy) is None and not facts.upstream_missing:
        yield f"the upstream server at {wanted.target.text}"
    if proxy.unit is not None and proxy.unit.unclear:
        yield proxy.unit.unclear
    if facts.filter_unchecked:
        yield facts.filter_unchecked
    if facts.has_unknown_permissions() and facts.user_exists:
        yield facts.unknown_permissions
