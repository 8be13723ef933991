"""A scanner for clamsmtpd that finds no virus: `clamd.py SOCKET COMMAND...`.

Rule: this module is not an adapter. The program runs COMMAND and serves clamd's commands PING and
SCAN on the Unix-domain socket SOCKET. The scanner exits together with COMMAND.
"""

from __future__ import annotations

import os
import select
import socketserver
import sys
import threading


class Scanner(socketserver.StreamRequestHandler):
    """A connection from clamsmtpd."""

    def handle(self) -> None:
        """Reply to commands until END or a disconnect."""
        for line in self.rfile:
            command, _, path = line.strip().partition(b" ")
            if command == b"PING":
                self.wfile.write(b"PONG\n")
            elif command in (b"SCAN", b"CONTSCAN"):
                self.wfile.write(path + b": OK\n")
            elif command == b"END":
                return


def main(path: str, *command: str) -> None:
    """Serve clamsmtpd on the socket *path*, and run *command*."""
    server = socketserver.ThreadingUnixStreamServer(path, Scanner)
    server.daemon_threads = True
    ended = os.pidfd_open(os.getpid())
    if os.fork():
        server.socket.close()
        os.execv(command[0], command)  # noqa: S606 - no shell is needed
    os.setsid()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    select.select([ended], [], [])


if __name__ == "__main__":
    main(*sys.argv[1:])
