"""Every rule, applied to every proxy.

Rule: which rules there are, and what each needs; the rules are in proxy_rules.py, postfix_rules.py,
parameters.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..core.options import Options
from . import parameters, postfix_rules, proxy_rules
from .findings import Finding
from .paths import Moment, Proxy, upstream, ways
from .setup import Case


def judge(case: Case) -> Iterator[Finding]:
    """Everything that is wrong."""
    yield from parameters.numbers(case.configuration)
    if not case.proxies:
        yield Finding(
            "no-proxy",
            "master.cf",
            "no postprox is to be seen: master.cf starts none, and mail goes to no unit of one",
            "postprox-check --unit FILE, or postprox-check -- postprox -l PORT ...",
        )
    for proxy in case.proxies:
        if proxy.options is None:
            yield from proxy_rules.command_line(proxy)
        else:
            yield from _proxy_findings(case, proxy, proxy.options)
            yield from _postfix_findings(case, proxy, proxy.options)


def _proxy_findings(case: Case, proxy: Proxy, wanted: Options) -> Iterator[Finding]:
    facts = case.facts[proxy]
    yield from proxy_rules.columns(case, proxy)
    yield from proxy_rules.user(case, proxy, facts)
    yield from proxy_rules.program(proxy, facts)
    yield from proxy_rules.filter_command(case, proxy, wanted, facts)
    yield from proxy_rules.no_reject(case, proxy, wanted)
    yield from proxy_rules.no_strict(case, proxy, wanted)
    yield from proxy_rules.no_upstream(proxy, wanted, facts)
    yield from proxy_rules.spool(proxy, wanted, facts)
    yield from proxy_rules.spool_open(case, proxy, wanted, facts)
    yield from proxy_rules.spool_full(case, proxy, wanted, facts)


def _postfix_findings(case: Case, proxy: Proxy, wanted: Options) -> Iterator[Finding]:
    yield from postfix_rules.no_way(case, proxy)
    yield from postfix_rules.time_limit(case, proxy, wanted)
    yield from postfix_rules.fronts_limit(case, proxy)
    yield from postfix_rules.lmtp(case, proxy)
    yield from postfix_rules.transports_limit(case, proxy)
    yield from postfix_rules.xforward_unsent(case, proxy)
    yield from postfix_rules.starttls_before(case, proxy)
    if behind := case.behind(proxy):
        yield from postfix_rules.loop(case, proxy, behind)
        yield from postfix_rules.milters(case, proxy, behind)
        yield from postfix_rules.mappings(case, proxy, behind)
        yield from postfix_rules.xforward_refused(case, proxy, wanted, behind)
        yield from postfix_rules.starttls_behind(case, proxy, behind)


def unseen(case: Case) -> Iterator[str]:
    """What would have to be judged, and could not be seen."""
    found = list(ways(case.configuration))
    if case.proxies:
        for place in dict.fromkeys(way.place for way in found if case.proxy_at(way) is None):
            yield f"what listens at {place} (--unit FILE, or -- COMMAND LINE)"
    for way in found:
        if way.moment is Moment.AFTER and way.transport is None:
            yield f"the transport that {way.front.label} has for {way.place}"
    for proxy in case.proxies:
        if proxy.options is not None:
            yield from (f"{proxy.where}: {text}" for text in _unseen(case, proxy, proxy.options))


def _unseen(case: Case, proxy: Proxy, wanted: Options) -> Iterator[str]:
    facts = case.facts[proxy]
    if proxy.place is None:
        yield "where it is reached"
    if upstream(case.configuration, proxy) is None and not facts.nobody_upstream:
        yield f"what listens at {wanted.target.text}, where it passes mail on to"
    if proxy.unit is not None and proxy.unit.unclear:
        yield proxy.unit.unclear
    if facts.filter_unseen:
        yield facts.filter_unseen
    if facts.is_guessed() and facts.user_exists:
        yield facts.why_guessed
