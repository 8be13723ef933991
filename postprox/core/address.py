"""Parses HOST:PORT on the command line (cli.host).

Rule: each error message names the problem and the remedy. This module makes no DNS lookups.
"""

DEFAULT_PORT = 25
_HEXADECIMAL = frozenset("0123456789abcdefABCDEF")


class UpstreamAddress:
    """The address of the upstream server: a host and a port, or the path of a Unix socket.

    Raises:
        ValueError: `text` is invalid.
    """

    __slots__ = ("host", "path", "port", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.host = ""
        self.port = DEFAULT_PORT
        self.path = ""
        if text.startswith("unix:/"):
            self.path = text.removeprefix("unix:")
        else:
            self.host, port = split_port(text)
            self.port = port_number(port) if port else DEFAULT_PORT
            if not self.host:
                raise ValueError("the host is missing")
            # If a unit's options file has an unterminated quote, NAME=VALUE can be read as
            # HOST:PORT.
            if "=" in self.host:
                raise ValueError("a host name cannot contain an equals sign")


def split_port(text: str) -> tuple[str, str]:
    """Split ``HOST:PORT`` or ``[IPv6]:PORT``. A missing port is returned as "".

    Raises:
        ValueError: a colon is not followed by a port, an IPv6 address is not in brackets, or
            HOST:PORT has a prefix such as ``inet:``.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("an IPv6 address must be written as [ADDRESS]:PORT")
        _, colon, port = rest.partition(":")
    else:
        host, colon, port = text.partition(":")
        if ":" in port:
            if not _HEXADECIMAL.issuperset(host):  # Postfix's tables use inet:HOST:PORT
                prefix = f"{host}:"
                raise ValueError(f"remove {prefix!r}, because HOST:PORT has no prefix")
            raise ValueError("an IPv6 address must be written as [ADDRESS]:PORT")
    if colon and not port:
        raise ValueError("the port is missing after the colon")
    return host, port


def port_number(text: str) -> int:
    """Convert a port to a number.

    Raises:
        ValueError: `text` is not a number from 1 to 65535.
    """
    if text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536:
        return int(text)
    raise ValueError(f"the port must be a number from 1 to 65535, not {text!r}")
