"""What can be wrong with a proxy's place among Postfix's services.

Rule: one pure function for each thing that can be wrong.
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

#: With speed_adjust a proxy is busy only while its filter runs, so that fronts may take turns: each
#: then has a fifth of smtpd_proxy_timeout, 20 s by default.
SPEED_ADJUST_FACTOR = 5

#: Levels at which smtp(8) delivers nothing to a server that offers no STARTTLS.
_TLS_DEMANDED = ("encrypt", "dane-only", "fingerprint", "verify", "secure")

_OVERRIDES = "receive_override_options"
_NO_MAPPINGS = "no_address_mappings"
_STAGES = ("client", "helo", "sender", "relay", "recipient")


def no_way(setup: Setup, proxy: Proxy) -> Iterator[Finding]:
    """No mail comes to the proxy."""
    if proxy.endpoint is not None and not setup.routes_to(proxy):
        yield Finding(
            "no-way",
            proxy.where,
            f"no service gives its mail to {proxy.endpoint}: it passes unfiltered",
            fixes.set_main(setup.configuration, "smtpd_proxy_filter", str(proxy.endpoint)),
        )


def time_limit(setup: Setup, proxy: Proxy, wanted: Options) -> Iterator[Finding]:
    """Postfix gives up before the filter has to."""
    found = setup.routes_to(proxy)
    fronts = distinct(route.source for route in found if route.stage is FilterStage.BEFORE_QUEUE)
    waiting = [(service, "smtpd_proxy_timeout") for service in fronts]
    waiting += [(service, "smtp_data_done_timeout") for service in setup.smtp_transports_to(proxy)]
    for service, name in waiting:
        patience = service.seconds(name)
        if wanted.timeout >= patience:
            yield Finding(
                "time-limit",
                proxy.where,
                f"the filter has {wanted.timeout:g} s (-t), but {service.label} gives up after "
                f"{patience} s ({name}): slow mail never arrives",
                fixes.set_own(
                    setup.configuration, service, name, f"{wanted.timeout + patience:.0f}s"
                ),
            )


def fronts_limit(setup: Setup, proxy: Proxy) -> Iterator[Finding]:
    """More processes of smtpd(8) than can take turns at the proxies."""
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
    share = max(SPEED_ADJUST_FACTOR * proxy.capacity // len(fronts), 1)
    yield Finding(
        "process-limit",
        proxy.where,
        f"{process_count or 'any number of'} processes of {_labels(fronts)} share {proxy.capacity} "
        f"proxies{'' if sharing_factor == SPEED_ADJUST_FACTOR else ', without speed_adjust'}: "
        "at busy times mail gets 451",
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
    """The transport is lmtp(8); its LHLO is no command of SMTP."""
    for transport in setup.transports_to(proxy):
        if transport.program == "lmtp":
            yield Finding(
                "lmtp",
                proxy.where,
                f"{transport.label} is lmtp(8), and the proxy has no LMTP: no mail arrives",
                fixes.set_program(setup.configuration, transport, "smtp"),
            )


def transports_limit(setup: Setup, proxy: Proxy) -> Iterator[Finding]:
    """More processes of smtp(8) than there are proxies."""
    for transport in setup.transports_to(proxy):
        process_count = _concurrency(setup.configuration, transport)
        if proxy.capacity and not 0 < process_count <= proxy.capacity:
            yield Finding(
                "process-limit",
                proxy.where,
                f"{process_count or 'any number of'} processes of {transport.label} share "
                f"{proxy.capacity} proxies: at busy times they wait for a greeting",
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
    """What has been filtered is filtered again, without end."""
    for route in setup.routes_from(behind):
        if setup.comes_back(route, proxy):
            name = route.stage.value
            yield Finding(
                "loop",
                proxy.where,
                f"what passes goes to {behind.label}, whose {name} gives it to the filter again: "
                "mail goes round, and never arrives",
                fixes.set_own(setup.configuration, behind, name, ""),
            )


def milters(setup: Setup, proxy: Proxy, behind: Service) -> Iterator[Finding]:
    """Milters take mail of strangers for mail of this machine."""
    asked = behind.parameter("smtpd_milters")
    overrides = behind.tokens(_OVERRIDES)
    strangers = [
        route.source for route in setup.routes_to(proxy) if not _is_for_users(route.source)
    ]
    if asked and "no_milters" not in overrides and strangers:
        yield Finding(
            "milters",
            proxy.where,
            f"{behind.label} asks milters ({asked}) about all that comes from the filter, mail of "
            f"{strangers[0].label} too: one that signs takes it for mail of our own",
            fixes.set_own(
                setup.configuration, behind, _OVERRIDES, ",".join([*overrides, "no_milters"])
            ),
        )


def _is_for_users(front: Service) -> bool:
    """Whether a service takes mail of this site's own users only."""
    return front.program == "pickup" or any(
        front.tokens(f"smtpd_{stage}_restrictions")[-2:] == ["permit_sasl_authenticated", "reject"]
        for stage in _STAGES
    )


