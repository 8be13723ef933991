"""postprox-check: filter commands that hide the filter or its exit status, and unusable filters."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from postprox.check.probe import accounts
from postprox.check.scripts import shell_command
from tests.unit.test_check_running import Site, apply, check, site

__all__ = ["site"]


@pytest.mark.parametrize(
    ("command", "kept"),
    [
        ("/f &", "/f"),
        ("/f | logger -t x", "/f"),
        ("/f | /usr/bin/tee /srv/log", "/f"),
        ("/f || true", "/f"),
        ("/f ; exit 0", "/f"),
        ("/f --x 'a b'; :", "/f --x 'a b'"),
        ("/a && /b || exit 0;", "/a && /b"),
        ("/f; logger -t mail-filter done", "/f"),
        ("echo begin; /f 'a b' ; /bin/rm -f /tmp/x;", "echo begin; /f 'a b'"),
    ],
)
def test_lost_exit_status_is_detected(command: str, kept: str) -> None:
    assert shell_command.without_lost_status(command) == kept


@pytest.mark.parametrize(
    "command",
    [
        "/f",
        "/f; exit $?",
        "/f; exit",
        "/f; exit 2",
        "/f || exit 2",
        "/f && true",
        "cat $EMAIL | /f",
        "/f 2>&1",
        "/f >/dev/null 2>&1",
        "/f && /g",
        "/f 'a & b'",
        "/f 'x | tee'",
        "/f 'x; exit 0'",
        "logger < $EMAIL",
        "logger done; /f",
        "/f; s=$?; logger done; exit $s",
        "/f || exit 1; logger done",
        "set -e; /f; logger done",
        "if /f; then logger done; fi",
        "/f || { logger failed; false; }",
        "/f 'x; logger done'",
        "true",
    ],
)
def test_command_that_preserves_exit_status_is_not_reported(command: str) -> None:
    assert shell_command.without_lost_status(command) == command


@pytest.mark.parametrize(
    ("command", "targets"),
    [
        ("/f --x", [("/f", "")]),
        ("A=1 B='2 3' /f", [("/f", "")]),
        ("exec /f", [("/f", "")]),
        ("timeout -k 5 10 nice -n 5 /f", [("/f", "")]),
        ("env -i A=1 /f", [("/f", "")]),
        ("python3 -I /f.py --x", [("python3", "/f.py")]),
        ("/usr/bin/python3.13 /f.py", [("/usr/bin/python3.13", "/f.py")]),
        ("python3 -m mail.filter", [("python3", "")]),
        ("sh -c /f", [("sh", "")]),
        ("sh /f && /g; h", [("sh", "/f"), ("/g", ""), ("h", "")]),
        ("$FILTER", []),
        ("(/f)", [("/f", "")]),
        ("~/f", []),
        ("< $EMAIL /f", []),
        ("'", []),
        ("env", []),
    ],
)
def test_programs_of_command_are_found(command: str, targets: list[tuple[str, str]]) -> None:
    assert [(each.program, each.script) for each in shell_command.targets(command)] == targets


def command_of(site: Site, command: str) -> None:
    """Set the filter command."""
    site.write(site.arguments.replace(str(site.filter), f"'{command}'"))


@pytest.mark.parametrize("end", [" &", " | logger", " || true", "; exit 0", "; logger x"])
def test_remedy_keeps_exit_status_of_filter(
    site: Site, capsys: pytest.CaptureFixture[str], end: str
) -> None:
    command_of(site, f"{site.filter}{end}")
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["exit-status"])
    assert "all mail passes unfiltered" in checked.problem
    apply(site, checked)
    again = check(site, capsys)
    assert again.names() == []
    assert str(site.filter) in again.document["proxies"][0]["command"]


@pytest.mark.parametrize("command", ["true", ":", "exit 0", "# {filter}", "/bin/true"])
def test_command_that_always_succeeds_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    command_of(site, command.format(filter=site.filter))
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["no-filter"])
    assert "all mail passes unfiltered" in checked.problem
    if "#" in command:
        apply(site, checked)
        assert check(site, capsys).names() == []


def test_typographic_quotes_are_reported(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    command_of(site, f"\u2018{site.filter}\u2019")
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["syntax"])
    apply(site, checked)
    assert check(site, capsys).names() == []


@pytest.mark.parametrize(
    "command",
    ["sh {missing}", "/usr/bin/python3 {missing}", "exec {missing}", "{filter} && {missing}"],
)
def test_missing_script_of_command_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    missing = site.directory / "missing"
    command_of(site, command.format(filter=site.filter, missing=missing))
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["filter"])
    assert f"{missing} does not exist" in checked.problem
    missing.write_text("#!/bin/sh\nexit\n")  # also valid in Python
    missing.chmod(0o755)
    assert check(site, capsys).names() == []


def test_script_passed_to_interpreter_need_not_be_executable(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        accounts, "may", lambda user, right, path: path != str(site.filter) or right == 4
    )
    command_of(site, f"sh {site.filter}")
    assert check(site, capsys).names() == []
    site.filter.write_text("if true; then\n")
    assert check(site, capsys).names() == ["syntax"]


BLANK = ["", "\n\n", "#!/bin/sh\n", "#!/usr/bin/python3\n# later\n"]


@pytest.mark.parametrize("text", BLANK)
def test_filter_without_commands_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    site.filter.write_text(text)
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["no-filter"])


def test_comment_only_script_for_other_interpreter_is_not_reported(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.filter.write_text("#!/usr/sbin/own-interpreter\n# rules\n")
    assert check(site, capsys).names() == []


def test_program_for_another_processor_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Path(sys.executable).read_bytes()[:64]
    site.filter.write_bytes(own)
    assert check(site, capsys).names() == []
    site.filter.write_bytes(own[:18] + b"\xf3\0" + own[20:])
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["filter"])
    assert "another processor" in checked.problem


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (b"\n\n#!/usr/bin/python3\nexit()\n", "interpreter"),
        (b"\n#!/bin/bash\n[[ $EMAIL ]] || exit 2\nexit 1\n", "interpreter"),
        (b" \t#!/bin/sh -e\nexit 0\n", "interpreter"),
        (b"#!/bin/sh -e -u\nexit 0\n", "interpreter"),
        (b"#!/usr/bin/python3 -I -S\nexit()\n", "interpreter"),
        ("#!/bin/sh\nexit 0\n".encode("utf-16"), "byte-order-mark"),
        (b"#!/bin/sh\rexit 0\r\n", "line-ends"),
    ],
)
def test_remedy_makes_script_usable(
    site: Site, capsys: pytest.CaptureFixture[str], text: bytes, name: str
) -> None:
    site.filter.write_bytes(text)
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, [name])
    apply(site, checked)
    apply(site, checked)  # two proxies with the same filter print the commands twice
    assert check(site, capsys).names() == []


@pytest.mark.parametrize(
    "text", ["\n#!/bin/sh\nexit 1\n", " #! /usr/bin/env sh\nexit 1\n", "\n#!/bin/bash\nexit 1\n"]
)
def test_misplaced_shebang_of_shell_script_is_not_reported(
    site: Site, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    site.filter.write_text(text)
    assert check(site, capsys).names() == []


def test_remedy_shows_interpreter_arguments_that_cannot_be_joined(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.filter.write_text("#!/bin/sh -e +u\nexit 0\n")
    checked = check(site, capsys)
    assert checked.names() == ["interpreter"]
    assert checked.remedy.startswith("head -n 1")


def test_world_writable_directory_behind_link_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = site.directory / "open"
    folder.mkdir()
    folder.chmod(0o777)
    shutil.move(site.filter, folder / "filter")
    site.filter.symlink_to(folder / "filter")
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (1, ["filter-open"])
    apply(site, checked)
    assert check(site, capsys).names() == []


@pytest.mark.parametrize("kind", ["link", "file"])
def test_unusual_spool_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    shared, spool = site.directory / "shared", site.directory / "spool"
    shared.mkdir()
    shared.chmod(0o1777)
    if kind == "link":
        spool.symlink_to(shared)
    else:
        spool.write_text("")
    site.write(site.arguments.replace("/run/postprox", str(spool)), f"ReadWritePaths={spool}")
    checked = check(site, capsys)
    assert checked.names() == (["spool-open"] if kind == "link" else ["spool"])
    if kind == "link":
        assert checked.remedy.startswith(f"test ! -L {spool} || rm {spool}; install -d ")
        assert str(shared) not in checked.remedy
    else:
        assert "is not a directory" in checked.problem


def test_relative_spool_of_spawned_proxy_is_in_queue_directory(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.disable()
    site.machine.states = {}
    site.machine.programs = {11: {"master"}}
    queue = site.directory / "queue"
    (queue / "spool").mkdir(parents=True, mode=0o700)
    site.main += f"queue_directory = {queue}\n"
    site.master += (
        f"127.0.0.1:10025 inet n n n - 20 spawn user=nobody argv={site.launcher} --strict"
        f" -d spool -c {site.filter} 127.0.0.1:10026\n"
    )
    assert "spool" not in check(site, capsys).names()
    (queue / "spool").rmdir()
    assert "spool" in check(site, capsys).names()


@pytest.mark.parametrize(
    "end", [" # filter", " >> /var/log/postprox 2>&1", " 2>&1", " &", " | /bin/cat", " ; /bin/true"]
)
def test_remedy_removes_shell_syntax_that_follows_command_line(
    site: Site, capsys: pytest.CaptureFixture[str], end: str
) -> None:
    site.write(site.arguments + end)
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["command-line"])
    assert f"{end.split(maxsplit=1)[0]!r} has a special meaning only in a shell" in checked.problem
    apply(site, checked)
    again = check(site, capsys)
    assert again.names() == []
    assert again.document["proxies"][0]["command"][1:] == site.arguments.split()


@pytest.mark.parametrize(
    ("old", "new"),
    [("--strict", "\u2013\u2013strict"), ("--strict", "\u2014strict"), ("-t 60", "-t\u00a060")],
)
def test_characters_inserted_by_word_processor_are_replaced(
    site: Site, capsys: pytest.CaptureFixture[str], old: str, new: str
) -> None:
    site.write(site.arguments.replace(old, new))
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["command-line"])
    apply(site, checked)
    again = check(site, capsys)
    assert again.names() == []
    assert again.document["proxies"][0]["command"][1:] == site.arguments.split()


# A similar path


@pytest.mark.parametrize(
    ("missing", "present"),
    [
        ("mail-filterr", "mail-filter"),
        ("mail_filter", "mail-filter"),
        ("app-1.2/bin/mail-filter", "app-1.3/bin/mail-filter"),
    ],
)
def test_filter_with_similar_path_is_used(
    site: Site, capsys: pytest.CaptureFixture[str], missing: str, present: str
) -> None:
    path = site.directory / present
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(site.launcher, path)
    command_of(site, f"timeout 50 {site.directory}/{missing} --x")
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["filter"])
    assert f"{missing} does not exist, but {path} exists; the filter cannot run" in checked.problem
    apply(site, checked)
    again = check(site, capsys)
    assert again.names() == []
    assert f"timeout 50 {path} --x" in again.document["proxies"][0]["command"]


@pytest.mark.parametrize("other", ["mail-filter.bak", "postprox", "mailman"])
def test_file_with_dissimilar_name_is_not_suggested(
    site: Site, capsys: pytest.CaptureFixture[str], other: str
) -> None:
    site.filter.rename(site.directory / other)
    assert check(site, capsys).remedy == f"ls -l {site.filter}"


@pytest.mark.parametrize("link", ["mail-filter", "app"])
def test_dangling_link_to_filter_is_corrected(
    site: Site, capsys: pytest.CaptureFixture[str], link: str
) -> None:
    new, old = site.directory / "app-1.3", site.directory / "app-1.2"
    new.mkdir()
    site.filter.rename(new / "mail-filter")
    if link == "app":
        (site.directory / link).symlink_to(old)
        command_of(site, f"{site.directory}/app/mail-filter")
    else:
        site.filter.symlink_to(old / "mail-filter")
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["filter"])
    apply(site, checked)
    assert check(site, capsys).names() == []
    assert (site.directory / link).resolve() == (new if link == "app" else new / "mail-filter")


# The spool of a proxy whose user spawn(8) refuses


@pytest.mark.parametrize("argument", ["user=postfix", "user=root", ""])
@pytest.mark.parametrize("state", ["own", "other", "missing"])
def test_remedy_gives_spool_to_new_user(
    site: Site,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    argument: str,
    state: str,
) -> None:
    owner = {"own": "postprox", "other": "postfix"}.get(state, "")
    monkeypatch.setattr(accounts, "user_name", lambda user: owner if user.isdigit() else user)
    monkeypatch.setattr(accounts, "has_user", lambda _: state != "missing")
    spool = site.directory / "own-spool"
    if owner:
        spool.mkdir(mode=0o700)
    site.disable()
    site.machine.states = {}
    site.machine.programs = {11: {"master"}}
    site.master += (
        f"127.0.0.1:10025 inet n n n - 20 spawn {argument} argv={site.launcher} --strict"
        f" -d {spool} -c {site.filter} 127.0.0.1:10026\n"
    )
    checked = check(site, capsys, "--offline")
    assert ("spool" in checked.names()) is (state != "own")
    assert ("useradd" in checked.remedy) is (state == "missing")
    assert ("install -d -o postprox" in checked.remedy) is (state != "own")
