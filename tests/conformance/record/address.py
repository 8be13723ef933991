"""The addresses on the command line: HOST:PORT, [IPv6]:PORT and unix:/path."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass

_CONNECT_SECONDS = 10.0
_INTERNET = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+)):(\d{1,5})")


@dataclass(frozen=True)
class Address:
    """A host and a port, or the path of a Unix-domain socket (the port is None)."""

    host: str
    port: int | None

    def __str__(self) -> str:
        if self.port is None:
            return f"unix:{self.host}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Parse *text*. ValueError shows the expected form."""
    if text.startswith("unix:/"):
        return Address(text.removeprefix("unix:"), None)
    found = _INTERNET.fullmatch(text)
    if not found or int(found[3]) > 65535:
        raise ValueError(f"an address must be HOST:PORT, [IPv6]:PORT or unix:/path, not '{text}'")
    return Address(found[1] or found[2], int(found[3]))


def connect(address: Address) -> socket.socket:
    """Return a connection to *address*."""
    if address.port is not None:
        return socket.create_connection((address.host, address.port), timeout=_CONNECT_SECONDS)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(_CONNECT_SECONDS)
        sock.connect(address.host)
    except OSError:
        sock.close()
        raise
    return sock


def listen(address: Address) -> socket.socket:
    """Return a socket that listens on *address*."""
    if address.port is None:
        raise ValueError(f"{address}: must be HOST:PORT")
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return socket.create_server((address.host, address.port), family=family)
