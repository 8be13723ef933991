"""Problems with words that a Postfix program refuses: arguments, list items and network patterns.

Rule: each check is a pure function. If a Postfix program refuses one of these words, the program
does not run.
"""

from __future__ import annotations

import difflib
import ipaddress
import itertools
import re
import shlex
from collections.abc import Iterator, Sequence
from functools import partial

from . import fixes, values
from .findings import Fault
from .fixes import Edit
from .postconf import Configuration, Service
from .postfix_rules import is_for_own_clients
from .routes import (
    FilterStage,
    Proxy,
    Route,
    has_unknown_wrapper,
    is_proxy,
    spawned_command,
    upstream,
)
from .setup import Setup, distinct
from .tables import can_permit

#: The items that Postfix accepts in list parameters.
_ITEMS = {
    "smtpd_proxy_options": ("speed_adjust",),
    "receive_override_options": (
        *("no_address_mappings", "no_header_body_checks", "no_milters"),
        "no_unknown_recipient_checks",
    ),
}
#: Parameters that contain network patterns.
_NETWORKS = (
    "mynetworks",
    "smtpd_authorized_xforward_hosts",
    "smtpd_client_event_limit_exceptions",
)
#: The restrictions of which smtpd(8) requires at least one.
_REQUIRED = (
    *("reject", "reject_unauth_destination", "defer", "defer_if_permit"),
    *("defer_unauth_destination", "check_relay_domains"),
)
#: The names of parameters whose items can be separated by commas instead of blanks.
_LIST_NAMES = re.compile(r"_restrictions$|_override_options$|_milters$|^mynetworks$|_hosts$")
#: The minimum similarity of two words at which one is probably a misspelling of the other.
_SIMILAR = 0.85
#: The maximum size, in addresses, of a public network that a remedy may contain.
_STRANGERS = 256
#: Words that were probably meant to be -o, for example with another kind of dash.
_NOT_OPTION = re.compile(
    r"-[0O\u043e]|[\u2010-\u2015\u2212\ufe58\ufe63\uff0d_~+*\u2022]+-?[oO]|--o|o|-"
)
_MISSPELT_USER = re.compile(r"(?i:user)[=:;]['\"]?([\w.-]+(:[\w.-]+)?)[,;'\"]*")
#: The default of cleanup_service_name.
_CLEANUP = "cleanup"
_FILTERS = ("smtpd_proxy_filter", "content_filter")
_ASSIGNMENT = re.compile(
    r"([a-z][a-z0-9]*(_[a-z0-9]+)+|my(networks|hostname|domain|destination|origin)|relayhost|stress)="
)
_PARAMETER = re.compile(r"[A-Za-z_]\w*\s*=", re.ASCII)
#: The Postfix programs whose arguments are checked.
_PROGRAMS = (
    *("smtpd", "smtp", "lmtp", "qmqpd", "pickup", "cleanup", "qmgr", "local", "virtual", "bounce"),
    *("error", "discard", "trivial-rewrite", "proxymap", "tlsproxy", "dnsblog"),
    *("verify", "flush", "showq", "anvil", "scache", "tlsmgr"),
)


def items(configuration: Configuration) -> Iterator[Fault]:
    """Report items that smtpd(8) does not accept."""
    for service, name, value in _values(configuration, tuple(_ITEMS)):
        given = [item for item in re.split(r"[,\s]+", value) if item]
        wrong = [item for item in given if item.lower() not in _ITEMS[name]]
        if wrong:
            edit = _corrected(configuration, service, name, wrong)
            yield _refused(service, f"{name} = {value!r}: unknown item {wrong[0]!r}", edit)


def _corrected(
    configuration: Configuration, service: Service | None, name: str, wrong: Sequence[str]
) -> Edit:
    """Replace each unknown item with the most similar known item, or remove it."""

    def change(old: str) -> str:
        given = [item for item in re.split(r"[,\s]+", old) if item]
        new = [_nearest(item, _ITEMS[name]) if item in wrong else item for item in given]
        return ",".join(dict.fromkeys(filter(None, new)))

    if service is None:
        return fixes.change_main(name, change)
    return fixes.change_own(service, name, change)


