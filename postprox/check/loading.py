"""The command with which Postfix loads the configuration that the printed commands have changed.

Rule: the functions depend only on the findings and on whether Postfix is running.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .facts import RunningFacts
from .findings import Finding
from .postconf import Configuration
from .setup import Setup

#: A command that changes main.cf, master.cf, a table, or the group of a user.
_CHANGE = re.compile(
    r"postconf( -c \S+)? -[eMPFX]|(sed|cat) .*/(main|master)\.cf\b|\bpost(map|alias) |^usermod -g"
)
#: A service that a command removes from master.cf, or adds to it, with its address and its port.
_REMOVED = re.compile(r"-MX '?(?P<address>[^\s'/]*?)(?P<port>[^\s:'/]+)/inet")
_ADDED = re.compile(r"-M '?(?P<address>[^\s'/]*?)(?P<port>[^\s:'/]+)/inet=")
#: The findings with which a Postfix program ends at its start, or with which sessions hang. After
#: such a failure, master(8) does not start the program again for a minute, even after a reload.
_RESTARTED = {
    *("arguments", "columns", "loop", "number", "sasl", "table", "user", "value", "wrong-port"),
}
#: The parameters that determine the addresses on which Postfix listens.
_ADDRESSES = re.compile(r"-e '?(inet_interfaces|inet_protocols|proxy_interfaces)=")


def start(configuration: Configuration, seen: RunningFacts) -> str:
    """Return the command that starts Postfix, or that restarts its unit."""
    return (
        "systemctl restart postfix" if seen.has_postfix_unit else f"{configuration.postfix} start"
    )


def command(setup: Setup, findings: Sequence[Finding]) -> str:
    """Return the command that loads the changed configuration, or "" if none is needed."""
    configuration, seen = setup.configuration, setup.running
    commands = [each for finding in findings for each in finding.commands]
    # The commands of these findings remove an error that prevents smtpd(8) or spawn(8) from
    # starting.
    is_started = any(
        each.name in ("sasl", "user") and "master.cf" in each.where for each in findings
    )
    if seen is None or not (is_started or any(map(_CHANGE.search, commands))):
        return ""
    if seen.postfix is False and not any(each.name == "postfix-stopped" for each in findings):
        return "" if configuration.directory else start(configuration, seen)
    if _moves_service(commands) or any(each.name in _RESTARTED for each in findings):
        # master(8) ends if it cannot listen on an address that its own old socket still occupies.
        stop = "" if seen.has_postfix_unit else f"{configuration.postfix} stop; "
        return stop + start(configuration, seen)
    return f"{configuration.postfix} reload"


def _moves_service(commands: Sequence[str]) -> bool:
    """Return whether a service gets another address with the same port."""
    text = "\n".join(commands)
    removed = {(found["port"], found["address"]) for found in _REMOVED.finditer(text)}
    added = {(found["port"], found["address"]) for found in _ADDED.finditer(text)}
    ports = {port for port, _ in removed - added} & {port for port, _ in added - removed}
    return bool(ports) or _ADDRESSES.search(text) is not None
