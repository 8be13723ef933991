"""The upstream test server, on loopback.

Rule: the server accepts and records each message, but delivers nothing.
"""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

from .dialogue import COMMAND, CONTENT, PROXY, REPLY, UPSTREAM, Dialogue

if TYPE_CHECKING:
    from types import TracebackType

GREETING = b"220 upstream.example.org ESMTP\r\n"
# The extensions that Postfix offers, and CHUNKING, which the proxy removes from the reply.
_EHLO = (
    b"250-upstream.example.org\r\n250-PIPELINING\r\n250-XFORWARD NAME ADDR PROTO HELO\r\n"
    b"250-8BITMIME\r\n250 CHUNKING\r\n"
)
_REPLIES = {
    b"EHLO": _EHLO,
    b"HELO": b"250 upstream.example.org\r\n",
    b"XFORWARD": b"250 2.0.0 Ok\r\n",
    b"MAIL": b"250 2.1.0 Ok\r\n",
    b"RCPT": b"250 2.1.5 Ok\r\n",
    b"DATA": b"354 Go ahead\r\n",
    b"RSET": b"250 2.0.0 Ok\r\n",
    b"NOOP": b"250 2.0.0 Ok\r\n",
    b"QUIT": b"221 2.0.0 upstream.example.org closing connection\r\n",
}
_UNKNOWN = b"500 5.5.2 Unknown command\r\n"
_ACCEPTED = b"250 2.0.0 Ok: message received\r\n"
_END = b"\r\n.\r\n"


class Upstream:
    """A server that runs until the context ends, on a port chosen by the system."""

    def __init__(self, dialogue: Dialogue) -> None:
        self._dialogue = dialogue
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._peer: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def address(self) -> str:
        """The address on which the server is listening, as HOST:PORT."""
        host, port = self._listener.getsockname()[:2]
        return f"{host}:{port}"

    def __enter__(self) -> Upstream:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for end in (self._listener, self._peer):
            if end is not None:
                _shut(end)
        self._thread.join(5)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return  # The listening socket was closed.
            self._peer = peer
            with peer:
                try:
                    self._converse(_Lines(peer))
                except (OSError, EOFError, MemoryError):
                    continue  # The proxy has closed the connection.

    def _converse(self, lines: _Lines) -> None:
        self._reply(lines, GREETING)
        while True:
            line = lines.until(b"\n")
            self._dialogue.note(PROXY, UPSTREAM, COMMAND, line)
            verb = line.split(None, 1)[0].upper() if line.strip() else b""
            self._reply(lines, _REPLIES.get(verb, _UNKNOWN))
            if verb == b"QUIT":
                return
            if verb == b"DATA":
                self._dialogue.note(PROXY, UPSTREAM, CONTENT, lines.message())
                self._reply(lines, _ACCEPTED)

    def _reply(self, lines: _Lines, reply: bytes) -> None:
        self._dialogue.note(UPSTREAM, PROXY, REPLY, reply)
        lines.peer.sendall(reply)


class _Lines:
    """Reads from a socket up to a separator.

    Raises:
        EOFError: the peer has closed the connection.
    """

    def __init__(self, peer: socket.socket) -> None:
        self.peer = peer
        self._held = bytearray()

    def until(self, end: bytes) -> bytes:
        searched = 0
        while (at := self._held.find(end, searched)) < 0:
            searched = max(0, len(self._held) - len(end))
            data = self.peer.recv(65536)
            if not data:
                raise EOFError
            self._held += data
        taken = bytes(self._held[: at + len(end)])
        del self._held[: at + len(end)]
        return taken

    def message(self) -> bytes:
        """Return the content of a message without stuffed dots (RFC 5321 section 4.5.2)."""
        # The content may be empty, so the CRLF of the DATA command is included in the search.
        self._held[:0] = b"\r\n"
        stuffed = self.until(_END)[: -len(_END) + 2]
        return stuffed.replace(b"\r\n.", b"\r\n")[2:]


def _shut(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # The socket is already closed.
