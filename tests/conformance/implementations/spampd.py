"""An adapter for spampd(8), of Debian's package spampd: `spampd.py HOST:PORT -l ADDRESS:PORT ...`.

Rule: spampd itself handles every session and message. The adapter only hides intended differences
that would fail every transcript.

- spampd relays DATA and its 354 before the content. After a recipient was accepted, the adapter
holds back DATA. spampd gets a 354 from the adapter, and upstream
  gets DATA when spampd begins to send the content. If upstream then refuses DATA, spampd gets that
  reply to the message.
- After QUIT spampd waits until the client closes. Like a client, the adapter closes the connection
when upstream has replied 221 to QUIT. - It translates the command line: -t, the time limit for a
message, becomes --satimeout, and
  --foreground becomes --nodetach. spampd has no use for DIR of -d, because its messages are in
  unnamed files in /tmp.
- With --maxsize=0 every message is too large for a scan and is relayed unchanged. SpamAssassin is
still started with all its rules, which takes a second.

The port for clients, with its backlog, and the connection to upstream therefore belong to this
module. To spampd, an unreachable upstream looks like one that closes at once. spampd replaces this
process. A child relays the octets and ends with spampd. The files of both are next to DIR, so that
they are removed with DIR if this process is killed. spampd has no administrator's filter (-c, -r)
and no mode stdio.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pwd
import re
import select
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

PROGRAM = "/usr/sbin/spampd"
_SETTLING = 0.3
GO_AHEAD = b"354 go ahead\r\n"
DATA = re.compile(rb"DATA[ \t]*\r\n", re.IGNORECASE)
#: Commands after which no recipient is accepted.
ANEW = (b"EHLO", b"HELO", b"MAIL", b"RSET")
#: Lines, and the state of an incomplete last one.
PIECES = re.compile(rb"[^\n]*\n|[^\n]+")


def main(arguments: list[str]) -> None:
    """Run spampd with the command line of postprox."""
    options = parsed(arguments)
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind(options.listen)
    except OSError as error:
        sys.exit(f"{PROGRAM}: cannot listen on {options.listen}: {error}")
    parent = Path(options.tempdir).parent
    files = tempfile.mkdtemp(prefix="spampd-", dir=None if parent == Path("/") else parent)
    up = socket.socket(socket.AF_UNIX)
    up.bind(f"{files}/up")
    up.listen()
    # spampd and all of its children keep the other end open, so that it closes with the last of
    # them.
    lifeline, end = os.pipe()
    if os.fork() == 0:
        os.setsid()
        os.close(end)
        silence(0, 1, 2)
        if started(f"{files}/in", lifeline):
            serve(server, f"{files}/in", up, options.upstream, lifeline)
        shutil.rmtree(files)
        os._exit(0)
    os.set_inheritable(end, True)
    command = [
        PROGRAM,
        f"--socket={files}/in",
        f"--relaysocket={files}/up",
        f"--satimeout={options.timeout}",
        f"--pid={files}/pid",
        f"--user={pwd.getpwuid(os.geteuid()).pw_name}",
        f"--group={os.getegid()}",
        *("--local-only", "--maxsize=0", "--children=2"),
        *(["--nodetach"] if options.foreground else []),
        # Read by Net::Server, whose lock file would stay in /tmp after a SIGKILL.
        *("--", "serialize=none"),
    ]
    os.execv(PROGRAM, command)  # noqa: S606 - a shell has nothing to do here


def parsed(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line, as far as spampd has an equivalent."""
    parser = argparse.ArgumentParser(prog="spampd")
    parser.add_argument("upstream", type=address)
    parser.add_argument("-d", "--tempdir", default="/tmp")
    parser.add_argument("-t", "--timeout", type=int, default=30)
    parser.add_argument("-l", "--listen", type=address)
    parser.add_argument("--foreground", action="store_true")
    options = parser.parse_intermixed_args(arguments)
    if options.listen is None:
        parser.error("spampd has no stdio mode: judge it with --modes listen")
    return options


def address(text: str) -> tuple[str, int]:
    """Return HOST and PORT of *text*."""
    host, _, port = text.rpartition(":")
    return host or "127.0.0.1", int(port)


def silence(*descriptors: int) -> None:
    """Discard output to *descriptors*."""
    null = os.open(os.devnull, os.O_RDWR)
    for one in descriptors:
        os.dup2(null, one)
    os.close(null)


# --- the octets on the wire


def started(path: str, lifeline: int) -> bool:
    """Wait until spampd listens at *path* and has its children. Return False if it has ended.

    A child that is just starting would survive a SIGTERM.
    """
    while lifeline not in select.select([lifeline], [], [], 0.01)[0]:
        if Path(path).exists():
            return not select.select([lifeline], [], [], _SETTLING)[0]
    return False


