"""Sends messages through a site and waits until each one is in the Maildir.

Rule: a session sends its next message only after its last one has been delivered. So the number of
sessions is the number of messages under way, and a latency contains no waiting of the sender.
"""

from __future__ import annotations

import ctypes
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.postfix.instance import Address

from .peers import LIMIT, BrokenDialogueError, Client, Message

SENDER, RECIPIENT = b"sender@mail.test", b"recipient@mail.test"
#: The header field with the number of a message.
NUMBER = re.compile(rb"^X-Number: (\d+)\r?$", re.MULTILINE)
#: The fields that Postfix and the proxies prepend fit into the beginning of a file.
BEGINNING = 8192
#: inotify(7). Postfix delivers with link(2).
_CREATED, _MOVED_TO, _EVENT = 0x100, 0x80, struct.Struct("iIII")


def number_of(text: bytes) -> int | None:
    """Return the number of the message that begins with this text, or None."""
    found = NUMBER.search(text)
    return int(found[1]) if found else None


class Sent(NamedTuple):
    """The elapsed time of a whole run, and the latency of each message, in seconds."""

    wall: float
    latencies: list[float]


@dataclass
class Arrivals:
    """The times at which messages arrived."""

    directory: Path
    times: dict[int, float] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def watch(self, inotify: int) -> None:
        """Read events until the descriptor's watch is removed."""
        while events := os.read(inotify, 65536):
            now = time.perf_counter()
            offset = 0
            while offset < len(events):
                _, mask, _, length = _EVENT.unpack_from(events, offset)
                offset += _EVENT.size
                if not mask & (_CREATED | _MOVED_TO):
                    return
                name = events[offset : offset + length].rstrip(b"\0").decode()
                offset += length
                self._arrived(self.directory / name, now)

    def _arrived(self, path: Path, now: float) -> None:
        with path.open("rb") as file:
            found = number_of(file.read(BEGINNING))
        if found is not None:
            with self.changed:
                self.times[found] = now
                self.changed.notify_all()

    def wait(self, number: int) -> float:
        """Return the time at which a message arrived."""
        with self.changed:
            if not self.changed.wait_for(lambda: number in self.times, LIMIT):
                raise BrokenDialogueError(f"message {number} was not delivered in {LIMIT:g} s")
            return self.times[number]


@contextmanager
def arrivals(directory: Path) -> Iterator[Arrivals]:
    """Watch a directory for new files."""
    libc = ctypes.CDLL(None, use_errno=True)
    inotify = libc.inotify_init1(os.O_CLOEXEC)
    watch = libc.inotify_add_watch(inotify, os.fsencode(directory), _CREATED | _MOVED_TO)
    if inotify < 0 or watch < 0:
        raise OSError(ctypes.get_errno(), "inotify cannot watch the Maildir")
    watched = Arrivals(directory)
    thread = threading.Thread(target=watched.watch, args=(inotify,))
    thread.start()
    try:
        yield watched
    finally:
        libc.inotify_rm_watch(inotify, watch)
        thread.join()
        os.close(inotify)


def submit(front: Address, number: int, body: bytes) -> bytes:
    """Send one message in a session of its own, and return the reply to its end of data."""
    with Client(socket.create_connection(front, timeout=LIMIT)) as client:
        client.hello()
        client.command(b"MAIL FROM:<%s>" % SENDER)
        client.command(b"RCPT TO:<%s>" % RECIPIENT)
        client.command(b"DATA", b"354")
        client.sends(b"Subject: benchmark\r\nX-Number: %d\r\n\r\n%s" % (number, body))
        reply = client.reply()
        client.command(b"QUIT", b"221")
    return reply


def send(front: Address, maildir: Path, size: int, numbers: range, sessions: int) -> Sent:
    """Send messages of this size with these numbers, and wait until they are delivered."""
    body = b"".join(Message(size).wire())
    with arrivals(maildir) as arrived, ThreadPoolExecutor(sessions) as pool:

        def latency(number: int) -> float:
            began = time.perf_counter()
            reply = submit(front, number, body)
            if not reply.startswith(b"250"):
                raise BrokenDialogueError(f"{reply!r} instead of 250")
            return arrived.wait(number) - began

        began = time.perf_counter()
        latencies = list(pool.map(latency, numbers))
        return Sent(time.perf_counter() - began, latencies)
