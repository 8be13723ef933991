"""Programs that keep running over many transcripts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.paths import ROOT
from tests.conformance.play.implementation import ImplementationError, find_implementation
from tests.suite.adapting import RELAY, processes_with, run, wait_for, write_adapter

pytestmark = pytest.mark.any_account

#: Two transcripts that a relay of octets passes.
SESSIONS = ("relay/greeting-ehlo-quit.smtp", "relay/command-help.smtp")


@pytest.fixture
def pooled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of an adapter whose program writes a line for each start."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return write_pooled(tmp_path, "")


def write_pooled(directory: Path, first: str) -> Path:
    """Write an adapter whose program runs *first* after its start is written."""
    starts = f"open({str(directory / 'starts')!r}, 'a').write('x')\n"
    description = write_adapter(directory, relay=starts + first + RELAY)
    description.write_text(f"{description.read_text()}keeps_running = true\n")
    return directory


def starts(directory: Path) -> int:
    """Return the number of starts of the program."""
    return len((directory / "starts").read_text())


def test_program_that_keeps_running_starts_once(pooled: Path) -> None:
    done = run(pooled, *SESSIONS)
    assert [done.result(name)["outcome"] for name in SESSIONS] == ["passed", "passed"]
    assert starts(pooled) == 1


def test_control_keeps_running_as_well(pooled: Path) -> None:
    done = run(pooled, SESSIONS[0])
    assert done.result(SESSIONS[0])["control"]["outcome"] == "passed"


def test_pool_leaves_nothing_behind(pooled: Path) -> None:
    run(pooled, SESSIONS[0])
    assert not processes_with(str(pooled))
    assert list(pooled.glob("postprox-pool-*")) == []


def test_pool_of_killed_suite_leaves_nothing_behind(pooled: Path) -> None:
    command = [sys.executable, "-m", "tests.conformance", "run", f"{pooled}/relay.toml"]
    with subprocess.Popen(
        [*command, "relay", "-j", "1", "--modes", "listen"], cwd=ROOT, stdout=subprocess.DEVNULL
    ) as suite:
        assert wait_for((pooled / "starts").exists, 60)
        suite.kill()
    assert wait_for(lambda: not processes_with(str(pooled)))
    assert wait_for(lambda: list(pooled.glob("postprox-pool-*")) == [])


def test_program_that_ends_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    once = f"if len(open({str(tmp_path / 'starts')!r}).read()) == 1: raise SystemExit\n"
    done = run(write_pooled(tmp_path, once), SESSIONS[0])
    assert done.result(SESSIONS[0])["outcome"] == "passed"
    assert starts(tmp_path) == 2


def test_argv_cannot_keep_running(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text('name = "x"\nargv = ["true"]\nkeeps_running = true\n')
    with pytest.raises(ImplementationError, match="'keeps_running' requires 'adapter'"):
        find_implementation(f"{tmp_path}/x.toml")
