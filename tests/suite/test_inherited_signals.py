"""Programs started by the suite do not inherit its signal dispositions."""

from __future__ import annotations

import signal
import subprocess
import sys

from tests.conformance.paths import ROOT

#: Code that ignores and blocks every signal, and then starts a child that prints its signal masks.
STARTS_A_CHILD = """
import signal, subprocess
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
from tests.conformance.play.process import start_children_with_default_signals
start_children_with_default_signals()
subprocess.run(["grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"], check=True)
signal.raise_signal(signal.SIGHUP)
signal.raise_signal(signal.SIGINT)
print("still here")
"""


def run() -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", STARTS_A_CHILD],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.split("\n")


def masks(lines: list[str]) -> dict[str, int]:
    return {line[:6]: int(line[7:], 16) for line in lines if line.startswith("Sig")}


def test_ignored_signals_have_default_dispositions_in_child() -> None:
    ignored = masks(run())["SigIgn"]
    assert {number for number in signal.valid_signals() if ignored >> (number - 1) & 1} == set()


def test_blocked_signals_are_unblocked_in_child() -> None:
    assert masks(run())["SigBlk"] == 0


def test_ignored_signals_do_not_end_suite() -> None:
    assert "still here" in run()
