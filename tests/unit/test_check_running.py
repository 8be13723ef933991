"""postprox-check on a system with systemd: units, sockets, processes and greetings.

The output of `systemctl show` is recorded. Units and drop-ins are in a temporary directory.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from postprox.check import __main__ as command
from postprox.check import running, sandbox
from postprox.check.facts import Session
from postprox.check.machine import Machine
from postprox.check.postconf import UnreadableError
from postprox.check.probe import accounts, system, units
from postprox.check.routes import Endpoint
from postprox.check.unit import Unit
from tests.unit.checking import FRONT, MAIN, postconf

ROOT = Path(__file__).parents[2]
BEHIND = "127.0.0.1:10026 inet n - n - - smtpd -o smtpd_proxy_filter= -o x=y\n"
OWN = (
    "127.0.0.1:10026/inet/smtpd_proxy_filter =\n"
    "127.0.0.1:10026/inet/smtpd_authorized_xforward_hosts = 127.0.0.0/8\n"
)
PROXY_PORT = Endpoint("127.0.0.1", 10025)
FRONT_PORT = Endpoint("", 25)
FRONT_SPEED = "smtpd_proxy_options = speed_adjust\n"

#: The output of systemd 252's `systemctl show` for each state, without Id.
SHOWN = {
    "running": "LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=disabled\n"
    "Result=success\nExecMainStatus=0\nNeedDaemonReload=no\nMainPID=7",
    "listening": "LoadState=loaded\nActiveState=active\nSubState=listening\n"
    "UnitFileState=enabled\nResult=success\nNeedDaemonReload=no",
    "waiting": "LoadState=loaded\nActiveState=inactive\nSubState=dead\nUnitFileState=disabled\n"
    "Result=success\nExecMainStatus=0\nNeedDaemonReload=no\nMainPID=0",
    "disabled": "LoadState=loaded\nActiveState=active\nSubState=listening\n"
    "UnitFileState=disabled\nResult=success\nNeedDaemonReload=no",
    "masked": "LoadState=masked\nActiveState=inactive\nSubState=dead\nUnitFileState=masked\n"
    "Result=success\nNeedDaemonReload=no",
    "restarting": "LoadState=loaded\nActiveState=activating\nSubState=auto-restart\n"
    "UnitFileState=disabled\nResult=exit-code\nExecMainStatus=203\nNeedDaemonReload=no\nMainPID=0",
    "failed": "LoadState=loaded\nActiveState=failed\nSubState=failed\nUnitFileState=enabled\n"
    "Result=resources\nExecMainStatus=0\nNeedDaemonReload=no\nMainPID=0",
    "refused": "LoadState=bad-setting\nActiveState=inactive\nSubState=dead\n"
    "UnitFileState=disabled\nResult=success\nExecMainStatus=0\nNeedDaemonReload=no\nMainPID=0",
    "outdated": "LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=disabled\n"
    "Result=success\nExecMainStatus=0\nNeedDaemonReload=yes\nMainPID=7",
}
LISTENING = "0: 0100007F:2729 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 {} 1\n"
#: Listeners on 0.0.0.0 and on [::].
EVERYWHERE = (
    LISTENING.replace("0100007F", "00000000"),
    LISTENING.replace("0100007F", "0" * 32).replace("00000000:0000", "0" * 32 + ":0000"),
)


class FakeMachine(Machine):
    """A machine with a state that the test controls."""

    def __init__(self, units: Path) -> None:
        self.units = units
        #: The names of drop-ins that systemd has not loaded.
        self.unloaded: set[str] = set()
        self.states = {"postprox.service": "running", "postprox.socket": "listening"}
        self.table = LISTENING.format(11)
        self.programs = {11: {"systemd", "postprox"}}
        self.greetings = dict.fromkeys((PROXY_PORT, FRONT_PORT), "220 mail.test ESMTP Postfix")
        #: The refused command and its reply, for each address.
        self.refused: dict[Endpoint, tuple[str, str]] = {}
        #: The addresses with which there was a session.
        self.asked: list[Endpoint] = []
        self.postfix: bool | None = True
        self.words: Sequence[str] = ()
        self.log = ""

    def mail_log(self, since: float) -> tuple[str, str]:
        return self.log, "tail -n 50 /var/log/mail.log"

    def show(self, names: Sequence[str], properties: Sequence[str]) -> str:
        if not self.states:
            raise UnreadableError("systemctl show: System has not been booted with systemd")
        none = "LoadState=not-found\nActiveState=inactive\nSubState=dead"
        return "\n\n".join(
            f"Id={name}\n{SHOWN[self.states[name]] if name in self.states else none}\n"
            f"DropInPaths={self._drop_ins(name)}"
            for name in names
        )

    def _drop_ins(self, name: str) -> str:
        template = re.sub("@.*[.]", "@.", name)
        paths = [*self.units.glob(f"{name}.d/*"), *self.units.glob(f"{template}.d/*")]
        return " ".join(str(path) for path in paths if path.name not in self.unloaded)

    def command_line(self, pid: int) -> tuple[str, ...]:
        return tuple(self.words)

    def sockets(self) -> str:
        return self.table

    def owners(self, inodes: Collection[int]) -> dict[int, set[str]]:
        return {inode: self.programs[inode] for inode in inodes}

    def master_runs(self, queue_directory: str) -> bool | None:
        return self.postfix

    def session(self, endpoint: Endpoint) -> Session:
        self.asked.append(endpoint)
        greeting = self.greetings.get(endpoint, "connection refused")
        return Session(greeting, *self.refused.get(endpoint, ()))


class Site:
    """A correct installation with the packaged service and socket units."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.units = directory / "system"
        self.units.mkdir()
        self.machine = FakeMachine(self.units)
        self.main = MAIN + FRONT_SPEED
        self.master = FRONT + BEHIND
        self.filter = directory / "mail-filter"
        self.launcher = directory / "postprox"
        for program in (self.filter, self.launcher):
            program.write_text("#!/bin/sh\nexit 0\n")
            program.chmod(0o755)
        for name in ("postprox.service", "postprox.socket"):
            shutil.copy(ROOT / "packaging" / name, self.units)
        self.arguments = (
            "-l 10025 --foreground --strict -t 60 -d /run/postprox "
            f"-c {self.filter} 127.0.0.1:10026"
        )
        self.write(self.arguments)
        self.enable("sockets.target.wants/postprox.socket")

    def write(self, arguments: str, *more: str, name: str = "postprox.service") -> None:
        """Write a drop-in that sets the command line of the service."""
        line = f"{self.launcher} {arguments}"
        self.drop_in(name, "Service", "User=nobody", "ExecStart=", f"ExecStart={line}", *more)

    def drop_in(self, unit: str, section: str, *lines: str) -> None:
        folder = self.units / f"{unit}.d"
        folder.mkdir(exist_ok=True)
        (folder / "local.conf").write_text("\n".join([f"[{section}]", *lines, ""]))

    def enable(self, link: str) -> None:
        path = self.units / link
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(self.units / path.name)

    def disable(self) -> None:
        shutil.rmtree(self.units / "sockets.target.wants")


