"""The input of the rules, and the routes of mail in it.

Rule: finds routes. It reports no fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .facts import ProxyFacts
from .postconf import Configuration, Service
from .routes import Proxy, Route, routes, upstream


@dataclass(frozen=True)
class Setup:
    """A configuration of Postfix, its proxies, and the facts about each proxy."""

    configuration: Configuration
    proxies: Sequence[Proxy]
    facts: Mapping[Proxy, ProxyFacts]

    def routes_to(self, proxy: Proxy) -> list[Route]:
        """Return the routes to the proxy."""
        endpoint = proxy.endpoint
        return [
            route
            for route in routes(self.configuration)
            if endpoint and route.endpoint.is_at(endpoint)
        ]

    def transports_to(self, proxy: Proxy) -> list[Service]:
        """Return the transports that send mail to the proxy after the queue."""
        return distinct(route.transport for route in self.routes_to(proxy) if route.transport)

    def smtp_transports_to(self, proxy: Proxy) -> list[Service]:
        """Return the transports to the proxy that use smtp(8) and its parameters."""
        return [service for service in self.transports_to(proxy) if service.program == "smtp"]

    def proxy_at(self, route: Route) -> Proxy | None:
        """Return the proxy at the end of a route."""
        return next(
            (p for p in self.proxies if p.endpoint and route.endpoint.is_at(p.endpoint)), None
        )

    def routes_from(self, service: Service) -> list[Route]:
        """Return the routes from a service."""
        return [route for route in routes(self.configuration) if route.source is service]

    def reinjection_service(self, proxy: Proxy) -> Service | None:
        """Return the upstream server of the proxy if it is an smtpd(8) of this Postfix."""
        service = upstream(self.configuration, proxy)
        return service if service and service.program == "smtpd" else None

    def comes_back(self, route: Route, goal: Proxy) -> bool:
        """Return whether mail on this route reaches the proxy, also through other filters."""
        seen: set[Proxy] = set()
        pending = [route]
        while pending:
            proxy = self.proxy_at(pending.pop())
            if proxy is goal:
                return True
            if proxy is not None and proxy not in seen:
                seen.add(proxy)
                behind = self.reinjection_service(proxy)
                pending += self.routes_from(behind) if behind else []
        return False


def distinct(services: Iterable[Service]) -> list[Service]:
    """Remove duplicate services."""
    return list({service.label: service for service in services}.values())
