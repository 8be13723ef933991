"""postprox-check: symbolic links in the paths of the filter, the spool directory and the unit."""

from __future__ import annotations

from pathlib import Path

import pytest

from postprox.check import machine, sandbox
from postprox.check.probe import accounts
from postprox.check.unit import Unit
from tests.unit.test_check_running import Site, apply, check, site

__all__ = ["site"]


def unit(links: dict[str, str], **settings: str) -> Unit:
    found = Unit("postprox.service", settings={name: [text] for name, text in settings.items()})
    found.links = links
    return found


@pytest.mark.parametrize(
    ("links", "path", "hidden"),
    [
        ({}, "/var/spool/p", ""),
        ({"/var/spool/p": "/home/spool"}, "/var/spool/p", "ProtectHome=yes"),
        ({"/var/spool/p": "/srv/a/p"}, "/var/spool/p", "InaccessiblePaths=/srv/a"),
        ({"/srv/a": "/data"}, "/data/p", "InaccessiblePaths=/srv/a"),
    ],
)
def test_link_into_hidden_directory_is_hidden(
    links: dict[str, str], path: str, hidden: str
) -> None:
    found = unit(links, ProtectHome="yes", InaccessiblePaths="/srv/a")
    assert sandbox.hiding_setting(found, path) == hidden


@pytest.mark.parametrize(
    ("links", "path", "protected"),
    [
        ({"/var/spool/p": "/data/p"}, "/var/spool/p", False),
        ({}, "/data/p", True),
        ({"/var/spool/p/q": "/data/p"}, "/var/spool/p/q", True),
        ({"/var/run/postprox": "/run/postprox"}, "/var/run/postprox", False),
        ({}, "/var/run/postprox", True),
    ],
)
def test_link_has_protection_of_its_target(
    links: dict[str, str], path: str, protected: bool
) -> None:
    settings = {"ReadWritePaths": "/var/spool/p", "RuntimeDirectory": "postprox"}
    found = unit(links, ProtectSystem="strict", **settings)
    assert bool(sandbox.protecting_setting(found, path)) == protected


def test_exec_paths_apply_to_target_of_link() -> None:
    found = unit({"/usr/local/bin/f": "/opt/f"}, NoExecPaths="/opt")
    assert sandbox.forbidding_setting(found, "/usr/local/bin/f") == "NoExecPaths"
    found = unit({"/bin/sh": "/usr/bin/dash"}, NoExecPaths="/", ExecPaths="/usr/bin")
    assert sandbox.forbidding_setting(found, "/bin/sh") == ""


def test_link_to_filter_in_inaccessible_home_is_replaced(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    target = site.filter.rename(home / "mail-filter")
    site.filter.symlink_to(target)
    closed = machine.closed_directory
    monkeypatch.setattr(
        machine, "closed_directory", lambda path, _may: str(home) * (str(home) in path)
    )
    monkeypatch.setattr("postprox.check.filter_rules.is_home", lambda path: path == str(home))
    may = accounts.may
    monkeypatch.setattr(
        accounts,
        "may",
        lambda user, right, path: path != str(site.filter) and may(user, right, path),
    )
    checked = check(site, capsys, "--offline")
    assert checked.names() == ["filter"]
    assert f"{target} (the target of the link {site.filter})" in checked.problem
    monkeypatch.setattr(machine, "closed_directory", closed)
    monkeypatch.setattr(accounts, "may", may)
    apply(site, checked)
    assert not site.filter.is_symlink()
    assert target.exists()
    assert check(site, capsys).names() == []


def test_dangling_link_to_filter_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    site.filter.unlink()
    site.filter.symlink_to(tmp_path / "gone")
    checked = check(site, capsys, "--offline")
    assert checked.names() == ["filter"]
    assert (
        f"{tmp_path}/gone (the target of the link {site.filter}) does not exist" in checked.problem
    )


def test_dangling_link_to_spool_is_replaced(
    site: Site, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    spool.symlink_to(tmp_path / "gone")
    site.write(site.arguments.replace("/run/postprox", str(spool)), f"ReadWritePaths=-{spool}")
    checked = check(site, capsys, "--offline")
    assert "spool" in checked.names()
    assert f"rm {spool}" in checked.remedy


@pytest.mark.parametrize("option", ["--pid-file /run/p.pid", "--metrics=/var/run/p.pid"])
def test_remedy_moves_status_file_to_runtime_directory_of_unit(
    site: Site, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    site.write(f"{site.arguments} {option}", "DynamicUser=no")
    checked = check(site, capsys, "--offline")
    assert checked.names() == ["pid-file" if "pid-file" in option else "status-file"]
    apply(site, checked)
    again = check(site, capsys)
    assert again.names() == []
    assert "/run/postprox/p.pid" in " ".join(again.document["proxies"][0]["command"])


@pytest.mark.parametrize(
    ("lines", "reason", "fixed"),
    [
        ("[Sevice]\nTasksMax=500", "is not a section", "[Service]\nTasksMax=500"),
        ("[Service]\nReadWritePath=/srv", "ReadWritePaths is", "[Service]\nReadWritePaths=/srv"),
        ("[Unit]\nUMask=0077", "in [Service]", "[Unit]\n[Service]\nUMask=0077\n[Unit]"),
        ("[Service]\nRequires=a.service", "in [Unit]", ""),
        ("[Socket]\nBacklog=1", "not a section of a service unit", ""),
    ],
)
def test_ignored_line_is_corrected(
    site: Site, capsys: pytest.CaptureFixture[str], lines: str, reason: str, fixed: str
) -> None:
    file = site.units / "postprox.service.d" / "a.conf"
    file.write_text(f"{lines}\n")
    checked = check(site, capsys)
    assert checked.names() == ["unit-ignored"]
    assert reason in checked.problem
    assert bool(checked.remedy) == bool(fixed)
    if fixed:
        apply(site, checked)
        assert file.read_text() == f"{fixed}\n"
        assert "unit-ignored" not in check(site, capsys).names()


@pytest.mark.parametrize("more", ["127.0.0.1:10025", "10025"])
def test_port_listed_twice_in_socket_unit_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], more: str
) -> None:
    site.drop_in("postprox.socket", "Socket", f"ListenStream={more}")
    checked = check(site, capsys, "--offline")
    assert "unit-setting" in checked.names()
    apply(site, checked)
    assert check(site, capsys).names() == []
