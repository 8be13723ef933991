"""If all proxies are busy, mail waits or gets a temporary reply."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from .client import message
from .instance import wait_for
from .site import Site


@pytest.mark.parametrize("way", ["narrow_before", "narrow_after"])
def test_mail_waits_for_available_proxy(site: Site, way: str) -> None:
    (held, gate), waiting = site.proxy.gated_box(), site.proxy.box("exit 0")
    with ThreadPoolExecutor() as clients:
        first = clients.submit(site.send, way, held, message("held"))
        held.wait_run()
        second = clients.submit(site.send, way, waiting, message("waiting"))
        wait_for(
            "a second connection to the proxy's service",
            lambda: site.postfix.connections_to("narrow_proxy") == 2,
        )
        assert waiting.runs() == []
        gate.write_text("go\n")
        assert [first.result()[0], second.result()[0]] == [250, 250]
    site.postfix.wait_delivered(held.address)
    site.postfix.wait_delivered(waiting.address)


def test_message_that_waits_too_long_gets_451_reply(site: Site) -> None:
    (held, gate), waiting = site.proxy.gated_box(), site.proxy.box("exit 0")
    with ThreadPoolExecutor() as clients:
        first = clients.submit(site.send, "narrow_before", held, message("held"))
        held.wait_run()
        assert site.send("narrow_impatient", waiting, message("too late"))[0] == 451
        gate.write_text("go\n")
        assert first.result()[0] == 250
    site.proxy.wait_clean(site.postfix)
    assert waiting.runs() == []
    assert site.postfix.delivered(waiting.address) == []
    assert site.send("narrow_before", waiting, message("again"))[0] == 250
    site.postfix.wait_delivered(waiting.address)
