"""Parses addresses, and the postprox options that the suite passes to an adapter.

Rule: this module only parses. An option that the program cannot support is an error, so that no
transcript passes without a test.
"""

from __future__ import annotations

import getopt
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

#: The options, each with its attribute in `Options`.
_OPTIONS = {
    ("-c", "--command"): "command",
    ("-d", "--tempdir"): "directory",
    ("-t", "--timeout"): "timeout",
    ("-l", "--listen"): "listen",
    ("-r", "--reject"): "reject",
    ("-v", "--verbose"): "verbose",
    ("--foreground",): "foreground",
}
#: The options without a value.
_FLAGS = ("reject", "verbose", "foreground")
_SHORT = "c:d:t:l:rv"
_LONG = ["command=", "tempdir=", "timeout=", "listen=", "reject", "verbose", "foreground"]


class UsageError(Exception):
    """The program behind the adapter does not support the command line."""


@dataclass(frozen=True)
class Address:
    """A TCP address, or the path of a unix-domain socket if `port` is 0."""

    host: str
    port: int = 0

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.port else self.host

    def resolved(self) -> list[tuple[int, str | tuple[str, int]]]:
        """Return the address families and addresses in the form for socket functions."""
        if not self.port:
            return [(socket.AF_UNIX, self.host)]
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        return [(family, (str(name[0]), self.port)) for family, _, _, _, name in found]

    def bind(self) -> socket.socket:
        """Return a socket that is bound to this address but does not listen yet."""
        family, name = self.resolved()[0]
        bound = socket.socket(family)
        if self.port:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(name)
        bound.setblocking(False)
        return bound

    def is_listening(self) -> bool:
        """Whether a program accepts connections on this address, determined without connecting."""
        if not self.port:
            return any(
                line.split()[3] == "00010000" and line.split()[-1] == self.host
                for line in _lines("/proc/net/unix")
            )
        port = f":{self.port:04X}"
        wanted = {bytes(reversed(socket.inet_aton(self.host))).hex().upper() + port, "0" * 8 + port}
        ipv4 = any(
            line.split()[1] in wanted and line.split()[3] == "0A"
            for line in _lines("/proc/net/tcp")
        )
        # A program that listens on :: also accepts IPv4.
        return ipv4 or any(
            line.split()[1] == "0" * 32 + port and line.split()[3] == "0A"
            for line in _lines("/proc/net/tcp6")
        )


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text("utf-8", "replace").splitlines()[1:]
    except OSError:
        return []


@dataclass
class Options:
    """The command line of one transcript."""

    #: The transcript's upstream server.
    upstream: Address = Address("")
    #: The address for clients.
    listen: Address = Address("")
    #: The filter command, or None without a filter.
    command: str | None = None
    #: The directory in which the program stores messages (DIR).
    directory: Path = Path("/tmp")
    #: The filter's timeout in seconds.
    timeout: str = "30"
    #: Whether a filter failure rejects the message.
    reject: bool = False
    verbose: bool = False
    #: Whether the program stays in the foreground.
    foreground: bool = False
    #: The arguments on the command line, without addresses.
    words: tuple[str, ...] = ()


def parse(arguments: Sequence[str]) -> Options:
    """Parse the command line of a transcript: options, `-l` and the upstream server."""
    try:
        found, positional = getopt.gnu_getopt(list(arguments), _SHORT, _LONG)
    except getopt.GetoptError as error:
        raise UsageError(str(error)) from error
    options, words = Options(), []
    for word, value in found:
        names, name = next(pair for pair in _OPTIONS.items() if word in pair[0])
        if name == "listen":
            options.listen = address(value)
            continue
        if name in _FLAGS:
            setattr(options, name, True)
            words.append(names[0])
        else:
            setattr(options, name, Path(value) if name == "directory" else value)
            words += [names[0], value]
    if len(positional) != 1:
        raise UsageError("the upstream server must be given once, as HOST:PORT")
    if not options.listen.port:
        raise UsageError("adapters do not support mode stdio; use --modes listen")
    options.upstream = address(positional[0])
    options.words = tuple(words)
    return options


def address(text: str) -> Address:
    """Parse the address HOST:PORT, :PORT or PORT in *text*."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal():
        raise UsageError(f"{text}: must be HOST:PORT")
    return Address(host.strip("[]") or "127.0.0.1", int(port))
