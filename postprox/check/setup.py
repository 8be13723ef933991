"""All that there is to judge, and what is connected to what in it.

Rule: answers questions about the ways of mail; what is wrong is not asked here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .facts import ProxyFacts
from .postconf import Configuration, Service
from .routes import Proxy, Way, upstream, ways


@dataclass(frozen=True)
class Setup:
    """A configuration of Postfix, the proxies in it, and what was seen of their surroundings."""

    configuration: Configuration
    proxies: Sequence[Proxy]
    facts: Mapping[Proxy, ProxyFacts]

    def ways_to(self, proxy: Proxy) -> list[Way]:
        """The ways of mail to the proxy."""
        place = proxy.place
        return [way for way in ways(self.configuration) if place and way.place.is_at(place)]

    def transports_to(self, proxy: Proxy) -> list[Service]:
        """The services that bring mail to the proxy after the queue."""
        return distinct(way.transport for way in self.ways_to(proxy) if way.transport)

    def smtp_transports_to(self, proxy: Proxy) -> list[Service]:
        """Those of them that are smtp(8), and so obey its parameters."""
        return [service for service in self.transports_to(proxy) if service.program == "smtp"]

    def proxy_at(self, way: Way) -> Proxy | None:
        """The proxy at the end of a way."""
        return next((p for p in self.proxies if p.place and way.place.is_at(p.place)), None)

    def ways_from(self, service: Service) -> list[Way]:
        """The ways of what a service takes in."""
        return [way for way in ways(self.configuration) if way.front is service]

    def behind(self, proxy: Proxy) -> Service | None:
        """The smtpd(8) that gets what the proxy passes on, if it is of this Postfix."""
        service = upstream(self.configuration, proxy)
        return service if service and service.program == "smtpd" else None

    def comes_back(self, way: Way, goal: Proxy) -> bool:
        """Whether mail on this way reaches the proxy, through whatever other filters."""
        seen: set[Proxy] = set()
        pending = [way]
        while pending:
            proxy = self.proxy_at(pending.pop())
            if proxy is goal:
                return True
            if proxy is not None and proxy not in seen:
                seen.add(proxy)
                behind = self.behind(proxy)
                pending += self.ways_from(behind) if behind else []
        return False


def distinct(services: Iterable[Service]) -> list[Service]:
    """Each service once."""
    return list({service.label: service for service in services}.values())
