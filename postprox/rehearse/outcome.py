"""What a run of the filter means for the message, and what its author should know of it.

Rule: the verdict is the proxy's own function of what was observed; what came over the wire is
held against it.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core import verdict
from .filterrun import FILLED, UNUSABLE

if TYPE_CHECKING:
    from .filterrun import FilterRun

#: The proxy could not do its own part, and said so to the client.
ERROR = "error"
#: All verdicts, as the log and the JSON document name them.
VERDICTS = (
    verdict.ACCEPT,
    verdict.REJECT,
    verdict.REWRITE,
    verdict.DISCARD,
    verdict.FAIL_OPEN,
    verdict.FAIL,
    ERROR,
)
#: What can be expected of a filter, and the verdicts that fulfil it.
EXPECTATIONS = {
    "accept": (verdict.ACCEPT,),
    "reject": (verdict.REJECT,),
    "rewrite": (verdict.REWRITE,),
    "discard": (verdict.DISCARD,),
    "fail": (verdict.FAIL, verdict.FAIL_OPEN),
}
_SHELL_SAYS = {
    126: "the command cannot be executed: is it missing its x permission?",
    127: "the shell found no such command (PATH is /usr/bin:/bin)",
}


@dataclass(frozen=True)
class Outcome:
    """What became of the message.

    verdict: one of `VERDICTS`.
    reason: why the filter counts as failed, or "".
    timed_out: whether the filter was killed at its time limit.
    not_started: whether the shell could not start the filter.
    hints: what its author should think about.
    """

    verdict: str
    reason: str = ""
    timed_out: bool = False
    not_started: bool = False
    hints: tuple[str, ...] = ()


@dataclass(frozen=True)
class Told:
    """What the proxy was told, -t, -r and --strict; and how long the client waited, in seconds."""

    timeout: float
    reject_failures: bool
    waited: float
    strict: bool = False
    parses: bool = True


def judge(run: FilterRun | None, told: Told, *, delivered: bool) -> Outcome:
    """Judge one run; `delivered` is whether upstream has the message."""
    late = (run is None or run.status is None) and told.waited >= told.timeout
    if run is None and not late:
        return Outcome(ERROR, "the proxy could not spool it: can -d DIR be written to?")
    ended = verdict.Outcome(
        None if run is None else run.status,
        b"" if run is None else _last_line(run.stderr),
        failure=_late(told) if late or run is None else failure(run, parses=told.parses),
        replaced=run is not None and run.outfile == FILLED,
    )
    judged = verdict.judge(ended, reject_failures=told.reject_failures, strict=told.strict)
    if delivered == bool(judged.reply):
        return Outcome(ERROR, "the proxy answered in its own words after the filter had ended")
    hints = () if run is None else _hints(run, rejected=judged.action == verdict.REJECT)
    not_started = run is not None and _not_started(run, parses=told.parses)
    return Outcome(judged.action, judged.reason, late, not_started, hints)


def _late(told: Told) -> str:
    return f"not done within {told.timeout:g} s (-t), killed with all its processes"


def signal_name(run: FilterRun) -> str:
    """Return the signal that has killed the filter, as far as a shell can tell, or ""."""
    try:
        return signal.Signals((run.status or 0) - 128).name
    except ValueError:
        return ""


def _not_started(run: FilterRun, *, parses: bool) -> bool:
    """Return whether the shell could not start the filter.

    A shell may end with 0 or 1 before it comes to a line that it cannot parse.
    """
    return run.status in _SHELL_SAYS or (not parses and run.status not in (0, 1, None))


def failure(run: FilterRun, *, parses: bool = True) -> str:
    """Return why the filter counts as failed; "" if its exit status decides."""
    if run.status is None:
        return "killed, with its whole process group"
    if run.status == 0 and run.outfile == UNUSABLE:
        return "OUTFILE is no regular file that can be read"
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
            "this looks like a crash of the filter, but status 1 rejects the mail: "
            "let the filter end with status 2 when it fails, and use --strict"
        )
    elif rejected and not run.stderr.strip():
        hints.append(
            "status 1 without a word on standard error: if this was no rejection "
            "but a failure, let the filter end with status 2, and use --strict"
        )
    if run.status and run.outfile == FILLED:
        hints.append("what it wrote to OUTFILE counts with status 0 only")
    return tuple(hints)
