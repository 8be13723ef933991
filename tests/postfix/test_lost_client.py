"""After a client disconnect, a message that the client will send again is not delivered.

Postfix ends such a session with QUIT after incomplete content. After a timeout it closes the
connection. These tests use a real Postfix.
"""

from __future__ import annotations

import pytest

from tests.support.peers import Peer

from .client import begin_data, message
from .proxies import Box
from .site import Site

#: A message that exceeds all buffers between the client and the proxy's spool.
CUT_SHORT = message("cut short", "0123456789abcdef\n" * 40_000)


def check_nothing_came_of_it(site: Site, box: Box) -> None:
    site.proxy.wait_clean(site.postfix)
    assert box.runs() == []
    assert site.postfix.delivered(box.address) == []


def inside_data(site: Site, address_name: str, box: Box) -> Peer:
    """Begin a session and send part of the content."""
    peer = begin_data(site.postfix.addresses[address_name], box)
    peer.sends(CUT_SHORT)
    return peer


@pytest.mark.parametrize("address_name", ["open_before", "open_proxy"])
def test_client_disconnect_during_data_prevents_delivery(site: Site, address_name: str) -> None:
    box = site.proxy.box("exit 0")
    inside_data(site, address_name, box).leaves()
    check_nothing_came_of_it(site, box)


@pytest.mark.parametrize("address_name", ["open_before", "open_proxy"])
def test_connection_reset_during_data_prevents_delivery(site: Site, address_name: str) -> None:
    box = site.proxy.box("exit 0")
    inside_data(site, address_name, box).resets()
    check_nothing_came_of_it(site, box)


def test_disconnect_after_quit_line_in_data_prevents_delivery(site: Site) -> None:
    box = site.proxy.box("exit 0")
    peer = inside_data(site, "open_proxy", box)
    peer.says(b"QUIT")
    peer.leaves()
    check_nothing_came_of_it(site, box)


def test_message_exceeding_postfix_limit_is_not_filtered(site: Site) -> None:
    box = site.proxy.box("exit 0")
    assert site.send("open_small", box, CUT_SHORT)[0] == 552
    check_nothing_came_of_it(site, box)


def test_postfix_timeout_during_filter_run_prevents_delivery(site: Site) -> None:
    box = site.proxy.box("sleep 600")
    assert site.send("open_impatient", box, message("too slow"))[0] == 451
    box.wait_run()
    site.proxy.wait_clean(site.postfix)
    assert site.postfix.delivered(box.address) == []
