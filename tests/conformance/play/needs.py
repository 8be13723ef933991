"""The capabilities that a transcript requires, and a check whether they are available."""

from __future__ import annotations

from collections.abc import Iterable

from ..format.header import HOST_CAPABILITIES, IMPLEMENTATION_CAPABILITIES, ON_PORT_25
from ..format.nodes import Transcript, walk
from .harness import Settings

#: Time limit in seconds for a transcript with `clock` that is played in real time.
REAL_TIME_ALLOWANCE = 5.0

_WHY = {
    "syslog": "a private /dev/log in a mount namespace (run as root)",
    "mounts": "a private mount namespace (run as root)",
    "root": "to be run as root",
    "unprivileged": "to be run by another user than root",
    "ipv6-loopback": "::1 on this machine",
    "hosts": "a private /etc/hosts in a mount namespace (run as root)",
    "localhost": "the name localhost to mean 127.0.0.1 (/etc/hosts)",
    "network": "a private network namespace (run as root)",
}


def needs(transcript: Transcript, mode: str) -> list[str]:
    """Return every capability that the transcript requires in *mode*, including implied ones."""
    header, found = transcript.header, list(transcript.header.needs)
    if mode == "listen":
        found.append("listen")
    if "{filter}" in "".join(header.arguments):
        found.append("filter")
    if header.syslog == "absent" or any(s.verb == "syslog" for s in walk(transcript.steps)):
        found.append("syslog")
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
    """Return why the transcript cannot be played here, or None."""
    if reason := lacking(needs(transcript, mode), settings):
        return reason
    header, implementation = transcript.header, settings.implementation
    if header.clock is None or implementation.clock_env is not None or settings.slow:
        return None
    if header.takes is not None and header.takes <= REAL_TIME_ALLOWANCE:
        return None
    return (
        f"requires a fast clock, which {implementation.name} does not have; "
        "--slow plays it in real time"
    )


def lacking(capabilities: Iterable[str], settings: Settings) -> str | None:
    """Return a text about the first missing one of *capabilities*, or None."""
    implementation = settings.implementation
    for one in capabilities:
        if one in IMPLEMENTATION_CAPABILITIES and one not in implementation.capabilities:
            return f"{implementation.name} lacks '{one}'"
        if one in HOST_CAPABILITIES and one not in settings.host.capabilities:
            return f"needs {_WHY[one]}"
    return None
