"""postprox-check: the filter's interpreter, reply and written paths, and missing units."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from postprox.check.probe import accounts, programs, system
from postprox.check.scripts import shell_command, used_files
from tests.unit.test_check_running import Site, apply, check, site

__all__ = ["site"]
REPLY = "#!/bin/sh\ngrep -q EICAR \"$EMAIL\" || exit 0\necho '550 5.7.1 a virus'\nexit 1\n"


@pytest.mark.parametrize(
    ("command", "kept"),
    [
        ("/f > /dev/null 2>&1", "/f > /dev/null"),
        ("/f 2>/dev/null", "/f"),
        ("/f 2>>/var/log/f", "/f"),
        ("/f 2>&-", "/f"),
        ("/f &>/dev/null", "/f"),
        ("/f >&2", "/f >&2"),
        ("/f 3>&1 1>&2 2>&3", "/f 3>&1 1>&2 2>&3"),
        ("/f '2>/dev/null'", "/f '2>/dev/null'"),
        ("/f --x > /dev/null", "/f --x > /dev/null"),
        ("logger x 2>/dev/null; /f", "logger x 2>/dev/null; /f"),
    ],
)
def test_redirection_that_loses_reply_is_removed(command: str, kept: str) -> None:
    assert shell_command.without_lost_reply(command) == kept


def test_remedy_corrects_redirection_of_reply(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    quoted = shlex.quote(f"{site.filter} > /dev/null 2>&1")
    site.write(site.arguments.replace(str(site.filter), quoted))
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (1, ["lost-reply"])
    apply(site, checked)
    assert check(site, capsys).names() == []


@pytest.mark.parametrize(
    ("old", "new", "is_lost"),
    [
        ("", "", True),
        ("echo '550", "printf '%s\\n' '550", True),
        ("#!/bin/sh", '#!/bin/sh\ncat "$EMAIL" > "$OUTFILE"', True),
        ("virus'", "virus' >&2", False),
        ("#!/bin/sh", "#!/bin/sh\nexec >&2", False),
        ("echo '550", "echo '550x", False),
        ("echo", "x=$(date)\necho", False),
    ],
)
def test_reply_on_standard_output_is_corrected(
    site: Site, capsys: pytest.CaptureFixture[str], old: str, new: str, is_lost: bool
) -> None:
    site.filter.write_text(REPLY.replace(old, new, 1) if old else REPLY)
    checked = check(site, capsys)
    assert checked.names() == ["lost-reply"] * is_lost
    if is_lost:
        apply(site, checked)
        assert ">&2 " in site.filter.read_text()
        assert check(site, capsys).names() == []


PYTHON = "import os, sys\nsys.exit(0 if os.environ['EMAIL'] else 1)\n"
BASH = '[[ -n "$EMAIL" ]] || exit 2\nexit 1\n'


@pytest.mark.parametrize(
    ("text", "first"),
    [
        (PYTHON, "python3"),
        (f"#!/bin/sh\n{PYTHON}", "python3"),
        (f"#!/bin/sh\n{BASH}", "bash"),
        (BASH, "bash"),
        ("#!/bin/sh -e\nset -euo pipefail\nexit 1\n", "bash -e"),
        ("#!/bin/bash -eu -o pipefail\nexit 1\n", "bash\nset -eu -o pipefail"),
    ],
)
def test_first_line_is_corrected(
    site: Site, capsys: pytest.CaptureFixture[str], text: str, first: str
) -> None:
    site.filter.write_text(text)
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (2, ["interpreter"])
    apply(site, checked)
    new = site.filter.read_text()
    assert new.startswith("#!/")
    assert new.split("\n", first.count("\n") + 1)[: first.count("\n") + 1][-1].endswith(
        first.rsplit("\n", maxsplit=1)[-1]
    )
    assert new.endswith(text.split("\n", 1)[1])
    assert check(site, capsys).names() == []


@pytest.mark.parametrize(
    ("first", "new"),
    [("/gone/bin/python3 -I", "/python3 -I"), ("/usr/bin/env python9", "/python3")],
)
def test_missing_interpreter_is_replaced(
    site: Site,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    first: str,
    new: str,
) -> None:
    monkeypatch.setattr(accounts, "may", lambda _user, _right, path: Path(path).exists())
    site.filter.write_text(f"#!{first}\n{PYTHON}")
    checked = check(site, capsys)
    assert checked.names() == ["interpreter"]
    apply(site, checked)
    assert site.filter.read_text().split("\n")[0].endswith(new)
    assert check(site, capsys).names() == []


@pytest.mark.parametrize(
    ("line", "effect"),
    [
        ("if [[ $x == y ]]; then exit 1; fi", "mail passes unfiltered or is deferred"),
        ("mapfile -t lines", "mail passes unfiltered or is deferred"),
        ("set -o pipefail", "all mail is deferred"),
        ("grep -q x <<< $y", "all mail is deferred"),
    ],
)
def test_bash_feature_in_sh_script_has_reported_effect(
    site: Site, capsys: pytest.CaptureFixture[str], line: str, effect: str
) -> None:
    site.filter.write_text(f"#!/bin/sh\n{line}\nexit 0\n")
    assert check(site, capsys).problem.endswith(f"sh(1) runs it; {effect}")


def test_interpreter_in_virtual_environment_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "pyvenv.cfg").touch()
    assert programs._replacement(f"{tmp_path}/bin/python3", "", "/usr/bin:/bin") == ""


@pytest.mark.parametrize(
    "text", ["#!/bin/sh\n# import [[ x ]]\nexit 1\n", "#!/bin/sh\ngrep '[[:alpha:]]' x\nexit 1\n"]
)
def test_correct_sh_script_is_not_reported(
    site: Site, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    site.filter.write_text(text)
    assert check(site, capsys).names() == []


def test_written_paths_are_found() -> None:
    script = (
        "Q=/srv/q\n# cp a /srv/comment\ncp \"$EMAIL\" $Q/ || exit 2\nmv a '/srv/m/x'\n"
        "echo x >> /srv/l.log 2>/dev/null\nread a < /srv/r; tee -a /srv/t > /dev/null\n"
    )
    assert set(used_files.written_paths(script)) == {
        *("/srv/q/", "/srv/m/x", "/srv/l.log", "/srv/t"),
    }
    assert used_files.written_paths("f = open('/srv/p.log', 'a')\nopen('/srv/r')\n") == [
        "/srv/p.log"
    ]


def test_directory_that_unit_protects_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "may", lambda *_: True)
    target = tmp_path / "quarantine"
    target.mkdir()
    site.filter.write_text(f'#!/bin/sh\ncp "$EMAIL" {target}/ || exit 2\nexit 1\n')
    site.write(site.arguments, "PrivateTmp=no", "DynamicUser=no")
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (1, ["filter-write"])
    apply(site, checked)
    assert check(site, capsys).names() == []
    monkeypatch.setattr(accounts, "may", lambda _u, _r, path: path != str(target))
    checked = check(site, capsys)
    assert checked.names() == ["filter-write"]
    assert "user nobody cannot write there" in checked.problem


@pytest.mark.parametrize("section", ["Requires", "BindsTo", "Requisite"])
@pytest.mark.parametrize("of", ["postprox.service", "postprox.socket"])
def test_missing_required_unit_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], section: str, of: str
) -> None:
    folder = site.units / f"{of}.d"
    folder.mkdir(exist_ok=True)
    file = folder / "scanner.conf"
    file.write_text(f"[Unit]\n{section}=no-such.service foo.target\nAfter=no-such.service\n")
    assert check(site, capsys).names() == []  # the unit directories are incomplete
    (site.units / "sysinit.target").touch()
    checked = check(site, capsys)
    assert checked.names() == ["failing"]
    assert f"{file} requires no-such.service, which does not exist" in checked.problem
    (site.units / "no-such.service").symlink_to("/dev/null")
    assert "is masked" in check(site, capsys).problem
    (site.units / "no-such.service").unlink()
    apply(site, checked)
    assert file.read_text() == f"[Unit]\n{section}= foo.target\nAfter=\n"
    assert check(site, capsys).names() == []
    file.write_text(f"[Unit]\n{section}=no-such.service\n")
    (site.units / "no-such.service").touch()
    assert check(site, capsys).names() == []


def test_remedy_replaces_misspelt_unit_with_similar_unit(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = site.units / "postprox.service.d"
    (site.units / "sysinit.target").touch()
    (site.units / "scanner-daemon.service").touch()
    (folder / "scanner.conf").write_text("[Unit]\nRequires=scanner-deamon.service\n")
    checked = check(site, capsys)
    apply(site, checked)
    assert (folder / "scanner.conf").read_text() == "[Unit]\nRequires=scanner-daemon.service\n"


# The message


@pytest.mark.parametrize(
    "line",
    [
        "clamdscan --no-summary - > /dev/null",
        "clamdscan - | grep -q FOUND",
        "if grep -q -i 'a virus'; then echo '550 5.7.1 No' >&2; exit 1; fi",
    ],
)
def test_script_that_ignores_message_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    site.filter.write_text(f"#!/bin/sh\n{line}\n[ $? -lt 2 ] || exit 2\n")
    checked = check(site, capsys, "--offline")
    assert (checked.status, checked.names()) == (2, ["filter"])
    apply(site, checked)
    assert check(site, capsys, "--offline").names() == []


@pytest.mark.parametrize(
    "text",
    [
        'clamdscan - < "$EMAIL"',
        'set -- x\nclamdscan "$1"',
        "exec /usr/local/bin/scan",
        "/usr/local/bin/scan",
    ],
)
def test_script_that_may_read_message_is_not_reported(
    site: Site, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    site.filter.write_text(f"#!/bin/sh\n{text}\n")
    assert "never reads" not in "".join(check(site, capsys, "--offline").problem)


# Programs that are not installed

SCAN = 'no-such-scan - < "$EMAIL"'


@pytest.mark.parametrize(
    ("script", "name"),
    [
        (f"{SCAN}\ncase $? in\n0) exit 0 ;;\nesac\nexit 2\n", "filter-command"),
        (f"{SCAN} > /dev/null\n", "filter"),
        ('exec /usr/no-such-dir/scan "$EMAIL"\n', "filter"),
        ('found=$(timeout 9 no-such-scan "$EMAIL")\nexit 2\n', "filter-command"),
        ('found="$(no-such-scan - < "$EMAIL")"\nexit 2\n', "filter-command"),
        (f"if ! {SCAN}; then exit 1; fi\nexit 0\n", "filter-command"),
        (f"{SCAN} || exit 2\nexit 0\n", "filter-command"),
        ('exec python3 /usr/no-such-dir/filter.py "$EMAIL"\n', "filter"),
        ('rspamc < "$EMAIL" | grep -q x\nexit 2\n', "filter"),
    ],
)
def test_script_with_missing_program_is_reported(
    site: Site,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    name: str,
) -> None:
    found = programs._found_by_shell
    monkeypatch.setattr(
        programs,
        "_found_by_shell",
        lambda word, path: "/bin/rspamc-gone" if word == "rspamc" else found(word, path),
    )
    site.filter.write_text(f"#!/bin/sh\n{script}")
    checked = check(site, capsys, "--offline")
    assert checked.names() == [name]
    assert f"line 2 of the filter {site.filter} runs" in checked.problem


@pytest.mark.parametrize(
    "script",
    [
        "no_such() { return 1; }\nno_such\nexit 2\n",
        "if command -v no-such; then no-such; fi\nexit 2\n",
        "if type no-such > /dev/null; then no-such; else other-such; fi\nexit 2\n",
        "[ -x /opt/no-such ] && /opt/no-such\nexit 2\n",
        "no-such || true\nexit 2\n",
        "no-such || other-such || exit 2\nexit 1\n",
        "PATH=$PATH:/opt/bin\nno-such\nexit 2\n",
        "if true; then\n    . /etc/filter.conf\nfi\nno-such\nexit 2\n",
        "alias no-such=ls\nno-such\nexit 2\n",
        "cat <<END > /dev/null\nno-such\nEND\nexit 2\n",
        "case $x in\nno-such | other) exit 2 ;;\n(yet) exit 2 ;;\nesac\nexit 1\n",
        "echo 'no-such' \"\nno-such\n\" >&2\nexit 2\n",
        "x=no-such; $x a\nlocal y\nread -r z\n\nexit 2\n",
        "for x in no-such other; do\n    echo $x\ndone\nexit 2 # no-such\n",
        "# no-such\nset -- no-such; test no-such = \\\n  no-such; exit 2\n",
        "> /dev/null 2>&1 echo a\n/tmp/no-such\nexit 2\n",
        'while read -r x; do :; done\n{ echo a; cat "$EMAIL"; } > "$OUTFILE"\nexit 2\n',
    ],
)
def test_script_whose_programs_exist_is_not_reported(
    site: Site, capsys: pytest.CaptureFixture[str], script: str
) -> None:
    site.filter.write_text(f"#!/bin/sh\n{script}")
    assert [n for n in check(site, capsys, "--offline").names() if n.startswith("filter")] == []


def test_remedy_replaces_missing_program(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = site.directory / "tools"
    tools.mkdir()
    for name in ("clamdscan", "mail-scan"):
        (tools / name).write_text("#!/bin/sh\n")
        (tools / name).chmod(0o755)
    monkeypatch.setattr(system, "SYSTEMD_PATH", f"{tools}:{system.SYSTEMD_PATH}")
    monkeypatch.setattr(programs, "_EQUIVALENT", {"clamscan-gone": "clamdscan"})
    for old, new in (("clamscan-gone", "clamdscan"), ("mail-sacn", "mail-scan")):
        site.filter.write_text(f'#!/bin/sh\n{old} - < "$EMAIL" || exit 2\nexit 1\n')
        checked = check(site, capsys, "--offline")
        apply(site, checked)
        apply(site, checked)
        assert site.filter.read_text().split("\n")[1] == f'{new} - < "$EMAIL" || exit 2'
        assert check(site, capsys, "--offline").names() == []


def test_program_outside_path_of_spawned_proxy_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "SYSTEMD_PATH", "/bin")
    missing = programs._missing_command("cat x\n", "/bin/sh", "root", "/nonexistent")
    assert missing
    assert (missing.program, missing.replacement) == ("cat", "/bin/cat")


def test_program_that_user_cannot_execute_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    may = accounts.may
    monkeypatch.setattr(
        accounts, "may", lambda u, r, p: False if p == "/etc/passwd" else may(u, r, p)
    )
    site.filter.write_text("#!/bin/sh\n/etc/passwd x\nexit 2\n")
    checked = check(site, capsys, "--offline")
    assert checked.names() == ["filter-command"]
    assert checked.remedy == "chmod a+rx /etc/passwd"
