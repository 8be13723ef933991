"""The smallest possible proxy, which only copies octets in both directions.

    python3 relay.py HOST:PORT LISTEN_HOST:LISTEN_PORT

Rule: one process serves all connections and does not examine any data.
"""

from __future__ import annotations

import select
import socket
import sys

BLOCK = 262144


def address(text: str) -> tuple[str, int]:
    """Parse HOST:PORT."""
    host, _, port = text.rpartition(":")
    return host, int(port)


def main() -> None:
    """Relay until killed."""
    upstream = address(sys.argv[1])
    listener = socket.create_server(address(sys.argv[2]), backlog=512)
    others: dict[int, tuple[socket.socket, socket.socket]] = {}
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    while True:
        for descriptor, _ in epoll.poll():
            if descriptor == listener.fileno():
                pair = listener.accept()[0], socket.create_connection(upstream)
                for one, other in (pair, pair[::-1]):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    others[one.fileno()] = one, other
                    epoll.register(one, select.EPOLLIN)
            elif descriptor in others and not copied(*others[descriptor]):
                for one in others[descriptor]:
                    epoll.unregister(one)
                for one in others.pop(descriptor):
                    others.pop(one.fileno(), None)
                    one.close()


def copied(one: socket.socket, other: socket.socket) -> bool:
    """Copy available data. Return whether the connection is still open."""
    try:
        data = one.recv(BLOCK, socket.MSG_DONTWAIT)
        other.sendall(data)
    except BlockingIOError:  # an event of a closed connection, whose descriptor is used again
        return True
    except OSError:
        return False
    return bool(data)


if __name__ == "__main__":
    main()
