"""The mail server of the benchmarks, a program that replies immediately and stores nothing.

    python3 upstream.py

It prints two ports on 127.0.0.1. One is for SMTP. The other accepts the content of a message, as
sent after 354, and replies with 250. The program exits when its standard input is closed.

Rule: the server does as little as possible, because its cost affects every ratio.
"""

from __future__ import annotations

import resource
import select
import socket
import sys

END_OF_DATA = b"\r\n.\r\n"
BLOCK = 262144
#: The timeout in seconds for a peer to read a reply, so that one peer does not block others.
LIMIT = 10.0

REPLIES = {
    b"EHLO": b"250-upstream.test\r\n250-PIPELINING\r\n250-SIZE\r\n250-XFORWARD NAME ADDR HELO\r\n"
    b"250-8BITMIME\r\n250 SMTPUTF8\r\n",
    b"DATA": b"354 End data with <CR><LF>.<CR><LF>\r\n",
    b"QUIT": b"221 2.0.0 Bye\r\n",
}
OK = b"250 2.0.0 Ok\r\n"


class Peer:
    """One connection, on which the server reads commands or a message."""

    def __init__(self, peer: socket.socket, *, in_message: bool) -> None:
        self.socket = peer
        self.in_message = in_message
        self.held = b""  # an incomplete command line, or the last octets of the content so far
        self.socket.settimeout(LIMIT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def serve(self) -> bool:
        """Read once and reply. Return whether the connection is still open."""
        try:
            data = self.socket.recv(BLOCK)
            return bool(data) and (self._take(data) if self.in_message else self._obey(data))
        except OSError:
            return False

    def _take(self, content: bytes) -> bool:
        self.held = (self.held + content[-len(END_OF_DATA) :])[-len(END_OF_DATA) :]
        if self.held == END_OF_DATA:
            self.in_message, self.held = False, b""
            self.socket.sendall(OK)
        return True

    def _obey(self, commands: bytes) -> bool:
        self.held += commands
        while b"\r\n" in self.held:
            line, _, self.held = self.held.partition(b"\r\n")
            verb = line[:4].upper()
            self.socket.sendall(REPLIES.get(verb, OK))
            if verb == b"QUIT":
                return False
            if verb == b"DATA":  # some proxies do not wait for the 354
                self.in_message, content, self.held = True, self.held, b""
                return self._take(content)
        return True


def listen() -> socket.socket:
    """Listen on a port chosen by the system."""
    return socket.create_server(("127.0.0.1", 0), backlog=4096)


def allow_descriptors() -> None:
    """Raise the limit of open files as far as possible."""
    _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, allowed))


def main() -> None:
    """Serve connections until standard input is closed."""
    smtp, bare = listen(), listen()
    print(smtp.getsockname()[1], bare.getsockname()[1], flush=True)
    peers: dict[int, Peer] = {}
    allow_descriptors()
    poll = select.epoll()
    for waited in (sys.stdin.fileno(), smtp.fileno(), bare.fileno()):
        poll.register(waited, select.EPOLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == sys.stdin.fileno():
                return
            if descriptor in peers:
                if not peers[descriptor].serve():
                    poll.unregister(descriptor)
                    peers.pop(descriptor).socket.close()
                continue
            listener = smtp if descriptor == smtp.fileno() else bare
            peer = Peer(listener.accept()[0], in_message=listener is bare)
            if listener is smtp:
                peer.socket.sendall(b"220 upstream.test ESMTP\r\n")
            peers[peer.socket.fileno()] = peer
            poll.register(peer.socket.fileno(), select.EPOLLIN)


if __name__ == "__main__":
    main()