def _nearest(item: str, known: Sequence[str]) -> str:
    """Return the known item that `item` probably abbreviates or misspells, or ""."""

    def letters(text: str) -> str:
        return re.sub("[^a-z]", "", text.lower())

    own = letters(item)
    similar = [each for each in known if own and letters(each).startswith(own)]
    similar += [each for each in known if own.startswith(letters(each))]
    similar += difflib.get_close_matches(item.lower(), known, cutoff=_SIMILAR)
    return similar[0] if similar else ""


def missing_cleanup(setup: Setup) -> Iterator[Fault]:
    """Report services that pass mail to a cleanup(8) service that is missing from master.cf."""
    name = "cleanup_service_name"
    known = {each.name for each in setup.configuration.services if each.type in ("unix", "fifo")}
    behind = [service for each in setup.proxies if (service := setup.reinjection_service(each))]
    for service in distinct([*behind, *(route.source for route in _after_queue(setup))]):
        value = service.parameter(name)
        if value and value not in known and _CLEANUP in known:
            yield Fault(
                "value",
                f"master.cf, {service.label}",
                f"{name} = {value}, but master.cf has no service {value}; all mail that this "
                "service receives is deferred",
                (fixes.set_own(service, name, _CLEANUP),),
            )


def _after_queue(setup: Setup) -> Iterator[Route]:
    for proxy in setup.proxies:
        for route in setup.routes_to(proxy):
            if route.stage is FilterStage.AFTER_QUEUE:
                yield route


def disabled(setup: Setup) -> Iterator[Fault]:
    """Report services that are required for filtering but listed in master_service_disable."""
    name = "master_service_disable"
    listed = [item for item in re.split(r"[,\s]+", setup.configuration.parameter(name)) if item]
    needed = [service for each in setup.proxies if (service := upstream(setup.configuration, each))]
    needed += [each.service for each in setup.proxies if each.service and setup.routes_to(each)]
    closed = _closed_fronts(setup, listed, needed)
    for service in distinct([*closed, *needed]):
        item = _disabling_item(listed, service)
        if not item:
            continue
        is_front = service in closed
        effect = "no mail arrives from outside" if is_front else "all filtered mail is deferred"
        change = partial(_without if closed else _enabled, service=service)
        yield Fault(
            "no-upstream",
            "main.cf",
            f"{name} contains {item}, so Postfix does not listen on {service.label}; {effect}",
            (fixes.change_main(name, change),),
        )


def _closed_fronts(setup: Setup, listed: Sequence[str], needed: Sequence[Service]) -> list[Service]:
    """Return the services for mail from outside that were probably disabled by mistake.

    Disabling them can be intended, because a server can filter only its own mail, or receive mail
    through a submission service instead of port 25.
    """
    fronts = [
        each
        for each in setup.configuration.services
        if each.type == "inet" and (each.program == "postscreen" or setup.is_public(each))
    ]
    closed = [each for each in fronts if _disabling_item(listed, each)]
    if not closed or len(closed) < len(fronts):
        return []
    types = [each.type for each in needed]
    is_all_closed = any(_disabling_item(listed, each) in types for each in needed)
    sources = [route.source for each in setup.proxies for route in setup.routes_to(each)]
    is_unused = bool(sources) and all(each.program == "smtpd" for each in sources)
    is_unused = is_unused and all(each in fronts or each.type == "pass" for each in sources)
    return closed if is_all_closed or is_unused else []


def _disabling_item(listed: Sequence[str], service: Service) -> str:
    """Return the item of master_service_disable that disables a service, or ""."""
    item = next((each for each in listed if _names_service(each.lstrip("!"), service)), "!")
    return "" if item.startswith("!") else item  # the first item that matches decides


def _without(old: str, service: Service) -> str:
    """Remove all items that disable a service. If only exceptions remain, remove them too."""
    kept = [each for each in re.split(r"[,\s]+", old) if each and not _names_service(each, service)]
    return ",".join(kept if any(not each.startswith("!") for each in kept) else ())


