"""postprox-check --run-filter: the filter's results for test messages."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from postprox.check import __main__ as command
from postprox.check import sample_runs
from postprox.check.facts import SampleRun, SampleRuns
from postprox.check.findings import DANGER, Finding
from postprox.check.fixes import Setting, Shell, plan
from postprox.check.postconf import parse
from postprox.check.probe import programs
from postprox.check.routes import Proxy, spawned_proxies
from postprox.check.rules import unchecked
from postprox.check.sample_rules import sample_faults
from postprox.check.scripts.sample_words import refused_word, searched_word
from postprox.check.setup import Setup
from postprox.check.unit import Unit
from tests.unit.checking import FRONT, MAIN, SEEN

pytestmark = pytest.mark.any_account

USER = pwd.getpwuid(os.geteuid()).pw_name
REJECT = "if grep -q virus \"$EMAIL\"; then echo '550 5.7.1 A virus' >&2; exit 1; fi\n"
MARK = '{ echo "X-Filtered: yes"; cat "$EMAIL"; } > "$OUTFILE" || exit 2\n'
#: A filter that scans for viruses, with a stand-in for the scanner.
STAND_IN = """\
clamdscan() { grep -q EICAR-STANDARD "$1"; }
if clamdscan "$EMAIL"; then echo '550 5.7.1 A virus' >&2; exit 1; fi
"""
REPLY = "echo '550 5.7.1 A virus' >&2; exit 1"
MARK_VIRUS = '{ echo "X-Virus: yes"; cat "$EMAIL"; } > "$OUTFILE"; exit 0'
LOOP = """\
grep -i -e virus "$EMAIL" | while read -r line; do
    echo '550 5.7.1 A virus' >&2
    exit 1
