"""Tests whether a Postfix host list includes the proxy.

Rule: the result depends only on the list. Tables are not read, so the result may be None (unknown).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence


def permits(hosts: Sequence[str], target: str) -> bool | None:
    """Return whether the list permits a client that connects to the target from this machine."""
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
        # The item is not an address. It can be a table (hash:/etc/postfix/hosts), a pattern file or
        # a host name.
        return None if "/" in pattern or ":" in pattern else False