def _names_service(item: str, service: Service) -> bool:
    """Return whether an item of master_service_disable, such as inet or smtp/inet, matches."""
    names = (service.type, service.label, f"{service.name}.{service.type}")
    return item.lower() in [each.lower() for each in names]


def _enabled(old: str, service: Service) -> str:
    """Remove the items of master_service_disable that name this service.

    If the service's type is disabled, add `!SERVICE`.
    """
    listed = [item for item in re.split(r"[,\s]+", old) if item]
    kept = [each for each in listed if each == service.type or not _names_service(each, service)]
    exception = [f"!{service.label}"] if service.type in kept else []
    return ",".join([*exception, *kept])


def networks(configuration: Configuration) -> Iterator[Fault]:
    """Report network patterns that Postfix does not accept."""
    for service, name, value in _values(configuration, _NETWORKS):
        for item in filter(None, re.split(r"[,\s]+", value)):
            text = item.lstrip("!")
            problem = _network_problem(text)
            if problem:
                new = _network(text)
                new = f"!{new}" if new and item.startswith("!") else new

                def change(old: str, item: str = item, new: str = new) -> str:
                    kept = [new if each == item else each for each in re.split(r"[,\s]+", old)]
                    return ",".join(filter(None, kept))

                edit = (
                    fixes.change_own(service, name, change)
                    if service
                    else fixes.change_main(name, change)
                )
                yield _refused(service, f"{name} contains {item!r}: {problem}", edit)


def open_instances(setup: Setup) -> Iterator[Fault]:
    """Report another Postfix instance that receives mail without a filter."""
    name = "smtpd_proxy_filter"
    address = setup.configuration.main.get(name, "")
    for directory, label in setup.configuration.open_instances:
        own = f"postconf -c {shlex.quote(directory)}"
        command = f"postprox-check --config {shlex.quote(directory)}"
        if address and setup.proxies:
            reload = f"postfix -c {shlex.quote(directory)} reload"
            command = f"{own} -e {shlex.quote(f'{name}={address}')}; {reload}"
        yield Fault(
            "no-way",
            f"{directory}/master.cf, {label}",
            "this Postfix instance has no filter; its mail passes unfiltered (if this is intended, "
            f"set an empty {name} for this service)",
            (fixes.run(command),),
        )


def xclient_clients(configuration: Configuration) -> Iterator[Fault]:
    """Report clients that may claim any client address with XCLIENT, if all clients may."""
    name = "smtpd_authorized_xclient_hosts"
    for service in (None, *configuration.services):
        value = service.own.get(name, "") if service else configuration.main.get(name, "")
        items = re.split(r"[,\s]+", value)
        if any(re.fullmatch(r"0\.0\.0\.0/[0-8]|\[?::\]?/[0-9]|static:\S+", item) for item in items):
            yield Fault(
                "open-relay",
                f"master.cf, {service.label}" if service else "main.cf",
                f"{name} = {value}: any client can pretend to be a trusted client (XCLIENT), so "
                "any machine can send mail to any address",
                (fixes.set_own(service, name, "") if service else fixes.set_main(name, ""),),
            )


def any_client(setup: Setup) -> Iterator[Fault]:
    """Report a mynetworks that contains all addresses."""
    configuration = setup.configuration
    value = configuration.main.get("mynetworks", "")
    items = [each for each in re.split(r"[,\s]+", value) if each]
    wide = [
        each for each in items if re.fullmatch(r"0\.0\.0\.0/[0-7]|\[?::\]?/[0-7]|static:\S+", each)
    ]
    if wide and any(map(setup.is_public, configuration.services)):
        kept = [each for each in items if each not in wide] or ["127.0.0.0/8", "[::1]/128"]
        yield Fault(
            "open-relay",
            "main.cf",
            f"mynetworks contains {' '.join(wide)}, so any machine can send mail to any address",
            (fixes.set_main("mynetworks", " ".join(kept)),),
        )


#: The ports whose clients begin with a TLS handshake (RFC 8314), and those of other mail servers.
_TLS_PORTS = (465,)
_SERVER_PORTS = (25,)