done
"""
PYTHON = """\
import email, email.encoders, os
mail = email.message_from_bytes(open(os.environ["EMAIL"], "rb").read())
"""
WRITE = "open(os.environ['OUTFILE'], 'wb').write(mail.as_bytes())\n"


@pytest.fixture(name="spool")
def _spool(tmp_path: Path) -> Path:
    (tmp_path / "spool").mkdir()
    return tmp_path / "spool"


def proxy_of(script: str, spool: Path, options: str = "--strict") -> Proxy:
    """Return a spawned proxy with the script as its filter."""
    path = spool.parent / "filter"
    path.write_text(script)
    path.chmod(0o755)
    entry = (
        f"127.0.0.1:10025 inet n n n - 20 spawn user={USER} argv=/p/postprox {options} -t 20 "
        f"-d {spool} -c {path} 127.0.0.1:10026\n"
    )
    (proxy,) = spawned_proxies(parse(MAIN, FRONT + entry, ""))
    return proxy


def faults_of(proxy: Proxy) -> Iterator[tuple[str, str]]:
    """Run the filter and yield the name and the problem of each fault."""
    assert proxy.options is not None
    seen = sample_runs.sample_runs(proxy, str(Path(proxy.options.directory).parent / "filter"))
    assert not seen.unchecked
    for fault in sample_faults(proxy, proxy.options, seen):
        yield fault.name, fault.problem


@pytest.mark.parametrize(
    ("script", "name", "words"),
    [
        ("#!/bin/sh\nexit 3\n", "filter-run", "all mail is deferred (451)"),
        (
            '#!/bin/sh\ngrep -q virus "$EMAIL" && exit 1\n',
            "filter-run",
            "exit status 1 without a reply code",
        ),
        (
            f"#!{sys.executable}\nimport os\nopen(os.environ['EMAIL'], encoding='utf-8').read()\n",
            "filter-run",
            "8-bit octets and unusual lines; such mail is deferred",
        ),
        (
            f"#!/bin/sh\n{REJECT}case $SENDER in '<>') exit 75;; esac\n",
            "filter-run",
            "an empty sender (a bounce); such mail is deferred",
        ),
        (
            "#!/bin/sh\necho '550 5.7.1 No' >&2\nexit 1\n",
            "filter-run",
            "rejected all test messages, which are harmless; all mail may be rejected: 550 5.7.1",
        ),
        (
            "#!/bin/sh\necho '250 2.0.0 Dropped' >&2\nexit 1\n",
            "filter-run",
            "discarded all test messages",
        ),
        (
            '#!/bin/sh\n{ printf "X-A: b\\n\\n"; cat "$EMAIL"; } > "$OUTFILE"\n',
            "filter-damage",
            "header fields became part of the body: From: Postmaster",
        ),
        (
            '#!/bin/sh\nhead -n 15 "$EMAIL" > "$OUTFILE"\n',
            "filter-damage",
            "the end of the message is lost",
        ),
        (
            '#!/bin/sh\nsed "/^$/q" "$EMAIL" > "$OUTFILE"\n',
            "filter-damage",
            "the whole text is lost",
        ),
        (
            '#!/bin/sh\nsed "1,/^$/d" "$EMAIL" > "$OUTFILE"\n',
            "filter-damage",
            "all header fields are lost",
        ),
        (
            '#!/bin/sh\nwhile read line; do echo "$line"; done < "$EMAIL" > "$OUTFILE"\n',
            "filter-damage",
            "lines are lost or changed: ",
        ),
        (
            '#!/bin/sh\nif grep -q virus "$EMIAL"; then echo "550 5.7.1 No" >&2; exit 1; fi\n',
            "filter-errors",
            "ignored an error and passed an ordinary test message; mail may pass unfiltered: grep",
        ),
        (
            '#!/bin/sh\nif grep -q virus "$EMAIL"; then exit 69; fi\n',
            "filter-run",
            "a test message with a word for which it searches; such mail is deferred",
        ),
        (
            f"#!/bin/sh\n{LOOP}exit 0\n",
            "exit-status",
            "with the reply '550 5.7.1 A virus', but ended with exit status 0",
        ),
        (
            '#!/bin/sh\nsh -c "echo $SENDER" > /dev/null\n',
            "injection",
            f"can run commands as user {USER}",
        ),
        (
            "#!/bin/sh\nsh -c \"echo 'from $SENDER'\" > /dev/null\n",
            "injection",
            f"can run commands as user {USER}",
        ),
        (
            f'#!/bin/sh\ncase $SENDER in *"$LISTED"*) exit 0;; esac\n{REJECT}',
            "filter-run",
            "searches for 'virus' and rejects such mail, but accepted a test message with this",
        ),
        (
            f'#!/bin/sh\n{MARK}clamdscan --no-summary "$EMAIL" >/dev/null 2>&1; exit 0\n',
            "filter-run",
            "runs a virus scanner, but accepted a test message with the EICAR test virus",
        ),
    ],
)
def test_filter_problem_is_found(spool: Path, script: str, name: str, words: str) -> None:
    ((found, problem),) = faults_of(proxy_of(script, spool))
    assert found == name
    assert words in problem


@pytest.mark.parametrize(
    "script",
    [
        f"#!/bin/sh\n{REJECT}",
        f"#!/bin/sh\n{REJECT}{MARK}",
        f"#!/bin/sh\n# clamdscan\n{MARK}",
        f"#!/bin/sh\n{STAND_IN}",
        f"#!/bin/sh\n{STAND_IN.replace(REPLY, MARK_VIRUS)}",
        f'#!/bin/sh\n{REJECT}echo "scanned $EMAIL" >&2\n',
        '#!/bin/sh\n{ cat "$EMAIL"; echo; echo "A disclaimer"; } > "$OUTFILE"\n',
        '#!/bin/sh\n[ "$SENDER" != "<>" ] || { echo "550 5.7.1 No bounces" >&2; exit 1; }\n',
        f"#!{sys.executable}\n{PYTHON}mail.add_header('X-Filtered', 'yes')\n{WRITE}",
        f"#!{sys.executable}\n{PYTHON}email.encoders.encode_base64(mail)\n{WRITE}",
    ],
)
def test_correct_filter_has_no_finding(spool: Path, script: str) -> None:
    assert list(faults_of(proxy_of(script, spool))) == []


def test_failed_filter_without_reject_passes_mail(spool: Path) -> None:
    ((_, problem),) = faults_of(proxy_of("#!/bin/sh\nexit 3\n", spool, options="-v"))
    assert "all mail passes unfiltered" in problem


def test_timeout_skips_remaining_test_messages(spool: Path) -> None:
    proxy = proxy_of("#!/bin/sh\nsleep 60\n", spool)
    assert proxy.options is not None
    proxy.options.timeout = 1
    seen = sample_runs.sample_runs(proxy)
    assert [run.timed_out for run in seen.runs] == [True]
    (fault,) = sample_faults(proxy, proxy.options, seen)
    assert "killed with all its processes after 1 s (-t)" in fault.problem


def test_printed_command_shows_the_failure(spool: Path) -> None:
    proxy = proxy_of("#!/bin/sh\necho 'no space' >&2\nexit 3\n", spool)
    assert proxy.options is not None
    (fault,) = sample_faults(proxy, proxy.options, sample_runs.sample_runs(proxy))
    (edit,) = fault.edits
    assert isinstance(edit.place, Shell)
    words = shlex.split(edit.place.command)
    assert words[0] == "postprox-rehearse"
    words[:1] = [sys.executable, "-m", "postprox.rehearse"]
    shown = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "no space" in shown.stdout


def test_filter_receives_the_environment_of_the_unit(spool: Path) -> None:
    proxy = proxy_of('#!/bin/sh\n[ "$LEVEL" = "a b" ] || exit 3\n', spool)
    unit = Unit("postprox.service", environment={"LEVEL": "a b", "POSTPROX_OPTIONS": "-v"})
    proxy = Proxy(
        "unit", (), proxy.words, proxy.options, "", USER, capacity=1, service=None, unit=unit
    )
    assert list(faults_of(proxy)) == []


def test_filter_receives_the_directories_of_the_unit(spool: Path) -> None:
    proxy = proxy_of('#!/bin/sh\n[ "$STATE_DIRECTORY" = /var/lib/a:/var/lib/b ] || exit 3\n', spool)
    unit = Unit("postprox.service", settings={"StateDirectory": ["a b"]})
    assert list(faults_of(replace(proxy, unit=unit))) == []


def test_unit_restricts_the_rehearsal() -> None:
    settings = {
        "User": ["postprox"],
        "CapabilityBoundingSet": [],
        "ReadWritePaths": ["/a", "/b"],
        "StateDirectory": ["%N"],
        "ExecStart": ["/p/postprox"],
        "RuntimeDirectory": ["postprox"],
    }
    words = list(sample_runs.restricted(Unit("postprox.service", settings=settings)))
    assert [word for word in words if word.startswith("--property=")] == [
        "--property=User=postprox",
        "--property=CapabilityBoundingSet=",
        "--property=ReadWritePaths=/a",
        "--property=ReadWritePaths=/b",
    ]


@pytest.mark.parametrize(
    ("needed", "cause", "setting"),
    [
        (("LimitAS", "infinity"), "because of LimitAS=64M in the unit", "LimitAS=infinity"),
        (("ProtectProc", "default"), "because of ProtectProc=invisible", "ProtectProc=default"),
        (("BindPaths", "{socket}"), "because the unit hides {socket}", "BindPaths={socket}"),
        (("LimitCPU", "infinity"), "", ""),
    ],
)
def test_setting_that_makes_filter_fail_is_found(
    spool: Path, monkeypatch: pytest.MonkeyPatch, needed: tuple[str, str], cause: str, setting: str
) -> None:
    with tempfile.NamedTemporaryFile(dir="/tmp") as socket:
        wanted = (needed[0], needed[1].format(socket=socket.name))
        proxy = proxy_of(f"#!/bin/sh\nscan {socket.name}\n", spool)
        settings = {"LimitAS": ["64M"], "ProtectProc": ["invisible"], "User": ["nobody"]}
        unit = Unit("postprox.service", settings=settings, path="/x", drop_ins="/x.d")
        proxy = replace(proxy, unit=unit, service=None)
        monkeypatch.setattr(sample_runs, "_has_systemd", lambda _: True)

        def run(*_: object, **__: object) -> SampleRun:
            changed = _[3] if len(_) > 3 else ()
            verdict = "accept" if wanted in changed else "fail"  # type: ignore[operator]
            return SampleRun(SampleRun.ORDINARY, "postprox-rehearse", verdict)

        monkeypatch.setattr(sample_runs, "_run", run)
        seen = sample_runs.sample_runs(proxy, str(spool.parent / "filter"))
        assert proxy.options is not None
        (fault,) = sample_faults(proxy, proxy.options, seen)
        assert cause.format(socket=socket.name) in fault.problem
        (edit,) = fault.edits
        if setting:
            assert isinstance(edit.place, Setting)
            assert f"{edit.place.name}={edit.change('')}" == setting.format(socket=socket.name)
        else:
            assert "because" not in fault.problem


def test_file_of_root_in_directory_of_user_is_found(tmp_path: Path) -> None:
    owner = pwd.getpwnam("daemon").pw_uid
    file = tmp_path / "senders.db"
    file.touch(0o644)
    run = SampleRun(SampleRun.ORDINARY, "", "fail", errors="attempt to write a readonly database")
    assert sample_runs._foreign_file(run, [str(file)]) == ""
    if os.geteuid() == 0:
        os.chown(tmp_path, owner, -1)
        assert sample_runs._foreign_file(run, ["/missing", str(file)]) == str(file)
        assert sample_runs._foreign_file(replace(run, errors="no"), [str(file)]) == ""


def test_group_with_access_to_denied_path_is_found(tmp_path: Path) -> None:
    file = tmp_path / "scan.sock"
    file.touch()
    file.chmod(0o660)
    error = f"scan: {file}: [Errno 13] Permission denied"
    run = SampleRun(SampleRun.ORDINARY, "", "fail", errors=error)
    name = grp.getgrgid(file.stat().st_gid).gr_name if file.stat().st_gid else ""
    assert sample_runs._group(run) == name
    if os.geteuid() == 0:
        os.chown(file, -1, grp.getgrnam("mail").gr_gid)
        assert sample_runs._group(run) == "mail"
        file.chmod(0o600)
        assert sample_runs._group(run) == ""


@pytest.mark.parametrize(
    ("more", "words", "remedy"),
    [
        (
            {"foreign_file": "/a/b"},
            "because /a/b belongs to root",
            "chown --reference=$(dirname /a/b)/",
        ),
        ({"group": "scan"}, "does not run with the group scan", f"user={USER}:scan"),
        (
            {"missing_directory": "/run/f"},
            "the directory /run/f does not exist",
            f"echo 'd /run/f 0755 {USER} - -' >> /etc/tmpfiles.d/mail-filter.conf",
        ),
        (
            {"missing_directory": "/var/spool/f"},
            "the directory /var/spool/f does not exist",
            f"install -d -o {USER} -m 0755 /var/spool/f",
        ),
    ],
)
def test_cause_of_failure_is_corrected(
    spool: Path, more: dict[str, str], words: str, remedy: str
) -> None:
    proxy = proxy_of("#!/bin/sh\n", spool)
    assert proxy.options is not None
    run = replace(SampleRun(SampleRun.ORDINARY, "", "fail"), **more)  # type: ignore[arg-type]
    found = list(sample_faults(proxy, proxy.options, SampleRuns((run,))))
    (finding,) = plan(parse(MAIN, FRONT, ""), found)
    assert words in finding.problem
    assert remedy in finding.remedy


def test_filter_that_cannot_run_is_not_checked(spool: Path) -> None:
    proxy = proxy_of("#!/bin/sh\n", spool)
    spool.rmdir()
    seen = sample_runs.sample_runs(proxy)
    assert not seen.runs
    setup = Setup(parse("", "", ""), [proxy], {proxy: SEEN}, samples={proxy: seen})
    (text,) = [text for text in unchecked(setup) if "test messages" in text]
    assert "-d" in text


def test_proxy_without_filter_has_no_runs(spool: Path) -> None:
    proxy = proxy_of("", spool)
    assert proxy.options is not None
    proxy.options.command = None
    assert sample_runs.sample_runs(proxy) == SampleRuns()


def test_filter_with_danger_finding_is_not_run(spool: Path) -> None:
    proxy = proxy_of("#!/bin/sh\n", spool)
    setup = Setup(parse("", "", ""), [proxy], {proxy: SEEN})
    findings = [Finding("filter", proxy.where, "", ())]
    assert findings[0].level == DANGER
    samples = command.run_filters(setup, findings)
    assert samples[proxy].unchecked == "first correct the other findings"


def test_quoted_text_is_limited(spool: Path) -> None:
    proxy = proxy_of("", spool)
    assert proxy.options is not None
    run = SampleRun(SampleRun.ORDINARY, "", "fail", reason="x" * 500)
    (fault,) = sample_faults(proxy, proxy.options, SampleRuns((run,)))
    assert fault.problem.endswith("xx ...")
    assert len(fault.problem) < 300


def test_run_filter_excludes_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["--run-filter", "--recipe", "before-queue"]) == 2
    assert "--run-filter cannot be combined" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ('grep -q virus "$EMAIL"', "virus"),
        ('if grep -q -i -e "Lottery" "$EMAIL"; then', "Lottery"),
        ('if b"virus" in data:', "virus"),
        ("if 'spam' in text:", "spam"),
        ('# grep -q virus "$EMAIL"', ""),
        ('grep -q "^X-Spam: yes" "$EMAIL"', ""),
        ('grep -q -f /etc/words "$EMAIL"', ""),
        ('clamdscan "$EMAIL"', ""),
    ],
)
def test_searched_word_is_found_in_script(line: str, word: str) -> None:
    assert searched_word(f"#!/bin/sh\n{line}\n") == word


@pytest.mark.parametrize(
    ("script", "word"),
    [
        (REJECT, "virus"),
        ('if grep -qi -F "lottery" "${EMAIL}"\nthen\n  echo "550" >&2\n  exit 1\nfi', "lottery"),
        ('grep -q virus "$EMAIL" && { echo "550 5.7.1 No" >&2; exit 1; }', "virus"),
        ("if b'virus' in data:\n    print('550 No', file=sys.stderr)\n    sys.exit(1)", "virus"),
        ('if grep -q virus "$EMAIL"; then\n  tag\nfi\nexit 3', ""),
        ('if ! grep -q virus "$EMAIL"; then exit 1; fi', ""),
        ('[ -n "$X" ] && grep -q virus "$EMAIL" && exit 1', ""),
        ('if grep -q virus "$LIST"; then exit 1; fi', ""),
        ("  grep -q virus $EMAIL && exit 1", ""),
        ("if 'virus' in data and old:\n    sys.exit(1)", ""),
        ("if 'virus' in data:\n    sys.exit(0)", ""),
    ],
)
def test_word_that_always_leads_to_rejection_is_found(script: str, word: str) -> None:
    assert refused_word(f"#!/bin/sh\n{script}\n") == word


def test_printed_command_contains_the_searched_word(spool: Path) -> None:
    proxy = proxy_of(f"#!/bin/sh\n{REJECT.replace('exit 1', 'exit 9')}", spool)
    assert proxy.options is not None
    seen = sample_runs.sample_runs(proxy, str(spool.parent / "filter"))
    (fault,) = sample_faults(proxy, proxy.options, seen)
    (edit,) = fault.edits
    assert isinstance(edit.place, Shell)
    line = edit.place.command.replace(
        "postprox-rehearse", f"{sys.executable} -m postprox.rehearse", 1
    )
    shown = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=False)
    assert "550 5.7.1 A virus" in shown.stdout


def test_filter_of_another_user_requires_root(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = replace(proxy_of("#!/bin/sh\n", spool), user="daemon")
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    assert sample_runs.sample_runs(proxy).unchecked == (
        "only root can run the filter as user daemon"
    )


@pytest.mark.parametrize(
    "script",
    [
        f"#!/bin/sh\ncase $SENDER in\n*@*.*) ;;\n*) {REPLY};;\nesac\nexit 0\n",
        '#!/bin/sh\n[ "$SENDER" = "<>" ] && exit 75\nexit 0\n',
        (
            "#!/usr/bin/env python3\nimport os, sys\n"
            "if '@' not in os.environ['SENDER']:\n    sys.exit('550 5.1.7 no sender')\n"
        ),
    ],
)
def test_filter_that_refuses_bounces_is_corrected(spool: Path, script: str) -> None:
    proxy = proxy_of(script, spool)
    assert proxy.options is not None
    path = spool.parent / "filter"
    program = programs.program_facts(str(path), USER, "/usr/bin:/bin")
    for count in (1, 0):
        seen = sample_runs.sample_runs(proxy, str(path))
        found = list(sample_faults(proxy, proxy.options, seen, program))
        assert len(found) == count
        for finding in plan(parse(MAIN, FRONT, ""), found):
            assert "empty sender" in finding.problem
            subprocess.run(["/bin/sh", "-c", finding.remedy], check=True)


@pytest.mark.parametrize("operator", [";", " ||"])
def test_filters_in_sequence_are_joined(spool: Path, operator: str) -> None:
    first, second = spool.parent / "first", spool.parent / "second"
    first.write_text(f"#!/bin/sh\ngrep -q virus $EMAIL && {{ {REPLY}; }}\nexit 0\n")
    second.write_text("#!/bin/sh\nexit 0\n")
    for path in (first, second):
        path.chmod(0o755)
    entry = (
        f"127.0.0.1:10025 inet n n n - 20 spawn user={USER} argv=/p/postprox --strict -d {spool} "
        f"-c {{{first}{operator} {second} 1000}} 127.0.0.1:10026\n"
    )
    (proxy,) = spawned_proxies(parse(MAIN, FRONT + entry, ""))
    assert proxy.options is not None
    seen = sample_runs.sample_runs(proxy, str(first))
    (fault,) = sample_faults(proxy, proxy.options, seen)
    (finding,) = plan(parse(MAIN, FRONT, ""), [fault])
    assert finding.name == "exit-status"
    assert f"{first} && {second} 1000" in finding.remedy


def test_file_that_the_unit_protects_is_made_writable(spool: Path) -> None:
    proxy = proxy_of("#!/bin/sh\n", spool)
    assert proxy.options is not None
    error = "OSError: [Errno 30] Read-only file system: '/var/log/f.log'"
    run = SampleRun(SampleRun.ORDINARY, "", "fail", errors=error)
    with_unit = replace(proxy, unit=Unit("postprox.service"))
    (fault,) = sample_faults(with_unit, proxy.options, SampleRuns((run,)))
    (finding,) = plan(parse(MAIN, FRONT, ""), [fault])
    assert "does not permit writing to /var/log/f.log" in finding.problem
    assert "ReadWritePaths=/var/log/f.log" in finding.remedy


@pytest.mark.parametrize(
    "script",
    [
        "#!/bin/sh\nexec 9>> {}/no/lock || exit 2\n",
        "#!/usr/bin/env python3\nopen('{}/no/log', 'w')\n",
        "#!/bin/bash\nexec 9>> {}/no/lock || exit 2\n",
    ],
)
def test_missing_directory_of_a_file_is_found(spool: Path, script: str) -> None:
    place = "/var/tmp"
    proxy = proxy_of(script.format(f"{place}/postprox-test"), spool)
    run = sample_runs.sample_runs(proxy).runs[0]
    assert run.missing_directory == f"{place}/postprox-test/no"


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ('{ echo "X-Mark: yes"; cat "$EMAIL"; } || exit 2', 1),
        ('echo "no virus in $EMAIL"', 0),
        ('cat "$EMAIL" | grep -c x', 0),
        ('{ echo "X-Mark: yes"; cat "$EMAIL"; } > "$OUTFILE"', 0),
    ],
)
def test_message_on_standard_output_becomes_the_result(spool: Path, line: str, count: int) -> None:
    proxy = proxy_of(f"#!/bin/sh\n{line}\nexit 0\n", spool)
    assert proxy.options is not None
    path = spool.parent / "filter"
    program = programs.program_facts(str(path), USER, "/usr/bin:/bin")
    seen = sample_runs.sample_runs(proxy, str(path))
    found = list(sample_faults(proxy, proxy.options, seen, program))
    assert [each.name for each in found] == ["lost-change"] * count
    for finding in plan(parse(MAIN, FRONT, ""), found):
        subprocess.run(["/bin/sh", "-c", finding.remedy], check=True)
        (ordinary, *_) = sample_runs.sample_runs(proxy, str(path)).runs
        assert ordinary.received == f"X-Mark: yes\r\n{ordinary.sent}"


@pytest.mark.parametrize(
    "script",
    [
        "{ echo 'X-A: b'; sed -e '/^X-Mailer:/d' -e '/^$/q' \"$EMAIL\"; } > \"$OUTFILE\" || exit 2",
        'sed \'/^X-Mailer:/d;/^$/q\' "$EMAIL" > "$OUTFILE" || exit 2',
        'exec > "$OUTFILE"\n{scan} "$EMAIL"\necho "X-A: b"\ncat "$EMAIL"',
    ],
)
def test_line_that_damages_the_result_is_corrected(spool: Path, script: str) -> None:
    scan = spool.parent / "scan"
    scan.write_text("#!/bin/sh\necho Loading signatures\n")
    scan.chmod(0o755)
    script = script.replace("{scan}", str(scan))
    proxy = proxy_of(f"#!/bin/sh\n{script}\nexit 0\n", spool)
    assert proxy.options is not None
    path = spool.parent / "filter"
    for count in (1, 0):
        program = programs.program_facts(str(path), USER, "/usr/bin:/bin")
        seen = sample_runs.sample_runs(proxy, str(path))
        found = list(sample_faults(proxy, proxy.options, seen, program))
        assert [each.name for each in found] == ["filter-damage"] * count
        for finding in plan(parse(MAIN, FRONT, ""), found):
            subprocess.run(["/bin/sh", "-c", finding.remedy], check=True)