def serve(
    server: socket.socket,
    entrance: str,
    up: socket.socket,
    upstream: tuple[str, int],
    lifeline: int,
) -> None:
    """Connect each client with spampd, and spampd with upstream, until spampd has ended."""
    server.listen(128)
    while lifeline not in select.select([server.fileno(), lifeline], [], [])[0]:
        client, _ = server.accept()
        inside = socket.socket(socket.AF_UNIX)
        try:
            inside.connect(entrance)
        except OSError:
            client.close()
            continue
        start(passed, client, inside)
        start(passed, inside, client)
        # One client at a time, because only the order shows for which client spampd connects.
        if lifeline in select.select([up.fileno(), lifeline], [], [])[0]:
            return
        spampd, _ = up.accept()
        start(relay, inside, spampd, upstream)


def start(target: Callable[..., None], *arguments: object) -> None:
    """Run a function in a thread."""
    threading.Thread(target=target, args=arguments, daemon=True).start()


def passed(source: socket.socket, target: socket.socket) -> None:
    """Relay everything from *source* to *target*, including the end."""
    try:
        while octets := source.recv(65536):
            target.sendall(octets)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def relay(client: socket.socket, spampd: socket.socket, upstream: tuple[str, int]) -> None:
    """Connect to upstream for spampd, and relay both directions."""
    try:
        outside = socket.create_connection(upstream)
    except OSError:
        spampd.close()
        return
    passage = Passage(client, spampd, outside)
    start(passage.answers)
    passage.commands()


class Passage:
    """One connection from spampd to upstream, into which this module inserts replies."""

    def __init__(
        self, client: socket.socket, inside: socket.socket, outside: socket.socket
    ) -> None:
        self._client = client
        self._inside = inside
        self._outside = outside
        self._command = b""
        #: Whether a recipient has been accepted for the next message.
        self._recipient = False
        #: Whether the next reply from upstream belongs to the DATA that was held back.
        self._held = False
        self._reply = b""
        self._go_ahead = False
        self._replied = threading.Event()

    def commands(self) -> None:
        """Relay octets from spampd until either side has closed."""
        with contextlib.suppress(OSError), self._inside.makefile("rb") as spampd:
            begins = True
            while line := spampd.readline():
                data = begins and self._recipient and DATA.fullmatch(line)
                if begins:
                    self._command = line[:4].upper()
                if data:
                    self._recipient = False
                    self._inside.sendall(GO_AHEAD)
                    self._message(line, spampd)
                else:
                    self._outside.sendall(line)
                begins = line.endswith(b"\r\n")
        for side in (self._inside, self._outside):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def _message(self, data: bytes, spampd: BinaryIO) -> None:
        """Send DATA to upstream when there is a message. Then send the message, or drop it."""
        line, begins = spampd.readline(), True
        if not line:
            return
        self._go_ahead, self._held = False, True
        self._outside.sendall(data)
        self._replied.wait()
        while line:
            if self._go_ahead:
                self._outside.sendall(line)
            if begins and line == b".\r\n":
                break
            begins = line.endswith(b"\r\n")
            line = spampd.readline()
        self._replied.clear()

    def answers(self) -> None:
        """Relay octets and the end from upstream."""
        line = b""
        with contextlib.suppress(OSError):
            while octets := self._outside.recv(65536):
                for piece in PIECES.findall(octets):
                    line, held = line + piece, self._held
                    if piece.endswith(b"\n"):
                        # This comes first, because spampd may send its next command before this
                        # thread continues.
                        self._heard(line)
                        line = b""
                    if not held:
                        self._inside.sendall(piece)
        self._recipient = self._held = False
        self._replied.set()
        with contextlib.suppress(OSError):
            self._inside.shutdown(socket.SHUT_WR)

    def _heard(self, line: bytes) -> None:
        final = line[3:4] != b"-"
        if not self._held:
            if final and line.startswith(b"2"):
                self._succeeded(line)
            return
        self._reply += line
        if final:
            self._go_ahead = line[:4] in (b"354 ", b"354\r", b"354\n")
            if not self._go_ahead:
                self._inside.sendall(self._reply)
            self._reply = b""
            self._held = False
            self._replied.set()

    def _succeeded(self, line: bytes) -> None:
        if self._command in (*ANEW, b"RCPT"):
            self._recipient = self._command == b"RCPT"
        if self._command == b"QUIT" and line.startswith(b"221"):
            with contextlib.suppress(OSError):
                self._client.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    main(sys.argv[1:])