def silent_ports(setup: Setup) -> Iterator[Fault]:
    """Report a wrapper mode in main.cf with which services for plain SMTP send no greeting.

    Without a service for TLS, the mode may be intended for services on other ports than 25.
    """
    name = "smtpd_tls_wrappermode"
    if setup.configuration.parameter(name) != "yes":
        return
    services = [each for each in setup.configuration.services if setup.is_public(each)]
    places = {each: setup.endpoint_of(each) for each in services if name not in each.own}
    ports = {each: place.port for each, place in places.items() if place}
    plain = [each for each, port in ports.items() if port not in _TLS_PORTS]
    wrapped = [each for each, port in ports.items() if port in _TLS_PORTS]
    has_own_mode = any(each.own.get(name) == "yes" for each in services)
    is_for_servers = any(ports[each] in _SERVER_PORTS for each in plain)
    if plain and (wrapped or has_own_mode or is_for_servers):
        labels = ", ".join(each.label for each in plain)
        yield Fault(
            "starttls",
            "main.cf",
            f"{name} = yes also applies to {labels}, which then waits for a TLS handshake instead "
            "of sending a greeting; no mail is received there",
            (
                fixes.set_main(name, "no"),
                *(fixes.set_own(each, name, "yes") for each in wrapped),
            ),
        )


#: The parameters that require STARTTLS, each with the value that requires it and the right value.
_STARTTLS = (("smtpd_tls_security_level", "encrypt", "may"), ("smtpd_enforce_tls", "yes", "no"))


def required_starttls(setup: Setup) -> Iterator[Fault]:
    """Report a public service that accepts mail from other servers only with STARTTLS.

    RFC 3207, section 4, forbids this for a server that MX records name.
    """
    services = [each for each in setup.configuration.services if setup.is_public(each)]
    for name, value, new in _STARTTLS:
        wrong = [
            each
            for each in services
            if each.parameter(name) == value
            and not is_for_own_clients(each)
            and each.parameter("smtpd_tls_wrappermode") != "yes"
            and (place := setup.endpoint_of(each))
            and place.port in _SERVER_PORTS
        ]
        inherits = [each for each in services if name not in each.own and each not in wrong]
        if wrong:
            own = [each for each in wrong if name in each.own]
            edits = [fixes.set_own(each, name, new) for each in own]
            if len(own) < len(wrong):
                edits.append(fixes.set_main(name, new))
                edits += [fixes.set_own(each, name, value) for each in inherits]
            yield Fault(
                "starttls",
                ", ".join(f"master.cf, {each.label}" for each in wrong),
                f"{name} = {value} refuses mail from servers that do not use STARTTLS (530), "
                "although RFC 3207 forbids this for a public server",
                tuple(edits),
            )


#: Restrictions that depend only on data that any client can choose.
_CHOSEN = re.compile(r"check_(sender|helo)\w*_access")


def forged_senders(setup: Setup) -> Iterator[Fault]:
    """Report restrictions that permit mail to any address because of its sender or HELO name."""
    for service in (each for each in setup.configuration.services if setup.is_public(each)):
        name = "smtpd_relay_restrictions"
        name = name if service.tokens(name) else "smtpd_recipient_restrictions"
        items = service.tokens(name)
        end = next((n for n, item in enumerate(items) if "unauth_destination" in item), len(items))
        wrong = [
            number
            for number, (item, table) in enumerate(itertools.pairwise(items[:end]))
            if _CHOSEN.fullmatch(item) and can_permit(setup.tables, table)
        ]
        if wrong:
            kept = [each for n, each in enumerate(items) if {n, n - 1}.isdisjoint(wrong)]
            value = ", ".join(kept)
            yield Fault(
                "open-relay",
                f"master.cf, {service.label}",
                f"{items[wrong[0]]} {items[wrong[0] + 1]} in {name} permits mail to any address, "
                "but any client can choose its sender and HELO name",
                (
                    fixes.set_own(service, name, value)
                    if name in service.own
                    else fixes.set_main(name, value),
                ),
            )


#: The parameters with which local(8) can deliver mail for users who are not in the passwd database.
_OTHER_USERS = ("luser_relay", "mailbox_transport", "fallback_transport", "mailbox_transport_maps")


