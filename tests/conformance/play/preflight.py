"""Whether the implementation can be started, and serve one message, before all the rest is played.

Rule: one root cause is told once: what fails here would fail everywhere.
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
title = "Whether it starts"
clauses = ["relay.replies"]
level = "must"
modes = ["stdio"]
syslog = "absent"
+++
"""
_HELP_PATIENCE = 10


#: The transcript that is played first in each mode.
SMOKE = "relay/one-message.smtp"
#: Why everything else is skipped in a mode in which it fails.
CANARY_FAILS = f"{SMOKE} fails: nothing else was played"


class CannotStartError(Exception):
    """The implementation cannot be started, or nothing can be seen of it; the text says which."""


@dataclass(frozen=True)
class Answer:
    """What a run with one option printed."""

    stdout: str
    stderr: str


def check_program(implementation: Implementation) -> None:
    """The program is there."""
    if shutil.which(implementation.argv[0]) is None:
        raise _cannot_start(implementation, "there is no such program, or it cannot be executed")


def check_start(settings: Settings) -> None:
    """Start one session; whatever connects upstream, says a word or lives can be judged."""
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
    deadline = time.monotonic() + harness.patience
    while time.monotonic() < deadline:
        harness.loop.turn(0.05)
        if harness.listener.arrived or client.received:
            return
        if not process.alive:
            break
    if process.alive:
        raise CannotStartError(
            f"{shlex.join(implementation.argv)} was started, but in {harness.patience:g} s it "
            "neither connected upstream nor said a word"
        )
    said = harness.output("stderr").decode("utf-8", "backslashreplace").strip()
    why = f"it ended with status {process.status} before it connected upstream"
    raise _cannot_start(implementation, why + (f"; it said:\n{said}" if said else ""))


def ask(implementation: Implementation, environment: dict[str, str], option: str) -> Answer:
    """What the implementation prints for *option* (--help, --version)."""
    try:
        done = subprocess.run(
            [*implementation.argv, option],
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_HELP_PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired):
        return Answer("", "")
    return Answer(done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))
