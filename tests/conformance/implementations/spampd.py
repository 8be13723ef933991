"""Lets spampd(8), of Debian's package spampd, be judged: `spampd.py HOST:PORT -l ADDRESS:PORT ...`.

Rule: what is between the messages, what is in them, where they end and what becomes of them is
spampd's doing. Here is what it has otherwise by design, and what would fail in every transcript.

- DATA and its 354 go through it before the content does. So DATA is held back on the way to
  upstream, once a recipient has been accepted: spampd is told 354, and upstream gets DATA when
  spampd begins to send what it has taken in. If upstream refuses then, that is spampd's answer for
  the message.
- After QUIT it waits until the client closes. So, as clients do, what passes on the client's octets
  closes when upstream has said 221 to QUIT.
- The command line becomes its own: -t, the time that a message may be looked at, is --satimeout;
  --foreground is --nodetach. DIR of -d it has no use for: messages lie in nameless files in /tmp.
- With --maxsize=0 every message is too large to be scanned, and is passed on as it came.
  SpamAssassin is started with all its rules nevertheless, which takes a second.

So both the port that clients see and the connection to upstream are this module's, and with them
what happens to those that wait in the backlog; an upstream that cannot be reached is to spampd one
that closes at once. spampd takes the place of this process; a child, which passes the octets on,
ends with it. What both write lies beside DIR, to go with it if this is killed. It has no filter of
the administrator's (-c, -r), and no stdio mode.
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
#: When these have been accepted no recipient is any more.
ANEW = (b"EHLO", b"HELO", b"MAIL", b"RSET")
#: Lines, and what has come of the last one.
PIECES = re.compile(rb"[^\n]*\n|[^\n]+")


def main(arguments: list[str]) -> None:
    """Be spampd with the command line of postprox."""
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
    # Its other end stays open in spampd and in all of its children, as long as one of them lives.
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
        # Net::Server reads this: a file to take turns by would stay in /tmp after a SIGKILL.
        *("--", "serialize=none"),
    ]
    os.execv(PROGRAM, command)  # noqa: S606 - a shell has nothing to do here


def parsed(arguments: list[str]) -> argparse.Namespace:
    """The command line, as far as spampd has something of that kind."""
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
    """HOST and PORT of *text*."""
    host, _, port = text.rpartition(":")
    return host or "127.0.0.1", int(port)


def silence(*descriptors: int) -> None:
    """Let what is written to *descriptors* go nowhere."""
    null = os.open(os.devnull, os.O_RDWR)
    for one in descriptors:
        os.dup2(null, one)
    os.close(null)


# --- what goes over the wire


def started(path: str, lifeline: int) -> bool:
    """Wait until spampd listens at *path* and has its children; False: it has ended.

    Of those that it is just starting, one would survive a SIGTERM.
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
    """Join each client to spampd, and spampd to upstream, until spampd has ended."""
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
        # One after the other: whose it is that spampd connects for is known by that alone.
        if lifeline in select.select([up.fileno(), lifeline], [], [])[0]:
            return
        spampd, _ = up.accept()
        start(relay, inside, spampd, upstream)


def start(target: Callable[..., None], *arguments: object) -> None:
    """Have it done meanwhile."""
    threading.Thread(target=target, args=arguments, daemon=True).start()


def passed(source: socket.socket, target: socket.socket) -> None:
    """Pass on everything from *source* to *target*, and how it ends."""
    try:
        while octets := source.recv(65536):
            target.sendall(octets)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def relay(client: socket.socket, spampd: socket.socket, upstream: tuple[str, int]) -> None:
    """Connect to upstream for spampd, and pass on what both say."""
    try:
        outside = socket.create_connection(upstream)
    except OSError:
        spampd.close()
        return
    passage = Passage(client, spampd, outside)
    start(passage.answers)
    passage.commands()


class Passage:
    """One connection of spampd to upstream, and what it is told in the client's name."""

    def __init__(
        self, client: socket.socket, inside: socket.socket, outside: socket.socket
    ) -> None:
        self._client = client
        self._inside = inside
        self._outside = outside
        self._command = b""
        #: Whether a recipient has been accepted for the next message.
        self._recipient = False
        #: Whether upstream's next reply is the one to the DATA that was held back.
        self._held = False
        self._reply = b""
        self._go_ahead = False
        self._replied = threading.Event()

    def commands(self) -> None:
        """Pass on what spampd says, until one of both has closed."""
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
        """Ask upstream for leave when there is a message to send; send it then, or drop it."""
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
        """Pass on what upstream says, and that it has closed."""
        line = b""
        with contextlib.suppress(OSError):
            while octets := self._outside.recv(65536):
                for piece in PIECES.findall(octets):
                    line, held = line + piece, self._held
                    if piece.endswith(b"\n"):
                        # First, for spampd may have its next command sent before this goes on.
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
