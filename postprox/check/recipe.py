"""Creates the recipe: the commands that set up a proxy before or after the Postfix queue.

Rule: the recipe is a pure function of the configuration, the installed files and the ports in use.
The services and parameters come from examples/postfix/. Each command can be pasted into a shell.
postprox-check reports no findings for the resulting configuration.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from . import environment, fixes, values
from .findings import Fault
from .fixes import Edit
from .milter_rules import has_milters
from .postconf import Configuration, Service, UnreadableError, join_words, split_words
from .postfix_rules import SPEED_ADJUST_FACTOR, is_for_users
from .routes import (
    ENTRANCES,
    Endpoint,
    FilterStage,
    Proxy,
    listening_endpoint,
    listening_proxy,
    routes,
    spawned_proxies,
)
from .unit import Unit

#: The possible values of --recipe.
STAGES = {"before-queue": FilterStage.BEFORE_QUEUE, "after-queue": FilterStage.AFTER_QUEUE}
#: The ports in the examples: one for the proxy, one for the service after the proxy, and two for
#: users' mail.
_PORTS = (10025, 10026, 10027, 10028)
_USER_PORTS = ("submission", "submissions", "smtps", "587", "465")
_FILTER = "/usr/local/bin/mail-filter"
#: The user and the message directory of a spawned proxy.
USER, SPOOL = "postprox", "/var/spool/postprox"
_OVERRIDES = "receive_override_options"
_NO_MAPPINGS = "no_address_mappings"
#: The number of spawned proxies in the examples, and their filter timeout in seconds (-t).
_SIZE, _TIMEOUT = 20, 60
#: Obsolete parameters that the examples do not override, each with the value that disables it.
_OLD_BEHIND = {"smtpd_enforce_tls": "no", "smtpd_tls_req_ccert": "no"}
_OLD_TRANSPORT = {"smtp_enforce_tls": "no", "fallback_relay": ""}


@dataclass(frozen=True)
class Installation:
    """The facts about this machine on which the recipe depends."""

    #: The text of each file in examples/postfix/.
    examples: Mapping[str, str]
    #: The path of the installed proxy.
    program: str
    #: The unit of the listening proxy, or None if Postfix starts the proxy.
    unit: Unit | None = None
    #: The ports on which servers listen, except the ports of the unit's own socket.
    used_ports: frozenset[int] = frozenset()
    has_user: bool = True
    has_spool: bool = True
    has_filter: bool = True


def commands(
    configuration: Configuration, stage: FilterStage, installed: Installation
) -> list[str]:
    """Return the lines of the recipe, which are commands and comments that begin with `#`.

    Raises:
        UnreadableError: Postfix already uses a proxy, the unit has an error, or no port is free.
    """
    return list(_Recipe(configuration, stage, installed).lines())


def filter_command(unit: Unit | None) -> str:
    """Return a unit's filter command, or the filter command from the examples."""
    options = listening_proxy(unit).options if unit else None
    return options.command if options and options.command else _FILTER


@dataclass
class _Entry:
    """A new service in master.cf."""

    name: str
    type: str
    columns: list[str]
    words: list[str]

    @property
    def label(self) -> str:
        return f"{self.name}/{self.type}"

    def set(self, name: str, value: str) -> None:
        """Set a parameter of the service."""
        self.words = [word for word in self.words if not word.startswith(f"{name}=")]
        pairs = zip(self.words, [*self.words[1:], ""], strict=True)
        self.words = [word for word, after in pairs if word != "-o" or "=" in after]
        self.words += ["-o", f"{name}={value}"]

    def parameter(self, name: str) -> str:
        """Return the value that this service sets for a parameter."""
        prefix = f"{name}="
        return next((w.removeprefix(prefix) for w in self.words if w.startswith(prefix)), "")

    def line(self) -> str:
        """Return the line for master.cf."""
        return " ".join([self.name, self.type, *self.columns, join_words(tuple(self.words))])


def entries(text: str) -> list[_Entry]:
    """Parse an example file for master.cf."""
    lines = [
        line for line in text.split("\n") if line.strip() and not line.lstrip().startswith("#")
    ]
    joined = re.sub(r"\n[ \t]+", " ", "\n".join(lines))
    found = []
    for line in joined.split("\n"):
        name, kind, private, unprivileged, chroot, wakeup, limit, command = line.split(maxsplit=7)
        columns = [private, unprivileged, chroot, wakeup, limit]
        found.append(_Entry(name, kind, columns, split_words(command)))
    return found


