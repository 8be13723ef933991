"""Selects the proxies to check.

Rule: the selection depends only on the configuration, the installed units and their states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .environment import PACKAGED
from .facts import UnitState
from .postconf import Configuration
from .routes import Endpoint, Proxy, listening_proxy, routes, spawned_proxies, target_endpoint
from .unit import Unit


def chosen(configuration: Configuration, units: Sequence[Unit]) -> list[Proxy]:
    """Return the proxies in master.cf and the proxies of the selected units."""
    return [*spawned_proxies(configuration), *map(listening_proxy, units)]


def installed(
    configuration: Configuration, units: Sequence[Unit], states: Mapping[str, UnitState]
) -> list[Proxy]:
    """Return the proxies in master.cf, and the proxy of each installed unit that receives mail.

    If mail is routed to an address on which no proxy listens, the result includes all units in use.
    """
    spawned = list(spawned_proxies(configuration))
    listening = list(map(listening_proxy, units))
    in_use = [proxy for proxy in listening if proxy.unit and _is_used(proxy.unit, states)]
    used = [route.endpoint for route in routes(configuration)]
    receiving = [proxy for proxy in in_use if any(proxy.is_at(each) for each in used)]
    receiving += _behind([*spawned, *receiving], in_use)
    others = [*spawned, *receiving]
    if used and all(any(proxy.is_at(each) for proxy in others) for each in used):
        return others
    return [*spawned, *(in_use or _idle(spawned, listening, used))]


def _behind(proxies: Sequence[Proxy], others: Sequence[Proxy]) -> list[Proxy]:
    """Return the other proxies to which the proxies send mail, directly or through each other."""
    found = list(proxies)
    for proxy in found:  # grows during the loop
        if proxy.options:
            target = target_endpoint(proxy.options.target)
            found += [each for each in others if each not in found and each.is_at(target)]
    return found[len(proxies) :]


def _is_used(unit: Unit, states: Mapping[str, UnitState]) -> bool:
    """Return whether the unit or its socket is enabled, running or failing."""
    names = (*unit.instances, *(unit.socket.instances if unit.socket else ()))
    return bool(unit.enabled) or any(
        name in states and states[name].active not in ("", "inactive") for name in names
    )


def _idle(
    others: Sequence[Proxy], listening: Sequence[Proxy], used: Sequence[Endpoint]
) -> list[Proxy]:
    """Return the units that would receive mail if they were running, one for each address."""
    found = list(others)
    for proxy in listening:
        receives = any(proxy.is_at(endpoint) for endpoint in used)
        if (receives or _is_configured(proxy)) and not any(
            other.is_at(endpoint) for other in found for endpoint in proxy.endpoints
        ):
            found.append(proxy)
    return found[len(others) :]


def _is_configured(proxy: Proxy) -> bool:
    """Return whether the unit has a filter and does not use the package's own options file.

    An invalid command line also counts as configured.
    """
    values = proxy.unit.assignments.values if proxy.unit else {}
    is_packaged = PACKAGED.items() <= values.items()
    return proxy.options is None or (proxy.options.command is not None and not is_packaged)
