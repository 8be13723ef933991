"""A raw connection, for tests that depend on the octets on the wire.

Rule: a peer sends exactly the given octets. All waits have the same timeout.
"""

from __future__ import annotations

import socket
import struct
from typing import Self

#: The timeout in seconds, which expires only in failing tests.
TIMEOUT = 20.0


class Peer:
    """One end of a connection to another process."""

    def __init__(self, connection: socket.socket, timeout: float = TIMEOUT) -> None:
        self.socket = connection
        self.received = bytearray()
        connection.settimeout(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leaves()

    def sends(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def says(self, *texts: bytes) -> None:
        self.sends(b"".join(text + b"\r\n" for text in texts))

    def line(self) -> bytes:
        """Wait for one line. At the end of the connection, return the remaining octets."""
        while b"\n" not in self.received and (data := self.socket.recv(65536)):
            self.received += data
        return self._next_line()

    def _next_line(self) -> bytes:
        end = self.received.find(b"\n") + 1 or len(self.received)
        line = bytes(self.received[:end])
        del self.received[:end]
        return line

    def reply(self) -> bytes:
        """Wait for one reply, which can have several lines (RFC 5321, 4.2.1)."""
        reply = line = self.line()
        while line[3:4] == b"-":
            line = self.line()
            reply += line
        return reply

    def request(self, command: bytes) -> bytes:
        """Send a command and return its reply."""
        self.says(command)
        return self.reply()

    def asks(self, command: bytes, beginning: bytes) -> None:
        self.says(command)
        self.sees_reply(beginning)

    def sees(self, *texts: bytes) -> None:
        for text in texts:
            line = self.line()
            assert line == text + b"\r\n", line

    def sees_reply(self, beginning: bytes) -> None:
        reply = self.reply()
        assert reply.startswith(beginning), reply
        assert reply.endswith(b"\r\n")

    def sees_end(self) -> None:
        line = self.line()
        assert line == b"", line

    def ends(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def leaves(self) -> None:
        self.socket.close()

    def resets(self) -> None:
        """Close a TCP connection with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def connected(address: tuple[str, int], timeout: float = TIMEOUT) -> Peer:
    """Connect to *address* as a client."""
    return Peer(socket.create_connection(address, timeout), timeout)


def connected_pair() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a TCP connection, which can be reset, unlike a socketpair(2) pair."""
    with listening() as listener:
        ours = socket.create_connection(listener.getsockname(), TIMEOUT)
        theirs, _ = listener.accept()
        return ours, theirs


def listening() -> socket.socket:
    """Return a socket that listens on a free port."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(TIMEOUT)
    return listener


def address(listener: socket.socket) -> str:
    host, port = listener.getsockname()
    return f"{host}:{port}"
