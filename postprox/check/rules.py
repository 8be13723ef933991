"""Applies all rules to all proxies.

Rule: this module only calls the rules. The conditions are in the modules `*_rules.py` and in
`parameters.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..core.options import Options
from . import (
    delivery_rules,
    filter_rules,
    fixes,
    inherited_rules,
    limit_rules,
    log_rules,
    master_rules,
    milter_rules,
    parameters,
    policy_rules,
    postfix_rules,
    proxy_rules,
    restriction_rules,
    running_rules,
    sample_rules,
    service_rules,
    table_rules,
    unit_rules,
)
from .findings import DANGER, LEVELS, Fault, Finding
from .postconf import Configuration
from .routes import Proxy, has_unknown_wrapper, routes, upstream
from .setup import Setup


def _of(rule: Callable[[Configuration], Iterator[Fault]]) -> Callable[[Setup], Iterator[Fault]]:
    return lambda setup: rule(setup.configuration)


#: The rules that apply first, because the problems that they report can cause all others. Each
#: entry also names the item that must be corrected first.
_FIRST = (
    (_of(master_rules.mistyped), "main.cf and master.cf"),
    (master_rules.orphaned, "the comments in master.cf"),
    (_of(master_rules.indented), "the lines that begin with whitespace"),
    (_of(master_rules.no_break_spaces), "the no-break spaces"),
    (postfix_rules.piped, "the transport that runs the proxy"),
    (_of(service_rules.misread), "the arguments in master.cf"),
    (_of(master_rules.names), "the names of services in master.cf"),
)


def judge(setup: Setup) -> list[Finding]:
    """Return a finding for each problem."""
    units = [proxy.unit for proxy in setup.proxies if proxy.unit]
    for faults_first, _ in _FIRST:
        if faults := list(faults_first(setup)):
            # All other findings could be consequences of these problems.
            return fixes.plan(setup.configuration, faults, units)
    superfluous = dict(master_rules.units_on_one_port(setup))
    faults = [*_configuration_faults(setup), *superfluous.values()]
    for proxy in setup.proxies:
        if proxy in superfluous:
            continue  # other problems may be consequences of this one
        own = list(_proxy_faults(setup, proxy))
        if setup.running and not any(LEVELS[fault.name] == DANGER for fault in (*faults, *own)):
            # A problem of level DANGER can be the reason for a missing greeting.
            own += running_rules.no_greeting(setup, proxy, setup.running)
            own += running_rules.refused_behind(proxy, setup.running)
        own += _sample_faults(setup, proxy)
        faults += own
    if setup.running and not any(LEVELS[fault.name] == DANGER for fault in faults):
        faults += running_rules.refused(setup, setup.running)
    if setup.running and not any(LEVELS[fault.name] == DANGER for fault in faults):
        faults += log_rules.logged(setup)
    return fixes.plan(setup.configuration, faults, units)


def _sample_faults(setup: Setup, proxy: Proxy) -> Iterator[Fault]:
    if proxy.options and (samples := setup.samples.get(proxy)):
        yield from sample_rules.sample_faults(
            proxy, proxy.options, samples, setup.facts[proxy].filter
        )
        yield from sample_rules.refused_fields(setup, proxy, samples)


def _configuration_faults(setup: Setup) -> Iterator[Fault]:
    yield from parameters.numbers(setup.configuration)
    yield from parameters.comments(setup.configuration)
    yield from table_rules.broken(setup.configuration)
    yield from table_rules.unrunnable_filters(setup.configuration)
    yield from table_rules.pipe_loops(setup.configuration)
    yield from table_rules.space(setup.configuration)
    yield from delivery_rules.command(setup.configuration)
    yield from table_rules.checks_for_all(setup)
    yield from table_rules.foreign_interfaces(setup.configuration)
    yield from table_rules.sasl(setup.configuration)
    yield from delivery_rules.mailbox_size(setup.configuration)
    yield from delivery_rules.sockets(setup.configuration)
    yield from delivery_rules.mailboxes(setup.configuration)
    yield from delivery_rules.certificates(setup.configuration)
    yield from restriction_rules.misspelt(setup.configuration)
    yield from table_rules.programs(setup.configuration)
    yield from service_rules.items(setup.configuration)
    yield from service_rules.disabled(setup)
    yield from service_rules.missing_cleanup(setup)
    yield from service_rules.networks(setup.configuration)
    yield from service_rules.required_restrictions(setup)
    yield from service_rules.open_instances(setup)
    yield from service_rules.any_client(setup)
    yield from service_rules.xclient_clients(setup.configuration)
    yield from service_rules.unknown_recipients(setup)
    yield from service_rules.forged_senders(setup)
    yield from service_rules.silent_ports(setup)
    yield from service_rules.required_starttls(setup)
    yield from master_rules.unknown_port(setup)
    yield from master_rules.defined_twice(setup)
    yield from master_rules.port_twice(setup)
    yield from master_rules.shared_port(setup)
    yield from master_rules.private(setup)
    yield from master_rules.missing_transport(setup)
    yield from master_rules.postscreen(setup)
    if setup.running:
        yield from running_rules.postfix_stopped(setup, setup.running)
    yield from postfix_rules.no_proxy(setup)
    yield from postfix_rules.soft_bounce(setup)
    yield from milter_rules.hidden_milters(setup)
    yield from milter_rules.missing(setup)
    yield from policy_rules.missing(setup)
    yield from postfix_rules.malformed(setup)
    yield from postfix_rules.unfiltered(setup)
    yield from postfix_rules.unfiltered_smtp(setup)
    yield from postfix_rules.unfiltered_local_mail(setup)
    for route in setup.lost_routes():
        yield from postfix_rules.wrong_port(setup, route)
    for route in routes(setup.configuration):
        yield from postfix_rules.bypass(setup, route)


def _proxy_faults(setup: Setup, proxy: Proxy) -> Iterator[Fault]:
    yield from _file_faults(setup, proxy)
    if setup.running:
        # The commands correct a service's files before they restart the service.
        yield from running_rules.unit_state(proxy, setup.running)


def _file_faults(setup: Setup, proxy: Proxy) -> Iterator[Fault]:
    yield from master_rules.foreign_port(setup, proxy)
    yield from master_rules.open_relay(setup, proxy)
    yield from proxy_rules.columns(proxy)
    yield from service_rules.spawned_server(proxy)
    yield from unit_rules.exec_start(proxy)
    yield from unit_rules.settings(proxy)
    yield from unit_rules.ignored(proxy)
    yield from unit_rules.comments(proxy)
    yield from unit_rules.socket_settings(proxy)
    yield from unit_rules.socket_owner(setup, proxy)
    yield from unit_rules.families(proxy)
    yield from unit_rules.system_calls(proxy)
    yield from unit_rules.missing_units(proxy)
    yield from unit_rules.stop(proxy)
    yield from limit_rules.stop(proxy)
    yield from limit_rules.restart(proxy)
    yield from limit_rules.memory(proxy)
    yield from limit_rules.file_size(setup, proxy)
    yield from limit_rules.processor(proxy)
    yield from limit_rules.file_mode(proxy)
    if broken_file := list(_options_file_faults(setup, proxy)):
        # Any problem with the options would only be a consequence of this problem.
        yield from broken_file
        return
    if lost_variables := list(unit_rules.unused_variables(proxy)):
        # Until ExecStart= contains the missing variables, the options are unknown.
        yield from lost_variables
        return
    if proxy.options is None:
        if not (proxy.unit and proxy.unit.masked) and not has_unknown_wrapper(proxy.words):
            yield from proxy_rules.command_line(setup, proxy)
        return
    if wrong_values := list(proxy_rules.equals(proxy, proxy.options)):
        # The filter and the directory are unknown.
        yield from wrong_values
        return
    if old_unit := list(unit_rules.hiding(proxy, proxy.options, setup.facts[proxy])):
        # All other problems are in a file that the commands remove.
        yield from old_unit
        return
    yield from _own_faults(setup, proxy, proxy.options)
    if not list(proxy_rules.target(setup, proxy, proxy.options)):
        yield from _postfix_faults(setup, proxy, proxy.options)


def _options_file_faults(setup: Setup, proxy: Proxy) -> list[Fault]:
    faults = list(unit_rules.values_with_comments(proxy))
    # A quote in a comment can cause any of the other problems in the file.
    return faults or list(unit_rules.options_file(setup, proxy))


def _own_faults(setup: Setup, proxy: Proxy, wanted: Options) -> Iterator[Fault]:
    facts = setup.facts[proxy]
    yield from proxy_rules.target(setup, proxy, wanted)
    yield from proxy_rules.braces(proxy, wanted)
    yield from unit_rules.replaced(proxy)
    yield from unit_rules.background(proxy, wanted)
    yield from unit_rules.network(proxy, wanted)
    yield from unit_rules.missing_files(proxy, facts)
    yield from unit_rules.missing_programs(proxy, facts)
    yield from unit_rules.working_directory(proxy, facts)
    yield from unit_rules.executable_paths(proxy, facts)
    yield from limit_rules.tasks(proxy, wanted)
    yield from limit_rules.descriptors(proxy, wanted)
    yield from proxy_rules.user(proxy, facts)
    yield from proxy_rules.group(proxy, facts)
    yield from unit_rules.groups(proxy, facts)
    yield from proxy_rules.program(setup, proxy, facts)
    yield from filter_rules.no_filter(proxy, wanted)
    yield from filter_rules.exit_status(proxy, wanted)
    yield from filter_rules.privileges(proxy, wanted)
    yield from filter_rules.unread(proxy, wanted, facts)
    yield from filter_rules.chained(setup, proxy, wanted, facts)
    yield from filter_rules.sends(setup, proxy, wanted, facts)
    yield from filter_rules.looped(setup, proxy, facts)
    yield from filter_rules.notices(setup, proxy, facts)
    yield from filter_rules.lost_reply(proxy, wanted, facts)
    yield from filter_rules.macros(proxy, wanted)
    yield from filter_rules.quotes(proxy, wanted)
    yield from filter_rules.command_syntax(proxy, wanted, facts)
    yield from filter_rules.filter_command(proxy, wanted, facts)
    yield from filter_rules.written(proxy, facts)
    yield from filter_rules.filter_open(proxy, facts)
    yield from proxy_rules.no_reject(proxy, wanted)
    yield from proxy_rules.no_strict(proxy, wanted)
    yield from proxy_rules.no_upstream(setup, proxy, wanted, facts)
    yield from proxy_rules.unexpanded_spool(proxy, wanted)
    yield from proxy_rules.spool(proxy, wanted, facts)
    yield from proxy_rules.spool_open(proxy, wanted, facts)
    yield from proxy_rules.spool_boot(proxy, wanted, facts)
    yield from proxy_rules.spool_full(setup, proxy, wanted, facts)
    yield from proxy_rules.status_files(proxy, wanted, facts)


def _postfix_faults(setup: Setup, proxy: Proxy, wanted: Options) -> Iterator[Fault]:
    yield from postfix_rules.no_way(setup, proxy)
    yield from postfix_rules.time_limit(setup, proxy, wanted)
    yield from postfix_rules.session_limit(proxy, wanted)
    yield from postfix_rules.own_loop(setup, proxy, wanted)
    yield from postfix_rules.wrong_program(setup, proxy)
    yield from postfix_rules.protocol(setup, proxy)
    yield from postfix_rules.fronts_limit(setup, proxy)
    yield from postfix_rules.lmtp(setup, proxy)
    yield from service_rules.wrong_transport(setup, proxy)
    yield from service_rules.deferred(setup, proxy)
    yield from postfix_rules.transports_limit(setup, proxy)
    at_transports = (postfix_rules.xforward_unsent, postfix_rules.starttls_before)
    for rule in (*at_transports, inherited_rules.at_transport):
        yield from postfix_rules.apart(setup, proxy, rule(setup, proxy))
    yield from postfix_rules.unsigned(setup, proxy, wanted)
    if behind := setup.reinjection_service(proxy):
        yield from postfix_rules.loop(setup, proxy, behind)
        yield from postfix_rules.outgoing_loop(setup, proxy)
        if postfix_rules.is_wrong_service(setup, proxy, behind):
            return  # any other problem would be a consequence
        yield from postfix_rules.return_loop(setup, proxy, behind)
        yield from postfix_rules.open_service(setup, proxy, behind)
        yield from postfix_rules.behind_limit(setup, proxy, behind)
        yield from postfix_rules.milters(setup, proxy, behind)
        yield from postfix_rules.disabled_milters(proxy, behind)
        yield from milter_rules.repeated_milters(setup, proxy, behind)
        yield from milter_rules.no_milter(setup, proxy, behind)
        yield from postfix_rules.mappings(setup, proxy, behind)
        yield from postfix_rules.replaced_filter(setup, proxy, behind)
        yield from postfix_rules.unused_filter(setup, proxy, behind)
        yield from postfix_rules.disabled_checks(setup, proxy, behind)
        yield from postfix_rules.xforward_refused(setup, proxy, wanted, behind)
        yield from postfix_rules.starttls_behind(setup, proxy, behind)
        yield from inherited_rules.at_smtpd(setup, proxy, wanted, behind)
        yield from inherited_rules.limits(setup, proxy, wanted, behind)


def unchecked(setup: Setup) -> Iterator[str]:
    """List the items that could not be checked."""
    for faults_first, correction in _FIRST:
        if list(faults_first(setup)):
            yield f"the rest of the configuration (first correct {correction})"
            return
    if services := postfix_rules.overridden(setup):
        yield (
            f"whether mail from outside may pass unfiltered ({', '.join(services)} in master.cf "
            "overrides the filter in main.cf with an empty value)"
        )
    places = [
        route.endpoint
        for route in routes(setup.configuration)
        if setup.proxy_at(route) is None and not list(postfix_rules.bypass(setup, route))
    ]
    lost = {r.endpoint for r in setup.lost_routes() if list(postfix_rules.wrong_port(setup, r))}
    for place in dict.fromkeys(place for place in places if place not in lost):
        yield f"the server that listens on {place} (specify --unit FILE or -- COMMAND LINE)"
    for proxy in setup.proxies:
        yield from (f"{proxy.where}: {text}" for text in _unchecked(setup, proxy))
    if setup.running and setup.running.postfix is None:
        yield "whether Postfix is running (run postprox-check as root)"
    if setup.running and setup.running.units_unknown:
        yield f"the state of the systemd units ({setup.running.units_unknown})"


def _unchecked(setup: Setup, proxy: Proxy) -> Iterator[str]:
    wanted, first = proxy.options, ""
    if proxy.unit and _options_file_faults(setup, proxy):
        first = proxy.unit.comments[0][0] if proxy.unit.comments else proxy.unit.options_file
    elif list(unit_rules.unused_variables(proxy)):
        first = "ExecStart"
    elif wanted is not None and list(proxy_rules.equals(proxy, wanted)):
        first = "the command line"
    if first:
        yield f"all other options (first correct {first})"
    elif wanted is not None:
        yield from _unchecked_options(setup, proxy, wanted)
    elif has_unknown_wrapper(proxy.words):
        yield f"the proxy's command line, because {proxy.words[0]} runs it"


def _unchecked_options(setup: Setup, proxy: Proxy, wanted: Options) -> Iterator[str]:
    facts = setup.facts[proxy]
    if not proxy.endpoints:
        yield "the address on which the proxy listens"
    for endpoint in proxy.endpoints:
        if not endpoint.is_here() and not endpoint.is_open():
            yield f"whether a firewall allows only Postfix to connect to {endpoint}"
    names = setup.possible_routes(proxy)
    if names and not setup.routes_to(proxy):
        yield f"whether mail is routed to {proxy.endpoint} by {', '.join(names)}"
    is_known = facts.upstream_missing or facts.is_upstream_unknown
    is_known |= bool(setup.proxy_behind(proxy) or list(proxy_rules.target(setup, proxy, wanted)))
    if upstream(setup.configuration, proxy) is None and not is_known:
        yield f"the upstream server at {wanted.target.text}"
    if (samples := setup.samples.get(proxy)) and samples.unchecked:
        yield f"the filter's result for test messages ({samples.unchecked})"
    if facts.filter_unchecked:
        yield facts.filter_unchecked
    if facts.has_unknown_permissions() and facts.user_exists:
        yield facts.unknown_permissions