class Checked:
    """The exit status and the JSON document of a check."""

    def __init__(self, status: int, document: str) -> None:
        self.status = status
        self.document = json.loads(document)
        assert self.document["status"] == status

    def names(self) -> list[str]:
        return sorted(finding["name"] for finding in self.document["findings"])

    def __getattr__(self, name: str) -> str:
        return "\n".join(str(finding[name]) for finding in self.document["findings"])


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    made = Site(tmp_path)
    monkeypatch.setattr(units, "UNIT_DIRECTORIES", (str(made.units),))
    monkeypatch.setattr(accounts, "may", lambda user, right, path: True)
    # The test programs are in /tmp, which PrivateTmp hides from the service.
    monkeypatch.setattr(sandbox, "_TEMPORARY", ())
    monkeypatch.setattr(command, "Machine", lambda: made.machine)
    postconf(tmp_path, monkeypatch, f'for o; do :; done; cat "{tmp_path}/${{o#-}}"')
    return made


def check(site: Site, capsys: pytest.CaptureFixture[str], *arguments: str) -> Checked:
    """Run postprox-check on the site."""
    for option, text in [("nx", site.main), ("M", site.master), ("Px", OWN)]:
        (site.directory / option).write_text(text)
    status = command.run(["--json", *arguments])
    return Checked(status, capsys.readouterr().out)


def apply(site: Site, checked: Checked) -> None:
    """Run the remedy's commands with a systemctl(1) that does nothing."""
    programs = site.directory / "programs"
    (programs / "systemctl").write_text("#!/bin/sh\n")
    (programs / "systemctl").chmod(0o755)
    environment = {"PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin"}
    subprocess.run(["/bin/sh", "-ec", checked.remedy], env=environment, check=True)


