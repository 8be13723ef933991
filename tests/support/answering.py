"""An upstream server that runs in threads and accepts every message.

Rule: the server counts messages but does not store them, because attacks send large messages.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterable


class Answering:
    """Listens on a free port and accepts every command."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        host, port = self._listener.getsockname()
        self.address = f"{host}:{port}"
        #: The number of accepted messages.
        self.messages = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def take(self, lines: Iterable[bytes]) -> bool:
        """Read a message. Return whether the end of data was received."""
        return any(line == b".\r\n" for line in lines)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError), peer, peer.makefile("rb") as lines:
            peer.sendall(b"220 up.example ESMTP\r\n")
            for line in lines:
                verb = line.split()[0].upper()
                if verb == b"DATA":
                    peer.sendall(b"354 go on\r\n")
                    if not self.take(lines):
                        return
                    self.messages += 1
                peer.sendall(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
                if verb == b"QUIT":
                    return
