"""The summary of all messages: verdicts, durations and expectations.

Rule: the summary stores only a few short texts per message, so a long run requires little memory.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from ..core import verdict
from . import outcome
from .options import PROGRAM
from .text import BOLD, GREEN, RED, cut, plural, printable, shown, why

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .options import Settings
    from .rehearsal import Rehearsal
    from .text import Paper

_COUNTED = {
    verdict.ACCEPT: "accepted",
    verdict.REJECT: "rejected",
    verdict.REWRITE: "rewritten",
    verdict.DISCARD: "discarded",
    verdict.FAIL_OPEN: "passed unfiltered because the filter failed",
    verdict.FAIL: "temporarily refused because the filter failed",
    outcome.ERROR: "temporarily refused by the proxy",
}
#: The maximum number of messages with unexpected verdicts to list.
_LISTED = 20


@dataclass(frozen=True)
class Result:
    """The stored result of one message."""

    #: The name of the message.
    name: str
    #: The file that contains the message, or "" for standard input and for a pipe.
    path: str
    #: The name of the verdict in the log.
    verdict: str
    #: The reason for a failure, or the reply that refused the message.
    why: str
    #: The duration of the filter run, or None if the filter was not run.
    seconds: float | None
    #: The last octets of the filter's standard error.
    stderr: str
    #: True if the filter could not be started, or if the proxy failed.
    could_not_run: bool


def result(rehearsal: Rehearsal, path: str) -> Result:
    """Return the result of a rehearsal."""
    run = rehearsal.run
    stderr = b"" if run is None else run.stderr[-2000:]
    return Result(
        rehearsal.mail.name,
        path,
        rehearsal.outcome.verdict,
        why(rehearsal),
        rehearsal.seconds,
        "\n".join(shown(line) for line in stderr.splitlines()),
        rehearsal.outcome.not_started or rehearsal.outcome.verdict == outcome.ERROR,
    )


def verdict_text(done: Result) -> str:
    """Return the verdict with its reason."""
    return f"{done.verdict}: {done.why}" if done.why else done.verdict


def complaint(settings: Settings, done: Result) -> str:
    """Return a description of the problem with a result, or "".

    Without --expect, a filter failure counts as a problem.
    """
    if settings.expected:
        allowed = [each for word in settings.expected for each in outcome.EXPECTATIONS[word]]
        if done.verdict in allowed and not done.could_not_run:
            return ""
        return f"expected {' or '.join(settings.expected)}, got {verdict_text(done)}"
    if done.verdict in (verdict.FAIL, verdict.FAIL_OPEN, outcome.ERROR):
        return verdict_text(done)
    return ""


class Summary:
    """The last lines of a report."""

    def __init__(self, settings: Settings, paper: Paper) -> None:
        self._settings = settings
        self._paper = paper

    def text(self, results: list[Result]) -> str:
        """Return the summary."""
        verdicts = [done.verdict for done in results]
        counts = (f"{verdicts.count(name)} {_COUNTED[name]}" for name in _in_order(verdicts))
        total = f"{plural(len(results), 'message', 'messages')}: {', '.join(counts)}"
        return "\n".join(
            (
                "",
                self._paper.painted(BOLD, total),
                *(self._table(results) if len(results) > 1 else ()),
                *self._changing(results),
                *self._expectation(results),
                *_next_steps(self._settings),
            )
        )

    def _table(self, results: list[Result]) -> list[str]:
        lines = [f"  {'verdict':<10} {'messages':>8} {'median':>10} {'slowest':>10}"]
        lines += [
            self._row(name, [done for done in results if done.verdict == name])
            for name in _in_order(done.verdict for done in results)
        ]
        if len(lines) > 2:
            lines.append(self._row("all", results))
        return ["", *lines, ""]

    def _row(self, name: str, results: list[Result]) -> str:
        timed = [(done.seconds, done.name) for done in results if done.seconds is not None]
        row = f"  {name:<10} {len(results):>8}"
        if not timed:
            return row
        median = statistics.median(seconds for seconds, _ in timed)
        slowest, which = max(timed)
        row += f" {_seconds(median):>10} {_seconds(slowest):>10}  {printable(PurePath(which).name)}"
        return cut(row, self._paper.width)

    def _changing(self, results: list[Result]) -> list[str]:
        """Return one line for each message whose runs had different verdicts."""
        if self._settings.repeat == 1:
            return []
        seen: dict[str, list[str]] = {}
        for done in results:
            seen.setdefault(done.name, []).append(done.verdict)
        return [
            cut(f"Different verdicts: {printable(name)}: {', '.join(_in_order(verdicts))}", width)
            for name, verdicts in seen.items()
            if len(set(verdicts)) > 1 and (width := self._paper.width)
        ]

    def _expectation(self, results: list[Result]) -> list[str]:
        if not self._settings.expected:
            return []
        expected = " or ".join(self._settings.expected)
        wrong = [done for done in results if complaint(self._settings, done)]
        if not wrong:
            return [
                self._paper.painted(GREEN, f"Every message had the expected verdict ({expected}).")
            ]
        lines = (
            cut(f"  {printable(done.name)}: {verdict_text(done)}", self._paper.width)
            for done in wrong[:_LISTED]
        )
        more = len(wrong) - _LISTED
        count = plural(len(wrong), "message", "messages")
        head = f"{count} did not have the expected verdict ({expected})."
        return [
            self._paper.painted(RED, head),
            *lines,
            *([f"  ... and {more} more"] if more > 0 else []),
        ]


def _in_order(verdicts: Iterable[str]) -> list[str]:
    there = set(verdicts)
    return [name for name in outcome.VERDICTS if name in there]


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.01 else "< 0.01 s"


def _next_steps(settings: Settings) -> list[str]:
    """Return suggestions for the next command."""
    if settings.bundled_filter:
        return [
            "Next, use your own filter and message:",
            f"  {PROGRAM} -c ./your-filter MESSAGE.eml",
        ]
    steps = []
    if settings.bundled_messages:
        steps += ["Next, use your own message:", f"  {PROGRAM} -c CMD MESSAGE.eml"]
    elif not settings.expected:
        steps.append("Next, see --help for options such as -t, -r and --sender '' (a bounce).")
    program = settings.command.split()[:1]
    if program and "/" in program[0] and not program[0].startswith("/"):
        steps.append(f"In master.cf, use the full path of {printable(program[0])}.")
    return steps
