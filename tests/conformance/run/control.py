"""The control of an adapter, which is the reference implementation behind the same adapter.

Rule: the control runs each transcript first. If the control fails, the transcript does not test the
program, because the adapter has caused the failure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from ..play.failure import Failure
from ..play.implementation import Implementation
from .results import Control, Result

#: The reason for skipping a transcript that the control fails.
CONTROL_FAILS = "the control (postprox behind the same adapter) fails this transcript"
#: The maximum number of control failures that the terminal lists. The HTML page lists all of them.
_NAMED = 20
#: The fields of a result that describe a failure.
_NOTHING_FOUND: dict[str, Any] = {
    "divergence": None,
    "cause": "",
    "text": "",
    "requirement": "",
    "sentence": "",
}


def control_outcome(failure: Failure | None) -> Control:
    """Return the control's outcome for a result."""
    if failure is None:
        return Control("passed")
    return Control("failed", failure.summary, failure.text)


def with_control(result: Result, of_control: Iterable[Result]) -> Result:
    """Add the control's result to an invariant's *result*. Skip it if the control failed."""
    for one in of_control:
        if (one.transcript, one.mode) == (result.transcript, result.mode):
            control = Control(one.outcome, one.message, one.text)
            if one.outcome == "passed":
                return replace(result, control=control)
            return replace(
                result,
                **_NOTHING_FOUND,
                outcome="skipped",
                message=CONTROL_FAILS,
                control=control,
            )
    return result


@dataclass(frozen=True)
class ControlSummary:
    """The outcomes of the control in one run."""

    passed: int
    failed: tuple[Result, ...]

    @property
    def sentence(self) -> str:
        """Return a sentence about the number of failures."""
        total = self.passed + len(self.failed)
        if not self.failed:
            return f"passes all {total} transcripts"
        failed = len(self.failed)
        return f"fails {failed} of {total} transcripts; the results of these {failed} are ignored"


def control_summary(results: Iterable[Result]) -> ControlSummary:
    """Return the outcomes of the control in *results*."""
    controlled = [one for one in results if one.control is not None]
    failed = tuple(one for one in controlled if one.control and one.control.outcome == "failed")
    return ControlSummary(len(controlled) - len(failed), failed)


def control_lines(control: Implementation, results: Iterable[Result]) -> Iterator[str]:
    """Yield the control's outcome for the terminal."""
    summary = control_summary(results)
    name = f"{control.name} {control.version}".strip()
    yield f"control: {name} behind the same adapter {summary.sentence}"
    for one in summary.failed[:_NAMED]:
        yield f"  {one.transcript} [{one.mode}]"
    if len(summary.failed) > _NAMED:
        yield f"  and {len(summary.failed) - _NAMED} more; --html lists them all"
