"""postprox-check: lines of a script with a wrong status, quotes, locks or patterns."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from postprox.check.probe import script_files
from postprox.check.scripts import shell, used_files
from postprox.check.scripts.mistake import Kind
from tests.unit.test_check_running import Site, apply, check, site

__all__ = ["site"]
REPLY = "echo '550 5.7.1 a virus' >&2"


def run(script: Path, mail: Path, **more: str) -> int:
    """Run a filter on a message and return its exit status."""
    names = {"EMAIL": str(mail), "OUTFILE": f"{mail}.out", "PATH": "/usr/bin:/bin", **more}
    return subprocess.run([script], env=names, capture_output=True, check=False).returncode


@pytest.mark.parametrize(
    "last",
    [
        f'grep -q virus "$EMAIL" && {REPLY} && exit 1',
        f'grep -q virus "$EMAIL" && {{ {REPLY}; exit 1; }}',
        f'grep -q virus "$EMAIL" && {{\n{REPLY}\nexit 1\n}}',
        f'cat "$EMAIL" | grep -q virus && {REPLY} && exit 1;',
        f'[ -n "$(grep virus "$EMAIL")" ] && {REPLY} && exit 1',
    ],
)
@pytest.mark.parametrize("end", ["", "\n"])
def test_remedy_adds_exit_0_after_last_condition(
    site: Site, capsys: pytest.CaptureFixture[str], last: str, end: str
) -> None:
    site.filter.write_text(f"#!/bin/sh\n: > x || exit 2\n{last}{end}".replace(": > x", "true"))
    checked = check(site, capsys)
    assert checked.names() == ["exit-status"]
    assert "does not reject is deferred (451) " in checked.problem
    apply(site, checked)
    mail = site.directory / "mail"
    for text, status in (("virus\n", 1), ("clean\n", 0)):
        mail.write_text(text)
        assert run(site.filter, mail) == status
    assert check(site, capsys).names() == []


@pytest.mark.parametrize(
    "script",
    [
        f'grep -q virus "$EMAIL" && {REPLY} && exit 1\nexit 0\n',
        f'grep -q virus "$EMAIL" && {REPLY} && exit 1\n:\n',
        f'grep -q virus "$EMAIL" && {{ {REPLY}; exit 1; }} || true\n',
        f'if grep -q virus "$EMAIL"; then {REPLY} && exit 1; fi\n',
        f'[ "$s" = 0 ] && exit 0\n[ "$s" = 1 ] && {{ {REPLY}; exit 1; }}\n',
        "trap 'exit 0' EXIT\ngrep -q x y && exit 1\n",
        "main() {\ngrep -q x y && exit 1\n}\nmain\n",
        "main() { grep -q x y && exit 1; }\n",
        "f() {\ngrep -q x y && exit 1\nreturn 0\n}\nf && exit 2\n",
    ],
)
def test_last_line_that_may_succeed_is_not_reported(script: str) -> None:
    kinds = [each.kind for each in shell.mistakes(f"#!/bin/sh\n{script}")]
    assert Kind.REFUSED not in kinds


@pytest.mark.parametrize(
    "line",
    [
        "if grep -q virus “$EMAIL”; then exit 3; fi",
        "grep -q virus \u2018/dev/null\u2019 “${EMAIL}” && exit 3",
        'word=“virus”; grep -q $word "$EMAIL" && exit 3',
        'grep -q -e “bad virus” -e “virus here” "$EMAIL" && exit 3',
    ],
)
def test_remedy_replaces_typographic_quotes(
    site: Site, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    site.filter.write_text(f"#!/bin/sh\n# “$X”\n{line}\nexit 0\n")
    checked = check(site, capsys)
    assert checked.names() == ["syntax"]
    assert "line 3 of the filter" in checked.problem
    assert checked.problem.endswith(line)
    assert checked.remedy.isascii()
    apply(site, checked)
    mail = site.directory / "mail"
    for text, status in (("a virus here\n", 3), ("clean\n", 0)):
        mail.write_text(text)
        assert run(site.filter, mail) == status
    assert check(site, capsys).names() == []


@pytest.mark.parametrize(
    "script",
    [
        "echo “$SENDER” >&2\n",
        'printf "the “$SENDER”\n" >&2\n',
        "printf 'one\nthe “$SENDER”\n' >&2\n",
        "grep -q “virus” x\n",
        "grep -q “ x\n",
        "sed 's/“a b”/c/' x\n",
        "cat <<A\n“$X”\nA\n",
    ],
)
def test_typographic_quotes_in_text_are_not_reported(script: str) -> None:
    text = f"#!/bin/sh\n{script}".encode().decode("latin-1")
    assert list(shell.mistakes(text)) == []


LOCKED = """#!/bin/sh
LOCK=$DIR/scan.lock
{}
echo $$ > "$LOCK/pid"
trap 'rm -rf "$LOCK"' EXIT
[ -s "$EMAIL" ] || exit 2
exit 0
"""


@pytest.mark.parametrize(
    "loop",
    [
        'until mkdir "$LOCK" 2>/dev/null; do sleep 1; done',
        'while ! mkdir "$LOCK"\ndo\nsleep 1\ndone',
        "until mkdir $LOCK > /dev/null 2>&1; do\n  sleep 0.5\ndone",
        'while ! mkdir "$LOCK" 2>/dev/null; do :; done'.replace(":", "sleep 1"),
    ],
)
def test_remedy_releases_lock_when_its_process_ends(
    site: Site, capsys: pytest.CaptureFixture[str], loop: str
) -> None:
    site.filter.write_text(LOCKED.format(loop))
    checked = check(site, capsys)
    assert checked.names() == ["time-limit"]
    assert "line 3 of the filter" in checked.problem
    apply(site, checked)
    (site.directory / "mail").write_text("x\n")
    (site.directory / "scan.lock").mkdir()  # a filter that was killed left this lock
    assert run(site.filter, site.directory / "mail", DIR=str(site.directory)) == 0
    assert not (site.directory / "scan.lock").exists()
    assert check(site, capsys).names() == []


@pytest.mark.parametrize(
    "loop",
    [
        'until mkdir "$LOCK"; do sleep 1; i=$((i+1)); [ $i -lt 9 ] || exit 2; done',
        'find "$LOCK" -mmin +5 -delete\nuntil mkdir "$LOCK"; do sleep 1; done',
        'rm -rf "$LOCK"\nuntil mkdir "$LOCK"; do sleep 1; done',
        'until mkdir "$LOCK"; do kill -0 "$(cat "$LOCK/pid")" || rm -r "$LOCK"; done',
        'mkdir "$LOCK" || exit 2',
        "exec 9> $LOCK; flock 9 || exit 2",
        "until ping -c 1 host; do sleep 1; done",
    ],
)
def test_lock_that_script_can_remove_is_not_reported(loop: str) -> None:
    kinds = [each.kind for each in shell.mistakes(LOCKED.format(loop))]
    assert Kind.LOCK not in kinds


@pytest.mark.parametrize(
    "case",
    [
        ("virus\n\nbad\n", 'grep -qiF -f {} -- "$EMAIL"', "an empty pattern matches everything"),
        ("virus\n  \n", 'grep -q --file={} "$EMAIL"', "an empty pattern matches everything"),
        ("virus\r\nbad\r\n", 'W={}\ngrep -q -f "$W" "$EMAIL"', "the patterns match nothing"),
        ("virus\r\n\r\n", 'grep -qf {} "$EMAIL"', "an empty pattern matches everything"),
    ],
)
def test_remedy_corrects_file_of_patterns(
    site: Site,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[str, str, str],
) -> None:
    words, command, problem = case
    monkeypatch.setattr(script_files, "VOLATILE", ())
    file = site.directory / "words"
    file.write_bytes(words.encode())
    command = command.format(shlex.quote(str(file)))
    site.filter.write_text(f"#!/bin/sh\n{command}\n[ $? = 0 ] && exit 3\nexit 0\n")
    checked = check(site, capsys)
    assert checked.names() == ["filter"]
    assert problem in checked.problem
    apply(site, checked)
    mail = site.directory / "mail"
    for text, status in (("a virus here\n", 3), ("clean mail\n", 0)):
        mail.write_text(text)
        assert run(site.filter, mail) == status
    assert check(site, capsys).names() == []


@pytest.mark.parametrize(
    "command",
    [
        'grep -v -f /etc/words "$EMAIL"',
        'grep -w -f /etc/words "$EMAIL"',
        'sed -i "/^$/d" /etc/words; grep -f /etc/words "$EMAIL"',
        'grep -f "$dir/words" "$EMAIL"',
        "grep -f /etc/words /var/log/mail.log",
        'grep -e virus "$EMAIL"',
    ],
)
def test_other_use_of_patterns_is_not_found(command: str) -> None:
    assert list(used_files.pattern_files(f"#!/bin/sh\n{command}\n")) == []


def test_file_of_correct_patterns_is_not_reported(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script_files, "VOLATILE", ())
    (site.directory / "words").write_text("virus\nbad words")
    site.filter.write_text(
        f'#!/bin/sh\ngrep -f {site.directory}/words "$EMAIL" || exit 0\nexit 3\n'
    )
    assert check(site, capsys).names() == []


def test_patterns_for_the_sender_are_found() -> None:
    (found,) = used_files.pattern_files('#!/bin/sh\necho "$SENDER" | grep -qFf /etc/a\n')
    assert found.path == "/etc/a"