def parameters(text: str) -> dict[str, str]:
    """Parse an example file for main.cf."""
    return dict(re.findall(r"^(\w+) = (.*)$", text, re.MULTILINE))


@dataclass
class _Recipe:
    configuration: Configuration
    stage: FilterStage
    installed: Installation
    edits: list[Edit] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    main: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.kind = next(name for name, stage in STAGES.items() if stage is self.stage)
        is_ipv6 = self.configuration.parameter("inet_protocols") == "ipv6"
        self.host = "[::1]" if is_ipv6 else "127.0.0.1"
        self.networks = "[::1]/128" if is_ipv6 else "127.0.0.0/8"
        self._refuse_second_proxy()
        self.ports = self._free_ports()
        self.transport = self._free_name("scan", "postprox", "postproxscan")

    # Methods that inspect the configuration

    def _refuse_second_proxy(self) -> None:
        proxies = list(spawned_proxies(self.configuration))
        if self.installed.unit:
            proxies.append(listening_proxy(self.installed.unit))
        for proxy in proxies:
            is_used = any(proxy.is_at(route.endpoint) for route in routes(self.configuration))
            if proxy.service or is_used:
                raise UnreadableError(
                    f"postprox is already in use ({proxy.where}); run postprox-check without "
                    "--recipe"
                )

    def _endpoint(self, service: Service) -> Endpoint | None:
        return listening_endpoint(service, self.configuration.parameter("queue_directory"))

    def _free_ports(self) -> tuple[int, ...]:
        endpoints = map(self._endpoint, self.configuration.services)
        used = {endpoint.port for endpoint in endpoints if endpoint} | self.installed.used_ports
        for offset in range(0, 50_000, 100):
            ports = tuple(port + offset for port in _PORTS)
            if not used & set(ports):
                return ports
        raise UnreadableError("all ports are in use")

    def _free_name(self, *names: str) -> str:
        return next(name for name in names if self.configuration.transport(name) is None)

    def _is_unfiltered(self, service: Service) -> bool:
        """Return whether a service is intentionally unfiltered, or follows a filter."""
        stages = [stage.value for stage in FilterStage if stage.value in service.own]
        endpoint = self._endpoint(service)
        is_behind = "smtpd_authorized_xforward_hosts" in service.own or _OVERRIDES in service.own
        is_here = endpoint is not None and endpoint.is_here()
        return any(not service.own[name] for name in stages) or (is_here and is_behind)

    def _fronts(self) -> list[Service]:
        """Return the services to which the proxy setting in main.cf applies."""
        return [
            service
            for service in self.configuration.services
            if service.program == "smtpd"
            and self.stage.value not in service.own
            and not self._is_unfiltered(service)
        ]

    def _users(self) -> list[Service]:
        """Return the services for local users.

        The result includes every service on a submission port, so that the recipe does not replace
        it.
        """
        return [
            front
            for front in self._fronts()
            if is_for_users(front) or front.name.rpartition(":")[2] in _USER_PORTS
        ]

    def _signed(self) -> list[Service]:
        """Return the submission services that have milters.

        The result includes only services with the same milters as the first one.
        """
        found = [user for user in self._users() if has_milters(user)]
        return [user for user in found if _milters(user) == _milters(found[0])]

    # Methods that create the recipe

    def lines(self) -> Iterator[str]:
        """Return all lines of the recipe."""
        added, signed = self._entries()
        for entry in added:
            self._override(entry)
        self._unfilter()
        self._mark_local()
        self._route_users(signed)
        self.main.update(self._parameters())
        self.main[self.stage.value] = self._address(self._listener())
        self.edits += self._proxy_edits()
        way = "before the queue" if self.stage is FilterStage.BEFORE_QUEUE else "after the queue"
        yield f"# postprox {way}: {self._listener()} filters mail and sends it to {self._back()}."
        yield from (f"# {comment}" for comment in self.comments)
        if not self.installed.has_filter:
            command = filter_command(self.installed.unit)
            yield f"# First, make sure that the filter {command} exists and is executable."
        yield from self._account()
        postconf = self.configuration.postconf
        for entry in added:
            yield f"{postconf} -M {shlex.quote(f'{entry.label}={entry.line()}')}"
        yield from self._planned()
        if self.installed.unit and self.installed.unit.installed:
            names = self.installed.unit.socket or self.installed.unit
            yield f"systemctl enable --now {shlex.join(names.instances)}"
        # The parameter that routes mail to the proxy comes last.
        for name, value in self.main.items():
            yield f"{postconf} -e {shlex.quote(f'{name}={value}')}"
        yield f"{self.configuration.postfix} reload"

    def _planned(self) -> Iterator[str]:
        fault = Fault("no-way", "", "", tuple(self.edits))
        for finding in fixes.plan(self.configuration, [fault]):
            yield from finding.commands

    def _account(self) -> Iterator[str]:
        needs = self.installed.unit is None or bool(self._signed())
        user = fixes.add_user(USER), fixes.make_spool(USER, SPOOL)
        missing = (not self.installed.has_user, not self.installed.has_spool)
        for edit, is_missing in zip(user, missing, strict=True):
            if needs and is_missing and isinstance(edit.place, fixes.Shell):
                yield edit.place.command

    def _back(self) -> str:
        return f"{self.host}:{self.ports[1]}"

    def _listener(self) -> str:
        """Return the proxy's address. The unit's address is kept if possible."""
        own = self._unit_address()
        return own or f"{self.host}:{self.ports[0]}"

    def _unit_address(self) -> str:
        if self.installed.unit is None:
            return ""
        endpoint = listening_proxy(self.installed.unit).endpoint
        services = [self._endpoint(each) for each in self.configuration.services]
        used = {each.port for each in services if each} | self.installed.used_ports
        is_right = endpoint and endpoint.is_here() and (":" in endpoint.host) == ("[" in self.host)
        return str(endpoint) if endpoint and is_right and endpoint.port not in used else ""

    def _address(self, listener: str) -> str:
        if self.stage is FilterStage.BEFORE_QUEUE:
            return listener
        host, _, port = listener.rpartition(":")
        return f"{self.transport}:[{host.strip('[]')}]:{port}"

    def _example(self, part: str) -> list[_Entry]:
        name = f"{self.kind}-{part}.master.cf" if part else f"{self.kind}.master.cf"
        return entries(self.installed.examples[name])

    def _entries(self) -> tuple[list[_Entry], list[Service]]:
        """Return the new services, and the existing services that use the second proxy."""
        added = self._example("")
        if self.installed.unit is None:
            added[:0] = entries(self.installed.examples["spawned.master.cf"])
        signed = self._signed()
        needs_submission = not signed and self._is_signing_lost()
        if signed or needs_submission:
            added += self._example("users")
        if needs_submission:
            added += [each for each in self._example("submission") if each.name == "submission"]
            milters = _milters(self._public()[0])
            self.comments.append(f"The milters {milters} sign mail that users submit.")
        return added, signed

    def _public(self) -> list[Service]:
        """Return the public services with milters.

        With a before-queue filter, these milters do not receive the message.
        """
        users = self._users()
        return [each for each in self._fronts() if each not in users and has_milters(each)]

    def _is_signing_lost(self) -> bool:
        is_before = self.stage is FilterStage.BEFORE_QUEUE
        return is_before and bool(self._public()) and not self._users()

    def _milters_of_users(self) -> str:
        signed = self._signed()
        return _milters(signed[0] if signed else self._public()[0])

    def _override(self, entry: _Entry) -> None:
        """Adapt a service from the examples to this site."""
        text = " ".join([entry.name, *entry.words])
        number = next(
            (n for n, port in enumerate(_PORTS) if entry.name == f"127.0.0.1:{port}"), None
        )
        entry.words = [self._renamed(word) for word in entry.words]
        entry.name = self._renamed(entry.name)
        if entry.words[0] == "spawn":
            self._spawn(entry, text)
        elif number is not None:
            self._behind(entry, is_signing=number == 3)
        elif entry.type == "unix":
            entry.name = self.transport
            for name, value in _OLD_TRANSPORT.items():
                if self.configuration.main.get(name, "") not in ("", "no"):
                    entry.set(name, value)
            if self._seconds("smtp_data_done_timeout") <= _TIMEOUT:
                entry.set("smtp_data_done_timeout", "600s")

    def _renamed(self, word: str) -> str:
        for old, new in zip(_PORTS, self.ports, strict=True):
            word = word.replace(f"[127.0.0.1]:{old}", f"[{self.host.strip('[]')}]:{new}")
            word = re.sub(rf"(?<![\d.\[])127\.0\.0\.1:{old}\b", f"{self.host}:{new}", word)
        word = word.replace("scan:[", f"{self.transport}:[").replace("127.0.0.0/8", self.networks)
        return word.replace("/usr/local/sbin/postprox", self.installed.program)

    def _spawn(self, entry: _Entry, text: str) -> None:
        entry.words = [
            filter_command(self.installed.unit) if word == _FILTER else word for word in entry.words
        ]
        fronts = self._signed() if "10027" in text else self._fronts()
        entry.columns[4] = str(self._capacity(fronts))
        if self._seconds("command_time_limit") <= _TIMEOUT:
            entry.set("command_time_limit", "1000s")
            # spawn(8) treats all words after argv= as the command to run.
            entry.words = ["spawn", *entry.words[-2:], *entry.words[1:-2]]

    def _capacity(self, fronts: Sequence[Service]) -> int:
        if self.stage is FilterStage.AFTER_QUEUE:
            return _SIZE
        limits = [front.limit() or 100 for front in fronts] or [self._default_limit()]
        return max(_SIZE, -(-sum(limits) // SPEED_ADJUST_FACTOR))

    def _seconds(self, name: str) -> int:
        """Return a time limit from main.cf in seconds."""
        empty = Service("", "", "", "", "", "", "", (), self.configuration.main, {})
        return empty.seconds(name)

    def _default_limit(self) -> int:
        return self.configuration.number("default_process_limit")

    def _behind(self, entry: _Entry, *, is_signing: bool) -> None:
        main = self.configuration.main
        if is_signing:
            entry.set("smtpd_milters", self._milters_of_users())
        for name, value in _OLD_BEHIND.items():
            if main.get(name) == "yes":
                entry.set(name, value)
        following = self._following()
        for name, value in following.items():
            entry.set(name, value)
        overrides = entry.parameter(_OVERRIDES).split(",")
        is_mapped_later = _NO_MAPPINGS in main.get(_OVERRIDES, "")
        if is_mapped_later and following:
            overrides = [_NO_MAPPINGS, *(each for each in overrides if each != _NO_MAPPINGS)]
        elif is_mapped_later:
            overrides = [each for each in overrides if each != _NO_MAPPINGS]
        entry.set(_OVERRIDES, ",".join(overrides))
        name = "message_size_limit"
        sizes = [values.number(name, front.parameter(name)) or 0 for front in self._fronts()]
        if any(name in front.own for front in self._fronts()):
            entry.set(name, str(0 if 0 in sizes else max(sizes)))
        capacity = 100 if self.installed.unit else self._capacity(self._fronts())
        clients = min(capacity, sum(front.limit() or 100 for front in self._fronts()))
        if self._default_limit() < clients:
            entry.columns[4] = str(clients)

    def _following(self) -> dict[str, str]:
        """Return the parameters that send filtered mail to the next filter."""
        users = self._users()
        fronts = [front for front in self._fronts() if front not in users] or self._fronts()
        before, after = (stage.value for stage in FilterStage)
        found = {after: fronts[0].parameter(after) if fronts else ""}
        if self.stage is FilterStage.BEFORE_QUEUE:
            found[before] = self.configuration.main.get(before, "")
        return {name: value for name, value in found.items() if value}

    def _mark_local(self) -> None:
        """Mark services such as pickup as intentionally unfiltered.

        The mark is an empty smtpd_proxy_filter, a parameter that these services do not use.
        """
        for service in self.configuration.services:
            is_local = service.program in ENTRANCES and service.program != "smtpd"
            if is_local and self.stage is FilterStage.AFTER_QUEUE and self._is_unfiltered(service):
                self.edits.append(fixes.set_own(service, FilterStage.BEFORE_QUEUE.value, ""))

    def _unfilter(self) -> None:
        """Keep unfiltered services unfiltered, and adapt the limits of all other services."""
        for service in self.configuration.services:
            if service.program == "smtpd" and self.stage.value not in service.own:
                if self._is_unfiltered(service):
                    self.edits.append(fixes.set_own(service, self.stage.value, ""))
            elif service.program == "smtpd" and service.own[self.stage.value]:
                value = service.own[self.stage.value]
                self.comments.append(f"{service.label} keeps its {self.stage.value} = {value}.")
        for front in self._fronts():
            if self.stage is FilterStage.AFTER_QUEUE:
                continue
            if front.limit() == 0:
                self.edits.append(fixes.set_field(front, "process_limit", "100"))
            if "smtpd_proxy_options" in front.own:
                self.edits.append(fixes.set_own(front, "smtpd_proxy_options", "speed_adjust"))
            if (
                "smtpd_proxy_timeout" in front.own
                and front.seconds("smtpd_proxy_timeout") <= _TIMEOUT
            ):
                self.edits.append(fixes.set_own(front, "smtpd_proxy_timeout", "100s"))

    def _route_users(self, signed: Sequence[Service]) -> None:
        """Send users' mail to the second proxy, after which the milters sign it."""
        second = f"{self.host}:{self.ports[2]}"
        for user in signed:
            self.edits += [
                fixes.set_own(user, self.stage.value, self._address(second)),
                fixes.set_own(user, "smtpd_milters", ""),
                fixes.set_own(user, "smtpd_milter_maps", ""),
            ]
        limit = "smtpd_client_connection_count_limit"
        for user in self._users() if self.stage is FilterStage.BEFORE_QUEUE else ():
            if limit not in user.own:
                self.edits.append(fixes.set_own(user, limit, "50"))
            if user not in signed and has_milters(user):
                self.comments.append(
                    f"{user.label} keeps its own milters, so its mail is not filtered."
                )
                self.edits.append(fixes.set_own(user, self.stage.value, ""))
        if self.stage is FilterStage.BEFORE_QUEUE and self._users():
            for front in self._public():
                if front.parameter("smtpd_sasl_auth_enable") == "yes":
                    self.comments.append(
                        f"{front.label} does not offer AUTH, because its milters do not receive "
                        "messages and cannot sign them."
                    )
                    self.edits.append(fixes.set_own(front, "smtpd_sasl_auth_enable", "no"))

    def _parameters(self) -> dict[str, str]:
        """Return the parameters for main.cf."""
        found = parameters(self.installed.examples[f"{self.kind}.main.cf"])
        limit = "smtpd_client_connection_count_limit"
        present = self.configuration.main.get(limit, "")
        if limit in found and present.isdigit() and 0 < int(present) <= 50:
            del found[limit]
        found = {name.replace("scan_", f"{self.transport}_"): v for name, v in found.items()}
        return {name: v for name, v in found.items() if name != self.stage.value}

    def _proxy_edits(self) -> Iterator[Edit]:
        """Set the listening proxy's options and the address on which it listens."""
        unit = self.installed.unit
        if unit is None:
            return
        proxy = listening_proxy(unit)
        if proxy.options is None or unit.assignments.problems or not unit.options_file_exists:
            if not unit.options_file:
                raise UnreadableError(f"{proxy.where}: {proxy.error}; run postprox-check")
            words = environment.PACKAGED[environment.OPTIONS].split()
            yield fixes.write_options(proxy, [*words, self._back()])
        else:
            yield from self._listening(proxy)
        if proxy.endpoint is None or self._listener() != str(proxy.endpoint):
            yield fixes.set_address(proxy, self._listener())

    def _listening(self, proxy: Proxy) -> Iterator[Edit]:
        wanted = proxy.options
        if wanted is None:
            return
        if wanted.target.text != self._back():
            yield fixes.send_to(proxy, self._back())
        if wanted.command is None:
            yield fixes.add_arguments(proxy, "-c", _FILTER)
        if not wanted.strict:
            yield fixes.add_arguments(proxy, "--strict")
        most = self._capacity(self._fronts())
        if self.stage is FilterStage.BEFORE_QUEUE and most > proxy.capacity:
            yield fixes.add_arguments(proxy, "--max-sessions", str(most))


def _milters(service: Service) -> str:
    return service.parameter("smtpd_milters")
