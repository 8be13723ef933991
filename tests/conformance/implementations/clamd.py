"""A scanner that finds no virus, for clamsmtpd: `clamd.py SOCKET COMMAND...`.

Rule: this is no adapter. It serves clamd's commands PING and SCAN at the unix-domain socket SOCKET,
and replaces itself by COMMAND. The scanner ends with COMMAND.
"""

from __future__ import annotations

import os
import select
import socketserver
import sys
import threading


class Scanner(socketserver.StreamRequestHandler):
    """One connection of clamsmtpd."""

    def handle(self) -> None:
        """Answer commands until END or the end of the connection."""
        for line in self.rfile:
            command, _, path = line.strip().partition(b" ")
            if command == b"PING":
                self.wfile.write(b"PONG\n")
            elif command in (b"SCAN", b"CONTSCAN"):
                self.wfile.write(path + b": OK\n")
            elif command == b"END":
                return


def main(path: str, *command: str) -> None:
    """Serve at *path*, and run *command*."""
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
