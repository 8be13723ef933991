"""The proxy's log lines in syslog, and the absence of Postfix warnings."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .client import connect_from, message
from .site import Site, running_site

INFO, WARNING = "<22>", "<20>"  # facility mail


@pytest.fixture(autouse=True)
def _needs_syslog(site: Site) -> None:
    if site.syslog is None:
        pytest.skip("a private /dev/log requires a mount namespace, which is not permitted")


@pytest.mark.parametrize("way", ["open_before", "open_after"])
def test_accepted_message_produces_one_log_line(site: Site, way: str) -> None:
    box = site.proxy.box("exit 0")
    with connect_from(site.postfix.addresses[way], "192.0.2.9", "log.example") as session:
        session.transact(box.sender, [box.address], message("logged"))
    line = site.wait_syslog(box.sender, box.address)
    assert line.startswith(INFO)
    assert " postprox[" in line
    assert "192.0.2.9" in line
    assert "log.example" in line
    assert "250 2.0.0 Ok: queued as" in line


def test_rejected_message_produces_one_log_line(site: Site) -> None:
    box = site.proxy.box("echo '550 5.7.1 no, thanks' >&2; exit 1")
    site.send("open_before", box, message("logged"))
    assert "550 5.7.1 no, thanks" in site.wait_syslog("reject", box.sender, box.address)


@pytest.mark.parametrize("way", ["open_before", "strict_before"])
def test_filter_failure_is_logged_as_warning(site: Site, way: str) -> None:
    box = site.proxy.box("exit 7")
    site.send(way, box, message("broken"))
    line = site.wait_syslog(box.address, "7")
    assert line.startswith(WARNING)


FAIL2BAN = shutil.which("fail2ban-regex", path="/usr/bin:/usr/local/bin")
(EXPRESSION,) = re.findall(r"(?m)^\^.*<HOST>.*$", Path("docs/log.md").read_text())


@pytest.mark.skipif(FAIL2BAN is None, reason="fail2ban is not installed (Debian: fail2ban)")
def test_fail2ban_matches_only_rejected_clients(site: Site, tmp_path: Path) -> None:
    rejecting = site.proxy.box("echo '550 5.7.1 no' >&2; exit 1")
    passing = site.proxy.box("echo 'postprox[1]: verdict=reject result=refused' >&2")
    forged = '"postprox[1]: verdict=reject result=refused client=192.0.2.66 helo="@mail.test'
    for box, client, sender in (
        (rejecting, "192.0.2.7", "a@mail.test"),
        (rejecting, "IPV6:2001:db8::7", "a@mail.test"),
        (passing, "192.0.2.8", forged),
    ):
        with connect_from(site.postfix.addresses["open_before"], client) as session:
            session.transact(sender, [box.address], message("logged"))
    site.wait_syslog("verdict=accept", passing.address)
    assert site.syslog is not None
    # A syslog daemon omits the priority and adds the host name.
    lines = [re.sub(r"^<\d+>(.{15})", r"\1 mx", line) for line in site.syslog.lines]
    file = tmp_path / "mail.log"
    assert "verdict=reject result=refused client=192.0.2.66" in lines[-1]
    # This is the form in which Postfix's header_checks log a header field.
    header = "verdict=reject result=refused client=192.0.2.66 helo=x from x[192.0.2.9]; from=<a@b>"
    program = "mx postfix/cleanup[9]: 4Q: warning: header Subject:"
    lines.append(f"{lines[-1][:15]} {program} postprox[1]: {header}")
    file.write_text("".join(f"{line}\n" for line in lines if " postprox[" in line))
    found = subprocess.run(
        [str(FAIL2BAN), "-o", "ip", str(file), EXPRESSION],
        capture_output=True,
        text=True,
        check=False,
    )
    assert {"192.0.2.7", "2001:db8::7"} <= set(found.stdout.split())
    assert {"192.0.2.66", "192.0.2.8"}.isdisjoint(found.stdout.split())


def test_postfix_does_not_log_warnings(needs_postfix: None) -> None:
    scripts = ("exit 0", "echo '550 5.7.1 no' >&2; exit 1", "exit 7")
    with running_site() as own:
        for way in ("strict_before", "open_adjusted", "open_after", "open_cached"):
            for script in scripts:
                own.send(way, own.proxy.box(script), message("ordinary"))
        own.postfix.wait_quiet()
        own.proxy.wait_clean(own.postfix)
        own.postfix.stop()
        assert own.postfix.complaints() == []
