"""Problems with the running system: units, sockets and the proxy's greeting.

Rule: each check is a pure function. The input of each function is `Setup.running`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from . import fixes, loading, sandbox
from .facts import LoggedError, RunningFacts, Session, UnitState
from .findings import Fault
from .routes import Proxy, routes, without_wrappers
from .setup import Setup, distinct
from .unit import SocketUnit, Unit

#: The exit statuses with which systemd reports that it could not start the proxy (systemd.exec(5)).
_STEPS = {
    200: "it cannot enter its working directory",
    203: "it cannot execute the program in ExecStart",
    216: "its group does not exist",
    217: "its user does not exist",
    226: "its namespace cannot be set up; a path in ReadWritePaths= or BindPaths= may be missing",
    233: "its directory in /run cannot be created",
    238: "its directory in /var/lib cannot be created",
}


def postfix_stopped(setup: Setup, seen: RunningFacts) -> Iterator[Fault]:
    """Report that Postfix is not running.

    A configuration outside the default directory is not reported, because it may not be in use.
    """
    if seen.postfix is False and not setup.configuration.directory:
        ended = [error for error in seen.log.errors if error.kind == LoggedError.STOPPED]
        reason = f". The log says: {ended[-1].text}" if ended else ""
        yield Fault(
            "postfix-stopped",
            "master(8)",
            f"Postfix is not running with this configuration; no mail is received{reason}",
            (fixes.run(loading.start(setup.configuration, seen)),),
        )


def unit_state(proxy: Proxy, seen: RunningFacts) -> Iterator[Fault]:
    """Report units that are masked, failing, stopped, disabled or out of date."""
    unit = proxy.unit
    if unit is None or not unit.installed:
        return
    services = [seen.units[name] for name in unit.instances if name in seen.units]
    names = unit.socket.instances if unit.socket else ()
    sockets = [seen.units[name] for name in names if name in seen.units]
    yield from _masked(unit, services, sockets)
    if not services:
        return
    found = [*_failing(unit, services), *_failing_sockets(sockets)]
    if not found and not _is_masked(unit, [*services, *sockets]):
        found = [*_stopped(unit, services, sockets)]
    yield from found
    yield from _removed_spool(proxy, services)
    yield from _not_enabled(unit, services, sockets)
    if not found:
        yield from _out_of_date(proxy, unit, services, sockets)
        yield from _new_groups(services)


def _is_masked(unit: Unit, states: list[UnitState]) -> bool:
    files = [unit.masked, bool(unit.socket and unit.socket.masked)]
    return any(files) or any(state.load == "masked" for state in states)


def _masked(unit: Unit, services: list[UnitState], sockets: list[UnitState]) -> Iterator[Fault]:
    if not _is_masked(unit, [*services, *sockets]):
        return
    names = [state.name for state in (*sockets, *services) if state.load == "masked"]
    if not names:
        own = unit.instances if unit.masked else ()
        names = [*own, *(unit.socket.instances if unit.socket and unit.socket.masked else ())]
    yield Fault(
        "masked",
        unit.name,
        f"systemd does not start masked units ({' and '.join(names)}); all mail is deferred (451)",
        (fixes.run(f"systemctl unmask {' '.join(names)}"), fixes.run(_start(unit))),
    )


def _start(unit: Unit) -> str:
    """Return the command that starts a unit, now and at boot."""
    names = unit.socket.instances if unit.socket else unit.instances
    return f"systemctl enable --now {' '.join(names)}"


def _failing(unit: Unit, services: list[UnitState]) -> Iterator[Fault]:
    for state in services:
        reason = _STEPS.get(state.status, f"exit status {state.status}")
        if state.load in ("bad-setting", "error"):
            reason = "systemd does not accept a setting in its unit files"
        elif not state.is_failing():
            continue
        elif state.result not in ("exit-code", "success"):
            reason = f"result {state.result}"
        yield Fault(
            "failing",
            state.name,
            f"the service has failed ({reason}); mail is delayed or deferred (451)",
            (
                fixes.run(f"systemctl daemon-reload; systemctl restart {state.name}"),
                fixes.run(f"systemctl status --no-pager {state.name}"),
            ),
        )


def _failing_sockets(sockets: list[UnitState]) -> Iterator[Fault]:
    for state in sockets:
        if state.is_failing() or state.load in ("bad-setting", "error"):
            yield Fault(
                "failing",
                state.name,
                f"the socket has failed (result {state.result}), for example because another "
                "program is using its address; all mail is deferred (451)",
                (
                    fixes.run(f"systemctl restart {state.name}"),
                    fixes.run(f"systemctl status --no-pager {state.name}; ss -ltnp"),
                ),
            )


def _stopped(unit: Unit, services: list[UnitState], sockets: list[UnitState]) -> Iterator[Fault]:
    states = sockets or services
    for state in states:
        service = state.name.replace(".socket", ".service")
        running = [each for each in services if each.name == service and each.active == "active"]
        if state.active != "active" and not running:
            yield Fault(
                "not-running",
                unit.name,
                f"{state.name} is not running; all mail is deferred (451)",
                (fixes.run(_start(unit)),),
            )
            return


def _not_enabled(
    unit: Unit, services: list[UnitState], sockets: list[UnitState]
) -> Iterator[Fault]:
    if unit.enabled or any(
        state.file not in ("disabled", "", "masked") for state in (*services, *sockets)
    ):
        return
    if not _is_masked(unit, [*services, *sockets]):
        yield Fault(
            "not-enabled",
            unit.name,
            "neither the service nor its socket starts at boot; after a reboot, all mail is "
            "deferred (451)",
            (fixes.run(_start(unit)),),
        )


def _new_groups(services: list[UnitState]) -> Iterator[Fault]:
    """Report a service that runs without a group of its user."""
    for state in services:
        if state.missing_groups:
            yield Fault(
                "not-reloaded",
                state.name,
                "the service was started before its user became a member of "
                f"{' and '.join(state.missing_groups)}, so it runs without the permissions of this "
                "group",
                (fixes.run(f"systemctl restart {state.name}"),),
            )


def _removed_spool(proxy: Proxy, services: list[UnitState]) -> Iterator[Fault]:
    """Report a service whose private directory for messages was removed while it was running."""
    directory = proxy.options.directory if proxy.options else ""
    for state in services:
        if any(sandbox.is_below(directory, (mount,)) for mount in state.removed):
            yield Fault(
                "spool",
                state.name,
                f"the directory that the service sees as {directory} has been removed, so the "
                "proxy cannot store messages; all mail is deferred (452)",
                (fixes.run(f"systemctl restart {state.name}"),),
            )


def _out_of_date(
    proxy: Proxy, unit: Unit, services: list[UnitState], sockets: list[UnitState]
) -> Iterator[Fault]:
    """Report a service whose command line differs from its unit's command line."""
    for state in services:
        is_other = bool(state.words) and not _runs(state.words, without_wrappers(proxy.words))
        if _needs_reload(unit, state) or is_other:
            yield Fault(
                "not-reloaded",
                state.name,
                "the service is running with an earlier version of its unit or of its options"
                + (f": {' '.join(state.words)}" if is_other else ""),
                (fixes.run(f"systemctl daemon-reload; systemctl restart {state.name}"),),
            )
    for state in sockets:
        if unit.socket and _needs_reload(unit.socket, state):
            service = state.name.replace(".socket", ".service")
            yield Fault(
                "not-reloaded",
                state.name,
                "the socket is running with an earlier version of its unit",
                (
                    fixes.run("systemctl daemon-reload"),
                    fixes.run(f"systemctl stop {service}; systemctl restart {state.name}"),
                ),
            )


