"""Finds the routes that mail takes from Postfix services to proxies and back.

Rule: this module only finds routes. The rules report problems with the routes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from ipaddress import ip_address
from pathlib import PurePosixPath
from socket import getservbyname
from typing import NamedTuple

from ..core import options
from ..core.address import UpstreamAddress, port_number, split_port
from .postconf import Configuration, Service
from .scripts.shell_command import count_wrapper_words
from .unit import LARGEST_COMMAND, Unit

#: Values of inet_interfaces with which only this machine can connect to Postfix.
_OWN_INTERFACES = {"loopback-only", "localhost", "127.0.0.1", "::1", "[::1]"}
_PORTS = {"smtp": 25, "smtps": 465, "submissions": 465, "submission": 587}
#: The addresses of localhost.
_LOCALHOST = ("127.0.0.1", "::1", "localhost")
#: Wildcard addresses, each with the IP versions that it accepts.
_WILDCARDS = {"": {4, 6}, "*": {4, 6}, "0.0.0.0": {4}, "::": {6}}  # noqa: S104
#: The Postfix programs that add mail to the queue, and therefore use content_filter.
ENTRANCES = ("smtpd", "pickup", "qmqpd")


class Endpoint(NamedTuple):
    """The address of a listener or a connection: a host and port, or the path of a socket."""

    host: str
    port: int
    path: str = ""

    def is_at(self, listener: Endpoint) -> bool:
        """Return whether a connection to this endpoint reaches the listener."""
        if self.path or listener.path:
            return self.path == listener.path
        if self.port != listener.port:
            return False
        if self.host == listener.host:
            return True
        if listener.host in _WILDCARDS:
            return bool(_loopback_versions(self.host) & _WILDCARDS[listener.host])
        hosts = (self.host, listener.host)
        return "localhost" in hosts and all(host in _LOCALHOST for host in hosts)

    def is_open(self) -> bool:
        """Return whether the endpoint has a wildcard address, such as 0.0.0.0."""
        return not self.path and self.host in _WILDCARDS

    def is_here(self) -> bool:
        """Return whether the endpoint is known to be on this machine."""
        return bool(self.path or _loopback_versions(self.host))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"unix:{self.path}" if self.path else f"{host}:{self.port}"


def _loopback_versions(host: str) -> set[int]:
    """Return the IP versions for which `host` refers to this machine."""
    if host == "localhost":
        return {4, 6}
    if host.startswith("127."):
        return {4}
    return {6} if host == "::1" else set()


@dataclass(frozen=True, eq=False)
class Proxy:
    """A proxy from master.cf, from a unit or from a command line."""

    where: str
    #: The addresses of the proxy. Empty if unknown.
    endpoints: tuple[Endpoint, ...]
    #: The program and its arguments.
    words: tuple[str, ...]
    #: The parsed options, or None if the arguments are invalid. In this case, `error` contains
    #: the reason.
    options: options.Options | None
    error: str
    user: str
    #: The maximum number of sessions; 0 means unlimited.
    capacity: int
    #: The spawn(8) service or the unit that runs the proxy.
    service: Service | None = None
    unit: Unit | None = None
    #: The group that spawn(8) uses, or "" for the user's own group.
    group: str = ""

    @property
    def endpoint(self) -> Endpoint | None:
        """Return the first address of the proxy, or None if unknown."""
        return self.endpoints[0] if self.endpoints else None

    def is_at(self, endpoint: Endpoint) -> bool:
        """Return whether a connection to the endpoint reaches the proxy."""
        return any(endpoint.is_at(own) for own in self.endpoints)


class FilterStage(Enum):
    """The position of a filter, which is before or after the queue.

    The value is the name of the Postfix parameter that sets the filter.
    """

    BEFORE_QUEUE = "smtpd_proxy_filter"
    AFTER_QUEUE = "content_filter"


@dataclass(frozen=True)
class Route:
    """A route from a service to an endpoint. A route after the queue goes through a transport."""

    stage: FilterStage
    source: Service
    endpoint: Endpoint
    transport: Service | None = None
    transport_name: str = ""


def listening_endpoint(service: Service, queue_directory: str) -> Endpoint | None:
    """Return the address of a service in master.cf, or None if unknown."""
    if service.type == "unix":
        folder = "public" if service.private == "n" else "private"
        return Endpoint("", 0, str(PurePosixPath(queue_directory, folder, service.name)))
    host, _, port = service.name.rpartition(":")
    if not host:
        host = _interface(service.tokens("inet_interfaces"))
    return _endpoint(_bare(host), port) if service.type == "inet" else None


def _interface(names: Sequence[str]) -> str:
    """Return the default host of a service, or "" if the service has several addresses."""
    own = [name for name in names if name in _OWN_INTERFACES]
    if "all" in names or (own and len(own) < len(names)):
        return ""
    return "localhost" if own else names[0]


def _endpoint(host: str, port: str) -> Endpoint | None:
    try:
        number = port_number(port) if port.isdigit() else _PORTS.get(port) or getservbyname(port)
    except (ValueError, OSError):
        return None
    return Endpoint(host, number)


def is_port(port: str) -> bool:
    """Return whether a port is a number or a known service name."""
    return _endpoint("", port) is not None


def has_ports() -> bool:
    """Return whether this machine can resolve service names (services(5))."""
    try:
        return bool(getservbyname("domain"))
    except OSError:
        return False


def proxy_filter(text: str, queue_directory: str, root: str = "/") -> Endpoint | None:
    """Parse smtpd_proxy_filter, or return None if the value cannot be resolved.

    A single word is a port, and the default host is this machine (see Postfix's host_port(3)).
    Absolute paths start at `root`, the root directory of the service's chroot.
    """
    kind, rest = text[:5].lower(), text[5:]
    if kind == "unix:":
        return _socket(f"{root}/{rest}" if rest.startswith("/") else rest, queue_directory)
    host, _, port = (rest if kind == "inet:" else text).rpartition(":")
    if "[" in host.lstrip("[") or not is_host(_bare(host)):
        return None
    return _endpoint(_bare(host) or "localhost", port)


def is_host(text: str) -> bool:
    """Return whether a string can be an IP address or a host name, or is "" (the default host)."""
    if ":" in text or re.fullmatch("[0-9.]+", text):
        try:
            ip_address(text.partition("%")[0])
        except ValueError:
            return False
    if not text.startswith("localhost") and get_close_matches(text, _LOCALHOST[2:], 1, 0.85):
        return False  # such as loclahost
    return not re.search(r"[\s;,=#\"'/]", text)


def next_hop(text: str, queue_directory: str) -> Endpoint | None:
    """Parse the next hop of content_filter, or return None if the value cannot be resolved.

    A single word is a host, and the default port is 25.
    """
    if text.startswith("unix:"):
        return _socket(text.removeprefix("unix:"), queue_directory)
    try:
        host, port = split_port(text.removeprefix("inet:"))
    except ValueError:
        return None
    return _endpoint(host, port or "smtp") if host else None


def _socket(path: str, queue_directory: str) -> Endpoint:
    # PurePosixPath keeps two slashes at the beginning of a path.
    return Endpoint("", 0, str(PurePosixPath(queue_directory, re.sub("^//+", "/", path))))


def _connection(configuration: Configuration, service: Service, text: str) -> Endpoint | None:
    """Return the address to which a service with this smtpd_proxy_filter connects."""
    queue = configuration.parameter("queue_directory")
    endpoint = proxy_filter(text, queue)
    if endpoint and service.is_chrooted() and endpoint.path not in configuration.shared:
        return proxy_filter(text, queue, queue)
    return endpoint


def _bare(host: str) -> str:
    """Remove the brackets around a host, as in [127.0.0.1]."""
    return host.removeprefix("[").removesuffix("]").removeprefix("ipv6:").removeprefix("IPv6:")


def target_endpoint(target: UpstreamAddress) -> Endpoint:
    """Return the address of the upstream server."""
    return Endpoint(target.host, target.port, target.path)


def is_proxy(words: Sequence[str]) -> bool:
    """Return whether the command runs postprox, possibly through a program such as nice(1)."""
    return _program_end(words) > 0


def arguments(words: Sequence[str]) -> tuple[str, ...]:
    """Return a command line's arguments, without the program, its interpreter and wrappers."""
    places = [index for index, word in enumerate(words) if _is_own(word)]
    return tuple(words[_program_end(words) or (places[0] + 1 if places else 1) :])


def without_wrappers(words: Sequence[str]) -> tuple[str, ...]:
    """Return a command line without programs such as nice(1) that run the rest of it."""
    return tuple(words[count_wrapper_words(words) :])


def has_unknown_wrapper(words: Sequence[str]) -> bool:
    """Return whether an unknown program may run postprox."""
    others = " ".join(words[1:]).split()
    is_named = any(_is_own(word) and not word.startswith(_DATA) for word in others)
    is_program = bool(words and re.match(r"/?\w", words[0]))
    return is_named and is_program and not is_proxy(words)


#: Directories that contain data and settings of programs, but no programs.
_DATA = ("/etc/", "/run/", "/var/")


def _is_own(word: str) -> bool:
    return PurePosixPath(word).name == "postprox"


def _program_end(words: Sequence[str]) -> int:
    """Return the number of words before the arguments of postprox, or 0 for another program."""
    start = count_wrapper_words(words)
    left = list(words[start:])
    if not left or _is_own(left[0]):
        return start + 1 if left else 0
    index = 1
    is_python = PurePosixPath(left[0]).name.startswith("python")
    while is_python and index < len(left):
        word = left[index]
        index += 1
        if not word.startswith("-") or re.fullmatch("-[A-Za-z]*mpostprox", word):
            return start + index if _is_own(word) or word.startswith("-") else 0
        if re.fullmatch("-[A-Za-z]*m", word):
            return start + index + 1 if left[index : index + 1] == ["postprox"] else 0
        index += word in ("-W", "-X")
    return 0


def _parsed(words: Sequence[str]) -> tuple[options.Options | None, str]:
    if sum(map(len, words)) > LARGEST_COMMAND:
        return None, f"it is longer than {LARGEST_COMMAND} characters"
    try:
        wanted = options.parse(arguments(words))
    except options.UsageError as error:
        return None, str(error)
    if wanted.information:
        return None, f"--{wanted.information} only prints information; remove it"
    return wanted, ""


def spawned_proxies(configuration: Configuration) -> Iterator[Proxy]:
    """Find the proxies that master.cf starts."""
    queue = configuration.parameter("queue_directory")
    for service in configuration.services:
        if service.program != "spawn":
            continue
        account, words = spawned_command(service.words)
        user, _, group = account.partition(":")
        if is_proxy(words):
            wanted, error = _parsed(words)
            yield Proxy(
                where=f"master.cf, {service.label}",
                endpoints=tuple(filter(None, [listening_endpoint(service, queue)])),
                words=words,
                options=wanted,
                error=error,
                user=user,
                capacity=service.limit(),
                service=service,
                group=group,
            )


def spawned_command(words: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Return `user` or `user:group`, and the command of a spawn(8) service."""
    user = ""
    for index, word in enumerate(words):
        if word.startswith("user="):
            user = word.removeprefix("user=")
        if word.startswith("argv="):
            return user, (word.removeprefix("argv="), *words[index + 1 :])
    return user, ()


def listening_proxy(unit: Unit) -> Proxy:
    """Return the proxy that a unit or a command line starts.

    If systemd passes sockets to the proxy, they replace the address of `-l`.
    """
    wanted, error = (
        _parsed(unit.words) if is_proxy(unit.words) else (None, "it does not run postprox")
    )
    if wanted and wanted.listen is None and unit.user:
        wanted, error = None, "-l [IP:]PORT is missing; a unit requires this option"
    endpoints = [listen_stream(text) for text in (unit.socket.listen if unit.socket else ())]
    if not endpoints and wanted and wanted.listen:
        endpoints = [Endpoint(*wanted.listen)]
    return Proxy(
        where=unit.name,
        endpoints=tuple(filter(None, endpoints)),
        words=unit.words,
        options=wanted,
        error=error,
        user=unit.user,
        capacity=max(len(unit.instances), 1) * wanted.max_sessions if wanted else 0,
        unit=unit,
    )


def listen_stream(text: str) -> Endpoint | None:
    """Parse ListenStream= (systemd.socket(5)). A single number is a port on all addresses."""
    if text.startswith("/"):
        return Endpoint("", 0, text)
    host, _, port = text.rpartition(":")
    return _endpoint(_bare(host) or "*", port) if port.isdigit() else None


def routes(configuration: Configuration) -> Iterator[Route]:
    """Find each route from a service to a filter, which can be postprox or another program."""
    queue = configuration.parameter("queue_directory")
    for service in configuration.services:
        text = service.parameter(FilterStage.BEFORE_QUEUE.value)
        if service.program == "smtpd" and text:
            if endpoint := _connection(configuration, service, text):
                endpoint = _resolved(configuration, endpoint)
                yield Route(FilterStage.BEFORE_QUEUE, service, endpoint)
        elif service.program in ENTRANCES:
            hops = service.tokens(FilterStage.AFTER_QUEUE.value)
            for hop in hops if len(hops) == 1 else ():  # a next hop is a single word
                name, _, where = hop.partition(":")
                endpoint = next_hop(where, queue)
                if endpoint and _is_hop(configuration, hop):
                    endpoint = _resolved(configuration, endpoint)
                    transport = configuration.transport(name)
                    yield Route(FilterStage.AFTER_QUEUE, service, endpoint, transport, name)


def _has_hop(configuration: Configuration, hops: Sequence[str]) -> bool:
    return len(hops) == 1 and _is_hop(configuration, hops[0])


def _is_hop(configuration: Configuration, hop: str) -> bool:
    """Return whether a value has the form TRANSPORT:NEXTHOP."""
    name, _, where = hop.partition(":")
    if re.search(r"\[[^]:]*:[0-9]+\]", where):
        return False  # smtp(8) does not accept a port within the brackets
    if transport := configuration.transport(name):
        # Only lmtp(8) accepts inet: before the host.
        is_refused = transport.program == "smtp" and where.startswith("inet:")
        return bool(where) and where.count("[") == where.count("]") and not is_refused
    # 127.0.0.1:10025 lacks the transport, and scan[127.0.0.1]:10025 lacks a colon.
    return bool(where) and not re.search(r"[][/]|^[0-9.]*$", name) and not where.isdigit()


def _resolved(configuration: Configuration, endpoint: Endpoint) -> Endpoint:
    """Replace the endpoint's host name with its address if /etc/hosts has only one."""
    addresses = configuration.hosts.get(endpoint.host.lower(), ())
    unused = {"ipv4": ":", "ipv6": "."}.get(configuration.parameter("inet_protocols"))
    used = [address for address in addresses if not unused or unused not in address]
    return endpoint._replace(host=_only_address(used) or endpoint.host)


def _only_address(addresses: Sequence[str]) -> str:
    return addresses[0] if len(set(addresses)) == 1 else ""


def malformed_routes(
    configuration: Configuration,
) -> Iterator[tuple[Service, FilterStage, str]]:
    """Find each service whose filter address is invalid."""
    queue = configuration.parameter("queue_directory")
    for service in configuration.services:
        before = service.parameter(FilterStage.BEFORE_QUEUE.value)
        after = service.parameter(FilterStage.AFTER_QUEUE.value)
        hops = service.tokens("content_filter")
        if service.program == "smtpd" and before:
            if proxy_filter(before, queue) is None:
                yield service, FilterStage.BEFORE_QUEUE, before
        elif service.program in ENTRANCES and after and not _has_hop(configuration, hops):
            yield service, FilterStage.AFTER_QUEUE, after


def upstream_endpoint(configuration: Configuration, wanted: options.Options) -> Endpoint:
    """Return the address to which a proxy with these options sends mail."""
    endpoint = target_endpoint(wanted.target)
    return endpoint._replace(
        host=_only_address(configuration.hosts.get(endpoint.host.lower(), ())) or endpoint.host
    )


def endpoint_of(configuration: Configuration, service: Service) -> Endpoint | None:
    """Return the address of a service in master.cf, or None if unknown."""
    endpoint = listening_endpoint(service, configuration.parameter("queue_directory"))
    has_host = service.type == "inet" and ":" in service.name
    return _resolved(configuration, endpoint) if endpoint and has_host else endpoint


def upstream(configuration: Configuration, proxy: Proxy) -> Service | None:
    """Return the proxy's upstream server if it is a service in this Postfix configuration."""
    if proxy.options is None:
        return None
    endpoint = upstream_endpoint(configuration, proxy.options)
    for service in configuration.services:
        listener = endpoint_of(configuration, service)
        if listener is not None and endpoint.is_at(listener):
            return service
    return None
