"""postprox-check: the paths that a filter writes to, and the commands that run the filter."""

from __future__ import annotations

import os
import pwd
import shlex
import subprocess
from pathlib import Path

import pytest

from postprox.check import sandbox
from postprox.check.probe import accounts, written_files
from postprox.check.scripts import languages, shell_command, used_files
from tests.unit.test_check_running import Site, apply, check, site

__all__ = ["site"]

#: A shell script that passes a script in Python to its interpreter.
EMBEDDED = """#!/bin/sh
DIR=$(mktemp -d) || exit 2
cp "$EMAIL" "$DIR/message" || exit 2
python3 - "$DIR" <<'END' || exit 2
import email, sys
END
exit 0
"""


def test_script_with_embedded_python_is_shell_script(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.filter.write_text(EMBEDDED)
    checked = check(site, capsys)
    assert checked.names() == ["filter-write"]
    apply(site, checked)
    assert "trap 'rm -rf \"$DIR\"' EXIT\n" in site.filter.read_text()
    assert check(site, capsys).names() == []


@pytest.mark.parametrize("end", ["<<A\nx\nA", "<<-'A'\nx\n\tA", "<<\\A\nx\nA", "<<A <<B\nx\nA\nB"])
def test_text_of_here_document_is_removed(end: str) -> None:
    kept = languages.without_here_documents(f"cat {end}\ny\n").split("\n")
    assert kept == [f"cat {end}".split("\n")[0], *[""] * end.count("\n"), "y", ""]


@pytest.mark.parametrize("text", ["cat <<< x\ny\n", "# <<A\ny\n", "cat <<A\ny\n"])
def test_text_without_complete_here_document_is_kept(text: str) -> None:
    assert languages.without_here_documents(text) == text


@pytest.mark.parametrize("command", ["umask 027; exec {}", "ulimit -v 1000000 && {}", "cd /; {}"])
def test_command_may_prepare_environment_of_filter(
    site: Site, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    site.filter.chmod(0o644)
    site.write(site.arguments.replace(str(site.filter), shlex.quote(command.format(site.filter))))
    checked = check(site, capsys)
    assert checked.document["unseen"] == []


@pytest.mark.parametrize(
    ("value", "names", "unseen"), [("{}", [], 0), ("{}x", ["filter"], 0), ("a b", [], 1)]
)
def test_variable_of_unit_may_name_filter(
    site: Site, capsys: pytest.CaptureFixture[str], value: str, names: list[str], unseen: int
) -> None:
    command = shlex.quote("exec $$FILTER --level $${LEVEL}")
    variables = f'Environment="FILTER={value.format(site.filter)}" LEVEL=high'
    site.write(site.arguments.replace(str(site.filter), command), variables)
    checked = check(site, capsys)
    assert (checked.names(), len(checked.document["unseen"])) == (names, unseen)


def test_variable_that_command_sets_is_not_expanded() -> None:
    assert shell_command.expanded("F=/a; $F $G", {"F": "/b", "G": "/c"}) == "F=/a; $F /c"


def test_state_directory_of_unit_is_not_reported(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # With DynamicUser, only the service can search the parent of this directory.
    monkeypatch.setattr(
        written_files, "targets", lambda *_: ("/var/lib/postprox", "/var/lib/postprox/q")
    )
    monkeypatch.setattr(accounts, "may", lambda _, right, path: not path.startswith("/var/lib/"))
    assert check(site, capsys).names() == []


@pytest.mark.parametrize("is_unit", [True, False])
def test_remedy_lets_user_write_to_directory(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, is_unit: bool
) -> None:
    quarantine = site.directory / "quarantine"
    quarantine.mkdir()
    programs = site.directory / "programs"
    (programs / "chown").write_text(f'#!/bin/sh\necho "$@" > {site.directory}/chown\n')
    (programs / "chown").chmod(0o755)
    monkeypatch.setattr(
        accounts,
        "may",
        lambda _, right, path: right != os.W_OK or not path.startswith(str(quarantine)),
    )
    if not is_unit:
        site.drop_in("postprox.service", "Service", "ProtectSystem=no", "DynamicUser=no")
        site.write(site.arguments, "ProtectSystem=no", "DynamicUser=no", "User=nobody")
    site.filter.write_text(f'#!/bin/sh\ncp "$EMAIL" {quarantine}/$$.eml || exit 2\nexit 0\n')
    checked = check(site, capsys)
    assert checked.names() == ["filter-write"]
    assert "user nobody cannot write there" in checked.problem
    assert ("the unit forbids this" in checked.problem) == is_unit
    assert ("ReadWritePaths=" in checked.remedy) == is_unit
    if os.getuid() == 0:
        apply(site, checked)
        assert Path(f"{site.directory}/chown").read_text() == f"nobody {quarantine}\n"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can create files of another user")
@pytest.mark.parametrize("is_made", [True, False])
@pytest.mark.parametrize("is_directory", [True, False])
def test_remedy_gives_file_of_root_to_user(
    site: Site,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    is_made: bool,
    is_directory: bool,
) -> None:
    state = site.directory / "state"
    file = state / "senders"
    state.mkdir(mode=0o700)
    (file.mkdir if is_directory else file.touch)()
    uid = pwd.getpwnam("nobody").pw_uid
    os.chown(state, uid, -1)
    if is_made:
        made = sandbox._made
        monkeypatch.setattr(sandbox, "_made", lambda unit: [*made(unit), str(state)])
    else:
        site.write(site.arguments, f"ReadWritePaths={state}")
    target = f"{file}/$$" if is_directory else str(file)
    may = lambda _, right, path: right != os.W_OK or path != str(file)  # noqa: E731
    monkeypatch.setattr(accounts, "may", may)
    site.filter.write_text(f'#!/bin/sh\necho "$SENDER" >> {target} || exit 2\nexit 0\n')
    checked = check(site, capsys)
    assert checked.names() == ["filter-write"]
    assert f"writes to {file}, but user nobody cannot write there, because it" in checked.problem
    apply(site, checked)
    assert file.stat().st_uid == uid


@pytest.mark.skipif(os.getuid() != 0, reason="only root can create files of another user")
def test_directory_that_systemd_will_give_to_user_is_not_reported(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = site.directory / "state"
    state.mkdir()
    (state / "senders").touch()
    monkeypatch.setattr(accounts, "may", lambda _, right, path: not path.startswith(str(state)))
    made = sandbox._made
    monkeypatch.setattr(sandbox, "_made", lambda unit: [*made(unit), str(state)])
    site.filter.write_text(f'#!/bin/sh\necho "$SENDER" >> {state}/senders || exit 2\nexit 0\n')
    assert check(site, capsys).names() == []


@pytest.mark.parametrize(
    "path", ["/etc/mail", "/usr/local/bin", "/var/log", "/var/log/mail.log", "/srv", "/var/spool"]
)
def test_directory_of_other_programs_keeps_its_owner(path: str) -> None:
    assert not written_files.is_private(path, "nobody")


def test_quarantine_that_filter_creates_in_tmp_is_found() -> None:
    script = '#!/bin/sh\nQ=/tmp/quarantine\nmkdir -p "$Q" || exit 2\ncp "$EMAIL" "$Q/$$.eml"\n'
    assert "/tmp/quarantine" in written_files.targets(script, "/bin/sh", "nobody")
    work = script.replace("quarantine", "work")
    assert "/tmp/work" not in written_files.targets(work, "/bin/sh", "nobody")


def test_hidden_quarantine_moves_to_the_state_directory(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quarantine = site.directory / "tmp/quarantine"
    quarantine.mkdir(parents=True)
    monkeypatch.setattr(sandbox, "_TEMPORARY", (str(quarantine.parent),))
    site.filter.write_text(f'#!/bin/sh\ncp "$EMAIL" {quarantine}/x || exit 2\n')
    checked = check(site, capsys)
    assert checked.names() == ["filter-write"]
    assert checked.remedy.startswith(f"sed -i 's,{quarantine}\\b,/var/lib/postprox/quarantine,g'")
    assert "chown --reference=/var/lib/postprox/" in checked.remedy


def test_remedy_lets_logrotate_create_log_for_user(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log, rotation = site.directory / "filter.log", site.directory / "rotation/filter"
    log.touch()
    rotation.parent.mkdir()
    rotation.write_text(f"{log} {{\n    weekly\n    create 0640 root adm\n}}\n")
    monkeypatch.setattr(written_files, "_LOGROTATE", str(rotation.parent))
    monkeypatch.setattr(accounts, "may", lambda _user, _right, path: path != str(log))
    site.filter.write_text(f'#!/bin/sh\necho "$SENDER" >> {log}\nexit 0\n')
    checked = check(site, capsys)
    assert f"logrotate(8) recreates it with the wrong owner ({rotation})" in checked.problem
    script = checked.remedy[checked.remedy.index("sed -E -i") :].partition("; ")[0]
    subprocess.run(["/bin/sh", "-c", script], check=True)
    assert rotation.read_text() == f"{log} {{\n    weekly\n    create 0640 nobody adm\n}}\n"


@pytest.mark.any_account
@pytest.mark.parametrize(
    "call",
    [
        'logging.basicConfig(level=1, filename="/var/log/f.log")',
        "logging.handlers.RotatingFileHandler('/var/log/f.log')",
    ],
)
def test_log_file_of_python_script_is_found(call: str) -> None:
    assert used_files.written_paths(f"import logging\n{call}\n") == ["/var/log/f.log"]
