"""The client, the proxy and the upstream server communicate over IPv6."""

from __future__ import annotations

import pytest

from tests.support.client import HELO

from .client import message, unix
from .instance import without_trace
from .proxies import Run
from .site import Site

WAYS = ("ipv6_before", "ipv6_adjusted", "ipv6_after")


@pytest.mark.parametrize("way", WAYS)
def test_message_is_delivered_unchanged_over_ipv6(site: Site, way: str) -> None:
    box, content = site.proxy.box("exit 0"), message("by IPv6")
    assert site.send(way, box, content)[0] == 250
    assert without_trace(site.postfix.wait_delivered(box.address)) == unix(content)


@pytest.mark.parametrize("way", WAYS)
def test_filter_receives_ipv6_address(site: Site, way: str) -> None:
    box = site.proxy.box("exit 0")
    site.send(way, box, message("whose"))
    assert box.wait_run() == Run(box.sender, box.address, "::1", HELO)