def unknown_recipients(setup: Setup) -> Iterator[Fault]:
    """Report a main.cf that accepts mail for unknown recipients on port 25."""
    overrides, item = "receive_override_options", "no_unknown_recipient_checks"
    main = setup.configuration.main
    items = re.split(r"[,\s]+", main.get(overrides, "").strip())
    found: list[tuple[str, str, Edit]] = []
    if item in items:
        kept = ",".join(each for each in items if each != item)
        reason = f"{overrides} in main.cf contains {item}"
        found.append((overrides, reason, fixes.set_main(overrides, kept)))
    name = "local_recipient_maps"
    is_default = main.get("local_transport", "").strip() in ("", "local:$myhostname", "local")
    if not main.get(name, "x").strip() and is_default and not any(map(main.get, _OTHER_USERS)):
        edit = fixes.run(f"{setup.configuration.postconf} -X {name}")
        found.append((name, f"{name} in main.cf is empty", edit))
    name = "smtpd_reject_unlisted_recipient"
    if main.get(name, "").strip() == "no":
        found.append((name, f"main.cf sets {name} = no", fixes.set_main(name, "yes")))
    public = [each for each in setup.configuration.services if setup.is_public(each)]
    for name, reason, edit in found:
        if service := next((each for each in public if name not in each.own), None):
            yield Fault(
                "inherited-risk",
                f"master.cf, {service.label}",
                f"{reason}, so mail for unknown recipients is accepted, and Postfix later sends "
                "bounces to forged senders",
                (edit,),
            )


def required_restrictions(setup: Setup) -> Iterator[Fault]:
    """Report a service without any of the restrictions that smtpd(8) requires.

    Otherwise, the service could be an open relay, so smtpd(8) does not run (postconf(5),
    smtpd_relay_restrictions).
    """
    names = ("smtpd_relay_restrictions", "smtpd_recipient_restrictions")
    for service in setup.configuration.services:
        classes = service.tokens("smtpd_restriction_classes")
        given = [item.lower() for name in names for item in service.tokens(name)]
        is_relay_set = names[0] in service.own or names[0] in service.main
        is_unknown = any("$" in item or item in classes for item in given)
        if service.program != "smtpd" or not is_relay_set or is_unknown:
            continue
        if not {*given} & {*_REQUIRED}:
            is_public = setup.is_public(service)
            new = "reject_unauth_destination" if is_public else "reject"
            own = service if names[0] in service.own or not is_public else None
            is_behind = not is_public and _is_behind(setup, service)

            def change(old: str, new: str = new, is_behind: bool = is_behind) -> str:
                kept = [item for item in re.split(r"[,\s]+", old) if item]
                if is_behind and not {*kept} & {"permit", "permit_mynetworks"}:
                    kept.append("permit_mynetworks")
                return ",".join(dict.fromkeys([*kept, new]))

            # A `reject` in main.cf would also refuse all mail from outside.
            edit = (
                fixes.change_own(own, names[0], change)
                if own
                else fixes.change_main(names[0], change)
            )
            problem = f"{' and '.join(names)} of {service.label} contain none of the restrictions "
            yield _refused(own, f"{problem}that smtpd(8) requires, such as {new}", edit)


def _is_behind(setup: Setup, service: Service) -> bool:
    """Return whether a service accepts filtered mail."""
    behind = [setup.reinjection_service(proxy) for proxy in setup.proxies]
    return service in behind or setup.is_for_filtered(service)


def _network_problem(text: str) -> str:
    found = re.fullmatch(r"\[?([0-9a-fA-F:.]+)\]?/([0-9]+)", text)
    if not found or not re.search("[.:]", found[1]):
        return ""
    try:
        ipaddress.ip_network(f"{found[1]}/{found[2]}")
    except ValueError as error:
        if "host bits" in str(error):
            return "the address has nonzero host bits"
        return "it is not a network"
    return ""


def _network(text: str) -> str:
    """Return the network that was probably intended, or "" if it is unknown.

    If a public network has more than `_STRANGERS` addresses, return only the address in `text`.
    """
    try:
        network = ipaddress.ip_network(re.sub(r"[][]", "", text), strict=False)
    except ValueError:
        return "127.0.0.0/8" if text.startswith("127.") else ""
    if not network.is_private and network.num_addresses > _STRANGERS:
        network = ipaddress.ip_network(re.sub(r"[][]|/.*", "", text))
    address = network.network_address
    return f"[{address}]/{network.prefixlen}" if network.version == 6 else str(network)


