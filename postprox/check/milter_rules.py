"""Problems with the milters of the services before and after a filter.

Rule: each check is a pure function.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from . import fixes
from .findings import Fault
from .fixes import Edit
from .postconf import Service
from .routes import FilterStage, Proxy, proxy_filter
from .setup import Setup

#: The milter of the recipe for submission services.
_RECIPE_MILTER = "inet:127.0.0.1:8891"
_PARAMETERS = ("smtpd_milters", "non_smtpd_milters")
#: The units of common milters, each with a pattern for their addresses.
UNITS = {
    "opendkim.service": re.compile(r":(8891|12301)\b|opendkim"),
    "opendmarc.service": re.compile(r":8893\b|opendmarc"),
    "rspamd.service": re.compile(r":11332\b|rspamd"),
    "clamav-milter.service": re.compile(r":7357\b|clam"),
    "spamass-milter.service": re.compile("spamass"),
}


def has_milters(service: Service) -> bool:
    return bool(service.parameter("smtpd_milters")) and (
        "no_milters" not in service.tokens("receive_override_options")
    )


def no_milter(setup: Setup, proxy: Proxy, behind: Service) -> Iterator[Fault]:
    """Report a missing milter of a service for filtered mail on this machine."""
    name, configuration = "smtpd_milters", setup.configuration
    used = behind.own.get(name, "")
    if not has_milters(behind) or behind.parameter("milter_default_action") == "accept":
        return
    shared = [
        milter
        for each in (name, "non_smtpd_milters")
        for milter in re.findall(r"[^,\s]+", configuration.parameter(each))
        if "dkim" in milter.lower()
    ]
    for milter in re.findall(r"[^,\s{}]+", used):
        is_unused = milter == _RECIPE_MILTER and bool(shared) and milter not in shared
        if not is_unused and not is_missing(setup, milter):
            continue
        reason = f"main.cf uses {shared[0]}" if is_unused else "no program listens there"
        edit = fixes.run("ss -ltn")
        if shared and shared[0] != milter:
            edit = fixes.set_own(behind, name, used.replace(milter, shared[0]))
        yield Fault(
            "no-milter",
            proxy.where,
            f"{behind.label} passes mail to the milter {milter}, but {reason}; if the milter does "
            "not exist, filtered mail is deferred (451)",
            (edit,),
        )


def hidden_milters(setup: Setup) -> Iterator[Fault]:
    """Report chrooted services that cannot reach the socket of a milter."""
    configuration = setup.configuration
    queue = configuration.parameter("queue_directory")
    for service in configuration.services:
        hidden = [each for each in service.milter_sockets() if each in configuration.hidden_milters]
        if not hidden or not service.is_chrooted():
            continue
        is_cleanup = service.program == "cleanup"
        mail = "mail from local programs" if is_cleanup else "all its mail"
        action = service.parameter("milter_default_action")
        actions = {"accept": "passes without this milter", "reject": "is refused"}
        effect = actions.get(action, "stays in the queue" if is_cleanup else "is deferred (451)")
        yield Fault(
            "no-milter",
            f"master.cf, {service.label}",
            f"it runs in the chroot {queue} and cannot reach the milter's socket {hidden[0]}; "
            f"{mail} {effect}",
            (fixes.set_field(service, "chroot", "n"),),
        )


def is_missing(setup: Setup, milter: str) -> bool:
    """Return whether no program listens on a milter's TCP port of this machine."""
    endpoint = proxy_filter(milter, "/")
    if setup.running is None or endpoint is None or endpoint.path or not endpoint.is_here():
        return False
    return setup.listener_at(endpoint) is None


def repeated_milters(setup: Setup, proxy: Proxy, behind: Service) -> Iterator[Fault]:
    """Report services before and after the filter that pass mail to the same milters."""
    milter_list = behind.own.get("smtpd_milters", "")
    for route in setup.routes_to(proxy):
        front = route.source
        is_after = route.stage is FilterStage.AFTER_QUEUE and front.program == "smtpd"
        is_same = milter_list == front.parameter("smtpd_milters") != ""
        if is_after and is_same and has_milters(front) and has_milters(behind):
            yield Fault(
                "milters",
                proxy.where,
                f"{front.label} and {behind.label} pass the same mail to milters ({milter_list}); "
                "a signing milter signs it twice",
                (fixes.set_own(front, "smtpd_milters", ""),),
            )


def missing(setup: Setup) -> Iterator[Fault]:
    """Report milters of the services that receive mail, if no program listens on their port."""
    found: dict[tuple[str, str], list[Service]] = {}
    for service in setup.configuration.services:
        # `no_milter` reports the milters of a service for filtered mail.
        is_own = "smtpd_milters" in service.own and not setup.routes_from(service)
        if service.program != "smtpd" or is_own or not has_milters(service):
            continue
        for milter in re.findall(r"[^,\s{}]+", service.parameter("smtpd_milters")):
            if is_missing(setup, milter):
                key = milter, service.parameter("milter_default_action")
                found.setdefault(key, []).append(service)
    for (milter, action), services in found.items():
        if action == "accept":
            continue
        effect = {"reject": "refused", "quarantine": "put on hold"}.get(action, "deferred (451)")
        unit = _unit_of(setup, milter)
        remedy = "start" if unit else "start or remove"
        yield Fault(
            "no-milter",
            f"master.cf, {services[0].label}",
            f"it passes mail to the milter {milter}, but no program listens there; all mail is "
            f"{effect}; {remedy} this milter",
            (fixes.run(f"systemctl enable --now {unit}"),)
            if unit
            else tuple(_removed(setup, services, milter)),
        )


def _unit_of(setup: Setup, milter: str) -> str:
    """Return the installed unit that starts a milter, or ""."""
    known = setup.running.milter_units if setup.running else ()
    return next((unit for unit in known if UNITS[unit].search(milter)), "")


def _removed(setup: Setup, services: list[Service], milter: str) -> Iterator[Edit]:
    """Yield the edits that remove a milter from main.cf, and from the services that set it."""
    for name in _PARAMETERS:
        value = setup.configuration.parameter(name)
        if milter in value and "{" not in value:
            yield fixes.change_main(name, lambda old: _without(old, milter))
    for service in services:
        value = service.own.get("smtpd_milters", "")
        if milter in value and "{" not in value:
            yield fixes.set_own(service, "smtpd_milters", _without(value, milter))


def _without(value: str, milter: str) -> str:
    return ", ".join(each for each in re.findall(r"[^,\s]+", value) if each != milter)