def test_correct_unit_and_socket_cause_no_findings(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    checked = check(site, capsys)
    assert (checked.status, checked.names(), checked.document["unseen"]) == (0, [], [])
    assert [each["listen"] for each in checked.document["proxies"]] == [["127.0.0.1:10025"]]


def test_idle_socket_activated_service_is_not_reported(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.machine.states["postprox.service"] = "waiting"
    assert check(site, capsys).names() == []


@pytest.mark.parametrize("option", ["--max-sessions 1 ", "--max-sessions=1 "])
def test_low_session_limit_is_removed(
    site: Site, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    site.write(option + site.arguments)
    checked = check(site, capsys)
    assert checked.names() == ["process-limit"]
    assert "--max-sessions is lower than the number of processes of smtp/inet" in checked.problem
    apply(site, checked)
    assert check(site, capsys).status == 0


class State(NamedTuple):
    """A unit's state and the expected finding."""

    state: str
    name: str
    unit: str
    remedy: str


STATES = [
    State("masked", "masked", "postprox.socket", "systemctl unmask postprox.socket"),
    State("masked", "masked", "postprox.service", "systemctl unmask postprox.service"),
    State("waiting", "not-running", "postprox.socket", "systemctl enable --now postprox.socket"),
    State("failed", "failing", "postprox.socket", "systemctl restart postprox.socket"),
    State("restarting", "failing", "postprox.service", "systemctl restart postprox.service"),
    State("refused", "failing", "postprox.service", "systemctl restart postprox.service"),
    State("outdated", "not-reloaded", "postprox.service", "systemctl daemon-reload"),
]


@pytest.mark.parametrize("case", STATES, ids=lambda case: f"{case.state} {case.unit}")
def test_bad_unit_state_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], case: State
) -> None:
    state, name, unit, remedy = case
    site.machine.states[unit] = state
    if unit == "postprox.socket":
        site.machine.states["postprox.service"] = "waiting"
    checked = check(site, capsys)
    assert checked.names() == [name]
    assert remedy in checked.remedy


def test_failing_service_is_reported_with_reason(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.machine.states["postprox.service"] = "restarting"
    assert "it cannot execute the program in ExecStart" in check(site, capsys).problem


def test_disabled_socket_causes_warning(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.disable()
    site.machine.states["postprox.socket"] = "disabled"
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (1, ["not-enabled"])
    assert checked.remedy == "systemctl enable --now postprox.socket"


def test_stopped_unit_is_reported(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.disable()
    site.machine.states = {"postprox.service": "waiting", "postprox.socket": "waiting"}
    site.machine.table = ""
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["not-enabled", "not-running"])


def test_process_with_outdated_command_line_causes_warning(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.machine.words = ("/usr/bin/python3", "-ISB", str(site.launcher), "-l", "10025", "old")
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (1, ["not-reloaded"])


@pytest.mark.parametrize("unit", ["postprox.service", "postprox.socket"])
def test_unloaded_first_drop_in_causes_warning(
    site: Site, capsys: pytest.CaptureFixture[str], unit: str
) -> None:
    folder = site.units / f"{unit}.d"
    folder.mkdir(exist_ok=True)
    (folder / "new.conf").write_text("[Unit]\nDocumentation=man:postprox(1)\n")
    site.machine.unloaded = {"new.conf"}
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (1, ["not-reloaded"])


def test_process_with_current_command_line_is_not_reported(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    (proxy,) = check(site, capsys).document["proxies"]
    site.machine.words = ("/usr/bin/python3", "-ISB", *proxy["command"])
    assert check(site, capsys).names() == []


@pytest.mark.parametrize("stream", ["10025", "0.0.0.0:10025", "[::]:10025"])
def test_socket_on_all_addresses_is_reported_as_open_relay(
    site: Site, capsys: pytest.CaptureFixture[str], stream: str
) -> None:
    site.drop_in("postprox.socket", "Socket", "ListenStream=", f"ListenStream={stream}")
    if stream == "[::]:10025":
        site.main = site.main.replace("127.0.0.1:10025", "[::1]:10025")
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["open-relay"])
    apply(site, checked)
    site.machine.greetings[Endpoint("::1", 10025)] = "220"
    assert check(site, capsys).names() == []


def test_remedy_only_renames_ignored_socket_drop_in(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = site.units / "postprox.socket.d"
    folder.mkdir()
    (folder / "override").write_text("[Socket]\nListenStream=\nListenStream=127.0.0.1:10029\n")
    site.main = site.main.replace("10025", "10029")
    checked = check(site, capsys)
    assert set(checked.names()) == {"wrong-port", "unit-ignored"}
    assert f"({folder}/override is not read)" in checked.problem
    assert checked.remedy.strip() == f"mv {folder}/override {folder}/override.conf"


def test_host_name_in_listen_stream_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.drop_in("postprox.socket", "Socket", "ListenStream=", "ListenStream=localhost:10025")
    checked = check(site, capsys)
    assert checked.names() == ["unit-setting"]
    assert "ListenStream=127.0.0.1:10025" in checked.remedy


def test_listen_stream_without_reset_adds_address(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.drop_in("postprox.socket", "Socket", "ListenStream=0.0.0.0:10035")
    assert check(site, capsys).names() == ["open-relay"]


@pytest.mark.parametrize("listener", EVERYWHERE)
def test_remedy_restarts_socket_bound_to_all_addresses(
    site: Site, capsys: pytest.CaptureFixture[str], listener: str
) -> None:
    site.machine.table = listener.format(11)
    checked = check(site, capsys)
    assert checked.names() == ["open-relay"]
    assert checked.remedy.endswith("systemctl restart postprox.socket")


def test_other_program_on_all_ipv6_addresses_is_not_reported(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.machine.table = LISTENING.format(11) + EVERYWHERE[1].format(12)
    site.machine.programs[12] = {"other-server"}
    assert check(site, capsys).names() == []


def test_mismatched_socket_port_is_reported(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.drop_in("postprox.socket", "Socket", "ListenStream=", "ListenStream=127.0.0.1:10035")
    site.machine.table = ""
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["wrong-port"])
    assert checked.remedy == "postconf -e smtpd_proxy_filter=127.0.0.1:10035"
    assert "all its mail is deferred (451)" in checked.problem


def test_another_program_on_proxy_port_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.machine.programs = {11: {"amavisd"}}
    checked = check(site, capsys)
    assert checked.names() == ["port-twice"]
    assert "amavisd listens on 127.0.0.1:10025" in checked.problem
    apply_drop_in = checked.remedy.partition("postconf")[0].rstrip("; ")
    assert "ListenStream=127.0.0.1:10125" in apply_drop_in


def test_master_cf_service_on_port_of_unit_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.master += (
        f"127.0.0.1:10025 inet n n n - 20 spawn user=nobody argv={site.launcher} --strict"
        f" -c {site.filter} 127.0.0.1:10026\n"
    )
    site.machine.programs = {11: {"systemd", "postprox", "master"}}
    checked = check(site, capsys)
    assert "port-twice" in checked.names()
    assert "systemctl disable --now postprox.socket postprox.service" in checked.remedy


@pytest.mark.parametrize("port", [10025, 10125])
def test_second_unit_on_same_port_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], port: int
) -> None:
    words = site.arguments.replace("10025", str(port))
    (site.units / "scanner.service").write_text(
        f"[Service]\nUser=nobody\nKillMode=mixed\nExecStart={site.launcher} {words}\n"
    )
    site.enable("multi-user.target.wants/scanner.service")
    checked = check(site, capsys)
    assert ("port-twice" in checked.names()) is (port == 10025)
    if port == 10025:
        assert "also listens on 127.0.0.1:10025; only one of the two can start" in checked.problem
        assert "systemctl disable --now scanner.service" in checked.remedy


@pytest.mark.parametrize(
    ("greeting", "remedy"),
    [
        (
            "connection refused",
            "systemctl stop postprox.service; systemctl restart postprox.socket",
        ),
        ("421 4.4.1 Cannot connect to the mail server", "postfix reload"),
        ("timed out after 10 s", "journalctl"),
    ],
)
def test_missing_greeting_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], greeting: str, remedy: str
) -> None:
    site.machine.greetings[PROXY_PORT] = greeting
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["no-greeting"])
    assert greeting in checked.problem
    assert remedy in checked.remedy


@pytest.mark.parametrize(
    "reply",
    [
        "451 4.3.0 <postmaster>: Temporary lookup failure",
        "452 4.3.1 Insufficient system storage",
        "421 mail.test closing connection",
        "connection closed",
    ],
)
def test_postfix_that_accepts_no_mail_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], reply: str
) -> None:
    site.machine.refused[FRONT_PORT] = ("MAIL FROM:<>", reply)
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["refused"])
    assert f"got {reply!r} after MAIL FROM:<>; mail is deferred" in checked.problem
    assert "journalctl" in checked.remedy


@pytest.mark.parametrize(
    "reply",
    [
        "450 4.2.0 <postmaster>: Greylisted",
        "554 5.7.1 <unknown[127.0.0.1]>: Client host rejected",
        "550 5.1.1 <postmaster>: User unknown",
        "421 4.7.0 mail.test Error: too many connections",
    ],
)
def test_policy_for_this_machine_is_not_reported(
    site: Site, capsys: pytest.CaptureFixture[str], reply: str
) -> None:
    site.machine.refused[FRONT_PORT] = ("RCPT TO:<postmaster>", reply)
    assert check(site, capsys).status == 0


def test_upstream_server_that_accepts_no_mail_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.machine.refused[PROXY_PORT] = ("RCPT TO:<postmaster>", "554 5.7.1 Access denied")
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["refused"])
    assert "answered '554 5.7.1 Access denied' to RCPT TO:<postmaster>" in checked.problem


def test_service_that_sends_no_greeting_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.machine.greetings[FRONT_PORT] = "timed out after 10 s"
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["refused"])


