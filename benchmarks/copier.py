"""What a proxy is compared with: a program that copies a message from socket to file to socket.

    python3 copier.py HOST:PORT DIR

Standard input and output are the client's socket. It says 354 when it is ready; the whole message,
up to its dot, is stored in a file in DIR; then it is sent to HOST:PORT, and the one answer goes
back.

Rule: it looks at nothing but the last five octets, and does nothing that copying does not need.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile

END_OF_DATA = b"\r\n.\r\n"
#: Larger blocks are no faster.
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
        client.recv(1)  # the processor time of a process can be read as long as it lives


if __name__ == "__main__":
    main()
