"""Reports main.cf settings that cause the services before and after the proxy to block mail.

Rule: each check is a pure function. The options that override these settings are in
examples/postfix/.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from ..core.options import Options
from . import fixes, tables, values, xforward
from .findings import Fault
from .fixes import Edit
from .postconf import Service
from .routes import Proxy, target_endpoint
from .setup import Setup, distinct

_OWN_HOSTS = "127.0.0.0/8,[::1]/128"
#: The interval between NOOP commands while the filter runs, in seconds. Postfix's time limit for a
#: command must be longer than this interval.
_KEEPALIVE = 60
_STAGES = ("client", "helo", "sender", "relay", "recipient", "data", "end_of_data")
_PERMITS = ("permit", "permit_mynetworks", "permit_inet_interfaces")
_REJECTS = ("reject", "defer", "defer_if_permit", "reject_plaintext_session")
_TABLE = re.compile(r"check_(\w+_)?access$")
#: Limits that apply to each client. A value of 0 means no limit.
_CLIENT_LIMITS = (
    *("smtpd_client_connection_rate_limit", "smtpd_client_message_rate_limit"),
    *("smtpd_client_recipient_rate_limit", "smtpd_client_new_tls_session_rate_limit"),
)


#: Settings that block or change some mail, each with the recipe's value and the setting's effect.
_RISKS_BEHIND = {
    "smtpd_sasl_auth_enable": ("no", "refuses all mail while the SASL server is down"),
    "smtpd_command_filter": ("", "can change the proxy's commands"),
    "smtpd_discard_ehlo_keyword_address_maps": (
        "",
        "can refuse XFORWARD, so that the filter gets no REMOTEIP",
    ),
}
_CHANGES = "changes the message before it is filtered"
_RISKS_AT_TRANSPORT = {
    "smtp_tls_policy_maps": ("", "can require TLS, which the proxy does not support"),
    **dict.fromkeys(
        (
            *("smtp_generic_maps", "smtp_header_checks", "smtp_mime_header_checks"),
            *("smtp_nested_header_checks", "smtp_body_checks"),
        ),
        ("", _CHANGES),
    ),
}


def _risks(proxy: Proxy, service: Service, risks: Mapping[str, tuple[str, str]]) -> Iterator[Fault]:
    for name, (own, effect) in risks.items():
        if service.parameter(name) not in ("", "no"):
            yield Fault(
                "inherited-risk",
                proxy.where,
                f"{service.label} {effect} ({name})",
                (fixes.set_own(service, name, own),),
            )


def at_smtpd(setup: Setup, proxy: Proxy, wanted: Options, behind: Service) -> Iterator[Fault]:
    """Report settings that make the service after the proxy refuse the proxy's mail."""
    stops = [
        ("smtpd_tls_wrappermode", "yes", "no", "waits for a TLS handshake"),
        ("smtpd_enforce_tls", "yes", "no", "requires STARTTLS"),
        ("smtpd_tls_req_ccert", "yes", "no", "requires a client certificate"),
    ]
    for name, value, own, effect in stops:
        if behind.parameter(name) == value:
            yield _stopped(proxy, behind, name, own, f"{behind.label} {effect}")
    if behind.parameter("smtpd_upstream_proxy_protocol"):
        name = "smtpd_upstream_proxy_protocol"
        yield _stopped(proxy, behind, name, "", f"{behind.label} waits for a PROXY protocol header")
    host = target_endpoint(wanted.target).host
    is_own = not behind.parameter("mynetworks") or xforward.permits(
        behind.tokens("mynetworks"), host
    )
    for stage in _STAGES:
        yield from _restriction(setup, proxy, behind, stage, is_own)
    yield from _risks(proxy, behind, _RISKS_BEHIND)


def _without_own_hosts(behind: Service, is_own: bool | None) -> str:
    """If the service's mynetworks does not include this machine, return a note for the message."""
    return f" (mynetworks = {behind.parameter('mynetworks')})" if is_own is False else ""