def test_session_uses_an_address_on_which_postfix_listens(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.machine.table += LISTENING.format(12).replace("0100007F:2729", "010200C0:0019")
    site.machine.programs[12] = {"master"}
    outside = Endpoint("192.0.2.1", 25)
    site.machine.greetings[outside] = "220"
    assert check(site, capsys).status == 0
    assert site.machine.asked == [PROXY_PORT, outside]


def test_stopped_postfix_is_reported(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.machine.postfix = False
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["postfix-stopped"])
    assert checked.remedy == "postfix start"


def test_missing_systemd_causes_exit_status_3(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.machine.states = {}
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (3, [])
    assert "not been booted with systemd" in checked.document["unseen"][0]


def test_offline_option_skips_running_system(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.machine.postfix = False
    site.machine.states = {}
    checked = check(site, capsys, "--offline")
    assert (checked.status, checked.document["running"]) == (0, False)


# Units and their files


def test_exec_start_without_reset_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"ExecStart={site.launcher} {site.arguments}"
    site.drop_in("postprox.service", "Service", "User=nobody", line)
    site.machine.states["postprox.service"] = "refused"
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["exec-start", "failing"])
    apply(site, checked)
    site.machine.states["postprox.service"] = "running"
    assert check(site, capsys).names() == []


@pytest.mark.parametrize("part", ["50%", "+%H", "${EMAIL}"])
def test_filter_argument_expanded_by_systemd_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    site.write(site.arguments.replace(str(site.filter), f"'{site.filter} {part}'"))
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["replaced"])
    apply(site, checked)
    again = check(site, capsys)
    assert again.names() == []
    assert f"{site.filter} {part}" in again.document["proxies"][0]["command"]


def test_finding_contains_name_of_invalid_unit(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(ROOT / "packaging/postprox.service", site.units / "postprox@.service")
    shutil.copy(ROOT / "packaging/postprox@.socket", site.units)
    site.write(site.arguments.replace("-t 60", "-t never"))
    site.machine.states["postprox.service"] = "restarting"
    checked = check(site, capsys)
    assert {finding["where"] for finding in checked.document["findings"]} == {"postprox.service"}
    assert checked.names() == ["command-line", "failing"]
    apply(site, checked)
    site.machine.states["postprox.service"] = "running"
    assert check(site, capsys).names() == []


def test_remedy_corrects_files_before_it_restarts_service(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.write(site.arguments.replace("-t 60", "-t never"))
    site.machine.states["postprox.service"] = "restarting"
    assert check(site, capsys).name == "command-line\nfailing"


def use_instances(site: Site) -> None:
    """Replace the service by two instances of the template."""
    site.disable()
    shutil.rmtree(site.units / "postprox.service.d")
    shutil.copy(ROOT / "packaging/postprox.service", site.units / "postprox@.service")
    shutil.copy(ROOT / "packaging/postprox@.socket", site.units)
    site.write(site.arguments.replace("/run/postprox", "/run/%N"), name="postprox@.service")
    site.machine.states = {"postprox.service": "waiting", "postprox.socket": "waiting"}
    for number in (1, 2):
        site.enable(f"sockets.target.wants/postprox@{number}.socket")
        site.machine.states |= {
            f"postprox@{number}.socket": "listening",
            f"postprox@{number}.service": "waiting",
        }


@pytest.mark.parametrize("is_shared", [True, False])
@pytest.mark.parametrize("has_filter", [True, False])
def test_options_of_instance_are_checked(
    site: Site, capsys: pytest.CaptureFixture[str], has_filter: bool, is_shared: bool
) -> None:
    use_instances(site)
    command = "ExecStart={} -l 10025 --foreground $POSTPROX_OPTIONS $POSTPROX_UPSTREAM"
    site.drop_in(
        "postprox@.service", "Service", "ExecStart=", command.format(site.launcher), "User=nobody"
    )
    options = "--strict -t 60 -d /run/%N".replace("%N", "postprox@{}")
    for number in (1, 2):
        text = options.format(number)
        text += f" -c {site.filter}" if number == 1 or has_filter else ""
        (site.directory / f"options-{number}").write_text(
            f'POSTPROX_OPTIONS="{text}"\nPOSTPROX_UPSTREAM="127.0.0.1:10026"\n'
        )
        if not is_shared:
            own = site.units / f"postprox@{number}.service.d/own.conf"
            own.parent.mkdir()
            own.write_text(f"[Service]\nEnvironmentFile={site.directory}/options-{number}\n")
    if is_shared:
        drop_in = site.units / "postprox@.service.d/local.conf"
        setting = f"EnvironmentFile={site.directory}/options-%i"
        drop_in.write_text(f"{drop_in.read_text()}{setting}\n")
    found = check(site, capsys).document["findings"]
    assert [each["name"] for each in found] == ([] if has_filter else ["no-filter"])
    assert all(each["where"].startswith("postprox@2.service") for each in found)


def chain(site: Site, timeout: int) -> None:
    """Let the service send its mail to a second proxy, an instance with a port of its own."""
    shutil.copy(ROOT / "packaging/postprox.service", site.units / "postprox@.service")
    shutil.copy(ROOT / "packaging/postprox@.socket", site.units)
    site.enable("sockets.target.wants/postprox@size.socket")
    site.machine.states["postprox@size.socket"] = "listening"
    site.machine.states["postprox@size.service"] = "waiting"
    site.drop_in("postprox@size.socket", "Socket", "ListenStream=", "ListenStream=127.0.0.1:10027")
    second = f"-l 10027 --foreground --strict -t {timeout} -d /run/%N -c {site.filter}"
    site.write(f"{second} 127.0.0.1:10026", name="postprox@size.service")
    site.write(site.arguments.replace("127.0.0.1:10026", "127.0.0.1:10027"))
    site.machine.greetings[Endpoint("127.0.0.1", 10027)] = "220 mail.test ESMTP Postfix"


@pytest.mark.parametrize(("timeout", "names"), [(30, []), (60, ["time-limit"])])
def test_proxy_behind_another_proxy_is_checked(
    site: Site, capsys: pytest.CaptureFixture[str], timeout: int, names: list[str]
) -> None:
    chain(site, timeout)
    checked = check(site, capsys)
    assert checked.names() == names
    assert checked.document["unseen"] == []
    assert len(checked.document["proxies"]) == 2
    if names:
        assert "the filters of 2 proxies in a row may run for 120 s (-t)" in checked.problem
        assert checked.remedy == "postconf -P smtp/inet/smtpd_proxy_timeout=220s"


def test_unused_unit_is_not_reported_if_instances_run(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    use_instances(site)
    checked = check(site, capsys)
    assert (checked.status, checked.names(), checked.document["unseen"]) == (0, [], [])
    site.machine.states["postprox@2.service"] = "restarting"
    (finding,) = check(site, capsys).document["findings"]
    assert (finding["name"], finding["where"]) == ("failing", "postprox@2.service")


def test_unused_unit_is_not_reported_if_postfix_spawns_proxy(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.disable()
    shutil.rmtree(site.units / "postprox.service.d")
    site.machine.states = {"postprox.service": "waiting", "postprox.socket": "waiting"}
    site.machine.programs = {11: {"master"}}
    spool = site.directory / "spool"
    spool.mkdir(mode=0o700)
    site.master += (
        f"127.0.0.1:10025 inet n n n - 20 spawn user=nobody argv={site.launcher} --strict"
        f" -d {spool} -c {site.filter} 127.0.0.1:10026\n"
    )
    checked = check(site, capsys)
    assert (checked.status, checked.names(), checked.document["unseen"]) == (0, [], [])


def as_installed(site: Site) -> None:
    """Restore the packaged unit and options file, and disable the unit."""
    site.disable()
    shutil.rmtree(site.units / "postprox.service.d")
    site.machine.states = {"postprox.service": "waiting", "postprox.socket": "waiting"}
    unit = site.units / "postprox.service"
    unit.write_text(unit.read_text().replace("/etc/default", str(site.directory)))
    shutil.copy(ROOT / "packaging/postprox.default", site.directory / "postprox")


def test_unedited_unit_is_ignored_if_postfix_does_not_use_it(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    as_installed(site)
    site.main = "compatibility_level = 3.6\n"
    assert check(site, capsys).names() == ["no-proxy"]


def test_unedited_unit_must_be_enabled_if_postfix_uses_it(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    as_installed(site)
    checked = check(site, capsys)
    assert {"not-enabled", "not-running"} <= set(checked.names())
    assert "no-proxy" not in checked.names()


@pytest.mark.parametrize(
    ("programs", "ports"),
    [
        ({"systemd"}, set()),
        ({"postprox", "systemd"}, set()),
        (set(), set()),
        ({"amavisd"}, {10025}),
    ],
)
def test_unit_port_is_free_unless_another_program_listens(
    site: Site, programs: set[str], ports: set[int]
) -> None:
    site.machine.programs = {11: programs}
    unit = units.read_unit(site.units / "postprox.service")
    assert running.used_ports(site.machine, unit) == ports


def test_open_port_counts_as_used_if_proxy_has_no_unit(site: Site) -> None:
    assert running.used_ports(site.machine, None) == {10025}


@pytest.mark.parametrize("place", ["system", "."])
def test_unit_option_reads_drop_ins_in_all_directories(
    site: Site, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    file = site.directory / place / "postprox.service"
    if not file.exists():
        shutil.copy(site.units / "postprox.service", file)
    checked = check(site, capsys, "--unit", str(file))
    assert (checked.status, checked.names()) == (0, [])


def test_spool_not_writable_by_unit_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    spool = site.directory / "spool"
    spool.mkdir(mode=0o700)
    site.write(site.arguments.replace("/run/postprox", str(spool)))
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["spool"])
    assert "ProtectSystem=strict" in checked.problem or "DynamicUser" in checked.problem
    apply(site, checked)
    assert check(site, capsys).names() == []


def test_spool_hidden_by_private_tmp_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "_TEMPORARY", ("/tmp",))
    monkeypatch.setattr(sandbox, "hiding_setting", _hidden_spool)
    site.write(site.arguments.replace("/run/postprox", "/tmp/spool"))
    checked = check(site, capsys)
    assert checked.names() == ["spool"]
    apply(site, checked)
    assert check(site, capsys).names() == []


_hiding_setting = sandbox.hiding_setting


def _hidden_spool(unit: Unit, path: str) -> str:
    """Ignore PrivateTmp for all files except the spool, because the test programs are in /tmp."""
    return _hiding_setting(unit, path) if path == "/tmp/spool" else ""


@pytest.mark.parametrize(
    ("option", "status", "name"), [("--metrics", 1, "status-file"), ("--pid-file", 2, "pid-file")]
)
def test_unwritable_status_file_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], option: str, status: int, name: str
) -> None:
    site.write(f"{option} {site.directory}/new/state {site.arguments}")
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (status, [name])
    apply(site, checked)
    assert check(site, capsys).names() == []


def test_status_file_in_runtime_directory_is_not_reported(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.write(f"--metrics /run/%N/postprox.prom {site.arguments}")
    assert check(site, capsys).names() == []


@pytest.fixture
def collector(site: Site, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that belongs to root, so that the proxy's user cannot write to it."""
    directory = site.directory / "node-exporter"
    directory.mkdir()
    unknown = ("no-such-user",)
    monkeypatch.setattr(
        accounts, "may", lambda user, _, path: None if user in unknown else path != str(directory)
    )
    monkeypatch.setattr(accounts, "user_name", lambda user: "root" if user.isdigit() else user)
    return directory


@pytest.mark.parametrize("lines", ["ProtectSystem=no", "ProtectSystem=strict"])
def test_status_directory_is_given_to_user_of_proxy(
    site: Site, capsys: pytest.CaptureFixture[str], collector: Path, lines: str
) -> None:
    line = f"--metrics {collector}/postprox.prom {site.arguments}"
    site.write(line, "DynamicUser=no", lines)
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (1, ["status-file"])
    assert f"user cannot write to {collector}" in checked.problem.replace("user nobody", "user")
    assert checked.remedy.startswith(f"chown nobody {collector}")
    # The unit's settings alone do not permit the user to write.
    site.write(line, "DynamicUser=no", lines, f"ReadWritePaths={collector}")
    again = check(site, capsys)
    assert again.names() == ["status-file"]
    assert again.remedy == f"chown nobody {collector}"


@pytest.mark.parametrize("option", ["--metrics", "--pid-file"])
def test_remedy_moves_status_file_from_unwritable_directory(
    site: Site,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    option: str,
) -> None:
    log = site.directory / "log"
    log.mkdir()
    monkeypatch.setattr(accounts, "may", lambda user, right, path: path != str(log))
    site.write(f"{option} {log}/state {site.arguments}", "DynamicUser=no")
    checked = check(site, capsys)
    assert len(checked.names()) == 1
    apply(site, checked)
    again = check(site, capsys)
    assert again.names() == []
    assert "/run/postprox/state" in again.document["proxies"][0]["command"]


def test_dynamic_user_cannot_write_to_directory_of_root(
    site: Site, capsys: pytest.CaptureFixture[str], collector: Path
) -> None:
    line = f"--metrics {collector}/state {site.arguments}"
    site.write(line, "User=no-such-user", f"ReadWritePaths={collector}")
    checked = check(site, capsys)
    assert "status-file" in checked.names()
    assert "--metrics /run/postprox/state" in checked.remedy
    collector.chmod(0o777)
    assert "status-file" not in check(site, capsys).names()


def test_missing_status_directory_is_created(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["DynamicUser=no", "ProtectSystem=no"]
    site.write(f"--pid-file {site.directory}/missing/pid {site.arguments}", *lines)
    checked = check(site, capsys)
    assert checked.names() == ["pid-file"]
    assert f"install -d -o nobody -m 0755 {site.directory}/missing" in checked.remedy


@pytest.mark.parametrize("option", ["--metrics", "--pid-file"])
def test_status_directory_below_run_is_created_at_each_start(
    site: Site, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    site.write(f"{option} /run/no-such-collector/state {site.arguments}")
    checked = check(site, capsys)
    assert len(checked.names()) == 1
    apply(site, checked)
    assert check(site, capsys).names() == []
    unit = units.read_unit(site.units / "postprox.service")
    assert unit.paths("RuntimeDirectory") == ["%N", "no-such-collector"]
    assert unit.paths("ReadWritePaths") == []


def test_filter_hidden_by_protect_home_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "_HOMES", (str(site.directory),))
    checked = check(site, capsys)
    assert (checked.status, set(checked.names())) == (2, {"filter", "program"})
    assert "ProtectHome=yes" in checked.problem
    apply(site, checked)
    assert check(site, capsys).names() == []


@pytest.mark.parametrize("written", ["{{{filter} --fast}}", "{filter} --fast", "{{{filter}}}"])
def test_braced_or_unquoted_filter_command_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], written: str
) -> None:
    own = written.format(filter=site.filter)
    site.write(site.arguments.replace(str(site.filter), own))
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["braces"])
    apply(site, checked)
    again = check(site, capsys)
    assert again.names() == []
    assert own.strip("{}") in again.document["proxies"][0]["command"]


def test_remedy_for_unit_contains_all_corrections(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = site.arguments.replace("--strict ", "").replace("/run/postprox", "/var/tmp/x")
    site.write(f"--pid-file /srv/pid {arguments}")
    remedies = [finding["remedy"] for finding in check(site, capsys).document["findings"]]
    drop_ins = [remedy.partition("mkdir -p")[2] for remedy in remedies if "mkdir -p" in remedy]
    assert len(drop_ins) > 1
    assert len(set(drop_ins)) == 1
    assert "--strict" in drop_ins[0]
    assert "ReadWritePaths=/srv" in drop_ins[0]


@pytest.mark.parametrize("unit", ["service", "socket"])
def test_second_remedy_keeps_settings_of_first_remedy(
    site: Site, capsys: pytest.CaptureFixture[str], unit: str
) -> None:
    later = {"service": "PrivateNetwork=yes", "socket": "BindToDevice=eth0"}
    if unit == "service":
        site.write(site.arguments.replace("--foreground ", ""))
    else:
        site.drop_in("postprox.socket", "Socket", "ListenStream=", "ListenStream=10025")
    apply(site, check(site, capsys))
    written = site.units / f"postprox.{unit}.d/zz-postprox-check.conf"
    first = written.read_text()
    (written.parent / "more.conf").write_text(f"[{unit.capitalize()}]\n{later[unit]}\n")
    apply(site, check(site, capsys))
    assert written.read_text().startswith(first)
    assert check(site, capsys).names() == []


class Commented(NamedTuple):
    """An entry that is commented out without its lines, and the rest of master.cf."""

    entry: str
    rest: str
    is_needed: bool
    is_enabled: bool = True
    program: str = "systemd"


SPAWNED = "127.0.0.1:10025 inet n n n - 20 spawn\n  user=nobody argv=/p/postprox -v\n"
COMMENTED = [
    Commented("127.0.0.1:10026 inet n - n - - smtpd\n  -o x=y\n", FRONT, is_needed=True),
    Commented("127.0.0.1:10036 inet n - n - - smtpd\n  -o x=y\n", FRONT + BEHIND, is_needed=False),
    Commented("smtp inet n - n - 20 smtpd\n  -o x=y\n", BEHIND, is_needed=True),
    Commented(SPAWNED, FRONT + BEHIND, is_needed=False),
    Commented(SPAWNED, FRONT + BEHIND, is_needed=False, is_enabled=False),
    # Postfix was not reloaded, so it still listens for the spawned proxy.
    Commented(SPAWNED, FRONT + BEHIND, is_needed=True, is_enabled=False, program="master"),
]


@pytest.mark.parametrize("case", COMMENTED)
def test_continuation_lines_of_commented_entry_are_reported(
    site: Site,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    case: Commented,
) -> None:
    owner = "mailman unix - n n - - pipe flags=R user=nobody argv=/bin/mailman\n"
    site.master = case.rest + owner
    (site.directory / "master.cf").write_text(f"{site.master}#{case.entry}")
    (site.directory / "main.cf").write_text(site.main)
    monkeypatch.setenv("MAIL_CONFIG", str(site.directory))
    if not case.is_enabled:
        site.disable()
    site.machine.programs[11] = {case.program}
    checked = check(site, capsys)
    assert checked.names() == ["arguments"]
    assert "arguments of mailman/unix" in checked.problem
    assert ("does not run, so mail is deferred" in checked.problem) == case.is_needed
    assert ("s/^#+" in checked.remedy) == case.is_needed


@pytest.mark.parametrize(
    "line", ["smtpd_tls_security_level=encrypt", "syslog_name=postfix/submission"]
)
def test_parameters_left_by_commented_out_service_are_reported(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    text = f"{BEHIND}{FRONT}#submission inet n - n - - smtpd\n  -o {line}\n"
    (site.directory / "master.cf").write_text(text)
    (site.directory / "main.cf").write_text(site.main)
    monkeypatch.setenv("MAIL_CONFIG", str(site.directory))
    own = f"{OWN}smtp/inet/{line.replace('=', ' = ')}\n"
    monkeypatch.setattr("tests.unit.test_check_running.OWN", own)
    checked = check(site, capsys)
    assert checked.names() == ["arguments"]
    assert "submission/inet is commented out" in checked.problem
    assert "arguments of smtp/inet" in checked.problem


def test_lines_after_comment_for_same_program_are_accepted(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"{BEHIND}{FRONT}#submission inet n - n - - smtpd\n  -o x=y\n"
    site.directory.chmod(0o755)
    (site.directory / "master.cf").write_text(text)
    (site.directory / "main.cf").write_text(site.main)
    monkeypatch.setenv("MAIL_CONFIG", str(site.directory))
    assert check(site, capsys).names() == []


def test_unit_without_foreground_option_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.write(site.arguments.replace("--foreground ", ""))
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["background"])
    apply(site, checked)
    assert check(site, capsys).names() == []


@pytest.mark.parametrize("line", ["PrivateNetwork=yes", "IPAddressDeny=any"])
def test_unit_without_network_access_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    site.write(site.arguments, line)
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["no-upstream"])
    apply(site, checked)
    assert check(site, capsys).names() == []


def test_unit_with_sufficient_network_access_is_not_reported(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.write(site.arguments, "IPAddressDeny=any", "IPAddressAllow=localhost")
    assert check(site, capsys).names() == []


@pytest.mark.parametrize(
    "line",
    [
        "Type=forking",
        "RootDirectory=/srv/jail",
        "NoExecPaths=/",
        "RestrictAddressFamilies=\nRestrictAddressFamilies=AF_UNIX",
        "RemainAfterExit=yes",
    ],
)
def test_setting_that_breaks_proxy_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    site.write(site.arguments, line)
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["unit-setting"])
    apply(site, checked)
    assert check(site, capsys).names() == []


@pytest.mark.parametrize("line", ["Accept=yes", "ListenStream=\nListenDatagram=127.0.0.1:10025"])
def test_socket_without_tcp_listener_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    site.drop_in("postprox.socket", "Socket", line)
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["unit-setting"])
    apply(site, checked)
    assert check(site, capsys).names() == []


def test_unsuitable_kill_mode_causes_warning(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.write(site.arguments, "KillMode=control-group")
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (1, ["unit-stop"])
    apply(site, checked)
    assert check(site, capsys).names() == []


def test_program_without_slash_is_found_in_path(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "SYSTEMD_PATH", f"{site.directory}:{system.SYSTEMD_PATH}")
    line = f"ExecStart=postprox {site.arguments}"
    site.drop_in("postprox.service", "Service", "User=nobody", "ExecStart=", line)
    assert check(site, capsys).names() == []


@pytest.mark.parametrize("setting", ["EnvironmentFile", "ReadWritePaths"])
def test_nonexistent_path_in_unit_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], setting: str
) -> None:
    site.write(site.arguments, f"{setting}=-{site.directory}/optional")
    assert check(site, capsys).names() == []
    site.write(site.arguments, f"{setting}={site.directory}/required")
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["failing"])
    apply(site, checked)
    assert check(site, capsys).names() == []


# Filter scripts

TEXTS = {
    "byte order mark": (b"\xef\xbb\xbf#!/bin/sh\nexit 0\n", "byte-order-mark"),
    "CR in the first line": (b"#!/bin/sh\r\nexit 0\r\n", "line-ends"),
    "CR in other lines": (b"#!/bin/sh\nif true; then\r\nexit 0\r\nfi\r\n", "line-ends"),
    "CR in Python": (b"#!/usr/bin/python3\r\nexit()\r\n", "line-ends"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_remedy_removes_bom_and_cr_from_filter(
    site: Site, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    text, expected = TEXTS[name]
    site.filter.write_bytes(text)
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, [expected])
    apply(site, checked)
    assert check(site, capsys).names() == []
    assert site.filter.read_bytes() == text.replace(b"\xef\xbb\xbf", b"").replace(b"\r", b"")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("#!/bin/sh\nif true; then\n", "Syntax error: end of file unexpected"),
        ("#!/bin/bash\nif true; then\n", "unexpected end of file"),
        ("if true; then\n", "Syntax error: end of file unexpected"),
        (f"#!{sys.executable}\ndef f(:\n", "SyntaxError"),
    ],
)
def test_filter_syntax_error_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], text: str, error: str
) -> None:
    site.filter.write_text(text)
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["syntax"])
    assert error in checked.problem


