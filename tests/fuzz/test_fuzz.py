"""Runs the fuzzer for a fixed number of inputs. `nox -s fuzz` runs a longer search."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from postprox.core import data, verdict
from postprox.core import session as core
from tests.fuzz import grammar, session
from tests.fuzz.source import Source
from tests.support.proxies import ROOT
from tests.unit.dialogue import UnexpectedError

pytestmark = pytest.mark.any_account

#: True if atheris must be installed because pyproject.toml requires it on this platform.
FUZZED = platform.machine() == "x86_64" and sys.version_info < (3, 15)

INPUTS = 15_000
LIMIT = 600  # seconds; the test takes about ten

#: A session with -r in which the filter exits with status 2 and no other error occurs.
FAILS = bytes((0b1011, 0, 0, 0)) + session.CONNECTED + session.EHLO + session.TRANSACTION
FAILS += bytes((0, 5, 2, 2, 0, 1, 1, 1, 0))


@pytest.mark.skipif(not FUZZED, reason="atheris is not available for this platform")
@pytest.mark.parametrize("seed", [1, 2])
def test_fuzzer_finds_no_violations(seed: int) -> None:
    options = ["--seconds", "0", "--inputs", str(INPUTS), "--seed", str(seed)]
    command = [sys.executable, "-bb", "-m", "tests.fuzz", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=LIMIT)
    assert not done.returncode, done.stderr.decode(errors="replace")[-6000:]
    assert f"Done {INPUTS} runs".encode() in done.stderr


def test_example_input_delivers_two_messages() -> None:
    source = Source(bytes((0b1001, 0, 0, 0)) + session.WHOLE)
    assert session.played(source).deliveries == 2


def test_message_bypassing_filter_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    session.holds(Source(FAILS))
    accepted = verdict.Verdict(verdict.ACCEPT)
    monkeypatch.setattr(verdict, "judge", lambda *_, **__: accepted)
    with pytest.raises(UnexpectedError, match="bypasses the filter"):
        session.holds(Source(FAILS))


def test_wrong_reply_to_client_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    end = core.Session._end_message
    monkeypatch.setattr(core.Session, "_end_message", lambda self, _: end(self, b"250 fine\r\n"))
    with pytest.raises(UnexpectedError, match="a different reply"):
        session.holds(Source(bytes((0b1001, 0, 0, 0)) + session.WHOLE))


def test_second_outstanding_upstream_command_is_detected() -> None:
    source = Source(bytes((0, 0, 0, 0)) + session.CONNECTED + bytes((0, 0)))
    ledger = session.played(source, ends=False)
    with pytest.raises(UnexpectedError, match="two replies"):
        ledger.session._upstream.ask(b"NOOP", "reply")


def test_early_end_of_data_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "_stuffed", lambda block: block)
    with pytest.raises(AssertionError):
        grammar.message(Source(b"\x63x\n.\nx\r\n.\r\n"))