def _needs_reload(unit: Unit | SocketUnit, state: UnitState) -> bool:
    """Return whether systemd has not loaded the current files of a unit.

    NeedDaemonReload= stays "no" if the first drop-in of a unit is new, because systemd looks only
    into the directories that it has seen before.
    """
    return state.needs_reload or not unit.drop_in_names <= state.drop_ins


def _runs(running: tuple[str, ...], words: tuple[str, ...]) -> bool:
    """Return whether a process is running the command, possibly through an interpreter."""
    names = [PurePosixPath(word).name for word in running]
    if not words or PurePosixPath(words[0]).name not in names:
        return True  # the process has not started the proxy yet
    return running[-len(words) + 1 :] == words[1:]


def _restart(unit: Unit) -> str:
    """Return the command that restarts a unit.

    A socket unit can restart only while its service is stopped.
    """
    services = " ".join(unit.instances)
    if unit.socket is None:
        return f"systemctl restart {services}"
    return f"systemctl stop {services}; systemctl restart {' '.join(unit.socket.instances)}"


def no_greeting(setup: Setup, proxy: Proxy, seen: RunningFacts) -> Iterator[Fault]:
    """Report an address on which a proxy does not send a greeting."""
    for endpoint in proxy.endpoints:
        session = seen.sessions.get(endpoint, Session("220"))
        greeting = session.greeting
        if greeting.startswith("220"):
            continue
        edit = fixes.run(f"{setup.configuration.postfix} reload")
        if "connection refused" in greeting or "no such file" in greeting:
            edit = fixes.run(_restart(proxy.unit)) if proxy.unit else edit
        elif "4.4.1" not in greeting:  # the cause is not the service after the proxy
            edit = fixes.run(
                "journalctl --no-pager -t postprox -n 20; tail -n 20 /var/log/mail.log"
            )
        yield Fault(
            "no-greeting",
            proxy.where,
            f"a connection to {endpoint} got {greeting!r} instead of 220; mail is deferred (451) "
            "or delayed",
            (edit,),
        )