@pytest.mark.parametrize(
    "case",
    [
        ("f.py", "import os\n", "#!/usr/bin/env python3"),
        ("f", "#!/usr/bin/env python3 -u\nimport os\n", "#!/usr/bin/env -S python3 -u"),
    ],
)
def test_remedy_corrects_filter_shebang(
    site: Site,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[str, str, str],
) -> None:
    name, text, first = case
    monkeypatch.setattr(accounts, "may", lambda user, right, path: " " not in path)
    own = site.directory / name
    own.write_text(text)
    own.chmod(0o755)
    site.write(site.arguments.replace(str(site.filter), str(own)))
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["interpreter"])
    apply(site, checked)
    assert own.read_text().splitlines()[0] == first
    assert check(site, capsys).names() == []


def test_unreadable_script_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "may", lambda user, right, path: right != os.R_OK)
    checked = check(site, capsys)
    assert (checked.status, set(checked.names())) == (2, {"filter", "program"})
    assert f"cannot read the script {site.filter}" in checked.problem


def test_filter_on_noexec_mount_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "ST_NOEXEC", os.statvfs(site.directory).f_flag | 1)
    checked = check(site, capsys)
    assert (checked.status, set(checked.names())) == (2, {"filter", "program"})
    assert "mounted with noexec" in checked.problem
    assert "mount -o remount,exec" in checked.remedy


