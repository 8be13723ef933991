"""Upstream refusals, and the handling of mail if the proxy cannot run."""

from __future__ import annotations

import pytest

from tests.support.peers import connected

from .client import message, submit
from .site import Site


@pytest.mark.parametrize("sender", ["refused-at-data@mail.test", "refused-at-end@mail.test"])
def test_upstream_refusal_is_returned_to_client(site: Site, sender: str) -> None:
    box = site.proxy.box("exit 0")
    recipients = [box.address]
    reply = submit(site.postfix.addresses["open_before"], sender, recipients, message("unwanted"))
    assert reply[0] == 554
    assert b"Sender address rejected: Access denied" in reply[1]


@pytest.mark.parametrize("sender", ["refused-at-data@mail.test", "refused-at-end@mail.test"])
def test_upstream_refusal_appears_in_bounce(site: Site, sender: str) -> None:
    box = site.proxy.box("exit 0")
    submit(site.postfix.addresses["open_after"], sender, [box.address], message("unwanted"))
    line = site.postfix.wait_log(rf"to=<{box.address}>.*status=(\w+) \((.*)")
    assert line[1] == "bounced"
    assert "Sender address rejected: Access denied (in reply to end of DATA" in line[2]


def test_missing_spool_results_in_temporary_failure(site: Site) -> None:
    box = site.proxy.box("exit 0")
    reply = site.send("spoolless_before", box, message("no room"))
    assert reply[0] in {451, 452}
    site.proxy.wait_clean(site.postfix)
    assert box.runs() == []


def test_missing_spool_leaves_mail_in_queue(site: Site) -> None:
    box = site.proxy.box("exit 0")
    site.send("spoolless_after", box, message("no room"))
    line = site.postfix.wait_log(rf"to=<{box.address}>.*status=(\w+) \((.*)")
    assert line[1] == "deferred"
    assert " said: 452 4.3.1 " in line[2]


def test_proxy_without_upstream_sends_single_421_reply(site: Site) -> None:
    with connected(site.postfix.addresses["cut-off_proxy"]) as client:
        client.sees_reply(b"421 ")
        client.sees_end()


def test_postfix_returns_451_reply_if_upstream_is_missing(site: Site) -> None:
    assert site.send("cut-off_before", site.proxy.box("exit 0"), message("no way"))[0] == 451


def test_missing_upstream_leaves_mail_in_queue(site: Site) -> None:
    box = site.proxy.box("exit 0")
    site.send("cut-off_after", box, message("no way"))
    line = site.postfix.wait_log(rf"to=<{box.address}>.*status=(\w+) \((.*)")
    assert line[1] == "deferred"
    assert "421" in line[2]


def test_invalid_option_results_in_421_reply(site: Site) -> None:
    with connected(site.postfix.addresses["misconfigured_proxy"]) as client:
        client.sees_reply(b"421 4.3.5 ")
        client.sees_end()


def test_invalid_option_leaves_mail_in_queue(site: Site) -> None:
    box = site.proxy.box("exit 0")
    site.send("misconfigured_after", box, message("not yet"))
    line = site.postfix.wait_log(rf"to=<{box.address}>.*status=(\w+) \((.*)")
    assert line[1] == "deferred"
    assert "421 4.3.5 " in line[2]
