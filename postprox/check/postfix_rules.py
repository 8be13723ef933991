"""Faults between a proxy and the services of Postfix that it works with.

Rule: one pure function for each finding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..core.options import Options
from . import fixes, xforward
from .findings import Finding
from .postconf import Configuration, Service
from .routes import FilterStage, Proxy, target_endpoint
from .setup import Setup, distinct
from .values import TRANSPORT_LIMIT, number

#: With speed_adjust a proxy is busy only while its filter runs, so that five smtpd(8) processes can
#: share it. Each then has a fifth of smtpd_proxy_timeout, which is 20 s by default.
SPEED_ADJUST_FACTOR = 5

#: At these levels smtp(8) delivers no mail to a server without STARTTLS.
_TLS_DEMANDED = ("encrypt", "dane-only", "fingerprint", "verify", "secure")

_OVERRIDES = "receive_override_options"
_NO_MAPPINGS = "no_address_mappings"
_STAGES = ("client", "helo", "sender", "relay", "recipient")


def no_way(setup: Setup, proxy: Proxy) -> Iterator[Finding]:
    """Report a proxy that receives no mail."""
    if proxy.endpoint is not None and not setup.routes_to(proxy):
        yield Finding(
            "no-way",
            proxy.where,
            f"no service of Postfix sends mail to {proxy.endpoint}; mail passes unfiltered",
            fixes.set_main(setup.configuration, "smtpd_proxy_filter", str(proxy.endpoint)),
        )


def time_limit(setup: Setup, proxy: Proxy, wanted: Options) -> Iterator[Finding]:
    """Report a timeout of Postfix that is not longer than that of the filter."""
    found = setup.routes_to(proxy)
    fronts = distinct(route.source for route in found if route.stage is FilterStage.BEFORE_QUEUE)
    waiting = [(service, "smtpd_proxy_timeout") for service in fronts]
    waiting += [(service, "smtp_data_done_timeout") for service in setup.smtp_transports_to(proxy)]
    for service, name in waiting:
        timeout = service.seconds(name)
        if wanted.timeout >= timeout:
            yield Finding(
                "time-limit",
                proxy.where,
                f"the filter has {wanted.timeout:g} s (-t), but {service.label} aborts after "
                f"{timeout} s ({name}); slow messages are never delivered",
                fixes.set_own(
                    setup.configuration, service, name, f"{wanted.timeout + timeout:.0f}s"
                ),
            )


def fronts_limit(setup: Setup, proxy: Proxy) -> Iterator[Finding]:
    """Report more smtpd(8) processes than the proxies can serve."""
    behind = setup.reinjection_service(proxy)
    fronts = [
        route.source
        for route in setup.routes_to(proxy)
        if route.stage is FilterStage.BEFORE_QUEUE and route.source is not behind
    ]
    sharing_factor = min((_sharing_factor(front) for front in fronts), default=1)
    process_count = _total(fronts)
    if not fronts or not proxy.capacity or 0 < process_count <= sharing_factor * proxy.capacity:
        return
    without = "" if sharing_factor == SPEED_ADJUST_FACTOR else " without speed_adjust"
    share = max(SPEED_ADJUST_FACTOR * proxy.capacity // len(fronts), 1)
    yield Finding(
        "process-limit",
        proxy.where,
        f"{process_count or 'an unlimited number of'} processes of {_labels(fronts)} share "
        f"{proxy.capacity} proxies{without}; under load mail gets 451",
        "; ".join(
            [fixes.set_main(setup.configuration, "smtpd_proxy_options", "speed_adjust")]
            + [
                fixes.set_field(setup.configuration, front, "process_limit", str(share))
                for front in fronts
                if not 0 < front.limit() <= share
            ]
        ),
    )


def _sharing_factor(front: Service) -> int:
    return SPEED_ADJUST_FACTOR if "speed_adjust" in front.tokens("smtpd_proxy_options") else 1


def _total(services: Sequence[Service]) -> int:
    limits = [service.limit() for service in services]
    return 0 if 0 in limits else sum(limits)


def _labels(services: Sequence[Service]) -> str:
    return ", ".join(service.label for service in services)


def lmtp(setup: Setup, proxy: Proxy) -> Iterator[Finding]:
    """Report a transport that uses lmtp(8). The proxy does not support its command LHLO."""
    for transport in setup.transports_to(proxy):
        if transport.program == "lmtp":
            yield Finding(
                "lmtp",
                proxy.where,
                f"{transport.label} uses lmtp(8), which the proxy does not support; "
                "no mail is delivered",
                fixes.set_program(setup.configuration, transport, "smtp"),
            )


def transports_limit(setup: Setup, proxy: Proxy) -> Iterator[Finding]:
    """Report more smtp(8) processes than proxies."""
    for transport in setup.transports_to(proxy):
        process_count = _concurrency(setup.configuration, transport)
        if proxy.capacity and not 0 < process_count <= proxy.capacity:
            yield Finding(
                "process-limit",
                proxy.where,
                f"{process_count or 'an unlimited number of'} processes of {transport.label} "
                f"share {proxy.capacity} proxies; under load they wait for a greeting",
                fixes.set_field(
                    setup.configuration, transport, "process_limit", str(proxy.capacity)
                ),
            )


def _concurrency(configuration: Configuration, transport: Service) -> int:
    name = f"{transport.name}{TRANSPORT_LIMIT}"
    own = number(name, configuration.parameter(name))
    default = configuration.number("default_destination_concurrency_limit")
    limits = [default if own is None else own, transport.limit()]
    return min((limit for limit in limits if limit > 0), default=0)


def loop(setup: Setup, proxy: Proxy, behind: Service) -> Iterator[Finding]:
    """Report mail that is filtered again without end."""
    for route in setup.routes_from(behind):
        if setup.comes_back(route, proxy):
            name = route.stage.value
            yield Finding(
                "loop",
                proxy.where,
                f"{behind.label} sends filtered mail to the filter again ({name}); "
                "mail loops and is never delivered",
                fixes.set_own(setup.configuration, behind, name, ""),
            )


def milters(setup: Setup, proxy: Proxy, behind: Service) -> Iterator[Finding]:
    """Report milters that can mistake mail from outside for local mail."""
    milter_list = behind.parameter("smtpd_milters")
    overrides = behind.tokens(_OVERRIDES)
    outside = [route.source for route in setup.routes_to(proxy) if not _is_for_users(route.source)]
    if milter_list and "no_milters" not in overrides and outside:
        yield Finding(
            "milters",
            proxy.where,
            f"{behind.label} passes all filtered mail to milters ({milter_list}), including mail "
            f"from {outside[0].label}; a signing milter treats it as local mail",
            fixes.set_own(
                setup.configuration, behind, _OVERRIDES, ",".join([*overrides, "no_milters"])
            ),
        )


def _is_for_users(front: Service) -> bool:
    """Return whether a service accepts mail from local users only."""
    return front.program == "pickup" or any(
        front.tokens(f"smtpd_{stage}_restrictions")[-2:] == ["permit_sasl_authenticated", "reject"]
        for stage in _STAGES
    )


def mappings(setup: Setup, proxy: Proxy, behind: Service) -> Iterator[Finding]:
    """Report addresses that are mapped twice or never, before and after the filter."""
    if setup.routes_from(behind):
        return  # another filter follows, and the mappings can follow that filter
    overrides = behind.tokens(_OVERRIDES)
    is_mapped_behind = _NO_MAPPINGS not in overrides
    for route in setup.routes_to(proxy):
        is_mapped_before = (
            route.stage is FilterStage.AFTER_QUEUE
            and _NO_MAPPINGS not in route.source.tokens(_OVERRIDES)
        )
        if is_mapped_before and is_mapped_behind:
            yield Finding(
                "mapped-twice",
                proxy.where,
                f"{route.source.label} and {behind.label} both map addresses; "
                "always_bcc and similar copies are delivered twice",
                fixes.set_own(
                    setup.configuration, behind, _OVERRIDES, ",".join([_NO_MAPPINGS, *overrides])
                ),
            )
            return
        if not is_mapped_before and not is_mapped_behind:
            others = [name for name in overrides if name != _NO_MAPPINGS]
            yield Finding(
                "mapped-never",
                proxy.where,
                f"addresses of mail from {route.source.label} are never mapped ({_NO_MAPPINGS}); "
                "mail for virtual aliases is not delivered",
                fixes.set_own(setup.configuration, behind, _OVERRIDES, ",".join(others)),
            )
            return


def xforward_refused(
    setup: Setup, proxy: Proxy, wanted: Options, behind: Service
) -> Iterator[Finding]:
    """Report an upstream server that does not permit XFORWARD from the proxy."""
    name = "smtpd_authorized_xforward_hosts"
    if xforward.permits(behind.tokens(name), target_endpoint(wanted.target).host) is False:
        yield Finding(
            "xforward",
            proxy.where,
            f"{behind.label} does not permit XFORWARD from the proxy ({name}); "
            "the filter does not get REMOTEIP and HELO of the sender",
            fixes.set_own(setup.configuration, behind, name, "127.0.0.0/8,[::1]/128"),
        )


def xforward_unsent(setup: Setup, proxy: Proxy) -> Iterator[Finding]:
    """Report a transport that does not send XFORWARD to the proxy."""
    name = "smtp_send_xforward_command"
    for transport in setup.smtp_transports_to(proxy):
        if transport.parameter(name) != "yes":
            yield Finding(
                "xforward",
                proxy.where,
                f"{transport.label} sends no XFORWARD ({name}); "
                "the filter does not get REMOTEIP and HELO of the sender",
                fixes.set_own(setup.configuration, transport, name, "yes"),
            )


def starttls_behind(setup: Setup, proxy: Proxy, behind: Service) -> Iterator[Finding]:
    """Report an upstream server that requires STARTTLS."""
    name = "smtpd_tls_security_level"
    if behind.parameter(name) == "encrypt":
        yield Finding(
            "starttls",
            proxy.where,
            f"{behind.label} requires STARTTLS, which the proxy does not support; "
            "all mail is refused",
            fixes.set_own(setup.configuration, behind, name, "none"),
        )


def starttls_before(setup: Setup, proxy: Proxy) -> Iterator[Finding]:
    """Report a transport that requires STARTTLS."""
    name = "smtp_tls_security_level"
    for transport in setup.smtp_transports_to(proxy):
        if transport.parameter(name) in _TLS_DEMANDED:
            yield Finding(
                "starttls",
                proxy.where,
                f"{transport.label} requires STARTTLS, which the proxy does not support; "
                "all mail is deferred",
                fixes.set_own(setup.configuration, transport, name, "none"),
            )
