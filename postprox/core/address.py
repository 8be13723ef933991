"""The grammar of HOST:PORT, as the command line gives it (cli.host).

Rule: what is wrong is said with what would be right; nothing is looked up here.
"""

DEFAULT_PORT = 25


class UpstreamAddress:
    """HOST:PORT as given: a name or address with a port, or the path of a unix-domain socket.

    Raises:
        ValueError: `text` is none of them; its message says what would be right.
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


def split_port(text: str) -> tuple[str, str]:
    """Split ``HOST:PORT`` or ``[IPv6]:PORT``; the port is "" if there is none.

    Raises:
        ValueError: a colon without a port, or an IPv6 address without brackets.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("an IPv6 address is written [ADDRESS]:PORT")
        _, colon, port = rest.partition(":")
    else:
        host, colon, port = text.partition(":")
        if ":" in port:
            raise ValueError("an IPv6 address is written [ADDRESS]:PORT")
    if colon and not port:
        raise ValueError("the port is missing after the colon")
    return host, port


def port_number(text: str) -> int:
    """Return a port as a number.

    Raises:
        ValueError: it is not a number from 1 to 65535.
    """
    if text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536:
        return int(text)
    raise ValueError(f"the port must be a number from 1 to 65535, not {text!r}")