def _values(
    configuration: Configuration, names: Sequence[str]
) -> Iterator[tuple[Service | None, str, str]]:
    """Yield each value of the parameters in main.cf and in the smtpd(8) services."""
    for name in names:
        if name in configuration.main:
            yield None, name, configuration.main[name]
        for service in configuration.services:
            if service.program == "smtpd" and name in service.own:
                yield service, name, service.own[name]


def _refused(service: Service | None, problem: str, edit: Edit) -> Fault:
    where = f"master.cf, {service.label}" if service else "main.cf"
    return Fault("value", where, f"{problem}; smtpd(8) refuses mail (451 or 421)", (edit,))


def misread(configuration: Configuration) -> Iterator[Fault]:
    """Report entries in master.cf that postconf(1) and Postfix cannot read as intended."""
    yield from arguments(configuration)
    yield from not_spawned(configuration)


def arguments(configuration: Configuration) -> Iterator[Fault]:
    """Report arguments that prevent a service from starting, such as the words of a comment."""
    for service in configuration.services:
        if service.program in _PROGRAMS:
            kept, wrong = _sorted(service.words)
        elif service.program == "spawn":
            kept, wrong = _sorted_spawn(service.words)
        else:
            continue
        if wrong:
            edits: tuple[Edit, ...] = (fixes.set_words(service, _with_filter(service, kept)),)
            problem = f"{service.program}(8) does not accept {wrong!r}, so the service does not run"
            if lost := _lost_filter(service):
                problem += f"; the value of {lost} is missing in this entry"
                edits = ()
            yield Fault("arguments", f"master.cf, {service.label}", problem, edits)


def _empty_filters(service: Service) -> list[str]:
    """Return the filter parameters that follow `-o` without an equals sign and a value."""
    pairs = itertools.pairwise(service.words)
    return [word for option, word in pairs if option == "-o" and word in _FILTERS]


def _lost_filter(service: Service) -> str:
    """Return a filter parameter that lacks its value, if mail could then pass unfiltered."""
    if "smtpd_authorized_xforward_hosts" in service.own:
        return ""
    kept = _sorted(service.words)[0]
    for name in _empty_filters(service):
        is_given = any(word.startswith(f"{name}=") for word in kept)
        if not is_given and not service.main.get(name):
            return name
    return ""


def _with_filter(service: Service, kept: Sequence[str]) -> list[str]:
    """Empty each filter parameter that a service for filtered mail sets without a value."""
    if "smtpd_authorized_xforward_hosts" not in service.own:
        return list(kept)
    off = [n for n in _empty_filters(service) if not any(w.startswith(f"{n}=") for w in kept)]
    return [*kept, *(word for name in off for word in ("-o", f"{name}="))]


def _sorted(words: Sequence[str]) -> tuple[list[str], str]:
    """Return the accepted words and the first error.

    Misspelt `-o` parameters are corrected to `-o name=value`, but count as an error.
    """
    kept, wrong = [words[0]], ""
    left = list(words[1:])
    is_comment = False
    while left:
        word = left.pop(0)
        if word == "-" and left[:1] == ["o"]:
            word, wrong = "-o", wrong or "- o"
            left.pop(0)
        elif _NOT_OPTION.fullmatch(word) and left and _PARAMETER.match(left[0]):
            word, wrong = "-o", wrong or word
        is_comment = word.startswith("#") or (is_comment and not word.startswith("-"))
        if word == "-o" and left:
            wrong = _add_parameter(kept, left) or wrong
        elif word.startswith("-") and word != "-":
            kept.append(word)
        else:
            wrong = wrong or word
            if not is_comment:
                _add_word(kept, word)
    return kept, wrong


