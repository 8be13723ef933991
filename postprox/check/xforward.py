"""Whether a list of hosts, as Postfix writes it, names the proxy.

Rule: a pure function of the list; None where it names a table, which is not looked into.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence


def permits(hosts: Sequence[str], target: str) -> bool | None:
    """Whether a client that connects to the target, on the same machine, is on the list."""
    address = "::1" if ":" in target else "127.0.0.1"
    for host in hosts:
        pattern = host.removeprefix("!")
        found = _matches(pattern, address)
        if found is None:
            return None
        if found:
            return pattern == host
    return False


def _matches(pattern: str, address: str) -> bool | None:
    if pattern in ("localhost", "static:all"):
        return True
    text = pattern.replace("[", "").replace("]", "")
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(text, strict=False)
    except ValueError:
        # A table (hash:/etc/postfix/hosts), a file of patterns, or somebody else's name.
        return None if "/" in pattern or ":" in pattern else False
