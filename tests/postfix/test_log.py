"""What the administrator reads afterwards: the proxy's syslog, and nothing amiss in Postfix's."""

from __future__ import annotations

import pytest

from .client import connect_from, message, transact
from .site import Site, running_site

INFO, WARNING = "<22>", "<20>"  # facility mail


@pytest.fixture(autouse=True)
def _needs_syslog(site: Site) -> None:
    if site.syslog is None:
        pytest.skip("a /dev/log of one's own needs a mount namespace, which is forbidden here")


@pytest.mark.parametrize("way", ["open_before", "open_after"])
def test_one_line_for_an_accepted_message(site: Site, way: str) -> None:
    box = site.proxy.box("exit 0")
    with connect_from(site.postfix.addresses[way], "192.0.2.9", "log.example") as session:
        transact(session, box.sender, [box.address], message("logged"))
    line = site.wait_syslog(box.sender, box.address)
    assert line.startswith(INFO)
    assert " postprox[" in line
    assert "192.0.2.9" in line
    assert "log.example" in line
    assert "250 2.0.0 Ok: queued as" in line


def test_one_line_for_a_rejected_message(site: Site) -> None:
    box = site.proxy.box("echo '550 5.7.1 no, thanks' >&2; exit 1")
    site.send("open_before", box, message("logged"))
    assert "550 5.7.1 no, thanks" in site.wait_syslog("reject", box.sender, box.address)


@pytest.mark.parametrize("way", ["open_before", "strict_before"])
def test_a_broken_filter_is_a_warning(site: Site, way: str) -> None:
    box = site.proxy.box("exit 7")
    site.send(way, box, message("broken"))
    line = site.wait_syslog(box.address, "7")
    assert line.startswith(WARNING)


def test_postfix_has_nothing_to_complain_about(needs_postfix: None) -> None:
    scripts = ("exit 0", "echo '550 5.7.1 no' >&2; exit 1", "exit 7")
    with running_site() as own:
        for way in ("strict_before", "open_adjusted", "open_after", "open_cached"):
            for script in scripts:
                own.send(way, own.proxy.box(script), message("ordinary"))
        own.postfix.wait_quiet()
        own.proxy.wait_clean(own.postfix)
        own.postfix.stop()
        assert own.postfix.complaints() == []
