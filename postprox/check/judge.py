"""Every rule, applied to every proxy.

Rule: which rules there are, and what each needs; the rules are in alone.py, among.py,
parameters.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..core.options import Options
from . import alone, among, parameters
from .case import Case
from .findings import Finding
from .paths import Moment, Proxy, upstream, ways


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
            yield from alone.command_line(proxy)
        else:
            yield from _alone(case, proxy, proxy.options)
            yield from _among(case, proxy, proxy.options)


def _alone(case: Case, proxy: Proxy, wanted: Options) -> Iterator[Finding]:
    facts = case.facts[proxy]
    yield from alone.columns(case, proxy)
    yield from alone.user(case, proxy, facts)
    yield from alone.program(proxy, facts)
    yield from alone.filter_command(case, proxy, wanted, facts)
    yield from alone.no_reject(case, proxy, wanted)
    yield from alone.no_strict(case, proxy, wanted)
    yield from alone.no_upstream(proxy, wanted, facts)
    yield from alone.spool(proxy, wanted, facts)
    yield from alone.spool_open(case, proxy, wanted, facts)
    yield from alone.spool_full(case, proxy, wanted, facts)


def _among(case: Case, proxy: Proxy, wanted: Options) -> Iterator[Finding]:
    yield from among.no_way(case, proxy)
    yield from among.time_limit(case, proxy, wanted)
    yield from among.fronts_limit(case, proxy)
    yield from among.lmtp(case, proxy)
    yield from among.transports_limit(case, proxy)
    yield from among.xforward_unsent(case, proxy)
    yield from among.starttls_before(case, proxy)
    if behind := case.behind(proxy):
        yield from among.loop(case, proxy, behind)
        yield from among.milters(case, proxy, behind)
        yield from among.mappings(case, proxy, behind)
        yield from among.xforward_refused(case, proxy, wanted, behind)
        yield from among.starttls_behind(case, proxy, behind)


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
