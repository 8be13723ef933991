"""postprox-check: the report's layout, exit statuses, output errors and interrupts."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postprox.check.__main__ import run
from postprox.check.findings import Finding
from postprox.check.postconf import parse
from postprox.check.report import WIDTH, Result, wrapped_command
from postprox.check.setup import Setup
from tests.golden import check_report
from tests.unit.checking import FRONT, MAIN

pytestmark = pytest.mark.any_account


def test_report_lines_fit_in_80_columns() -> None:
    assert max(map(len, check_report().splitlines())) <= WIDTH


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(alphabet="ab /,'\"\\$`{}", max_size=150), min_size=1, max_size=4))
def test_shell_parses_wrapped_command_like_original(words: list[str]) -> None:
    lines = wrapped_command(shlex.join(["printf", "<%s>", *words]))
    done = subprocess.run(
        ["/bin/sh"], input="\n".join(lines), stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout == "".join(f"<{word}>" for word in words)


def test_exit_status_depends_on_findings_and_omitted_checks() -> None:
    setup = Setup(parse("", "", ""), [], {})
    warning, danger = (Finding(name, "", "", ()) for name in ("no-reject", "no-filter"))
    seen = [
        Result(setup, findings, unchecked).status
        for findings in ([], [warning], [warning, danger])
        for unchecked in ([], ["an item"])
    ]
    assert seen == [0, 3, 1, 1, 2, 2]


def test_failed_check_prints_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--json", "--unit", "/nonexistent/x.service", "--config", "/nonexistent"]) == 2
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert document["status"] == 2
    assert document["error"] in printed.err


SCRIPT = """
import sys
from postprox.check import __main__
from postprox.check.probe import system
system.SYSTEMD_PATH = sys.argv.pop(1)
sys.exit(__main__.main())
"""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """Return a command line whose postconf(1) prints a configuration that causes one warning."""
    (tmp_path / "nx").write_text(MAIN)
    (tmp_path / "M").write_text(FRONT)
    (tmp_path / "Px").touch()
    program = tmp_path / "postconf"
    program.write_text(f'#!/bin/sh\ncat "{tmp_path}/${{1#-}}"\n')
    program.chmod(0o755)
    return [sys.executable, "-c", SCRIPT, f"{tmp_path}:/usr/bin:/bin"]


def shell(command: list[str], redirection: str) -> subprocess.CompletedProcess[str]:
    words = ["/bin/sh", "-c", f"exec {shlex.join(command)} {redirection}"]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("redirection", "reason"),
    [(">&-", "it is closed"), (">/dev/full", "No space left on device")],
)
@pytest.mark.parametrize("options", [[], ["--json"], ["--help"], ["--version"]])
def test_unwritable_standard_output_causes_exit_status_2(
    command: list[str], options: list[str], redirection: str, reason: str
) -> None:
    done = shell([*command, *options], redirection)
    assert done.stderr == f"postprox-check: cannot write to standard output: {reason}\n"
    assert done.returncode == 2


@pytest.mark.parametrize("options", [[], ["--help"]])
def test_closed_pipe_causes_exit_status_2(command: list[str], options: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*command, *options], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert done.stderr == "postprox-check: cannot write to standard output: Broken pipe\n"
    assert done.returncode == 2


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
@pytest.mark.parametrize("option", ["--wrong", "--unit=/nonexistent"])
def test_unwritable_standard_error_causes_exit_status_2(
    command: list[str], option: str, redirection: str
) -> None:
    done = shell([*command, option], redirection)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_missing_output_descriptors_cause_exit_status_2(command: list[str]) -> None:
    assert shell(command, ">&- 2>&- <&-").returncode == 2


def test_interrupt_causes_exit_status_130(command: list[str], tmp_path: Path) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    (tmp_path / "postconf").write_text(f"#!/bin/sh\necho >{started}\nexec sleep 60\n")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    started.read_text()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20) == (b"", b"")
    assert process.returncode == 128 + signal.SIGINT
