"""The filter's variables, which come from the envelope and from Postfix's XFORWARD."""

from __future__ import annotations

import pytest

from tests.support.client import connect

from .client import connect_from, message, submit
from .site import Site

WAYS = ("open_before", "open_adjusted", "open_after")


@pytest.mark.parametrize("way", WAYS)
def test_filter_receives_sender_and_first_recipient(site: Site, way: str) -> None:
    box, other = site.proxy.box("exit 0"), site.proxy.box("exit 0")
    submit(site.postfix.addresses[way], box.sender, [box.address, other.address], message("two"))
    run = box.wait_run()
    assert (run.sender, run.recipient) == (box.sender, box.address)


@pytest.mark.parametrize("way", WAYS)
def test_filter_receives_null_sender(site: Site, way: str) -> None:
    box = site.proxy.box("exit 0")
    submit(site.postfix.addresses[way], "", [box.address], message("bounce"))
    assert box.wait_run().sender == "<>"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("address", "seen"), [("192.0.2.7", "192.0.2.7"), ("IPV6:2001:db8::7", "2001:db8::7")]
)
def test_filter_receives_remote_address(site: Site, way: str, address: str, seen: str) -> None:
    box = site.proxy.box("exit 0")
    with connect_from(site.postfix.addresses[way], address) as session:
        session.transact(box.sender, [box.address], message("from afar"))
    assert box.wait_run().remote_ip == seen


def test_unavailable_remote_address_is_empty(site: Site) -> None:
    box = site.proxy.box("exit 0")
    with connect_from(site.postfix.addresses["open_before"], "[UNAVAILABLE]") as session:
        session.transact(box.sender, [box.address], message("from nowhere"))
    assert box.wait_run().remote_ip == ""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("helo", ["mail.example.org", "evil+name=$x"])
def test_filter_receives_helo_of_remote_client(site: Site, way: str, helo: str) -> None:
    box = site.proxy.box("exit 0")
    with connect(site.postfix.addresses[way], helo) as session:
        session.transact(box.sender, [box.address], message("hello"))
    assert box.wait_run().helo == helo


def test_filter_receives_first_recipient_accepted_by_upstream(site: Site) -> None:
    box = site.proxy.box("exit 0")
    addresses = ["refused@mail.test", box.address]
    submit(site.postfix.addresses["open_after"], box.sender, addresses, message("second"))
    assert box.wait_run().recipient == box.address


@pytest.mark.parametrize("way", WAYS)
def test_filter_receives_utf8_sender(site: Site, way: str) -> None:
    box = site.proxy.box("exit 0")
    with connect(site.postfix.addresses[way]) as session:
        session.command("MAIL FROM:<j\u00f6rg@mail.test> SMTPUTF8")
        session.command(f"RCPT TO:<{box.address}>")
        assert session.data(message("internationalised"))[0] == 250
    assert box.wait_run().sender == "j\u00f6rg@mail.test"
