"""Problems with policy services, such as postgrey, that smtpd(8) queries for each recipient.

Rule: each check is a pure function.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from . import fixes, milter_rules
from .findings import Fault
from .fixes import Edit
from .postconf import Configuration, Service
from .setup import Setup

RESTRICTIONS = tuple(
    f"smtpd_{stage}_restrictions"
    for stage in ("client", "helo", "sender", "relay", "recipient", "data", "end_of_data")
)
_PLACE = r"[a-z]+:[^\s,{}]+"
#: The address of a policy service, or its address and options in braces.
_POLICY = re.compile(
    rf"check_policy_service[\s,]+(?:\{{\s*(?P<first>{_PLACE})[^{{}}]*\}}|(?P<only>{_PLACE})),?\s*"
)
#: The units of common policy services, each with a pattern for their addresses.
UNITS = {
    "postgrey.service": re.compile(r":(10023|60000)$|postgrey"),
    "postfwd.service": re.compile(r":10040$|postfwd"),
    "policyd-rate-limit.service": re.compile(r":8552$|policyd-rate"),
}


def places(configuration: Configuration) -> list[str]:
    """Return the addresses of all policy services."""
    values = [configuration.main.get(name, "") for name in RESTRICTIONS]
    values += [
        value
        for service in configuration.services
        for name, value in service.own.items()
        if name in RESTRICTIONS
    ]
    found = (_place(each) for value in values for each in _POLICY.finditer(value))
    return list(dict.fromkeys(found))


def _place(found: re.Match[str]) -> str:
    return found["first"] or found["only"]


def missing(setup: Setup) -> Iterator[Fault]:
    """Report policy services that do not run."""
    for place in places(setup.configuration):
        edits = tuple(_removals(setup, place))
        if not edits or not _is_missing(setup, place):
            continue
        known = setup.running.policy_units if setup.running else ()
        unit = next((unit for unit in known if UNITS[unit].search(place)), "")
        reason = _reason(setup.configuration, place)
        problem = f"which {reason}" if reason else "but no program answers there"
        yield Fault(
            "policy",
            "main.cf",
            f"smtpd(8) asks the policy service {place}, {problem}; mail is deferred (451); "
            f"{'start' if unit else 'start or remove'} this policy service",
            (fixes.run(f"systemctl enable --now {unit}"),) if unit else edits,
        )


def _reason(configuration: Configuration, place: str) -> str:
    """Return the reason why spawn(8) cannot run a policy service, or ""."""
    return configuration.unrunnable.get(f"{place.removeprefix('unix:private/')}/unix", "")


def _is_missing(setup: Setup, place: str) -> bool:
    if _reason(setup.configuration, place):
        return True
    if place.startswith("unix:private/"):
        name = place.removeprefix("unix:private/")
        services = (each for each in setup.configuration.services if each.type == "unix")
        return setup.running is not None and all(each.name != name for each in services)
    return place.startswith("inet:") and milter_rules.is_missing(setup, place)


def _removals(setup: Setup, place: str) -> Iterator[Edit]:
    """Yield the edits that remove a policy service from main.cf and master.cf."""
    main = setup.configuration.main
    for name in RESTRICTIONS:
        if place in main.get(name, ""):
            yield fixes.change_main(name, lambda old: _without(old, place))
        for service in setup.configuration.services:
            if place in service.own.get(name, ""):
                yield _remove_own(service, name, place)


def _remove_own(service: Service, name: str, place: str) -> Edit:
    return fixes.set_own(service, name, _without(service.own[name], place))


def _without(value: str, place: str) -> str:
    kept = _POLICY.sub(lambda each: "" if _place(each) == place else each[0], value)
    return kept.strip(" \t,")