#: A refusal for a reason in the mail system itself (RFC 3463, section 3.4), such as a table that
#: cannot be opened or a full disk. Other refusals can be due to a policy for this client.
_OWN_REASON = re.compile(r"(421(?! [45]\.[0-24-9])|[45]\d\d [45]\.3\.|451 4\.7\.1 Service)")
_LOGGED = "journalctl --no-pager -t postfix/smtpd -n 20; tail -n 20 /var/log/mail.log"


def refused(setup: Setup, seen: RunningFacts) -> Iterator[Fault]:
    """Report a Postfix service that passes mail to a filter, but accepts no mail."""
    sources = (route.source for route in routes(setup.configuration))
    for service in distinct(source for source in sources if source.program == "smtpd"):
        endpoint = setup.endpoint_of(service)
        session = seen.sessions.get(endpoint) if endpoint else None
        if session is None:
            continue
        if not session.greeting.startswith("220"):
            problem = f"got {session.greeting!r} instead of 220"
            if session.greeting.startswith("5"):
                continue  # a policy for this client
        elif _OWN_REASON.match(session.reply) or session.reply[:1].isalpha():
            problem = f"got {session.reply!r} after {session.command}"
        else:
            continue
        yield Fault(
            "refused",
            f"master.cf, {service.label}",
            f"a connection to {endpoint} {problem}; mail is deferred or refused",
            (fixes.run(_LOGGED),),
        )


def refused_behind(proxy: Proxy, seen: RunningFacts) -> Iterator[Fault]:
    """Report a proxy whose upstream server accepts no mail."""
    for endpoint in proxy.endpoints:
        session = seen.sessions.get(endpoint)
        if session and session.command and not session.reply.startswith("550 5.1.1"):
            yield Fault(
                "refused",
                proxy.where,
                f"the upstream server answered {session.reply!r} to {session.command}; filtered "
                "mail is deferred or refused",
                (fixes.run(_LOGGED),),
            )
            return
