"""The options of postprox that the suite passes to an adapter, and addresses.

Rule: this module parses, and does not start anything. An option that the program cannot follow is
an error, so that no transcript passes without being tested.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

#: The options with a value and the options without, by the attribute of `Options`.
_WITH_VALUE = {
    "-c": "command",
    "-d": "directory",
    "-t": "timeout",
    "-l": "listen",
    "--listen": "listen",
}
_WITHOUT_VALUE = {
    "-r": "reject",
    "-v": "verbose",
    "-vv": "verbose",
    "--foreground": "foreground",
}


class UsageError(Exception):
    """A command line that the program behind the adapter cannot follow."""


@dataclass(frozen=True)
class Address:
    """A TCP address, or the path of a unix-domain socket if `port` is 0."""

    host: str
    port: int = 0

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.port else self.host

    def resolved(self) -> tuple[int, str | tuple[str, int]]:
        """Return the address family, and the address as the functions of a socket require it."""
        if not self.port:
            return socket.AF_UNIX, self.host
        family, _, _, _, name = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0]
        return family, (str(name[0]), self.port)

    def bind(self) -> socket.socket:
        """Return a socket that is bound to this address and does not listen yet."""
        family, name = self.resolved()
        bound = socket.socket(family)
        if self.port:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(name)
        bound.setblocking(False)
        return bound

    def is_listening(self) -> bool:
        """Whether a program accepts connections at this address, found without connecting."""
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
        # A program that listens at :: accepts IPv4 as well.
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

    #: The upstream server, as the transcript names it.
    upstream: Address = Address("")
    #: The address for clients.
    listen: Address = Address("")
    #: The command of the filter, or None without one.
    command: str | None = None
    #: DIR, in which the program writes its messages.
    directory: Path = Path("/tmp")
    #: The time limit of the filter in seconds.
    timeout: str = "30"
    #: Whether a filter that fails rejects the message.
    reject: bool = False
    verbose: bool = False
    #: Whether the program stays in the foreground.
    foreground: bool = False
    #: The words of the command line without the addresses.
    words: tuple[str, ...] = ()


def parse(arguments: Sequence[str]) -> Options:
    """Parse the command line of a transcript: options, `-l` and the upstream server."""
    options, positional, words = Options(), [], []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word in _WITHOUT_VALUE:
            setattr(options, _WITHOUT_VALUE[word], True)
            words.append(word)
        elif word in _WITH_VALUE:
            if not rest:
                raise UsageError(f"{word}: missing value")
            _set(options, word, rest.pop(0), words)
        elif word.startswith("-"):
            raise UsageError(f"unknown option {word}")
        else:
            positional.append(word)
    if len(positional) != 1:
        raise UsageError("the upstream server must be given once, as HOST:PORT")
    if not options.listen.port:
        raise UsageError("no stdio mode; run the suite with --modes listen")
    options.upstream = address(positional[0])
    options.words = tuple(words)
    return options


def _set(options: Options, word: str, value: str, words: list[str]) -> None:
    name = _WITH_VALUE[word]
    if name == "listen":
        options.listen = address(value)
        return
    setattr(options, name, Path(value) if name == "directory" else value)
    words += [word, value]


def address(text: str) -> Address:
    """Return the address HOST:PORT or :PORT or PORT in *text*."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal():
        raise UsageError(f"{text}: must be HOST:PORT")
    return Address(host.strip("[]") or "127.0.0.1", int(port))
