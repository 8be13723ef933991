"""The reference for a proxy, which copies a message from a socket to a file to a socket.

    python3 copier.py HOST:PORT DIR

Standard input and output are the client's socket. The program sends 354 when it is ready, stores
the whole message up to its final dot in a file in DIR, sends it to HOST:PORT, and relays the reply.

Rule: the program examines only the last five octets, and does nothing that copying does not
require.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile

END_OF_DATA = b"\r\n.\r\n"
#: Larger blocks are not faster.
READ_SIZE = 262144
COPY_SIZE = 131072


def main() -> None:
    """Copy one message."""
    host, port = sys.argv[1].split(":")
    client = socket.socket(fileno=0)
    with (
        tempfile.TemporaryFile(dir=sys.argv[2], buffering=0) as spool,
        socket.create_connection((host, int(port))) as upstream,
    ):
        upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(b"354 Go\r\n")
        tail = b""
        while tail != END_OF_DATA:
            data = client.recv(READ_SIZE)
            if not data:
                return
            spool.write(data)
            tail = (tail + data[-5:])[-5:]
        offset = 0
        while block := os.pread(spool.fileno(), COPY_SIZE, offset):
            upstream.sendall(block)
            offset += len(block)
        client.sendall(upstream.recv(READ_SIZE))
        client.recv(1)  # the processor time can be read only until the process exits


if __name__ == "__main__":
    main()
