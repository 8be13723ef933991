"""The input for the rules, and the mail routes that are derived from this input.

Rule: this module finds routes and does not report problems.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from . import tables
from .facts import Listener, ProxyFacts, RunningFacts, SampleRuns
from .postconf import Configuration, Service
from .routes import Endpoint, Proxy, Route, endpoint_of, routes, target_endpoint, upstream


@dataclass(frozen=True)
class Setup:
    """A Postfix configuration, its proxies, and the facts about each proxy."""

    configuration: Configuration
    proxies: Sequence[Proxy]
    facts: Mapping[Proxy, ProxyFacts]
    #: The state of the running system, or None if the system is not checked.
    running: RunningFacts | None = None
    #: The contents of each table, indexed by its path. A missing entry means that the contents are
    #: unknown.
    tables: Mapping[str, str] = field(default_factory=dict)
    #: The directory that contains the Postfix recipe.
    examples: str = "/usr/local/share/doc/postprox/examples/postfix"
    #: The installed proxy program, or "" if it was not found.
    program: str = ""
    #: The results of the filters for test messages (--run-filter).
    samples: Mapping[Proxy, SampleRuns] = field(default_factory=dict)

    def routes_to(self, proxy: Proxy) -> list[Route]:
        """Return the routes to the proxy."""
        return [route for route in routes(self.configuration) if proxy.is_at(route.endpoint)]

    def service_at(self, endpoint: Endpoint) -> Service | None:
        """Return the Postfix service that accepts connections to the endpoint."""
        for service in self.configuration.services:
            listener = self.endpoint_of(service)
            if listener is not None and endpoint.is_at(listener):
                return service
        return None

    def lost_routes(self) -> list[Route]:
        """Return the routes to this machine that lead to neither a proxy nor a service."""
        return [
            route
            for route in routes(self.configuration)
            if route.endpoint.is_here()
            and self.proxy_at(route) is None
            and self.service_at(route.endpoint) is None
        ]

    def listener_at(self, endpoint: Endpoint) -> Listener | None:
        """Return the listening socket that accepts connections to the endpoint."""
        listeners = self.running.listeners if self.running else ()
        return next((each for each in listeners if endpoint.is_at(each.endpoint)), None)

    def proxy_outside(self, route: Route) -> Proxy | None:
        """If a chroot hides a proxy's socket from a route, return this proxy."""
        queue = self.configuration.parameter("queue_directory")
        path = route.endpoint.path.removeprefix(queue)
        if not route.source.is_chrooted() or not path or path == route.endpoint.path:
            return None
        outside = Endpoint("", 0, path)
        return next((proxy for proxy in self.proxies if proxy.is_at(outside)), None)

    def relative(self, endpoint: Endpoint) -> Endpoint:
        """Return the endpoint with a path in the queue directory made relative to that directory.

        Postfix reaches such a path with and without a chroot.
        """
        queue = self.configuration.parameter("queue_directory")
        return endpoint._replace(path=endpoint.path.removeprefix(f"{queue}/"))

    def transports_to(self, proxy: Proxy) -> list[Service]:
        """Return the transports that send mail from the queue to the proxy."""
        return distinct(route.transport for route in self.routes_to(proxy) if route.transport)

    def smtp_transports_to(self, proxy: Proxy) -> list[Service]:
        """Return the transports that send mail to the proxy with smtp(8)."""
        return [service for service in self.transports_to(proxy) if service.program == "smtp"]

    def proxy_at(self, route: Route) -> Proxy | None:
        """Return the proxy at the end of a route."""
        return next((proxy for proxy in self.proxies if proxy.is_at(route.endpoint)), None)

    def routes_from(self, service: Service) -> list[Route]:
        """Return the routes from a service."""
        return [route for route in routes(self.configuration) if route.source is service]

    def reinjection_service(self, proxy: Proxy) -> Service | None:
        """Return the Postfix service that is the proxy's upstream server, if it runs smtpd(8)."""
        service = upstream(self.configuration, proxy)
        return service if service and service.program == "smtpd" else None

    def possible_routes(self, proxy: Proxy) -> list[str]:
        """Return the parameters that can route mail to a proxy through a table or transport."""
        return [
            name
            for endpoint in proxy.endpoints
            for name in tables.possible_routes(self.configuration, self.tables, endpoint)
        ]

    def endpoint_of(self, service: Service) -> Endpoint | None:
        """Return the address of a service."""
        return endpoint_of(self.configuration, service)

    def is_public(self, service: Service) -> bool:
        """Return whether the service runs smtpd(8) and receives mail from other machines."""
        endpoint = self.endpoint_of(service)
        is_here = endpoint is not None and endpoint.is_here()
        is_behind = any(self.reinjection_service(proxy) is service for proxy in self.proxies)
        return service.program == "smtpd" and not (
            is_here or is_behind or self.is_for_filtered(service)
        )

    def place_for_filtered(self, proxy: Proxy) -> Service | None:
        """Return a service for filtered mail that is not the upstream server of another proxy."""
        others = [self.reinjection_service(each) for each in self.proxies if each is not proxy]
        found = [each for each in self.configuration.services if self.is_for_filtered(each)]
        return next((each for each in found if each not in others), None)

    def is_for_filtered(self, service: Service) -> bool:
        """Return whether a service looks like the recipe's service for filtered mail."""
        return service.program == "smtpd" and "smtpd_authorized_xforward_hosts" in service.own

    def proxy_behind(self, proxy: Proxy) -> Proxy | None:
        """Return the proxy that is the upstream server of another proxy."""
        target = target_endpoint(proxy.options.target) if proxy.options else None
        others = (each for each in self.proxies if each is not proxy)
        return next((each for each in others if target and each.is_at(target)), None)

    def chain(self, proxy: Proxy) -> list[Proxy]:
        """Return a proxy and the proxies that follow it with no Postfix service in between."""
        found = [proxy]
        while (behind := self.proxy_behind(found[-1])) and behind not in found:
            found.append(behind)
        return found

    def comes_back(self, route: Route, goal: Proxy) -> bool:
        """Return whether mail on this route reaches `goal` directly or through other proxies."""
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
