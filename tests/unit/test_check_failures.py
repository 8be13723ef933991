"""Lines of a filter that fail, wait too long or reject without a reply."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from postprox.check.probe import accounts, script_files
from postprox.check.scripts import python, shell
from postprox.check.scripts.mistake import Kind
from tests.unit.checking import found
from tests.unit.test_check_running import Site, apply, check, site

__all__ = ["site"]
pytestmark = pytest.mark.any_account


def corrected(script: str, correction: str) -> str:
    """Return the script after a correction by sed(1)."""
    command = ["sed", correction]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize(("strict", "names"), [("--strict", ["lost-reply"]), ("-r", ["no-strict"])])
def test_rejection_without_reply_is_reported_with_strict(
    site: Site, capsys: pytest.CaptureFixture[str], strict: str, names: list[str]
) -> None:
    site.write(site.arguments.replace("--strict", strict))
    site.filter.write_text('#!/bin/sh\nif grep -q virus "$EMAIL"; then exit 1; fi\nexit 0\n')
    checked = check(site, capsys)
    assert checked.names() == names
    if strict == "--strict":
        apply(site, checked)
        new = "then { echo '550 5.7.1 The message was rejected' >&2; exit 1; }; fi"
        assert new in site.filter.read_text()
        assert check(site, capsys).names() == []


@pytest.mark.parametrize(
    "script",
    [
        "echo '550 no' >&2\nexit 1\n",
        "cat /etc/reply >&2\nexit 1\n",
        "exec /usr/bin/scan\nexit 1\n",
        "exit 2\n",
    ],
)
def test_filter_that_may_print_reply_is_not_reported(script: str) -> None:
    kinds = [each.kind for each in shell.mistakes(f"#!/bin/sh\n{script}")]
    assert Kind.UNANSWERED not in kinds


@pytest.mark.parametrize(("seconds", "names"), [(59, []), (60, ["time-limit"])])
def test_sleep_longer_than_timeout_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], seconds: int, names: list[str]
) -> None:
    site.write(site.arguments.replace("--strict", "--strict -t 60"))
    site.filter.write_text(f'#!/bin/sh\nsleep {seconds}\ngrep x "$EMAIL"\n')
    checked = check(site, capsys)
    assert checked.names() == names
    if names:
        apply(site, checked)
        assert check(site, capsys).names() == []


@pytest.mark.parametrize("line", ["cd /no/such/place || exit 2", "set -e\ncd /no/such/place"])
def test_missing_working_directory_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    site.filter.write_text(f'#!/bin/sh\n{line}\ngrep x "$EMAIL"\n')
    checked = check(site, capsys)
    assert checked.names() == ["filter"]
    assert "enters /no/such/place, which does not exist" in checked.problem


TEXT = """\
import os
with open(os.environ["EMAIL"]) as mail, open(os.environ["OUTFILE"], "w") as out:
    out.write(mail.read())
