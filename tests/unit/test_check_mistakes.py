"""postprox-check: lines of the filter's script that change its result by mistake."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

import pytest

from postprox.check import sandbox
from postprox.check.probe import accounts, script_files, units
from postprox.check.scripts import proxy_variables, shell, used_files
from postprox.check.scripts.mistake import Kind
from tests.unit.test_check_running import Site, apply, check, site

__all__ = ["site"]
ROOT = Path(__file__).parents[2]
SCAN = 'clamdscan - < "$EMAIL"'
CASE = "case $? in\n0) exit 0 ;;\n1) exit 1 ;;\nesac\nexit 2\n"


@pytest.mark.parametrize(
    "file", sorted((ROOT / "examples/filters").glob("*.sh")), ids=lambda path: path.name
)
def test_example_has_no_mistake(file: Path) -> None:
    assert list(shell.mistakes(file.read_text())) == []


@pytest.mark.parametrize(
    ("script", "mended"),
    [
        (f"{SCAN} | tee -a log # log\n{CASE}", f"{SCAN} >> log # log\n{CASE}"),
        (f'{SCAN} 2>&1 | tee "$LOG" > /dev/null\ns=$?\n', f'{SCAN} > "$LOG" 2>&1\ns=$?\n'),
        (f"if {SCAN} | logger -t x; then\nexit 0\nfi\n", f"if {SCAN}; then\nexit 0\nfi\n"),
        (f"if ! {SCAN} |& /bin/cat\nthen\nexit 1\nfi\n", f"if ! {SCAN}\nthen\nexit 1\nfi\n"),
        (f"{SCAN} | logger || exit 1\nexit 0\n", f"{SCAN} || exit 1\nexit 0\n"),
        (f"{SCAN} | logger && exit 0\nexit 1\n", f"{SCAN} && exit 0\nexit 1\n"),
        (
            f'{SCAN} | tee a.b/c; [ "$?" = 0 ] || exit 1\n',
            f'{SCAN} > a.b/c; [ "$?" = 0 ] || exit 1\n',
        ),
        ('spamc -c < "$EMAIL" | logger\nexit $?\n', 'spamc -c < "$EMAIL"\nexit $?\n'),
        (f"x=$({SCAN} | tail -n 1)\n{CASE}", ""),
        (f"if x=$({SCAN} | tail -n 1); then\nexit 0\nfi\nexit 1\n", ""),
        (f"x=$({SCAN} | tail -n 1) || exit 1\nexit 0\n", ""),
        (f"{SCAN} | tee log >&2\n{CASE}", ""),
    ],
)
def test_remedy_replaces_pipe_that_hides_exit_status(
    site: Site, capsys: pytest.CaptureFixture[str], script: str, mended: str
) -> None:
    site.filter.write_text(f"#!/bin/bash\ntype clamdscan spamc\n{script}")
    checked = check(site, capsys)
    assert checked.names() == ["exit-status"]
    assert "line 3 of the filter" in checked.problem
    assert checked.problem.endswith(script.partition("\n")[0].partition(" #")[0])
    apply(site, checked)
    assert site.filter.read_text() == f"#!/bin/bash\ntype clamdscan spamc\n{mended or script}"
    assert check(site, capsys).names() == ["exit-status"] * (not mended)


@pytest.mark.parametrize(
    "script",
    [
        f"set -o pipefail\n{SCAN} | tee -a /tmp/l\n{CASE}",
        f"{SCAN} | tee /tmp/l\nexit ${{PIPESTATUS[0]}}\n",
        f"{SCAN} | tee /tmp/l\ngrep -q ' OK$' /tmp/l\n{CASE}",
        f"if {SCAN} | tee /tmp/l | grep -q FOUND; then exit 1; fi\nexit 0\n",
        f"if {SCAN} | grep -q infected; then exit 1; fi\nexit 0\n",
        f"exec 4>&1\ns=$({{ {SCAN}; echo $? >&3; }} 3>&1 >&4 | tee /tmp/l)\n{CASE}",
        f"{SCAN} > $L\ns=$?\nlogger < $L\nexit $s\n",
        f"{SCAN}\ns=$?\necho $s | tee /tmp/l\ncase $s in\n0) exit 0 ;;\nesac\nexit 1\n",
        f"{SCAN} | logger || true\nexit 3\n",
        f"{SCAN} | logger\nexit 3\n",
        f"echo '{SCAN} | tee /tmp/l'\n{CASE}",
        f"# {SCAN} | tee /tmp/l\n{CASE}",
        'spamc < "$EMAIL" | tee "$OUTFILE"\n[ $? = 0 ] || exit 2\n',
        'date | tee /tmp/l\nif clamdscan - < "$EMAIL"; then exit 0; fi\nexit 1\n',
        f"{SCAN} || logger x | tee /tmp/l\n{CASE}",
    ],
)
def test_pipe_without_effect_on_exit_status_is_not_reported(script: str) -> None:
    assert list(shell.mistakes(f"#!/bin/bash\n{script}")) == []


REPLY = "echo '550 5.7.1 a virus' >&2"


@pytest.mark.parametrize(
    ("script", "mended"),
    [
        (f"{REPLY}\nexit -1\n", f"{REPLY}\nexit 1\n"),
        (f"case x in\n1) {REPLY}\n rm -f y\n exit 256 ;;\nesac\n", "exit 1 ;;"),
        (f"grep -q x y && {{ {REPLY}; exit 550; }}\nexit 0\n", "exit 1; }"),
        (f"{REPLY}; exit 2\n", f"{REPLY}; exit 1\n"),
        (f"EX_UNAVAILABLE=69\n{REPLY}\nexit $EX_UNAVAILABLE\n", f"{REPLY}\nexit 1\n"),
    ],
)
def test_remedy_corrects_exit_status_after_reply(
    site: Site, capsys: pytest.CaptureFixture[str], script: str, mended: str
) -> None:
    site.filter.write_text(f"#!/bin/sh\n{script}")
    checked = check(site, capsys)
    assert checked.names() == ["exit-status"]
    effect = "passes the filter" if "256" in script else "is deferred (451) until senders give up"
    assert f"the mail {effect}: " in checked.problem
    apply(site, checked)
    assert mended in site.filter.read_text()
    assert check(site, capsys).names() == []


@pytest.mark.parametrize(
    "script",
    [
        f"{REPLY}\nexit 1\n",
        f"{REPLY}\nexit 257\n",
        f"{REPLY}\nexit 0\n",
        f"{REPLY}\nexit $status\n",
        f"{REPLY}\nexit $EX_REJECT\n",
        f"EX_REJECT=1\n{REPLY}\nexit ${{EX_REJECT}}\n",
        f"{REPLY} || exit 2\nexit 1\n",
        f"case $? in\n1) {REPLY}; exit 1 ;;\n*) exit -1 ;;\nesac\n",
        f"if grep x y; then\n{REPLY}\nelse\nexit 2\nfi\nexit 1\n",
        "echo '451 4.3.0 later' >&2\nexit -1\n",
        "exit 2\n",
    ],
)
def test_permitted_exit_status_is_not_reported(script: str) -> None:
    assert list(shell.mistakes(f"#!/bin/sh\n{script}")) == []


@pytest.mark.parametrize(
    ("line", "reply", "new_reply"),
    [
        ("exec 2>>/tmp/l", REPLY, REPLY.replace(">&2", ">&3")),
        ("exec >/tmp/l 2>&1", REPLY, REPLY.replace(">&2", ">&3")),
        ("exec 2>&1", "echo '550 5.7.1 x'", ">&3 echo '550 5.7.1 x'"),
        ('exec 2> "$LOG"', REPLY, REPLY.replace(">&2", ">&3")),
    ],
)
def test_remedy_removes_redirection_of_standard_error(
    site: Site, capsys: pytest.CaptureFixture[str], line: str, reply: str, new_reply: str
) -> None:
    text = "#!/bin/sh\n{}\ngrep x y\ncase $? in\n1) {}\n exit 1 ;;\nesac\n"
    site.filter.write_text(text.format(line, reply))
    checked = check(site, capsys)
    assert "lost-reply" in checked.names()
    apply(site, checked)
    assert site.filter.read_text() == text.format(line.replace("exec", "exec 3>&2"), new_reply)
    assert "lost-reply" not in check(site, capsys).names()


@pytest.mark.parametrize(
    "script",
    [
        f"{REPLY}\nexec 2>/tmp/l\nexit 1\n",
        f"exec 3>&2 2>/tmp/l\n{REPLY.replace('2', '3')}\nexit 1\n",
        f'if [ "$DEBUG" ]; then\nexec 2>/tmp/l\nfi\n{REPLY}\nexit 1\n',
        f"exec 2> >(tee /tmp/l >&2)\n{REPLY}\nexit 1\n",
        f"exec >&2\n{REPLY}\nexit 1\n",
        f"exec > /tmp/l\n{REPLY}\nexit 1\n",
        f"exec 2>/dev/stderr\n{REPLY}\nexit 1\n",
        f"(exec 2>/tmp/l; date)\n{REPLY}\nexit 1\n",
        "exec 2>/tmp/l\nexit 1\n",
    ],
)
def test_redirection_that_loses_no_reply_is_not_reported(script: str) -> None:
    assert list(shell.mistakes(f"#!/bin/bash\n{script}")) == []


@pytest.mark.parametrize("is_variable", [True, False])
def test_remedy_lets_user_read_file_of_script(
    site: Site,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    is_variable: bool,
) -> None:
    settings = site.directory / "settings"
    reading = f'S={settings}\n. "$S"' if is_variable else f". {settings}"
    site.filter.write_text(f"#!/bin/sh\n{reading}\ngrep x y\n")
    monkeypatch.setattr(script_files, "VOLATILE", ())
    monkeypatch.setattr(accounts, "closed_directory", lambda *_: "")
    monkeypatch.setattr(
        accounts,
        "may",
        lambda _, right, path: right != os.R_OK or bool(Path(path).stat().st_mode & 0o400),
    )
    checked = check(site, capsys)
    assert checked.names() == ["filter"]
    assert f"reads {settings}, which does not exist; sh(1) ends" in checked.problem
    settings.touch(0o200)
    monkeypatch.setattr(accounts, "find", lambda _: pwd.getpwnam("daemon"))
    checked = check(site, capsys)
    assert checked.names() == ["filter"]
    group = f'chgrp "$(id -g nobody)" {settings} && chmod g+r {settings}'
    assert checked.remedy == group
    own = pwd.getpwuid(os.getuid())
    monkeypatch.setattr(accounts, "find", lambda _: own)
    checked = check(site, capsys)
    assert f"reads {settings}, which user nobody cannot read; sh(1) ends" in checked.problem
    apply(site, checked)
    assert settings.stat().st_mode & 0o777 == 0o600
    assert check(site, capsys).names() == []


@pytest.mark.parametrize(
    "script",
    [
        "[ -r /srv/s ] && . /srv/s\n",
        "if [ -r /srv/s ]; then\n. /srv/s\nfi\n",
        "[ -e /srv/s ] || exit 2\n. /srv/s\n",
        "load() {\n. /srv/s\n}\n",
        'S=/srv/s\n[ -r "$S" ] || exit 2\n. "$S"\n',
        '. "$DIR/s"\n',
    ],
)
def test_file_that_script_tests_first_is_not_reported(script: str) -> None:
    assert list(used_files.read_files(f"#!/bin/sh\n{script}")) == []


@pytest.mark.parametrize(
    ("line", "mended"),
    [
        ("sed -i '1i X-A: [b]' \"$EMAIL\"", 'sed \'1i X-A: [b]\' "$EMAIL" > "$OUTFILE"'),
        ("sed -E -i s/a/b/ $EMAIL", 'sed -E s/a/b/ $EMAIL > "$OUTFILE"'),
        ('mv "$EMAIL.new" "$EMAIL"', 'mv "$EMAIL.new" "$OUTFILE"'),
        ("sed -i.old s/a/b/ $EMAIL", ""),
        ('date > "${EMAIL}"', ""),
    ],
)
def test_remedy_writes_changed_message_to_outfile(
    site: Site, capsys: pytest.CaptureFixture[str], line: str, mended: str
) -> None:
    site.filter.write_text(f'#!/bin/sh\ngrep x "$EMAIL"\n{line}; exit 0\n')
    checked = check(site, capsys)
    assert checked.names() == ["lost-change"]
    apply(site, checked)
    text = site.filter.read_text()
    assert text == f'#!/bin/sh\ngrep x "$EMAIL"\n{mended or line}; exit 0\n'
    assert check(site, capsys).names() == ["lost-change"] * (not mended)


@pytest.mark.parametrize(
    "script",
    [
        'sed -i s/a/b/ "$EMAIL"\ncp "$EMAIL" "$OUTFILE"\n',
        'sed -i "s/\\r$//" "$EMAIL"\ngrep x "$EMAIL"\n',
        'cp "$EMAIL" /srv/archive\n',
        'mv /srv/x "$EMAIL.old"\n',
        'date >> /srv/log\nsed -n 1p "$EMAIL"\n',
    ],
)
def test_filter_that_keeps_email_file_is_not_reported(script: str) -> None:
    assert list(shell.mistakes(f"#!/bin/sh\n{script}")) == []


@pytest.mark.parametrize(
    ("line", "mended"),
    [
        ('spamc < "$EMAIL"', 'spamc < "$EMAIL" > "$OUTFILE"'),
        ("spamc -u nobody <$EMAIL >/dev/null", 'spamc -u nobody <$EMAIL > "$OUTFILE"'),
        ('cat "$EMAIL" | spamc', 'cat "$EMAIL" | spamc > "$OUTFILE"'),
        ('/usr/bin/spamassassin "$EMAIL"', '/usr/bin/spamassassin "$EMAIL" > "$OUTFILE"'),
        ('spamc -E < "$EMAIL"', ""),
        ('spamc -c < "$EMAIL" > /dev/null', ""),
        ('spamc < "$EMAIL" > "$OUTFILE"', ""),
        ('spamc < "$EMAIL" > /srv/report', ""),
        ('if spamc < "$EMAIL"; then exit 0; fi', ""),
    ],
)
def test_remedy_writes_output_of_spamc_to_outfile(line: str, mended: str) -> None:
    found = list(shell.mistakes(f"#!/bin/sh\n{line}\nexit 0\n"))
    assert [each.kind for each in found] == [Kind.OUTPUT] * bool(mended)
    for each in found:
        command = ["sed", each.correction]
        text = f"#!/bin/sh\n{line}\n"
        sed = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
        assert sed.stdout == f"#!/bin/sh\n{mended}\n"


@pytest.mark.parametrize(
    ("line", "mended"),
    [("set -x", ""), ("set -ex", "set -e\n"), ("set -o xtrace", ""), ("set -v;", "")],
)
def test_remedy_disables_trace_of_filter_with_reply(line: str, mended: str) -> None:
    script = f"#!/bin/sh\n{line}\nif x; then\necho 550 no >&2\nexit 1\nfi\n"
    (found,) = shell.mistakes(script)
    assert found.kind == Kind.TRACE
    command = ["sed", found.correction]
    sed = subprocess.run(command, input=script, capture_output=True, text=True, check=True)
    assert sed.stdout == script.replace(f"{line}\n", mended)


@pytest.mark.parametrize(
    "script", ["set -x\ntrue\n", "set -e\necho 550 no >&2\n", "set -x\nset +x\necho 550 no >&2\n"]
)
def test_trace_that_follows_no_reply_is_not_reported(script: str) -> None:
    assert list(shell.mistakes(f"#!/bin/sh\n{script}")) == []


@pytest.mark.parametrize(("end", "names"), [("", ["lost-change"]), (' > "$OUTFILE"', [])])
def test_command_may_write_output_of_script_to_outfile(
    site: Site, capsys: pytest.CaptureFixture[str], end: str, names: list[str]
) -> None:
    spamc = site.directory / "spamc"
    spamc.write_text("#!/bin/sh\ncat\n")
    spamc.chmod(0o755)
    site.filter.write_text(f'#!/bin/sh\n{spamc} < "$EMAIL"\n')
    site.write(site.arguments.replace(str(site.filter), f"'{site.filter}{end}'"))
    assert check(site, capsys).names() == names


@pytest.mark.parametrize(
    ("command", "mended"),
    [
        ('clamdscan --no-summary "$EMAIL"', 'clamdscan --fdpass --no-summary "$EMAIL"'),
        ("clamdscan ${EMAIL} > /dev/null", "clamdscan --fdpass ${EMAIL} > /dev/null"),
        ('clamdscan --fdpass "$EMAIL"', ""),
        ('clamdscan --stream --no-summary "$EMAIL"', ""),
        ('clamdscan --config-file=/etc/own.conf "$EMAIL"', ""),
        (SCAN, ""),
        ('clamscan "$EMAIL"', ""),
    ],
)
def test_message_that_clamd_cannot_read_is_reported(
    site: Site,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    mended: str,
) -> None:
    settings = site.directory / "clamd.conf"
    settings.write_text("User clamav\n")
    monkeypatch.setattr(script_files, "_CLAMD", (str(settings),))
    site.filter.write_text(f"#!/bin/sh\ntype clamdscan clamscan\n{command}\n{CASE}")
    checked = check(site, capsys)
    assert checked.names() == ["filter"] * bool(mended)
    if mended:
        assert "line 3 of the filter" in checked.problem
        apply(site, checked)
        assert mended in site.filter.read_text()
        assert check(site, capsys).names() == []


@pytest.mark.parametrize(
    ("line", "is_reported"),
    [("User clamav", True), ("User nobody", False), ("#User clamav", False)],
)
def test_clamdscan_finding_depends_on_user_of_clamd(
    site: Site,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    is_reported: bool,
) -> None:
    configuration = site.directory / "clamd.conf"
    configuration.write_text(f"LogTime yes\n{line}\n")
    monkeypatch.setattr(script_files, "_CLAMD", (str(configuration),))
    site.filter.write_text(f'#!/bin/sh\ntype clamdscan\nclamdscan "$EMAIL"\n{CASE}')
    assert check(site, capsys).names() == ["filter"] * is_reported


@pytest.mark.parametrize(
    ("line", "name"),
    [("copy=$(mktemp) || exit 2", "copy"), ('dir="$(mktemp -d /srv/x.XXXX)"', "dir")],
)
def test_remedy_removes_temporary_file_at_exit(line: str, name: str) -> None:
    script = f'#!/bin/sh\n{line}\ngrep -q x "$EMAIL" > "${name}"\n'
    (found,) = shell.mistakes(script)
    assert found.kind == Kind.LEFT
    command = ["sed", found.correction]
    sed = subprocess.run(command, input=script, capture_output=True, text=True, check=True)
    assert sed.stdout == script.replace(line, f"{line}\ntrap 'rm -rf \"${name}\"' EXIT")
    removed = f'{script}rm "${name}"\n'
    assert list(shell.mistakes(removed)) == []


@pytest.mark.parametrize(
    ("script", "name"),
    [
        ('import os\nx = os.environ["HOME"]\n', "HOME"),
        ('import os\nx = os.environ.get("HOME")\n', ""),
        ('set -eu\ncd "$HOME"\n', "HOME"),
        ('set -u\necho "${USER}"\n', "USER"),
        ('set -u\necho "${USER:-x}"\n', ""),
        ('cd "$HOME"\n', ""),
        ("set -u\nHOME=/srv\ncd $HOME\n", ""),
    ],
)
def test_variable_of_login_is_found(script: str, name: str) -> None:
    is_python = script.startswith("import")
    found = proxy_variables.login_variables(script, is_python=is_python)
    assert [each.path for each in found] == ([name] if name else [])


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ('grep -qFf /etc/words "$EMAIL"', "/etc/words"),
        ("while read -r word; do :; done < /etc/words", "/etc/words"),
        ("cat /etc/footer >> x", "/etc/footer"),
        ("[ -r /etc/words ] && grep -f /etc/words x", ""),
        ("echo '< /etc/words'", ""),
    ],
)
def test_file_of_data_is_found(line: str, path: str) -> None:
    found = [each.path for each in used_files.data_files(f"#!/bin/sh\n{line}\n")]
    assert found == ([path] if path else [])


def test_file_of_data_that_user_cannot_read_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = site.directory / "words"
    words.write_text("virus\n")
    monkeypatch.setattr(sandbox, "is_below", lambda path, _: False)
    monkeypatch.setattr(
        accounts, "may", lambda user, right, path: path != str(words) or right != os.R_OK
    )
    site.filter.write_text(f'#!/bin/sh\ngrep -q -f {words} "$EMAIL" && exit 1\nexit 0\n')
    checked = check(site, capsys)
    assert "filter" in checked.names()
    assert f"reads {words}, which user nobody cannot read; mail is" in checked.problem


def test_remedy_extends_path_without_usr_bin(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.write(site.arguments, f"Environment=A=b PATH={site.directory}")
    site.filter.write_text('#!/bin/sh\ngrep -q x "$EMAIL" && exit 2\nexit 0\n')
    checked = check(site, capsys)
    assert checked.names() == ["filter"]
    assert "contains neither /usr/bin nor /bin" in checked.problem
    apply(site, checked)
    assert check(site, capsys).names() == []
    unit = units.read_unit(site.units / "postprox.service")
    assert unit.environment["A"] == "b"


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ('/opt/scan "$EMAIL" | logger -t scan\ncase $? in 0) exit 0;; esac\nexit 2\n', 1),
        ('/opt/scan "$EMAIL" | tee /srv/log\nif [ $? -eq 1 ]; then exit 2; fi\nexit 0\n', 1),
        ('/opt/scan "$EMAIL" | grep -q FOUND\nif [ $? -eq 0 ]; then exit 2; fi\nexit 0\n', 0),
        ("date | logger\nif [ $? -eq 1 ]; then exit 2; fi\nexit 0\n", 0),
        ('formail < "$EMAIL" | tee "$OUTFILE"\n[ $? -eq 0 ] || exit 2\nexit 0\n', 0),
    ],
)
def test_status_of_any_program_in_a_pipeline_is_lost(line: str, count: int) -> None:
    found = list(shell.mistakes(f"#!/bin/sh\n{line}"))
    assert [each.kind for each in found] == [Kind.PIPE] * count
