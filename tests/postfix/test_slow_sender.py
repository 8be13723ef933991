"""A client that sends 400 octets per second through smtpd(8) is accepted (relay.idle).

The proxy's clock and the sender are accelerated by the same factor. Postfix runs in real time.
"""

from __future__ import annotations

import time

import pytest

from postprox.core import limits

from .client import begin_data, message
from .proxies import VARIANTS
from .site import Site

SPEED = VARIANTS["fast-clock"].speed
RATE = limits.MESSAGE_RATE * SPEED
#: At this rate, the message takes longer than the fixed part of a message's time limit.
OCTETS = int(limits.MESSAGE_TIME * 1.2) * limits.MESSAGE_RATE
WRITES = 20  # per second


@pytest.mark.parametrize("way", ["fast-clock_before", "fast-clock_adjusted"])
def test_message_sent_at_400_octets_per_second_is_accepted(site: Site, way: str) -> None:
    box = site.proxy.box("exit 0")
    content = message("slow", "\n".join(["x" * 78] * (OCTETS // 80)))
    with begin_data(site.postfix.addresses[way], box) as peer:
        began = time.monotonic()
        for number in range(0, len(content), RATE // WRITES):
            time.sleep(max(0.0, began + number / RATE - time.monotonic()))
            peer.sends(content[number : number + RATE // WRITES])
        assert time.monotonic() - began > limits.MESSAGE_TIME / SPEED
        peer.asks(b".", b"250 ")
    assert site.postfix.wait_delivered(box.address)
