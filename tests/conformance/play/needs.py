"""Determines which capabilities a transcript requires and whether they are available."""

from __future__ import annotations

from collections.abc import Iterable

from ..format.bare_lf import bare_lf_policies
from ..format.header import HOST_CAPABILITIES, IMPLEMENTATION_CAPABILITIES, ON_PORT_25
from ..format.line_length import longest_line
from ..format.nodes import Transcript, walk
from ..format.uses import DERIVED, uses
from .harness import Settings

#: The time limit in seconds for a transcript with `clock` that is run in real time.
REAL_TIME_ALLOWANCE = 5.0

_WHY = {
    "syslog": "a private /dev/log in a mount namespace (run as root)",
    "mounts": "a private mount namespace (run as root)",
    "root": "to run as root",
    "unprivileged": "to run as a user other than root",
    "ipv6-loopback": "::1 on this machine",
    "hosts": "a private /etc/hosts in a mount namespace (run as root)",
    "localhost": "localhost to resolve to 127.0.0.1 (/etc/hosts)",
    "network": "a private network namespace (run as root)",
}

#: The capabilities that are available only to root.
ROOT_ONLY = frozenset({"syslog", "mounts", "root", "hosts", "network"})


def needs(transcript: Transcript, mode: str) -> list[str]:
    """Return all capabilities that the transcript requires in *mode*, including implied ones."""
    header, found = transcript.header, list(transcript.header.needs)
    if mode in ("stdio", "listen"):
        found.append(mode)
    if "{filter}" in "".join(header.arguments):
        found.append("filter")
    if header.syslog == "absent" or any(s.verb == "syslog" for s in walk(transcript.steps)):
        found.append("syslog")
    if _reaches_spool(transcript):
        found.append("spool-dir")
    if header.tmp in ("readonly", "full"):
        found.append("mounts")
    if header.listen_fds:
        found.append("listen-fds")
    if header.upstream == "ipv6":
        found += ["ipv6", "ipv6-loopback"]
    if header.upstream in ON_PORT_25:
        found.append("network")
    if header.upstream == "unix":
        found.append("unix")
    return list(dict.fromkeys(found))


def missing_need(transcript: Transcript, mode: str, settings: Settings) -> str | None:
    """Return the reason why the transcript cannot be run on this machine, or None."""
    if reason := lacking(needs(transcript, mode), settings):
        return reason
    if reason := _lacking_in_dialogue(transcript, settings):
        return reason
    header, implementation = transcript.header, settings.implementation
    if header.clock is None or implementation.clock_env is not None or settings.slow:
        return None
    if header.takes is not None and header.takes <= REAL_TIME_ALLOWANCE:
        return None
    return (
        f"requires a fast clock, which {implementation.name} does not have; use --slow to run it "
        "in real time"
    )


def _reaches_spool(transcript: Transcript) -> bool:
    """Whether the program must use the directory on its command line."""
    header = transcript.header
    observed = any(step.verb == "tmp" for step in walk(transcript.steps))
    limited = header.tmp != "empty" or "fsize" in header.limits
    return observed or limited or "$suite_tmp" in (header.filter or "")


def _lacking_in_dialogue(transcript: Transcript, settings: Settings) -> str | None:
    """Return a message about the first missing capability that the steps use, or None."""
    implementation, steps = settings.implementation, transcript.steps
    used = [] if implementation.capabilities >= DERIVED else uses(transcript)
    if reason := lacking(used, settings):
        return reason
    policy, octets = implementation.bare_lf, implementation.line_max
    if policy is not None and policy not in bare_lf_policies(steps):
        return f"{implementation.name} declares bare-lf = {policy}"
    if octets is not None and longest_line(steps) > octets:
        return f"{implementation.name} declares line-max = {octets}"
    return None


def lacking(capabilities: Iterable[str], settings: Settings) -> str | None:
    """Return a message about the first missing capability in *capabilities*, or None."""
    implementation = settings.implementation
    for one in capabilities:
        if one in IMPLEMENTATION_CAPABILITIES and one not in implementation.capabilities:
            return f"{implementation.name} lacks '{one}'"
        if one in HOST_CAPABILITIES and one not in settings.host.capabilities:
            return f"needs {_WHY[one]}"
    return None