def _add_parameter(kept: list[str], left: list[str]) -> str:
    """Move the `name=value` after `-o` from `left` to `kept`. Return the error, or ""."""
    given = left.pop(0)
    name, used = _assignment([given, *left])
    wrong = "" if name == given and "=" in name else " ".join(["-o", given, *left[:used]])
    del left[:used]
    if name.endswith("=-o"):  # the blank before -o is missing
        name, wrong = name.removesuffix("-o"), f"-o {given}"
        left.insert(0, "-o")
    if "=" in name:
        kept += ["-o", name]
    return wrong


def _add_word(kept: list[str], word: str) -> None:
    """Add a word to `kept` if it is probably a value, or a parameter without `-o`."""
    if kept[-2:-1] == ["-o"] and kept[-1].endswith("="):
        kept[-1] += word
    elif _ASSIGNMENT.match(word):
        kept += ["-o", word]
    elif _is_continued(kept, word):
        kept[-1] = f"{kept[-1].rstrip(',')},{word.lstrip(',')}"


def _assignment(words: Sequence[str]) -> tuple[str, int]:
    """Return the first `name=value` of the words, and the number of its words after the first.

    The result has no equals sign if the value is unknown.
    """
    name, *others = words
    if "=" in name:
        return name, 0
    values = list(itertools.takewhile(lambda word: not word.startswith(("-", "#")), others[:2]))
    if values and values[0].startswith("="):
        value = values[0] + (values[1] if values[0] == "=" and len(values) > 1 else "")
        return name + value, 1 + (values[0] == "=" and len(values) > 1)
    start = re.match(r"([a-z0-9_]+)[:;](.+)", name)
    if start:
        return f"{start[1]}={start[2]}", 0
    if values and re.fullmatch(r"[a-z0-9_]+[:;]?", name) and not _ASSIGNMENT.match(values[0]):
        return f"{name.rstrip(':;')}={values[0]}", 1
    return name, 0


def _is_continued(kept: Sequence[str], word: str) -> bool:
    """Return whether a word belongs to the list in the `-o` parameter before it."""
    name, equals, value = kept[-1].partition("=")
    if kept[-2:-1] != ["-o"] or not equals:
        return False
    return bool(value.endswith(",") or word.startswith(",") or _LIST_NAMES.search(name))


def _sorted_spawn(words: Sequence[str]) -> tuple[list[str], str]:
    """Return the words that spawn(8) accepts, and the error of the first word that it rejects."""
    start = next((i for i, word in enumerate(words) if word.startswith("argv=")), None)
    if start is None:
        return list(words), ""
    kept, wrong = [words[0]], ""
    left = list(words[1:start])
    while left:
        word = left.pop(0)
        if _NOT_OPTION.fullmatch(word) and left and _PARAMETER.match(left[0]):
            wrong = wrong or word
            kept += ["-o", left.pop(0)]
        elif word == "-o" and left:
            kept += [word, left.pop(0)]
        elif (found := _MISSPELT_USER.fullmatch(word)) and word != f"user={found[1]}":
            wrong = wrong or word
            kept.append(f"user={found[1]}")
        elif word.startswith(("-", "user=")):
            kept.append(word)
        elif word == "user" and len(left) > 1 and left.pop(0) == "=":
            wrong = wrong or "user ="
            kept.append(f"user={left.pop(0)}")
        else:
            wrong = wrong or word
    return [*kept, *words[start:]], wrong


def not_spawned(configuration: Configuration) -> Iterator[Fault]:
    """Report a service that contains the proxy's command line but does not run it."""
    for service in configuration.services:
        names = [re.sub(r"^(?i:argv)[=:;,]+", "", word) for word in service.words]
        places = [i for i, name in enumerate(names) if name.rpartition("/")[2] == "postprox"]
        command = spawned_command(service.words)[1]
        is_known = is_proxy(command) or has_unknown_wrapper(command)
        is_spawned = service.program == "spawn" and is_known
        if not places or is_spawned:
            continue
        users = [word for word in service.words[: places[0]] if word.startswith("user=")]
        words = [*users[:1], f"argv={names[places[0]]}", *service.words[places[0] + 1 :]]
        missing = "spawn" if service.program != "spawn" else "argv="
        yield Fault(
            "arguments",
            f"master.cf, {service.label}",
            f"the entry has no {missing} for the proxy's command line, so the proxy does not run; "
            "all mail is deferred (451)",
            (fixes.set_words(service, ["spawn", *words]),),
        )


