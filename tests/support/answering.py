"""An upstream that takes everything, and counts it, while the test looks elsewhere."""

from __future__ import annotations

import contextlib
import socket
import threading


class Answering:
    """Listens on a port of its own and answers each command with success, in threads."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        host, port = self._listener.getsockname()
        self.address = f"{host}:{port}"
        #: How many messages were taken, and how many commands in all.
        self.messages = 0
        self.commands = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError), peer, peer.makefile("rb") as lines:
            peer.sendall(b"220 up.example ESMTP\r\n")
            for line in lines:
                self.commands += 1
                verb = line.split()[0].upper()
                if verb == b"DATA":
                    peer.sendall(b"354 go on\r\n")
                    if not any(text == b".\r\n" for text in lines):
                        return
                    self.messages += 1
                peer.sendall(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
                if verb == b"QUIT":
                    return
