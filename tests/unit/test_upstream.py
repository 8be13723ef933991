"""Tests of the session's upstream link, which awaits one reply at a time."""

from __future__ import annotations

import pytest

from postprox.core import actions, limits, upstream
from postprox.core.upstream import UpstreamLink


class Site:
    """An upstream link with a clock, and the actions that it requested."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.asked: list[actions.Action] = []
        self.link = UpstreamLink(self.asked.append, lambda: self.now)

    def ready(self) -> UpstreamLink:
        self.link.connect()
        self.link.connected()
        self.link.feed(b"220 up\r\n")
        assert self.link.next_reply() is not None
        self.asked.clear()
        return self.link


@pytest.fixture
def site() -> Site:
    return Site()


def test_no_upstream_connection_exists_initially(site: Site) -> None:
    assert site.link.state == upstream.ABSENT
    assert site.link.deadline == limits.NEVER


def test_connection_attempt_has_timeout(site: Site) -> None:
    site.link.connect()
    assert site.asked == [actions.ConnectUpstream()]
    assert site.link.deadline == site.now + limits.CONNECT


def test_connection_awaits_greeting(site: Site) -> None:
    site.link.connect()
    site.link.connected()
    assert (site.link.state, site.link.awaited) == (upstream.READY, upstream.GREETING)
    assert site.link.deadline == site.now + limits.UPSTREAM_REPLY


def test_reply_is_awaited_after_command(site: Site) -> None:
    connection = site.ready()
    connection.ask(b"NOOP", upstream.DATA)
    assert site.asked == [actions.SendToUpstream(b"NOOP\r\n")]
    assert connection.deadline == site.now + limits.UPSTREAM_DATA


@pytest.mark.parametrize(
    ("awaited", "seconds"),
    [
        (upstream.GREETING, limits.UPSTREAM_REPLY),
        (upstream.EHLO, limits.UPSTREAM_REPLY),
        (upstream.RSET, limits.UPSTREAM_REPLY),
        (upstream.REPLY, limits.UPSTREAM_REPLY),
        (upstream.QUIT, limits.UPSTREAM_GOODBYE),
        (upstream.KEEPALIVE, limits.UPSTREAM_REPLY),
        (upstream.DATA, limits.UPSTREAM_DATA),
        (upstream.FINAL, limits.UPSTREAM_FINAL),
    ],
)
def test_timeout_depends_on_awaited_reply(site: Site, awaited: str, seconds: float) -> None:
    connection = site.ready()
    connection.expect(awaited)
    assert connection.deadline == site.now + seconds


@pytest.mark.parametrize(
    "awaited", [upstream.EHLO, upstream.RSET, upstream.REPLY, upstream.KEEPALIVE]
)
def test_client_disconnect_shortens_reply_timeout(site: Site, awaited: str) -> None:
    connection = site.ready()
    connection.client_gone()
    connection.expect(awaited)
    assert connection.deadline == site.now + limits.REPLY_AFTER_CLIENT_EOF


@pytest.mark.parametrize("awaited", [upstream.GREETING, upstream.DATA, upstream.FINAL])
def test_client_disconnect_does_not_shorten_greeting_and_data_timeouts(
    site: Site, awaited: str
) -> None:
    connection = site.ready()
    connection.client_gone()
    connection.expect(awaited)
    assert connection.deadline > site.now + limits.REPLY_AFTER_CLIENT_EOF


def test_awaited_event_is_described(site: Site) -> None:
    site.link.connect()
    assert site.link.awaited_description == "connection"
    site.link.connected()
    assert site.link.awaited_description == "greeting"


def test_received_reply_is_returned_with_its_kind(site: Site) -> None:
    connection = site.ready()
    connection.ask(b"NOOP", upstream.KEEPALIVE)
    connection.feed(b"250 ok\r\n")
    received = connection.next_reply()
    assert received is not None
    assert received[1] == upstream.KEEPALIVE
    assert connection.deadline == limits.NEVER


def test_second_reply_is_unexpected(site: Site) -> None:
    connection = site.ready()
    connection.ask(b"NOOP", upstream.KEEPALIVE)
    connection.feed(b"250 ok\r\n250 again\r\n")
    connection.next_reply()
    received = connection.next_reply()
    assert received is not None
    assert received[1] == upstream.NOTHING


def test_reply_updates_time_of_last_use(site: Site) -> None:
    connection = site.ready()
    site.now += 50
    connection.feed(b"250 ok\r\n")
    connection.next_reply()
    assert connection.used == site.now


def test_leave_sends_quit_and_sets_short_timeout(site: Site) -> None:
    connection = site.ready()
    connection.leave()
    assert site.asked == [actions.SendToUpstream(b"QUIT\r\n")]
    assert connection.state == upstream.QUITTING
    assert connection.deadline == site.now + limits.UPSTREAM_GOODBYE


def test_leave_method_cancels_wait_for_reply(site: Site) -> None:
    connection = site.ready()
    connection.expect(upstream.REPLY)
    connection.leave()
    assert connection.awaited == upstream.NOTHING


def test_reply_after_quit_is_ignored(site: Site) -> None:
    connection = site.ready()
    connection.leave()
    connection.feed(b"221 bye\r\n")
    assert connection.next_reply() is None


def test_new_connection_resets_state(site: Site) -> None:
    connection = site.ready()
    connection.feed(b"250-half")
    connection.disconnect()
    connection.connect()
    connection.connected()
    connection.feed(b"220 up again\r\n")
    received = connection.next_reply()
    assert received is not None
    assert received[0].raw == b"220 up again\r\n"


def test_second_disconnect_has_no_effect(site: Site) -> None:
    connection = site.ready()
    connection.disconnect()
    connection.disconnect()
    assert site.asked == [actions.CloseUpstream()]
    assert connection.deadline == limits.NEVER
    connection.expect(upstream.FINAL)
    connection.disconnect()
    assert connection.awaited == upstream.NOTHING
