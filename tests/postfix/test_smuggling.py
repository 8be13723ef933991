"""SMTP smuggling: a false end of data does not split a message even if upstream is lenient.

Upstream accepts a bare LF as a line end, so the proxy must not send such an end of data.
"""

from __future__ import annotations

import pytest

from .client import begin_data, message
from .site import Site

NO_ENDS = (
    "\\n.\\n",
    "\\n.\\r\\n",
    "\\r\\n.\\n",
    "\\r.\\r",
    "\\r.\\n",
    "\\n.\\r",
    "\\r.\\r\\n",
    "\\r\\n.\\r",
    "\\r\\n.\\r\\r\\n",
    "\\r\\n\\0.\\r\\n",
    "\\r\\n.\\0\\r\\n",
)


@pytest.mark.parametrize("no_end", NO_ENDS)
@pytest.mark.parametrize("address_name", ["open_before", "open_adjusted", "open_proxy"])
def test_smuggled_end_of_data_does_not_split_message(
    site: Site, address_name: str, no_end: str
) -> None:
    box, victim = site.proxy.box("exit 0"), site.proxy.box("exit 0")
    commands = f"MAIL FROM:<>\r\nRCPT TO:<{victim.address}>\r\nDATA\r\n".encode()
    end = no_end.encode().decode("unicode_escape").encode()
    with begin_data(site.postfix.addresses[address_name], box) as peer:
        peer.sends(message("outer", "text")[:-2] + end + commands + message("inner", "text"))
        peer.asks(b".", b"250 ")
    delivered = site.postfix.wait_delivered(box.address)
    assert victim.address.encode() in delivered
    assert b"Subject: inner" in delivered
    site.postfix.wait_quiet()
    assert site.postfix.delivered(victim.address) == []
    assert (len(box.runs()), len(victim.runs())) == (1, 0)