def _restriction(
    setup: Setup, proxy: Proxy, behind: Service, stage: str, is_own: bool | None
) -> Iterator[Fault]:
    """Report a restriction list that refuses all clients on this machine."""
    name = f"smtpd_{stage}_restrictions"
    refusing = ""
    for word, table in pairwise([*_expanded(behind, name), ""]):
        if word == "permit" or (word in _PERMITS and is_own is not False):
            break
        if word == "check_policy_service":
            yield Fault(
                "inherited-risk",
                proxy.where,
                f"{behind.label} queries a policy server a second time ({name}); greylisting or a "
                "failure of this server defers filtered mail",
                (fixes.set_own(behind, name, "permit_mynetworks,reject" * (stage == "relay")),),
            )
            return
        if _TABLE.match(word) and tables.can_refuse(setup.tables, word, table):
            refusing = refusing or table
        is_unauth = stage in ("relay", "recipient") and word.endswith("_unauth_destination")
        if is_unauth and is_own and _permits_more(setup, proxy, behind, name):
            yield Fault(
                "inherited-risk",
                proxy.where,
                f"{behind.label} applies {word} ({name}) without first permitting this machine; "
                "mail from your own users to other domains is refused",
                (fixes.set_own(behind, name, "permit_mynetworks,reject" * (stage == "relay")),),
            )
            return
        is_local = any(route.source.program == "pickup" for route in setup.routes_to(proxy))
        if word == "reject_non_fqdn_sender" and is_local:
            yield Fault(
                "inherited-risk",
                proxy.where,
                f"{behind.label} also applies {word} ({name}) to mail from local programs, whose "
                "sender may have no full domain name; such mail is returned",
                (fixes.set_own(behind, name, "permit_mynetworks,reject" * (stage == "relay")),),
            )
            return
        is_relay_only = stage == "relay" and word.endswith("_unauth_destination")
        if word in _REJECTS or (is_relay_only and is_own is False):
            own = "permit_mynetworks,reject" if stage == "relay" else ""
            edits = [fixes.set_own(behind, name, own)]
            if stage == "relay":
                edits.append(fixes.set_own(behind, "mynetworks", _OWN_HOSTS))
            yield Fault(
                "inherited",
                proxy.where,
                f"{behind.label} has {name} = {behind.parameter(name)}"
                f"{_without_own_hosts(behind, is_own)}, which refuses filtered mail",
                tuple(edits),
            )
            return
    if refusing:
        yield Fault(
            "inherited-risk",
            proxy.where,
            f"{behind.label} repeats the lookup in {refusing} ({name}) with this machine as the "
            "client and without the sender's authentication; the table can refuse filtered mail",
            (fixes.set_own(behind, name, "permit_mynetworks,reject" * (stage == "relay")),),
        )


def _permits_more(setup: Setup, proxy: Proxy, behind: Service, name: str) -> bool:
    """Return whether a service before the filter permits mail that the service after it refuses.

    The service after the filter does not authenticate the sender.
    """
    fronts = [route.source for route in setup.routes_to(proxy) if route.source is not behind]
    return any(
        front.program != "smtpd"
        or front.parameter(name) != behind.parameter(name)
        or (
            front.parameter("smtpd_sasl_auth_enable") == "yes"
            and "permit_sasl_authenticated" in front.tokens(name)
        )
        for front in fronts
    )


def _expanded(service: Service, name: str) -> list[str]:
    """Return the restrictions in a list, with restriction classes expanded."""
    classes = service.tokens("smtpd_restriction_classes")
    found: list[str] = []
    for word in service.tokens(name):
        found += service.tokens(word) if word in classes else [word]
    return found


def _stopped(proxy: Proxy, service: Service, name: str, own: str, effect: str) -> Fault:
    return Fault(
        "inherited",
        proxy.where,
        f"{effect} ({name}), which the proxy does not support; no filtered mail arrives",
        (fixes.set_own(service, name, own),),
    )