def spawned_server(proxy: Proxy) -> Iterator[Fault]:
    """Report a spawned proxy that starts a server instead of serving its connection."""
    if proxy.service and proxy.options and proxy.options.listen:
        yield Fault(
            "background",
            proxy.where,
            "-l starts a server for each connection, and no connection gets a greeting; all mail "
            "is deferred (451)",
            (fixes.remove_listen(proxy),),
        )


def wrong_transport(setup: Setup, proxy: Proxy) -> Iterator[Fault]:
    """Report a transport that sends mail to the proxy with a program that does not use SMTP."""
    for transport in setup.transports_to(proxy):
        if transport.program not in ("smtp", "lmtp"):
            effect = "is lost" if transport.program == "discard" else "does not reach the filter"
            edit = fixes.set_program(transport, "smtp")
            if transport.program == "pipe":  # smtp(8) does not accept the arguments of pipe(8)
                words = fixes.SCAN.split()
                own = [f"{name}={value}" for name, value in transport.own.items()]
                kept = [each for each in own if f"{each.partition('=')[0]}=" not in fixes.SCAN]
                more = [word for each in kept for word in ("-o", each)]
                edit = fixes.set_words(transport, [*words, *more])
            yield Fault(
                "transport",
                proxy.where,
                f"{transport.label} uses {transport.program}(8) instead of smtp(8); mail {effect}",
                (edit,),
            )
        if transport.private == "n":
            yield Fault(
                "transport",
                proxy.where,
                f"{transport.label} is not private in master.cf, but the queue manager uses only "
                "private transports; mail for this transport stays in the queue",
                (fixes.set_field(transport, "private", "-"),),
            )


#: The shortest lifetime in the queue, in seconds, with which mail outlasts a restart of the filter.
_SHORTEST_LIFETIME = 3600
_LIFETIMES = {
    "maximal_queue_lifetime": "mail that is deferred because the filter or the proxy fails is "
    "bounced at once",
    "bounce_queue_lifetime": "bounces that are deferred because the filter or the proxy fails are "
    "lost at once",
}


def deferred(setup: Setup, proxy: Proxy) -> Iterator[Fault]:
    """Report settings of the queue manager that stop or slow down a transport to the proxy."""
    configuration = setup.configuration
    for name, effect in _LIFETIMES.items():
        lifetime = configuration.parameter(name).strip()
        is_zero = re.fullmatch("0+[smhdw]?", lifetime) is not None
        seconds = values.seconds(lifetime) or _SHORTEST_LIFETIME
        if setup.transports_to(proxy) and (is_zero or (lifetime and seconds < _SHORTEST_LIFETIME)):
            yield Fault(
                "inherited-risk",
                proxy.where,
                f"{name} = {lifetime}: {effect}",
                (fixes.set_main(name, "5d"),),
            )
    stopped = [t for t in re.split(r"[,\s]+", configuration.parameter("defer_transports")) if t]
    for transport in setup.transports_to(proxy):
        if transport.name in stopped:
            others = " ".join(name for name in stopped if name != transport.name)
            yield Fault(
                "inherited",
                proxy.where,
                f"defer_transports contains {transport.name}; all mail stays in the queue",
                (fixes.set_main("defer_transports", others),),
            )
        for kind in ("destination", "transport"):
            for prefix in (transport.name, "default"):
                name = f"{prefix}_{kind}_rate_delay"
                if configuration.parameter(name).strip() not in ("", "0", "0s"):
                    yield Fault(
                        "inherited-risk",
                        proxy.where,
                        f"{name} = {configuration.parameter(name)}: {transport.label} waits after "
                        "each message; mail is delayed",
                        tuple(
                            fixes.set_main(f"{each}_{kind}_rate_delay", "0s")
                            for each in dict.fromkeys((transport.name, "local"))
                        )
                        if prefix == "default"
                        else (fixes.set_main(name, "0s"),),
                    )
                    break
                if name in configuration.main:
                    break
