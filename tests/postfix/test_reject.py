"""Rejected mail results in a reply before the queue, and in a bounce after the queue."""

from __future__ import annotations

import pytest

from tests.support.client import connect

from .client import message
from .site import Site

VIRUS = "echo looking >&2; echo '550 5.7.1 Message contains a virus' >&2; exit 1"
SPAM = "echo 'spam found' >&2; exit 1"


@pytest.mark.parametrize("way", ["open_before", "open_adjusted"])
def test_last_line_of_filter_output_becomes_client_reply(site: Site, way: str) -> None:
    box = site.proxy.box(VIRUS)
    reply = site.send(way, box, message("virus"))
    assert reply == (550, b"5.7.1 Message contains a virus")


def test_last_line_of_filter_output_appears_in_bounce(site: Site) -> None:
    box = site.proxy.box(VIRUS)
    assert site.send("open_after", box, message("virus"))[0] == 250
    bounce = site.postfix.wait_delivered(box.sender)
    assert b"\nDiagnostic-Code: smtp; 550 5.7.1 Message contains a virus\n" in bounce
    assert b"\nStatus: 5.7.1\n" in bounce


@pytest.mark.parametrize("way", ["open_before", "open_adjusted"])
def test_rejection_without_code_results_in_554_reply(site: Site, way: str) -> None:
    assert site.send(way, site.proxy.box(SPAM), message("spam")) == (554, b"spam found")


def test_rejection_without_code_appears_as_554_in_bounce(site: Site) -> None:
    box = site.proxy.box(SPAM)
    site.send("open_after", box, message("spam"))
    bounce = site.postfix.wait_delivered(box.sender)
    assert b"\nDiagnostic-Code: smtp; 554 spam found\n" in bounce


def test_temporary_rejection_results_in_450_reply(site: Site) -> None:
    box = site.proxy.box("echo '450 4.7.1 Try again later' >&2; exit 1")
    assert site.send("open_before", box, message("greylisted")) == (450, b"4.7.1 Try again later")


def test_temporary_rejection_leaves_mail_in_queue(site: Site) -> None:
    box = site.proxy.box("echo '450 4.7.1 Try again later' >&2; exit 1")
    site.send("open_after", box, message("greylisted"))
    line = site.postfix.wait_log(rf"to=<{box.address}>.*status=(\w+) \((.*)")
    assert line[1] == "deferred"
    assert "450 4.7.1 Try again later (in reply to end of DATA command)" in line[2]


@pytest.mark.parametrize("way", ["open_before", "open_adjusted", "open_after"])
def test_rejected_message_is_not_delivered_or_stored(site: Site, way: str) -> None:
    box = site.proxy.box(VIRUS)
    site.send(way, box, message("virus"))
    box.wait_run()
    site.proxy.wait_clean(site.postfix)
    assert site.postfix.delivered(box.address) == []


@pytest.mark.parametrize("way", ["open_before", "open_adjusted"])
def test_next_message_in_session_is_delivered_after_rejection(site: Site, way: str) -> None:
    rejected, passed = site.proxy.box(VIRUS), site.proxy.box("exit 0")
    with connect(site.postfix.addresses[way]) as session:
        first = session.transact(rejected.sender, [rejected.address], message("first"))
        second = session.transact(passed.sender, [passed.address], message("second"))
    assert (first[0], second[0]) == (550, 250)
    site.postfix.wait_delivered(passed.address)