def limits(setup: Setup, proxy: Proxy, wanted: Options, behind: Service) -> Iterator[Fault]:
    """Report limits of the service after the proxy that are too low for some mail."""
    name = "smtpd_client_event_limit_exceptions"
    # The default value of smtpd_client_event_limit_exceptions is $mynetworks.
    exceptions = behind.tokens(name) if name in behind.own or name in behind.main else []
    host = target_endpoint(wanted.target).host
    is_limited = (name in behind.own or name in behind.main) and not xforward.permits(
        exceptions, host
    )
    used = [each for each in _CLIENT_LIMITS if behind.parameter(each).strip("0")]
    if used and is_limited:
        yield Fault(
            "inherited",
            proxy.where,
            f"{behind.label} limits the rate per client ({used[0]}), and all filtered mail comes "
            "from one client; most of this mail is refused",
            (fixes.set_own(behind, name, _OWN_HOSTS),),
        )
    count_name = "smtpd_client_connection_count_limit"
    count = values.whole(behind.parameter(count_name) or "50")
    if is_limited and not used and count and proxy.capacity > count:
        yield Fault(
            "inherited-risk",
            proxy.where,
            f"{behind.label} accepts only {count} connections per client ({count_name}), but the "
            f"proxy opens up to {proxy.capacity} as one client; under load, mail is deferred (451)",
            (fixes.set_own(behind, name, _OWN_HOSTS),),
        )
    timeout = values.seconds(behind.parameter("smtpd_timeout") or "300s")
    if timeout is not None and timeout <= min(_KEEPALIVE, wanted.timeout):
        yield Fault(
            "inherited-risk",
            proxy.where,
            f"{behind.label} waits only {timeout} s for a command (smtpd_timeout); mail that "
            "takes longer to filter is refused",
            (
                fixes.set_own(behind, "stress", ""),
                fixes.set_own(behind, "smtpd_timeout", "300s"),
            ),
        )
    fronts = distinct(route.source for route in setup.routes_to(proxy))
    yield from _without_utf8(proxy, behind, fronts)
    yield from _smaller(proxy, behind, fronts, "smtpd_recipient_limit", "1000")
    yield from _smaller(proxy, behind, fronts, "message_size_limit", "10240000")


def _without_utf8(proxy: Proxy, behind: Service, fronts: Sequence[Service]) -> Iterator[Fault]:
    """Report a service that does not support SMTPUTF8, if a service before the filter does."""
    name = "smtputf8_enable"
    is_old = re.match(r"0*(?![0-9])", behind.parameter("compatibility_level"))
    default = "no" if is_old else "yes"
    accepting = [each for each in fronts if (each.parameter(name) or default) == "yes"]
    if behind.parameter(name) == "no" and accepting:
        yield Fault(
            "inherited-risk",
            proxy.where,
            f"{behind.label} does not support SMTPUTF8 ({name}), but {accepting[0].label} does; "
            "mail with UTF-8 addresses is refused",
            (fixes.set_own(behind, name, "yes"),),
        )


def _smaller(
    proxy: Proxy, behind: Service, fronts: Sequence[Service], name: str, default: str
) -> Iterator[Fault]:
    """Report a limit that is lower after the filter than before it."""
    own = values.whole(behind.parameter(name) or default)
    for front in fronts:
        other = values.whole(front.parameter(name) or default)
        if own and other is not None and (not other or own < other):
            yield Fault(
                "inherited-risk",
                proxy.where,
                f"{behind.label} has a lower limit than {front.label} ({name} {own}, not {other}); "
                "mail that exceeds the lower limit is refused",
                tuple(_raised(behind, name, str(other))),
            )
            return


def _raised(behind: Service, name: str, value: str) -> Iterator[Edit]:
    """Yield the edits that raise a limit. cleanup(8) also applies message_size_limit."""
    if name == "message_size_limit" and behind.main.get(name) != value:
        yield fixes.set_main(name, value)
    if name != "message_size_limit" or name in behind.own:
        yield fixes.set_own(behind, name, value)


def at_transport(setup: Setup, proxy: Proxy) -> Iterator[Fault]:
    """Report settings that make a transport bypass the proxy or fail to deliver to it."""
    for transport in setup.smtp_transports_to(proxy):
        yield from _risks(proxy, transport, _RISKS_AT_TRANSPORT)
        for name in ("smtp_tls_wrappermode", "smtp_enforce_tls"):
            if transport.parameter(name) == "yes":
                yield _stopped(proxy, transport, name, "no", f"{transport.label} requires TLS")
        for name in ("smtp_fallback_relay", "fallback_relay"):
            if transport.parameter(name):
                yield Fault(
                    "inherited",
                    proxy.where,
                    f"{transport.label} sends mail to another server while the proxy is down "
                    f"({name}); that mail passes unfiltered",
                    (fixes.set_own(transport, name, ""),),
                )