"""


def test_message_read_as_text_is_reported() -> None:
    (mistake,) = python.text_mode(TEXT)
    assert (mistake.kind, mistake.number) == (Kind.TEXT, 2)
    new = corrected(TEXT, mistake.correction)
    octets = 'encoding="utf-8", errors="surrogateescape", newline="")'
    assert f'open(os.environ["EMAIL"], {octets}' in new
    assert f'open(os.environ["OUTFILE"], "w", {octets}' in new
    assert list(python.text_mode(new)) == []


@pytest.mark.parametrize(
    "script",
    [
        (
            'text = open(os.environ["EMAIL"], encoding="utf-8").read()\n'
            'with open(os.environ["OUTFILE"], "w", encoding="utf-8") as out:\n    out.write(text)\n'
        ),
        (
            'path = os.environ.get("EMAIL")\nwith open(path, "r") as f:\n    text = f.read()\n'
            'open(os.getenv("OUTFILE"), mode="w").write(text)\n'
        ),
        (
            'text = Path(os.environ["EMAIL"]).read_text()\n'
            'Path(os.environ["OUTFILE"]).write_text(text, encoding="utf-8")\n'
        ),
    ],
)
def test_corrected_script_copies_all_octets(tmp_path: Path, script: str) -> None:
    script = f"import os\nfrom pathlib import Path\n{script}"
    (mistake,) = python.text_mode(script)
    new = corrected(script, mistake.correction)
    assert list(python.text_mode(new)) == []
    octets = b"Subject: Gr\xfc\xdfe\n\n\xc3\xbc \xff\n"
    (tmp_path / "mail").write_bytes(octets)
    names = {"EMAIL": f"{tmp_path}/mail", "OUTFILE": f"{tmp_path}/out"}
    subprocess.run([sys.executable, "-c", new], env=names, check=True)
    assert (tmp_path / "out").read_bytes() == octets


@pytest.mark.parametrize(
    "script",
    [
        'x = open(os.environ["EMAIL"], encoding="latin-1").read()\n',
        'try:\n    x = open(os.environ["EMAIL"]).read()\nexcept UnicodeDecodeError:\n    x = ""\n',
        'x = Path(os.environ["EMAIL"]).read_bytes()\n',
        'x = Path(os.environ["EMAIL"]).open("rb").read()\n',
        'x = open("/etc/words").read()\n',
        'x = open(os.environ["OUTFILE"], "w")\n',
    ],
)
def test_script_that_handles_all_octets_is_not_reported(script: str) -> None:
    assert list(python.text_mode(script)) == []


@pytest.mark.parametrize(
    "call", ['open(os.environ["EMAIL"], "rb")', 'open(os.environ["EMAIL"], errors="replace")']
)
def test_message_read_as_octets_is_not_reported(call: str) -> None:
    assert list(python.text_mode(f"import os\nx = {call}\n")) == []


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("import no_such_module.part", "no_such_module"),
        ("from no_such_module import x", "no_such_module"),
        ("import os, sys, email.policy", ""),
        ("try:\n    import no_such_module\nexcept ImportError:\n    pass", ""),
        ("import sys\nsys.path.append('/srv')\nimport no_such_module", ""),
    ],
)
def test_missing_module_is_found(line: str, name: str) -> None:
    mistakes = list(script_files.in_python("/f", f"{line}\n", os.path.realpath(sys.executable)))
    assert [each.path for each in mistakes] == ([name] if name else [])


@pytest.mark.parametrize("value", ["0.0.0.0/0", "127.0.0.0/8 [::]/0", "static:all"])
def test_network_of_all_clients_is_reported(value: str) -> None:
    findings = [each for each in found(f"mynetworks = {value}\n") if each.name == "open-relay"]
    (finding,) = findings
    assert "any machine can send mail to any address" in finding.problem
    assert "mynetworks=127.0.0.0/8" in finding.commands[0]
    assert "0/0" not in finding.commands[0]


@pytest.mark.parametrize(
    ("line", "is_reported"),
    [
        ("tmp=$(mktemp) || exit 2", True),
        ('tmp=$(mktemp -d)\ntrap "rm -r $tmp" EXIT', True),
        ("tmp=$(mktemp /run/postprox/x.XXXX)", False),
        ("tmp=$(mktemp -p /run/postprox)", False),
        ("TMPDIR=/run/postprox; export TMPDIR\ntmp=$(mktemp)", False),
    ],
)
def test_unwritable_tmp_is_reported(
    site: Site,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    is_reported: bool,
) -> None:
    monkeypatch.setattr(accounts, "may", lambda _user, _right, path: path != "/tmp")
    site.filter.write_text(f'#!/bin/sh\n{line}\nrm -rf "$tmp"\nexit 0\n')
    text = "creates a file in /tmp, where user nobody cannot write"
    assert text not in check(site, capsys).problem  # the unit has its own /tmp
    site.write(site.arguments, "PrivateTmp=no", "DynamicUser=no")
    checked = check(site, capsys)
    assert (text in checked.problem) == is_reported
    assert ("chmod 1777 /tmp" in checked.remedy) == is_reported


RESULT = """\
def main():
    if b"virus" in open("{}", "rb").read():
        return 1
    return 0


if __name__ == "__main__":
    main()
