"""postprox-check: sockets of filters, as chrooted services see them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from postprox.check.findings import Finding
from postprox.check.postconf import parse
from postprox.check.probe import postfix, postfix_files
from postprox.check.routes import listening_proxy, spawned_proxies
from postprox.check.rules import judge
from postprox.check.setup import Setup
from postprox.check.unit import SocketUnit, Unit
from tests.unit.checking import SEEN
from tests.unit.test_check_ways import BASE, BEHIND, UP, own

CHROOTED = "smtp inet n - y - 20 smtpd\n"
QUEUE = "/var/spool/postfix"
WORDS = (
    "postprox",
    "-l",
    "10025",
    "--strict",
    "--foreground",
    "-t",
    "60",
    "-c",
    "/f",
    "127.0.0.1:10026",
)


def findings_at(
    socket: str, value: str, master: str = CHROOTED, shared: tuple[str, ...] = ()
) -> list[Finding]:
    """Return the findings for a listening proxy, with this value of smtpd_proxy_filter."""
    main = f"{BASE}smtpd_proxy_filter = {value}\n"
    configuration = replace(parse(main, master + BEHIND, own()), shared=frozenset(shared))
    path = (socket.removeprefix("unix:"),)
    unit = Unit("p.service", WORDS, user="nobody", socket=SocketUnit("p.socket", path))
    proxy = listening_proxy(unit)
    found = judge(Setup(configuration, [proxy], {proxy: SEEN}))
    return [each for each in found if each.name in ("wrong-port", "no-way", "unused")]


@pytest.mark.parametrize("socket", ["/run/p/proxy.sock", f"{QUEUE}/private/proxy"])
def test_socket_outside_chroot_is_reported(socket: str) -> None:
    (finding,) = findings_at(socket, f"unix:{socket}")
    assert (finding.name, finding.where) == ("wrong-port", "master.cf, smtp/inet")
    assert f"it runs in the chroot {QUEUE} and cannot reach the socket {socket}" in finding.problem
    remedy = (
        "-F smtp/inet/chroot=n" if "run" in socket else "-e smtpd_proxy_filter=unix:private/proxy"
    )
    assert finding.remedy == f"postconf {remedy}"
    assert findings_at(socket, f"unix:{socket}", CHROOTED.replace(" y ", " n ")) == []
    assert findings_at(socket, f"unix:{socket}", CHROOTED, (socket,)) == []


def test_remedy_disables_chroot_of_service_behind_postscreen() -> None:
    master = "smtp inet n - y - 1 postscreen\nsmtpd pass - - y - 20 smtpd\n"
    (finding,) = findings_at("/run/p/proxy.sock", "unix:/run/p/proxy.sock", master)
    assert finding.remedy == "postconf -F smtpd/pass/chroot=n"


@pytest.mark.parametrize("path", ["private/proxy", "/private/proxy"])
def test_socket_in_chroot_is_not_reported(path: str) -> None:
    assert findings_at(f"{QUEUE}/private/proxy", f"unix:{path}") == []
    main = f"{BASE}smtpd_proxy_filter = unix:{path}\n"
    proxy = UP.replace("127.0.0.1:10025 inet n", "proxy unix -")
    configuration = parse(main, CHROOTED + proxy + BEHIND, own())
    proxies = list(spawned_proxies(configuration))
    assert judge(Setup(configuration, proxies, dict.fromkeys(proxies, SEEN))) == []


@pytest.mark.parametrize("value", ["", "unix:/run/p/prox.sock", "unix:/run/p/proxy.sock:"])
def test_corrected_route_reaches_socket_from_chroot(value: str) -> None:
    (finding,) = findings_at("/run/p/proxy.sock", value)
    edits = "-e smtpd_proxy_filter=unix:/run/p/proxy.sock", "-F smtp/inet/chroot=n"
    assert finding.commands == tuple(f"postconf {edit}" for edit in edits)


def test_remedy_for_route_uses_relative_path() -> None:
    (finding,) = findings_at(f"{QUEUE}/private/proxy", "unix:privat/proxy")
    assert finding.remedy == "postconf -e smtpd_proxy_filter=unix:private/proxy"


def test_socket_present_or_linked_in_chroot_is_shared(tmp_path: Path) -> None:
    queue, run = tmp_path / "queue", tmp_path / "run"
    run.mkdir()
    inner = Path(f"{queue}{run}")
    path = str(run / "proxy.sock")
    assert not postfix_files.is_shared(str(queue), path)
    inner.mkdir(parents=True)
    assert not postfix_files.is_shared(str(queue), path)
    (inner / "proxy.sock").touch()
    assert postfix_files.is_shared(str(queue), path)
    assert not postfix_files.is_shared(str(queue), f"{run}/missing/proxy.sock")
    (inner / "proxy.sock").unlink()
    inner.rmdir()
    inner.symlink_to(run)
    assert postfix_files.is_shared(str(queue), path)


@pytest.mark.parametrize(
    ("value", "effect"),
    [("", "all its mail is deferred (451)"), ("accept", "passes without this milter")],
)
def test_milter_outside_chroot_is_reported(tmp_path: Path, value: str, effect: str) -> None:
    queue, outside = tmp_path / "queue", tmp_path / "run"
    outside.mkdir()
    socket = outside / "milter.sock"
    main = f"{BASE}smtpd_proxy_filter = 127.0.0.1:10025\nqueue_directory = {queue}\n"
    main += f"milter_default_action = {value}\nsmtpd_milters = {{ unix:{socket}, a=b }}\n"
    more = "127.0.0.1:10026/inet/receive_override_options = no_milters\n"
    master = CHROOTED + UP + BEHIND.replace("inet n - n", "inet n - y")

    def findings(master: str) -> list[Finding]:
        configuration = postfix._with_files(parse(main, master, own() + more))
        proxies = list(spawned_proxies(configuration))
        found = judge(Setup(configuration, proxies, dict.fromkeys(proxies, SEEN)))
        return [each for each in found if each.name == "no-milter"]

    (finding,) = findings(master)
    assert (finding.level, finding.where) == (2, "master.cf, smtp/inet")
    assert f"cannot reach the milter's socket {socket}; " in finding.problem
    assert effect in finding.problem
    assert finding.remedy == "postconf -F smtp/inet/chroot=n"
    assert findings(master.replace("n - y", "n - n")) == []
    Path(f"{queue}{socket}").parent.mkdir(parents=True)
    assert findings(master) == []  # neither socket exists, so the milter may not be running
    socket.touch()
    assert len(findings(master)) == 1
    Path(f"{queue}{socket}").touch()
    assert findings(master) == []
