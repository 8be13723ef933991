"""Checks that the implementation starts and relays one message before any other transcript is run.

Rule: if an error would make every transcript fail, this module reports the error only once.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import time
from dataclasses import dataclass

from ..format.reader import parse_transcript
from .harness import Harness, HarnessError, Settings
from .implementation import Implementation

_SESSION = """\
+++
title = "The program starts"
requires = ["relay.replies-1"]
modes = ["stdio"]
syslog = "absent"
+++
"""
_HELP_TIMEOUT = 10


#: The transcript that is run first in each mode.
SMOKE = "relay/one-message.smtp"
#: The reason for skipping all other transcripts in a mode in which the smoke test fails.
CANARY_FAILS = f"{SMOKE} failed; no other transcript was run"


class CannotStartError(Exception):
    """An implementation cannot be started or observed. The error message has the reason."""


@dataclass(frozen=True)
class Answer:
    """The output of a run with a single option."""

    stdout: str
    stderr: str


def check_program(implementation: Implementation) -> None:
    """Raise an error if the program is missing."""
    if shutil.which(implementation.argv[0]) is None:
        raise _cannot_start(implementation, "the program is missing or cannot be executed")


def check_start(settings: Settings) -> None:
    """Start a session. Raise an error unless the program connects or prints something."""
    check_program(settings.implementation)
    transcript = parse_transcript(_SESSION, "preflight")
    harness = Harness(transcript, "stdio", settings)
    try:
        harness.prepare()
        harness.start_session()
        _await_sign_of_life(harness, settings.implementation)
    except HarnessError as error:
        raise _cannot_start(settings.implementation, str(error)) from error
    finally:
        harness.close()


def _cannot_start(implementation: Implementation, why: str) -> CannotStartError:
    return CannotStartError(f"cannot start {shlex.join(implementation.argv)}: {why}")


def _await_sign_of_life(harness: Harness, implementation: Implementation) -> None:
    process, client = harness.process, harness.clients["C"]
    assert process is not None
    deadline = time.monotonic() + harness.timeout
    while time.monotonic() < deadline:
        harness.loop.turn(0.05)
        if harness.listener.arrived or client.received:
            return
        if not process.alive:
            break
    if process.alive:
        raise CannotStartError(
            f"{shlex.join(implementation.argv)} was started, but within "
            f"{harness.timeout:g} s it neither connected upstream nor printed "
            "anything"
        )
    said = harness.output("stderr").decode("utf-8", "backslashreplace").strip()
    why = f"it exited with status {process.status} before it connected upstream"
    raise _cannot_start(implementation, why + (f"; its output:\n{said}" if said else ""))


def ask(implementation: Implementation, environment: dict[str, str], option: str) -> Answer:
    """Run the implementation with *option* (--help, --version) and return its output."""
    try:
        done = subprocess.run(
            [*implementation.argv, option],
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_HELP_TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired):
        return Answer("", "")
    return Answer(done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))
