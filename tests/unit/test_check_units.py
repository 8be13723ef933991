"""postprox-check: settings of a systemd unit that stop mail, their correct values and remedies."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import NamedTuple

import pytest

from postprox.check import values
from postprox.check.probe import accounts
from tests.unit.test_check_running import Site, apply, check, site

__all__ = ["site"]
SYSTEMD_ANALYZE = shutil.which("systemd-analyze")


class Case(NamedTuple):
    """Lines of a drop-in, the expected findings and their level."""

    lines: str
    name: str
    level: int


CASES = [
    # The working directory and other paths
    Case("WorkingDirectory={site}/missing", "failing", 2),
    Case("WorkingDirectory=srv/mail", "failing", 2),
    Case("WorkingDirectory={site}/mail-filter", "failing", 2),
    Case("WorkingDirectory=/home", "failing", 2),
    Case("InaccessiblePaths={site}/missing", "failing", 2),
    Case("BindPaths={site}/missing:/srv", "failing", 2),
    Case("ExecStartPre={site}/missing --now", "failing", 2),
    Case("SupplementaryGroups=no-such-group", "user", 2),
    Case("DynamicUser=no\nGroup=no-such-group", "user", 2),
    Case("RootImage=/srv/image.raw", "unit-setting", 2),
    Case("NoExecPaths=/\nExecPaths=/usr", "unit-setting", 2),
    Case("NoExecPaths={site}", "unit-setting", 2),
    # Limits
    Case("MemoryMax=8M", "unit-setting", 2),
    Case("MemoryMax=12M", "unit-limit", 1),
    Case("LimitAS=16M", "unit-setting", 2),
    Case("LimitFSIZE=1M", "unit-setting", 2),
    Case("TasksMax=3", "unit-setting", 2),
    Case("TasksMax=50", "unit-limit", 1),
    Case("LimitNPROC=50:60", "unit-limit", 1),
    Case("LimitNOFILE=8", "unit-setting", 2),
    Case("LimitNOFILE=64", "unit-limit", 1),
    Case("LimitCPU=10min", "unit-limit", 1),
    Case("UMask=0777", "unit-setting", 2),
    Case("UMask=0277", "unit-setting", 2),
    # Comments
    Case("User=nobody # mail", "unit-setting", 2),
    Case("SupplementaryGroups=mail # a", "unit-setting", 2),
    Case("WatchdogSec=60 # s", "unit-ignored", 1),
    # Conditions
    Case("[Unit]\nConditionPathExists={site}/missing", "failing", 2),
    Case("[Unit]\nAssertPathExists={site}/missing", "failing", 2),
    # The end of the service
    Case("TimeoutStopSec=10", "unit-stop", 1),
    Case("TimeoutStopSec=1min", "unit-stop", 1),
    Case("TimeoutSec=10s", "unit-stop", 1),
    Case("KillMode=none", "unit-stop", 1),
    Case("KillSignal=SIGKILL", "unit-stop", 1),
    Case("KillSignal=SIGHUP", "unit-stop", 1),
    # The sandbox
    Case("RestrictAddressFamilies=~AF_INET AF_INET6", "unit-setting", 2),
    Case("RestrictAddressFamilies=\nRestrictAddressFamilies=none", "unit-setting", 2),
    Case("RestrictAddressFamilies=\nRestrictAddressFamilies=AF_INET", "unit-setting", 2),
    Case("RestrictAddressFamilies=\nRestrictAddressFamilies=~AF_UNIX", "unit-setting", 2),
    Case("SystemCallFilter=~@network-io", "unit-setting", 2),
    Case("SystemCallFilter=~execve:EPERM", "unit-setting", 2),
    Case("SystemCallFilter=\nSystemCallFilter=@basic-io @signal", "unit-setting", 2),
    Case("IPAddressDeny=localhost", "no-upstream", 2),
    Case("IPAddressDeny=any\nIPAddressAllow=192.0.2.0/24", "no-upstream", 2),
    Case("RestrictNetworkInterfaces=eth0", "no-upstream", 2),
    Case("RestrictNetworkInterfaces=~lo", "no-upstream", 2),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.lines)
def test_setting_is_reported_and_corrected(
    site: Site, capsys: pytest.CaptureFixture[str], case: Case
) -> None:
    site.write(site.arguments, case.lines.format(site=site.directory))
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (case.level, [case.name])
    if case.name == "user":
        assert checked.remedy == "groupadd --system no-such-group"
        return
    apply(site, checked)
    assert check(site, capsys).names() == []
    verify(site)


@pytest.mark.parametrize("line", ["SupplementaryGroups=adm nogruop", "Group=nogruop"])
def test_misspelt_group_is_replaced_by_similar_group(
    site: Site, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    site.write(site.arguments, "DynamicUser=no", line)
    checked = check(site, capsys)
    assert checked.names() == ["user"]
    assert "group nogruop does not exist, but nogroup exists" in checked.problem
    apply(site, checked)
    assert check(site, capsys).names() == []


def verify(site: Site) -> None:
    """Check that systemd reports no problem in the drop-in that the remedy has written."""
    if SYSTEMD_ANALYZE is None:
        return
    written = site.units / "postprox.service.d/zz-postprox-check.conf"
    if not written.exists():
        return
    done = subprocess.run(
        [SYSTEMD_ANALYZE, "verify", "--man=no", str(site.units / "postprox.service")],
        env={"SYSTEMD_UNIT_PATH": f"{site.units}:", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    reported = [line for line in done.stderr.splitlines() if "Special user nobody" not in line]
    assert written.name not in "".join(reported)


QUIET = [
    "WorkingDirectory=/",
    "WorkingDirectory=-/missing",
    "WorkingDirectory=/run/%N",
    "RootDirectory=/",
    "NoExecPaths=/\nExecPaths=/",
    "NoExecPaths=/srv",
    "InaccessiblePaths=-/missing",
    "MemoryMax=16M",
    "MemoryMax=10%",
    "MemoryMax=infinity",
    "TasksMax=202",
    "TasksMax=80%",
    "LimitNPROC=infinity",
    "LimitNOFILE=20:4096",
    "LimitFSIZE=10240000",
    "LimitCPU=infinity",
    "UMask=0027",
    "TimeoutStopSec=2min",
    "TimeoutStopSec=1min 1s",
    "TimeoutStopSec=infinity",
    "TimeoutStopSec=0",
    "TimeoutSec=10\nTimeoutStopSec=90",
    "KillSignal=SIGINT",
    "Restart=no",
    "RuntimeMaxSec=1d",
    "RestrictAddressFamilies=~AF_PACKET",
    "SystemCallFilter=~@mount",
    "SystemCallFilter=\nSystemCallFilter=read write",
    "IPAddressDeny=any\nIPAddressAllow=127.0.0.0/8",
    "IPAddressDeny=192.0.2.0/24",
    "RestrictNetworkInterfaces=lo eth0",
    "SocketBindDeny=any",
    "[Unit]\nConditionPathExists=!/missing",
    "[X-Local]\nowner=me",
    "; comment\n# comment",
    "Description=x",
    "ExecStartPre=-/missing",
    "ExecStartPre=+/bin/true",
    "SupplementaryGroups=mail 8",
]


@pytest.mark.parametrize("lines", QUIET)
def test_harmless_setting_is_not_reported(
    site: Site, capsys: pytest.CaptureFixture[str], lines: str
) -> None:
    site.write(site.arguments, lines)
    assert check(site, capsys).names() == []


@pytest.mark.parametrize(
    "line", ["BindToDevice=eth0", "Service=other.service", "IPAddressDeny=any"]
)
def test_socket_setting_is_reported_and_corrected(
    site: Site, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    site.drop_in("postprox.socket", "Socket", line)
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["unit-setting"])
    assert checked.where == "postprox.socket"
    apply(site, checked)
    assert check(site, capsys).names() == []


@pytest.mark.parametrize("line", ["BindToDevice=lo", "Service=postprox.service", "Backlog=5"])
def test_harmless_socket_setting_is_not_reported(
    site: Site, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    site.drop_in("postprox.socket", "Socket", line)
    assert check(site, capsys).names() == []


@pytest.mark.parametrize(
    ("file", "text", "is_corrected"),
    [
        ("postprox.service.d/more.conf", "Nice=5\n", True),
        ("postprox.service.d/more.conf", "# a\n\n[service]\nNice=5\n", True),
        ("postprox.service.d/more.conf", "[Services]\nNice=5\n", True),
        ("postprox.service.d/more.conf", "[Service]\nnice=5\n", False),
        ("postprox.service.d/more.config", "[Service]\nNice=5\n", True),
        ("postprox.service.d/more", "[Service]\nNice=5\n", True),
        ("postprox.socket.d/more.conf", "[socket]\nBacklog=5\n", True),
        ("postprox.socket.d/more.conf", "Backlog=5\n", True),
    ],
)
def test_line_that_systemd_ignores_causes_warning(
    site: Site, capsys: pytest.CaptureFixture[str], file: str, text: str, is_corrected: bool
) -> None:
    path = site.units / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (1, ["unit-ignored"])
    assert str(path) in checked.problem
    apply(site, checked)
    assert (check(site, capsys).names() == []) is is_corrected


@pytest.mark.parametrize("name", ["local.conf.bak", "local.conf~", "local.conf.disabled", ".swp"])
def test_backup_of_drop_in_is_not_reported(
    site: Site, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (site.units / "postprox.service.d" / name).write_text("[Service]\nUser=root\n")
    assert check(site, capsys).names() == []


def test_filter_is_looked_up_in_path_of_unit(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = site.arguments.replace(str(site.filter), "mail-filter")
    site.write(arguments, f"Environment=PATH={site.directory}:/bin")
    assert check(site, capsys).names() == []
    site.write(arguments, "Environment=PATH=/bin")
    assert check(site, capsys).names() == ["filter"]


def filtered_by(site: Site, command: str, *lines: str) -> None:
    name = command.partition(" ")[0]
    (site.directory / name).symlink_to("/bin/true")
    command = f"{site.directory}/{command}"
    site.write(site.arguments.replace(f"-c {site.filter}", f"-c '{command}'"), *lines)


@pytest.mark.parametrize("start", ["sudo -n -u daemon", "sudo -u daemon --", "doas -u daemon"])
def test_filter_command_that_changes_user_is_reported_and_corrected(
    site: Site, capsys: pytest.CaptureFixture[str], start: str
) -> None:
    filtered_by(site, f"{start} {site.filter}")
    checked = check(site, capsys, "--offline")
    assert (checked.status, checked.names()) == (2, ["filter"])
    assert "NoNewPrivileges=yes" in checked.problem
    apply(site, checked)
    again = check(site, capsys, "--offline")
    assert again.names() == []
    assert again.document["proxies"][0]["command"][-2:] == [str(site.filter), "127.0.0.1:10026"]


@pytest.mark.parametrize("start", ["sudo -n", "sudo -u root", "su daemon -c", "pkexec"])
def test_filter_command_that_needs_root_has_no_remedy(
    site: Site, capsys: pytest.CaptureFixture[str], start: str
) -> None:
    filtered_by(site, f"{start} {site.filter}")
    checked = check(site, capsys, "--offline")
    assert (checked.status, checked.names(), checked.remedy) == (2, ["filter"], "")


def test_filter_may_change_user_if_nonewprivileges_is_no(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    filtered_by(site, f"sudo -n -u daemon {site.filter}", "NoNewPrivileges=no")
    assert check(site, capsys, "--offline").names() == []


def test_working_directory_closed_to_user_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = site.directory / "closed"
    closed.mkdir()
    monkeypatch.setattr(accounts, "may", lambda user, right, path: path != str(closed))
    site.write(site.arguments, f"WorkingDirectory={closed}")
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["failing"])
    assert f"user nobody cannot enter {closed}" in checked.problem
    apply(site, checked)
    assert check(site, capsys).names() == []


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        ("Restart=no", "unit-restart"),
        ("Restart=on-success", "unit-restart"),
        ("RuntimeMaxSec=1d\nRestart=no", "unit-restart"),
        ("SocketBindDeny=any", "no-upstream"),
        ("Restart=on-failure", None),
        ("Restart=always", None),
    ],
)
def test_unit_without_socket_requires_restart_setting_and_listen_option(
    site: Site, capsys: pytest.CaptureFixture[str], lines: str, name: str | None
) -> None:
    site.disable()
    (site.units / "postprox.socket").unlink()
    site.enable("multi-user.target.wants/postprox.service")
    arguments = site.arguments.replace("-l 10025", "-l 127.0.0.1:10025")
    site.write(arguments, lines)
    checked = check(site, capsys)
    assert checked.names() == ([name] if name else [])
    apply(site, checked)
    assert check(site, capsys).names() == []


@pytest.mark.parametrize(
    ("text", "octets"), [("16M", 16 << 20), ("1.5K", 1024), ("7", 7), ("10%", None), ("", None)]
)
def test_size_is_parsed_as_in_systemd(text: str, octets: int | None) -> None:
    assert values.size(text) == octets


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1min 30s", 90),
        ("2h", 7200),
        ("500ms", 0.5),
        ("0", None),
        ("infinity", None),
        ("soon", None),
        ("5 parsecs", None),
    ],
)
def test_time_span_is_parsed_as_in_systemd(text: str, seconds: float | None) -> None:
    assert values.span(text) == seconds


def test_wrapper_in_exec_start_is_accepted(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"ExecStart=/usr/bin/nice -n 5 {site.launcher} {site.arguments}"
    site.write(site.arguments, "ExecStart=", line.replace("--strict ", ""))
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (1, ["no-reject"])
    apply(site, checked)
    written = (site.units / "postprox.service.d/zz-postprox-check.conf").read_text()
    assert f"ExecStart=/usr/bin/nice -n 5 {site.launcher} --strict" in written
    assert check(site, capsys).names() == []


def test_proxy_run_by_unknown_program_is_not_checked(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"ExecStart=/opt/bin/supervise {site.launcher} {site.arguments}"
    site.write(site.arguments, "ExecStart=", line)
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (3, [])
    assert (
        "postprox.service: the proxy's command line, because /opt/bin/supervise runs it"
        in checked.document["unseen"]
    )