def test_correct_python_filter_has_no_findings(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.filter.write_text(f"#!{sys.executable}\nimport nothing_of_this_name\n")
    assert check(site, capsys).names() == []


def test_check_does_not_run_filter(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    started = site.directory / "started"
    site.filter.write_text(f"#!/bin/bash\ntouch {started}\n$(touch {started})\n")
    site.write(site.arguments.replace(str(site.filter), f"'{site.filter} $(touch {started})'"))
    check(site, capsys)
    assert not started.exists()


def test_filter_command_syntax_error_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.write(site.arguments.replace(str(site.filter), f"'{site.filter} ('"))
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["syntax"])


@pytest.mark.parametrize("name", ["mail-filter", "."])
def test_world_writable_filter_or_directory_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = site.directory / name
    path.chmod(0o777)
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (1, ["filter-open"])
    apply(site, checked)
    assert path.stat().st_mode & 0o777 == 0o775
    assert check(site, capsys).names() == []


def test_inaccessible_directory_is_reported_instead_of_filter(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = site.directory / "closed"
    closed.mkdir(mode=0o700)
    site.filter = Path(shutil.move(site.filter, closed))
    site.write(f"{site.arguments.replace('mail-filter', 'closed/mail-filter')}")

    def may(user: str, right: int, path: str) -> bool:
        is_open = bool(closed.stat().st_mode & 1)
        return is_open or not Path(path).is_relative_to(closed)

    monkeypatch.setattr(accounts, "may", may)
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["filter"])
    assert checked.remedy == f"chmod a+x {closed}"
    apply(site, checked)
    assert check(site, capsys).names() == []


# The real system


def test_listener_addresses_are_read_from_proc() -> None:
    table = (
        LISTENING.format(11)
        + "1: 00000000000000000000000001000000:0019 00000000000000000000000000000000:0000 0A"
        " 00000000:00000000 00:00000000 00000000 0 0 12 1\n"
        + "2: 0100007F:1A2B 0100007F:2729 01 00000000:00000000 00:00000000 00000000 0 0 13 1\n"
    )
    found = list(running.listening_sockets(table))
    assert found == [(PROXY_PORT, 11), (Endpoint("::1", 25), 12)]


def test_listener_of_own_process_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = running.listening_sockets(Machine().sockets())
        (inode,) = [inode for endpoint, inode in found if endpoint == Endpoint("127.0.0.1", port)]
        assert Path("/proc/self/comm").read_text().strip() in Machine().owners({inode})[inode]


@pytest.mark.parametrize(
    ("replies", "session", "commands"),
    [
        (["220-one\r\n220 two"], Session("220 two"), ["EHLO", "MAIL", "RCPT", "RSET", "QUIT"]),
        (
            ["220 one", "250 2", "451 4.3.0 no"],
            Session("220 one", "MAIL FROM:<>", "451 4.3.0 no"),
            ["EHLO", "MAIL", "QUIT"],
        ),
        (["421 4.4.1 No"], Session("421 4.4.1 No"), ["QUIT"]),
        ([], Session("connection closed"), []),
    ],
)
def test_session_sends_no_message(
    replies: list[str], session: Session, commands: list[str]
) -> None:
    received: list[bytes] = []

    def serve() -> None:
        client, _ = server.accept()
        with client, client.makefile("rwb") as stream:
            for reply in [*replies, *["250 2.0.0 Ok"] * 5] if replies else ():
                stream.write(f"{reply}\r\n".encode())
                stream.flush()
                if not (line := stream.readline()):
                    break
                received.append(line)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        endpoint = Endpoint("127.0.0.1", server.getsockname()[1])
        assert Machine().session(endpoint) == session
        thread.join()
    assert [line[:4].decode() for line in received] == commands
    assert Machine().session(endpoint) == Session("connection refused")


def test_missing_systemd_raises_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "systemctl"
    program.write_text("#!/bin/sh\necho 'System has not been booted with systemd' >&2; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnreadableError, match="has not been booted"):
        Machine().show(["postprox.service"], running.PROPERTIES)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(UnreadableError, match="systemctl is missing"):
        Machine().show(["postprox.service"], running.PROPERTIES)


@pytest.mark.parametrize(("text", "runs"), [("{pid}\n", False), ("x", False), (None, False)])
def test_postfix_counts_as_stopped_if_master_pid_is_invalid(
    tmp_path: Path, text: str | None, runs: bool
) -> None:
    (tmp_path / "pid").mkdir()
    if text is not None:
        (tmp_path / "pid/master.pid").write_text(text.format(pid=os.getpid()))
    assert Machine().master_runs(str(tmp_path)) is runs


@pytest.mark.any_account
def test_removed_private_directory_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeMachine, "removed_mounts", lambda _, pid: ("/run",))
    checked = check(site, capsys)
    assert checked.names() == ["spool"]
    assert checked.remedy == "systemctl restart postprox.service"
    monkeypatch.setattr(FakeMachine, "removed_mounts", lambda _, pid: ("/var/tmp",))
    assert check(site, capsys).names() == []


@pytest.mark.any_account
def test_mount_of_removed_directory_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "8{} 1 254:0 /tmp/systemd-private-x/tmp{} {} rw - ext4 /dev/a rw\n"
    table = line.format(1, "//deleted", "/tmp") + line.format(2, "", "/var/tmp")
    monkeypatch.setattr(Path, "read_text", lambda _: table)
    assert Machine().removed_mounts(1) == ("/tmp",)


@pytest.mark.any_account
def test_service_without_new_group_of_its_user_is_restarted(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeMachine, "missing_groups", lambda _, pid: ("scan",))
    checked = check(site, capsys)
    assert checked.names() == ["not-reloaded"]
    assert "became a member of scan" in checked.problem
    assert checked.remedy == "systemctl restart postprox.service"


@pytest.mark.any_account
def test_groups_that_process_lacks_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    account = pwd.getpwnam("nobody")
    status = f"Name:\tx\nUid:\t{account.pw_uid}\t1\nGid:\t{account.pw_gid}\t1\nGroups:\t{{}} \n"
    mail = grp.getgrnam("mail").gr_gid
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [gid, mail])
    monkeypatch.setattr(Path, "read_text", lambda _: status.format(""))
    assert Machine().missing_groups(1) == ("mail",)
    monkeypatch.setattr(Path, "read_text", lambda _: status.format(mail))
    assert Machine().missing_groups(1) == ()


def test_instances_with_different_filters_do_not_share_a_port(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    chain(site, 30)
    site.enable("sockets.target.wants/postprox@in.socket")
    site.machine.states["postprox@in.socket"] = "listening"
    site.machine.states["postprox@in.service"] = "waiting"
    other = site.directory / "other"
    shutil.copy(site.filter, other)
    second = f"-l 10027 --foreground --strict -t 30 -d /run/%N -c {other}"
    site.write(f"{second} 127.0.0.1:10026", name="postprox@size.service")
    site.write(site.arguments, name="postprox@in.service")
    site.drop_in("postprox@size.socket", "Socket", "ListenStream=127.0.0.1:10027")
    checked = check(site, capsys)
    assert "port-twice" in checked.names()
    assert "the port of postprox@in.service" in checked.problem
    assert "ListenStream= ListenStream=127.0.0.1:10027" in checked.remedy.replace("'", "")
