"""What a run of the filter means for the message, and what its author should know of it.

Rule: the verdict is the proxy's own function of what was observed; what came over the wire is
held against it.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import verdict
from .filterrun import FILLED, UNUSABLE

if TYPE_CHECKING:
    from .filterrun import FilterRun

#: The proxy refused the message before it had run the filter.
NOT_FILTERED = "not-filtered"
#: All verdicts, as the log and the JSON document name them.
VERDICTS = (
    verdict.ACCEPT,
    verdict.REJECT,
    verdict.REWRITE,
    verdict.DISCARD,
    verdict.FAIL_OPEN,
    verdict.FAIL,
    NOT_FILTERED,
)
_SHELL_SAYS = {
    126: "the command cannot be executed: is it missing its x permission?",
    127: "the shell found no such command (PATH is /usr/bin:/bin)",
}


@dataclass(frozen=True)
class Outcome:
    """What became of the message.

    verdict: one of `VERDICTS`.
    reason: why the filter counts as failed, or "".
    hints: what its author should think about.
    """

    verdict: str
    reason: str = ""
    hints: tuple[str, ...] = ()


@dataclass(frozen=True)
class Limits:
    """What the proxy was told: -t and -r."""

    timeout: float
    reject: bool


def judge(run: FilterRun | None, limits: Limits, waited: float) -> Outcome:
    """Judge one run; `waited` is how long the client had to wait for the reply."""
    if run is None:
        return Outcome(NOT_FILTERED, "the proxy did not come as far as the filter")
    ended = verdict.Outcome(
        run.status,
        _last_line(run.stderr),
        failure=failure(run, limits.timeout, waited),
        replaced=run.outfile == FILLED,
    )
    judged = verdict.judge(ended, reject_failures=limits.reject)
    return Outcome(judged.action, judged.reason, _hints(run))


def timed_out(run: FilterRun, timeout: float, waited: float) -> bool:
    """Return whether the filter was killed at its time limit."""
    return run.status is None and waited >= timeout


def signal_name(run: FilterRun) -> str:
    """Return the signal that has killed the filter, as far as a shell can tell, or ""."""
    try:
        return signal.Signals((run.status or 0) - 128).name
    except ValueError:
        return ""


def failure(run: FilterRun, timeout: float, waited: float) -> str:
    """Return why the filter counts as failed; "" if its exit status decides."""
    if timed_out(run, timeout, waited):
        return f"not done within {timeout:g} s (-t), killed with all its processes"
    if run.status is None:
        return "killed, with its whole process group"
    if run.status == 0 and run.outfile == UNUSABLE:
        return "OUTFILE is no regular file that can be read"
    name = signal_name(run)
    if name:
        return f"exit status {run.status}: killed by signal {run.status - 128} ({name})"
    if run.status in _SHELL_SAYS:
        return f"exit status {run.status}: {_SHELL_SAYS[run.status]}"
    return ""


def _last_line(stderr: bytes) -> bytes:
    lines = verdict.LastLine()
    lines.feed(stderr)
    return lines.value


def _hints(run: FilterRun) -> tuple[str, ...]:
    hints = []
    if run.status == 1 and b"Traceback (most recent call last)" in run.stderr:
        hints.append(
            "this looks like a crash of the filter, but status 1 rejects the mail: "
            "let the filter end with status 2 when it fails"
        )
    elif run.status == 1 and not run.stderr.strip():
        hints.append(
            "status 1 without a word on standard error: if this was no rejection "
            "but a failure, let the filter end with status 2"
        )
    if run.status and run.outfile == FILLED:
        hints.append("what it wrote to OUTFILE counts with status 0 only")
    return tuple(hints)
