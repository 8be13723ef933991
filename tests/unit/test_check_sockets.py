"""postprox-check: sockets to which the filter's user cannot connect."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from postprox.check.probe import accounts, script_files, units
from tests.unit.test_check_running import Site, apply, check, site

__all__ = ["site"]
GROUP = "mail"
PYTHON = """\
#!/usr/bin/python3
import os, socket, sys
SOCKET = "{}"
try:
    socket.socket(socket.AF_UNIX).connect(SOCKET)
    sys.exit("FOUND" in os.environ["EMAIL"])
except Exception:
    sys.exit(2)
"""


@pytest.fixture
def server(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A socket of another group, which the user of the filter cannot use."""
    path = site.directory / "clamd.ctl"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        if os.geteuid() == 0:
            os.chown(path, -1, grp.getgrnam(GROUP).gr_gid)
        path.chmod(0o660)
        monkeypatch.setattr(
            accounts, "may", lambda _, right, name: right != os.W_OK or name != str(path)
        )
        monkeypatch.setattr(accounts, "closed_directory", lambda *_: "")
        yield path


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to other groups")


@as_root
@pytest.mark.parametrize("script", [PYTHON, '#!/bin/sh\nS={}\ntrue "$S" || exit 2\n'])
def test_remedy_adds_group_of_socket(
    site: Site, capsys: pytest.CaptureFixture[str], server: Path, script: str
) -> None:
    site.filter.write_text(script.format(server))
    checked = check(site, capsys)
    assert "filter" in checked.names()
    assert (
        f"user nobody of the filter {site.filter} cannot connect to the socket" in checked.problem
    )
    assert "systemctl restart postprox.service" in checked.remedy
    apply(site, checked)
    assert "cannot connect" not in check(site, capsys).problem
    unit = units.read_unit(site.units / "postprox.service")
    assert unit.settings["SupplementaryGroups"] == [GROUP]


@as_root
def test_remedy_sets_group_of_spawned_proxy(
    site: Site, capsys: pytest.CaptureFixture[str], server: Path
) -> None:
    shutil.rmtree(site.units / "postprox.service.d")
    site.disable()
    site.filter.write_text(PYTHON.format(server))
    entry = (
        "127.0.0.1:10025 inet n n n - 20 spawn user={} "
        f"argv={site.launcher} --strict -t 60 -c {site.filter} 127.0.0.1:10026\n"
    )
    before = site.master
    site.master = before + entry.format("nobody")
    assert f"user=nobody:{GROUP}" in check(site, capsys, "--offline").remedy
    site.master = before + entry.format(f"nobody:{GROUP}")
    assert "cannot connect" not in check(site, capsys, "--offline").problem


@as_root
def test_spawned_proxy_has_no_supplementary_group() -> None:
    account = next(pwd.getpwnam(each.gr_mem[0]) for each in grp.getgrall() if each.gr_mem)
    group = next(each for each in grp.getgrall() if account.pw_name in each.gr_mem)
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        file = Path(directory, "socket")
        file.touch()
        os.chown(file, -1, group.gr_gid)
        file.chmod(0o660)
        assert accounts.may(account.pw_name, os.W_OK, str(file))
        assert not accounts.may(f"{account.pw_name}:", os.W_OK, str(file))
        assert accounts.may(f"{account.pw_name}:{group.gr_name}", os.W_OK, str(file))


@as_root
def test_socket_without_permissions_for_group_is_shown(
    site: Site, capsys: pytest.CaptureFixture[str], server: Path
) -> None:
    server.chmod(0o600)
    site.filter.write_text(PYTHON.format(server))
    assert check(site, capsys).remedy == f"namei -l {server}"


def test_socket_for_all_users_is_not_reported(
    site: Site, capsys: pytest.CaptureFixture[str], server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "may", lambda *_: True)
    site.filter.write_text(PYTHON.format(server))
    assert check(site, capsys).names() == []


@pytest.mark.parametrize(
    "line", ["[ -w {} ] || exit 2", "nc 127.0.0.1 3310 || nc -U {}", "sudo -u x nc -U {}", "# {}"]
)
def test_script_with_other_way_is_not_reported(
    site: Site, capsys: pytest.CaptureFixture[str], server: Path, line: str
) -> None:
    site.filter.write_text(f"#!/bin/sh\n{line.format(server)}\nexit 0\n")
    assert "cannot connect" not in check(site, capsys).problem


@as_root
@pytest.mark.parametrize(
    ("setting", "option", "is_found"),
    [("", "", True), ("TCPSocket 3310", "", False), ("", "-c /etc/other.conf", False)],
)
def test_socket_of_clamdscan_is_in_configuration(
    server: Path, monkeypatch: pytest.MonkeyPatch, setting: str, option: str, is_found: bool
) -> None:
    configuration = server.parent / "clamd.conf"
    configuration.write_text(f"LocalSocket {server}\n{setting}\n")
    monkeypatch.setattr(script_files, "_CLAMD", (str(configuration),))
    script = f'clamdscan {option} --no-summary - < "$EMAIL"\n'
    found = list(script_files.sockets(script, "nobody"))
    assert [each.correction for each in found] == [GROUP] * is_found


@as_root
@pytest.mark.parametrize(("other", "is_found"), [("", True), ("nc -U /run/b.sock\n", False)])
def test_script_with_two_sockets_is_not_judged(
    server: Path, monkeypatch: pytest.MonkeyPatch, other: str, is_found: bool
) -> None:
    monkeypatch.setattr(script_files, "_is_socket", lambda _: True)
    found = list(script_files.sockets(f"nc -U {server}\n{other}", "nobody"))
    assert [each.correction for each in found] == [GROUP] * is_found


@as_root
def test_group_that_can_read_file_is_found(tmp_path: Path) -> None:
    group = grp.getgrnam(GROUP)
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        words = Path(directory, "words")
        words.touch()
        for path, mode in ((Path(directory), 0o750), (words, 0o640)):
            os.chown(path, -1, group.gr_gid)
            path.chmod(mode)
        script = f'grep -q -f {words} "$EMAIL"\n'
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(script_files, "VOLATILE", ())
            (found,) = script_files.unreadable(script, "nobody:")
            assert found.correction == f"group {GROUP}"
            words.chmod(0o600)
            (found,) = script_files.unreadable(script, "nobody:")
            assert found.correction == ""
