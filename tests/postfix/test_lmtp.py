"""No mail is lost if the administrator configures lmtp(8) as the transport (relay.refused)."""

from __future__ import annotations

from .client import message, submit
from .site import Site


def test_lmtp_transport_defers_all_recipients(site: Site) -> None:
    boxes = [site.proxy.box("exit 0") for _ in range(2)]
    sender, recipients = boxes[0].sender, [box.address for box in boxes]
    server = site.postfix.addresses["open_lmtp"]
    assert submit(server, sender, recipients, message("by LMTP"))[0] == 250
    for box in boxes:
        line = site.postfix.wait_log(rf"lmtp\[.*to=<{box.address}>.* status=(\w+) \((.*)")
        assert line[1] == "deferred"
        assert "421 4.3.5" in line[2]
        assert "smtp(8)" in line[2]
    site.proxy.wait_clean(site.postfix)
    assert [box.runs() for box in boxes] == [[], []]
    assert [site.postfix.delivered(to) for to in (sender, *recipients)] == [[], [], []]