def mappings(setup: Setup, proxy: Proxy, behind: Service) -> Iterator[Finding]:
    """Addresses are to be mapped once: in front of the filter or behind it."""
    if setup.routes_from(behind):
        return  # another filter comes behind this one, and the mappings may too
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
                f"addresses are mapped by {route.source.label}, and again by {behind.label}: "
                "always_bcc and the like arrive twice",
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
                f"addresses in mail of {route.source.label} are never mapped ({_NO_MAPPINGS}): "
                "mail for virtual aliases does not arrive",
                fixes.set_own(setup.configuration, behind, _OVERRIDES, ",".join(others)),
            )
            return


def xforward_refused(
    setup: Setup, proxy: Proxy, wanted: Options, behind: Service
) -> Iterator[Finding]:
    """Upstream does not believe the proxy whose mail it brings."""
    name = "smtpd_authorized_xforward_hosts"
    if xforward.permits(behind.tokens(name), target_endpoint(wanted.target).host) is False:
        yield Finding(
            "xforward",
            proxy.where,
            f"{behind.label} takes no XFORWARD of the proxy ({name}): "
            "REMOTEIP and HELO of the sender stay unknown to the filter",
            fixes.set_own(setup.configuration, behind, name, "127.0.0.0/8,[::1]/128"),
        )


def xforward_unsent(setup: Setup, proxy: Proxy) -> Iterator[Finding]:
    """Nobody tells the proxy whose mail it is."""
    name = "smtp_send_xforward_command"
    for transport in setup.smtp_transports_to(proxy):
        if transport.parameter(name) != "yes":
            yield Finding(
                "xforward",
                proxy.where,
                f"{transport.label} sends no XFORWARD ({name}): "
                "REMOTEIP and HELO of the sender stay unknown to the filter",
                fixes.set_own(setup.configuration, transport, name, "yes"),
            )


def starttls_behind(setup: Setup, proxy: Proxy, behind: Service) -> Iterator[Finding]:
    """Upstream demands what the proxy does not pass on."""
    name = "smtpd_tls_security_level"
    if behind.parameter(name) == "encrypt":
        yield Finding(
            "starttls",
            proxy.where,
            f"{behind.label} demands STARTTLS, which no proxy passes on: all mail is refused",
            fixes.set_own(setup.configuration, behind, name, "none"),
        )


def starttls_before(setup: Setup, proxy: Proxy) -> Iterator[Finding]:
    """The transport demands what the proxy does not offer."""
    name = "smtp_tls_security_level"
    for transport in setup.smtp_transports_to(proxy):
        if transport.parameter(name) in _TLS_DEMANDED:
            yield Finding(
                "starttls",
                proxy.where,
                f"{transport.label} demands STARTTLS, which no proxy offers: all mail waits",
                fixes.set_own(setup.configuration, transport, name, "none"),
            )
