"""The verdict on a message after a filter run, and hints for the filter's author.

Rule: the proxy's own function derives the verdict from the recorded run. This module compares the
verdict with the replies on the wire.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core import verdict
from .filterrun import FILLED, UNUSABLE

if TYPE_CHECKING:
    from .filterrun import FilterRun

#: The verdict if the proxy could not process the message.
ERROR = "error"
#: All verdicts, by their names in the log and in the JSON document.
VERDICTS = (
    verdict.ACCEPT,
    verdict.REJECT,
    verdict.REWRITE,
    verdict.DISCARD,
    verdict.FAIL_OPEN,
    verdict.FAIL,
    ERROR,
)
#: The values of --expect and their verdicts.
EXPECTATIONS = {
    "accept": (verdict.ACCEPT,),
    "reject": (verdict.REJECT,),
    "rewrite": (verdict.REWRITE,),
    "discard": (verdict.DISCARD,),
    "fail": (verdict.FAIL, verdict.FAIL_OPEN),
}
_SHELL_SAYS = {
    126: "the command cannot be executed; check its execute permission",
    127: "the shell did not find the command (PATH is /usr/bin:/bin)",
}


@dataclass(frozen=True)
class Outcome:
    """The result for a message."""

    #: One of `VERDICTS`.
    verdict: str
    #: The reason for the filter failure, or "".
    reason: str = ""
    #: True if the proxy killed the filter at its time limit.
    timed_out: bool = False
    #: True if the shell failed to start the filter.
    not_started: bool = False
    #: Remarks for the filter's author.
    hints: tuple[str, ...] = ()


@dataclass(frozen=True)
class Conditions:
    """The options -t, -r and --strict, the elapsed seconds, and whether the shell can parse CMD."""

    timeout: float
    reject_failures: bool
    waited: float
    strict: bool = False
    parses: bool = True


def judge(run: FilterRun | None, conditions: Conditions, *, delivered: bool) -> Outcome:
    """Return the outcome of one run.

    delivered: whether the upstream server received the message.
    """
    late = (run is None or run.status is None) and conditions.waited >= conditions.timeout
    if run is None and not late:
        return Outcome(ERROR, "the proxy could not store the message; -d DIR must be writable")
    ended = verdict.Outcome(
        None if run is None else run.status,
        b"" if run is None else _last_line(run.stderr),
        failure=_late(conditions)
        if late or run is None
        else failure(run, parses=conditions.parses),
        replaced=run is not None and run.outfile == FILLED,
    )
    judged = verdict.judge(
        ended, reject_failures=conditions.reject_failures, strict=conditions.strict
    )
    if delivered == bool(judged.reply):
        return Outcome(ERROR, "after the filter exited, the proxy sent its own reply")
    hints = () if run is None else _hints(run, rejected=judged.action == verdict.REJECT)
    not_started = run is not None and _not_started(run, parses=conditions.parses)
    return Outcome(judged.action, judged.reason, late, not_started, hints)


def _late(conditions: Conditions) -> str:
    return f"killed with all its processes after {conditions.timeout:g} s (-t)"


def signal_name(run: FilterRun) -> str:
    """Return the name of the signal that the exit status indicates, or ""."""
    try:
        return signal.Signals((run.status or 0) - 128).name
    except ValueError:
        return ""


def _not_started(run: FilterRun, *, parses: bool) -> bool:
    """Return whether the shell failed to start the filter.

    A shell may exit with status 0 or 1 before it reaches a line that it cannot parse.
    """
    return run.status in _SHELL_SAYS or (not parses and run.status not in (0, 1, None))


def failure(run: FilterRun, *, parses: bool = True) -> str:
    """Return why the filter failed, or "" if its exit status determines the verdict."""
    if run.status is None:
        return "killed together with its process group"
    if run.status == 0 and run.outfile == UNUSABLE:
        return "OUTFILE is not a readable regular file"
    name = signal_name(run)
    if name:
        return f"exit status {run.status}: killed by signal {run.status - 128} ({name})"
    if run.status in _SHELL_SAYS:
        return f"exit status {run.status}: {_SHELL_SAYS[run.status]}"
    if _not_started(run, parses=parses):
        return f"exit status {run.status}: the shell cannot parse the command"
    return ""


def _last_line(stderr: bytes) -> bytes:
    lines = verdict.LastLine()
    lines.feed(stderr)
    return lines.value


def _hints(run: FilterRun, *, rejected: bool) -> tuple[str, ...]:
    hints = []
    if rejected and b"Traceback (most recent call last)" in run.stderr:
        hints.append(
            "the filter probably crashed, but status 1 rejects the message; exit with status 2 "
            "after a failure, and use --strict"
        )
    elif rejected and not run.stderr.strip():
        hints.append(
            "status 1 without output on standard error rejects the message; exit with status 2 "
            "after a failure, and use --strict"
        )
    if run.status and run.outfile == FILLED:
        hints.append("the proxy uses OUTFILE only if the status is 0")
    return tuple(hints)