"""


def test_ignored_function_result_becomes_exit_status(tmp_path: Path) -> None:
    mail = tmp_path / "mail"
    mail.write_text("a virus")
    script = RESULT.format(mail)
    (found,) = python.lost_result(script)
    run = [sys.executable, "-c", corrected(script, found.correction)]
    assert subprocess.run(run, check=False).returncode == 1
    assert list(python.lost_result(corrected(script, found.correction))) == []


@pytest.mark.parametrize("end", ["sys.exit(main())", "raise SystemExit(main())", "print(main())"])
def test_used_function_result_is_not_reported(end: str) -> None:
    assert list(python.lost_result(RESULT.replace("    main()\n", f"    {end}\n"))) == []


@pytest.mark.parametrize(
    "script",
    [
        'import os\ns = os.environ["SENDER"]\nos.system("echo \'from %s\'" % s)\n',
        "import os\nos.system('echo from ' + os.environ['SENDER'])\n",
        (
            "import os, subprocess\ns = os.environ.get('HELO', '')\n"
            'subprocess.run("echo " + s, shell=True)\n'
        ),
    ],
)
def test_corrected_python_filter_runs_no_injected_command(script: str) -> None:
    (found,) = python.shell_commands(script)
    run = [sys.executable, "-c", corrected(script, found.correction)]
    remote = "';echo EXEC$((1+1))'\"$(echo EXEC$((1+1)))"
    environment = {"SENDER": remote, "HELO": remote, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=True)
    assert "EXEC2" not in done.stdout
    assert "EXEC" in done.stdout


@pytest.mark.parametrize(
    "script",
    [
        'import os\nos.system("logger started")\n',
        'import subprocess, os\nsubprocess.run(["logger", os.environ["SENDER"]])\n',
        "import os, shlex\nos.system('echo ' + shlex.quote(os.environ['SENDER']))\n",
    ],
)
def test_safe_command_is_not_reported(script: str) -> None:
    assert list(python.shell_commands(script)) == []


def test_filters_that_replace_each_others_changes_are_chained(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    other = site.directory / "disclaimer"
    for path in (site.filter, other):
        path.write_text('#!/bin/sh\ncat "$EMAIL" > "$OUTFILE" || exit 2\n')
        path.chmod(0o755)
    command = f"{site.filter} && {other}"
    site.write(site.arguments.replace(f"-c {site.filter}", f"-c '{command}'"))
    checked = check(site, capsys)
    assert checked.names() == ["lost-change"]
    assert f"/usr/local/bin/chain.py {site.filter} {other}" in checked.remedy
    other.write_text("#!/bin/sh\nexit 0\n")
    assert check(site, capsys).names() == []


def test_module_of_root_is_copied_for_all_users(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "/root/.local/lib/python3.11/site-packages/mailwords"
    monkeypatch.setattr(script_files, "_private_module", lambda _: path)
    site.filter.write_text(f"#!{os.path.realpath(sys.executable)}\nimport mailwords\n")
    checked = check(site, capsys)
    assert f"which only root can import ({path})" in checked.problem
    assert f"cp -r {path} /usr/local/lib/python3.11/dist-packages/" in checked.remedy


CAUGHT = """\
import sys
try:
    if b"virus" in open("/x", "rb").read():
        print("550 5.7.1 A virus", file=sys.stderr)
        sys.exit(1)
except:
    sys.exit(2)
"""


def test_except_that_catches_system_exit_is_corrected() -> None:
    (found,) = python.caught_exit(CAUGHT)
    assert found.number == 6
    assert "except Exception:" in corrected(CAUGHT, found.correction)
    assert list(python.caught_exit(corrected(CAUGHT, found.correction))) == []


@pytest.mark.parametrize(
    "handler",
    [
        "except OSError:",
        "except Exception:",
        "finally:",
        "except:\n    raise",
        "except:\n    exit(1)",
    ],
)
def test_handler_that_does_not_catch_system_exit_is_accepted(handler: str) -> None:
    assert list(python.caught_exit(CAUGHT.replace("except:", handler))) == []
