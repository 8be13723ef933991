"""Persistent programs, which keep running for many transcripts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.paths import ROOT
from tests.conformance.play.implementation import ImplementationError, find_implementation
from tests.suite.adapting import RELAY, processes_with, run, wait_for, write_adapter

pytestmark = pytest.mark.any_account

#: Two transcripts that the octet relay passes.
SESSIONS = ("relay/greeting-ehlo-quit.smtp", "relay/command-help.smtp")


@pytest.fixture
def pooled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of an adapter whose program records each start in a file."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return write_pooled(tmp_path, "")


def write_pooled(directory: Path, first: str) -> Path:
    """Write an adapter whose program records its start and then runs the command *first*."""
    starts = f"open({str(directory / 'starts')!r}, 'a').write('x')\n"
    description = write_adapter(directory, relay=starts + first + RELAY)
    description.write_text(f"{description.read_text()}keeps_running = true\n")
    return directory


def starts(directory: Path) -> int:
    """Return the number of times that the program was started."""
    return len((directory / "starts").read_text())


def test_persistent_program_starts_only_once(pooled: Path) -> None:
    done = run(pooled, *SESSIONS)
    assert [done.result(name)["outcome"] for name in SESSIONS] == ["passed", "passed"]
    assert starts(pooled) == 1


def test_control_run_for_persistent_program_passes(pooled: Path) -> None:
    done = run(pooled, SESSIONS[0])
    assert done.result(SESSIONS[0])["control"]["outcome"] == "passed"


def test_finished_suite_leaves_no_processes_or_files(pooled: Path) -> None:
    run(pooled, SESSIONS[0])
    assert not processes_with(str(pooled))
    assert list(pooled.glob("postprox-pool-*")) == []


def test_killed_suite_leaves_no_processes_or_files(pooled: Path) -> None:
    command = [sys.executable, "-m", "tests.conformance", "run", f"{pooled}/relay.toml"]
    with subprocess.Popen(
        [*command, "relay", "-j", "1", "--modes", "listen"], cwd=ROOT, stdout=subprocess.DEVNULL
    ) as suite:
        assert wait_for((pooled / "starts").exists, 60)
        suite.kill()
    assert wait_for(lambda: not processes_with(str(pooled)))
    assert wait_for(lambda: list(pooled.glob("postprox-pool-*")) == [])


def test_exited_persistent_program_is_restarted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    once = f"if len(open({str(tmp_path / 'starts')!r}).read()) == 1: raise SystemExit\n"
    done = run(write_pooled(tmp_path, once), SESSIONS[0])
    assert done.result(SESSIONS[0])["outcome"] == "passed"
    assert starts(tmp_path) == 2


#: The beginning of a program with a worker that ignores SIGTERM.
FORKS = """\
import os, signal, time
if not os.fork():
    {leave}
    os.close(2)  # a pipe that the test reads to its end
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(60)
"""


@pytest.mark.parametrize("leave", ["pass", "os.setsid()"])
def test_finished_suite_leaves_no_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leave: str
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = run(write_pooled(tmp_path, FORKS.format(leave=leave)), SESSIONS[0])
    assert done.result(SESSIONS[0])["outcome"] == "passed"
    assert not processes_with(str(tmp_path))


def test_persistent_program_receives_sigterm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    ended = tmp_path / "ended"
    notes = f"""\
import os, signal
def end(*_):
    open({str(ended)!r}, "w").close()
    os._exit(0)
signal.signal(signal.SIGTERM, end)
"""
    run(write_pooled(tmp_path, notes), SESSIONS[0])
    assert ended.exists()


def test_keeps_running_without_adapter_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text('name = "x"\nargv = ["true"]\nkeeps_running = true\n')
    with pytest.raises(ImplementationError, match="'keeps_running' requires 'adapter'"):
        find_implementation(f"{tmp_path}/x.toml")
