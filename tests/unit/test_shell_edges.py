"""Tests of the shell that detect mutants that survive all other tests."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import termios
from contextlib import suppress

import pytest

from postprox.core import limits
from postprox.shell import listen
from postprox.shell.loop import READABLE, Loop
from postprox.shell.stream import Stream
from tests.support.upstream import MESSAGE
from tests.unit.peers import LoopPeer, run_until
from tests.unit.test_connection import Site, settles, site

pytestmark = pytest.mark.any_account

__all__ = ["site"]


class Alarm:
    """A one-shot timer."""

    def __init__(self, loop: Loop, seconds: float) -> None:
        self._deadline = loop.clock() + seconds
        self.rang = False

    @property
    def deadline(self) -> float:
        return float("inf") if self.rang else self._deadline

    def timer(self) -> None:
        self.rang = True


def turns_of_an_idle_loop(loop: Loop) -> int:
    """Return the number of loop iterations in 0.2 seconds without events."""
    alarm = Alarm(loop, 0.2)
    loop.add(alarm)
    turns = 0
    while not alarm.rang:
        loop.run_once()
        turns += 1
    loop.remove(alarm)
    return turns


def test_unwatched_descriptor_does_not_wake_loop(loop: Loop) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        loop.watch(ours.fileno(), READABLE, lambda: None)
        loop.watch(ours.fileno(), 0, lambda: None)
        theirs.send(b"x")
        assert turns_of_an_idle_loop(loop) == 1


def greeted(site: Site) -> None:
    site.transaction()


def in_data(site: Site) -> None:
    site.data()


def with_a_filter(site: Site) -> None:
    client, _ = site.data("-c", "sleep 60")
    client.says(*MESSAGE)
    run_until(site.loop, lambda: site.connection._filter)


def with_a_filter_that_says_nothing_more(site: Site) -> None:
    client, _ = site.data("-c", "exec 2>&-; sleep 60")
    client.says(*MESSAGE)
    run_until(site.loop, lambda: site.connection._filter)


def rejected(site: Site) -> None:
    client, upstream = site.data("-c", "exit 1")
    client.says(*MESSAGE)
    upstream.sees(b"QUIT")
    upstream.leaves()
    client.sees_reply(b"554 ")


def with_a_stalled_upstream(site: Site) -> None:
    site.stalled()
    sending = site.connection._upstream
    assert sending is not None
    run_until(site.loop, lambda: not select.select([], [sending.writer], [], 0)[1])


def with_a_client_that_pipelines(site: Site) -> None:
    client, _ = site.data("-c", "sleep 60")
    client.says(*MESSAGE)
    run_until(site.loop, lambda: site.connection._filter)
    # The session does not read all of this, and the socket buffer can hold it.
    client.sends(b"NOOP\r\n" * 30_000)
    run_until(site.loop, lambda: not site.connection.session.reads_client)


def with_a_client_that_does_not_read(site: Site) -> None:
    client, upstream = site.transaction()
    asks_until_answers_wait(site, client)
    settles(site)
    upstream.says(b"250 unsolicited")


def asks_until_answers_wait(site: Site, client: LoopPeer) -> int:
    """Send commands without reading replies. Return the number of sent commands."""
    client.stops_reading()
    octets = 0
    while len(site.connection._client.unsent) < limits.UNREAD_REPLIES:
        with suppress(BlockingIOError):
            octets += client.socket.send(b"STARTTLS\r\n" * 1000)
        site.loop.run_once()
    return octets // 10


@pytest.mark.parametrize(
    "comes_to",
    [
        greeted,
        in_data,
        with_a_filter,
        with_a_filter_that_says_nothing_more,
        rejected,
        with_a_stalled_upstream,
        with_a_client_that_pipelines,
        with_a_client_that_does_not_read,
    ],
)
def test_waiting_session_does_not_wake_loop(site: Site, comes_to: object) -> None:
    assert callable(comes_to)
    comes_to(site)
    turns_of_an_idle_loop(site.loop)  # This handles the remaining events.
    assert turns_of_an_idle_loop(site.loop) <= 3


def test_spool_is_read_no_faster_than_upstream_accepts_data(site: Site) -> None:
    with_a_stalled_upstream(site)
    sending, upstream = site.connection._upstream, site._peers[-1]
    assert sending is not None
    with socket.socket(fileno=os.dup(sending.writer)) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    waiting: list[int] = []

    def is_there() -> bool:
        waiting.append(len(sending.unsent))
        return upstream.received.endswith(b"\r\n.\r\n")

    upstream.reads()
    run_until(site.loop, is_there)
    assert max(waiting) <= limits.COPY_SIZE


def test_proxy_does_not_read_from_client_while_replies_are_unsent(site: Site) -> None:
    client, _ = site.transaction()
    asks_until_answers_wait(site, client)
    with suppress(BlockingIOError):
        client.socket.send(b"NOOP\r\n")
    reader = site.connection._client.reader
    held = fcntl.ioctl(reader, termios.FIONREAD, b"\0\0\0\0")
    site.connection._client_ready()
    assert fcntl.ioctl(reader, termios.FIONREAD, b"\0\0\0\0") == held
    assert struct.unpack("i", held)[0] > 0, "the test requires unread input"


def test_slow_client_receives_every_reply(site: Site) -> None:
    client, _ = site.transaction()
    asked = asks_until_answers_wait(site, client)
    client.reads()
    run_until(site.loop, lambda: client.received.count(b"\n") >= asked)
    assert not site.connection._client.unsent


def test_listener_is_nonblocking() -> None:
    listeners = listen._bind("127.0.0.1", 0)
    assert [listener.getblocking() for listener in listeners] == [False] * len(listeners)
    for listener in listeners:
        listener.close()


def test_both_stream_descriptors_are_nonblocking() -> None:
    there, back = os.pipe(), os.pipe()
    stream = Stream(there[0], back[1])
    assert not os.get_blocking(there[0])
    assert not os.get_blocking(back[1])
    stream.close()
    os.close(there[1])
    os.close(back[0])
