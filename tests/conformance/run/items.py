"""Transcripts in pytest, as files with one item for each mode and one result for each item.

Rule: an item runs its transcript. Known divergences must fail, and all other items must pass.
"""

from __future__ import annotations

import itertools
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from ..format.by_profile import for_profile
from ..format.loader import load_transcript
from ..format.nodes import FormatError, Transcript
from ..format.requirements import specification
from ..format.vocabulary import LEVELS
from ..paths import INSTALLED, TRANSCRIPTS
from ..play.failure import Failure
from ..play.implementation import Divergence
from ..play.needs import missing_need
from ..play.preflight import CANARY_FAILS, SMOKE
from ..play.process import adopt_orphans
from .control import CONTROL_FAILS, control_outcome
from .invariant_results import InvariantObservation
from .results import Control, Known, Result, basis
from .suite import Suite, play_fairly
from .verdict import PERMITTED, STALE

SUITE = pytest.StashKey[Suite]()
#: The marker of property tests, with `name`, `title`, `mode`, and `requires` by rule.
PROPERTY_MARKER = "conformance_property"


def suite_of(config: pytest.Config) -> Suite:
    """Return the Suite of this run."""
    return config.stash[SUITE]


class JudgedError(Exception):
    """The implementation, not the suite, has failed."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.summary)
        self.failure = failure


class StaleError(JudgedError):
    """A transcript passes although it is listed as a known divergence."""


class TranscriptFile(pytest.File):
    """One transcript, with an item for each of its modes."""

    def collect(self) -> Iterator[pytest.Item]:
        """Yield an item for each selected mode."""
        transcript = load_transcript(self.path)
        suite = suite_of(self.config)
        if not suite.judges(transcript.subject):
            return
        played = for_profile(transcript, suite.profile)
        for mode in transcript.header.modes:
            if mode in suite.modes:
                yield TranscriptItem.from_parent(self, name=mode, transcript=played)

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None
    ) -> str:
        """Return the file, line and suggestion for an unreadable transcript."""
        if isinstance(excinfo.value, FormatError):
            return f"transcripts/{excinfo.value}"
        return str(super().repr_failure(excinfo))


class TranscriptItem(pytest.Item):
    """One transcript in one mode."""

    def __init__(self, *, transcript: Transcript, **arguments: object) -> None:
        super().__init__(**arguments)  # type: ignore[arg-type]
        self.transcript = transcript
        self.mode = self.name
        self.invariants: tuple[InvariantObservation, ...] = ()
        #: The outcome and the observations of an adapter's control.
        self.control: Control | None = None
        self.control_invariants: tuple[InvariantObservation, ...] = ()
        #: The failure of a failed run, including a known divergence.
        self.failure: Failure | None = None
        header = transcript.header
        self.extra_keyword_matches.update(
            {transcript.name, header.title, transcript.subject.level}
            | {*header.requires, *transcript.families}
        )

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return the location for pytest's headings."""
        return self.path, None, f"{self.transcript.name}::{self.mode}"

    def runtest(self) -> None:
        """Run the transcript."""
        suite = suite_of(self.config)
        reason = missing_need(self.transcript, self.mode, suite.settings)
        if reason:
            pytest.skip(reason)
        failure = self.failure = self._failure(suite)
        known = divergence_of(self)
        if known is None:
            if failure is not None:
                self._report(failure, suite)
        else:
            judge_divergence(self.transcript.name, self.mode, known, failed=failure is not None)

    @property
    def broken(self) -> str:
        """The violated requirement of a failed run, including a known divergence."""
        if self.failure is None:
            return ""
        known = divergence_of(self)
        return (known.requirement if known else "") or self.failure.requirement

    def _report(self, failure: Failure, suite: Suite) -> NoReturn:
        """Raise *failure* if the violated requirement is selected."""
        broken = specification().requirements[failure.requirement]
        if not suite.judges(broken):
            pytest.skip(f"{broken.id} was not selected: {failure.summary}")
        if broken.level == "may":
            pytest.xfail(PERMITTED + failure.summary)
        raise JudgedError(failure)

    def _failure(self, suite: Suite) -> Failure | None:
        smoke_failure = suite.smoke_failures.get(self.mode)
        if smoke_failure is None:
            adopt_orphans()
            self._play_control(suite)
            played = play_fairly(self.transcript, self.mode, suite.settings)
            self.invariants = played.invariants
            return played.failure
        if self.transcript.name == SMOKE:
            return smoke_failure
        pytest.skip(CANARY_FAILS)

    def _play_control(self, suite: Suite) -> None:
        """Run the transcript with the adapter's control. Skip the item if the control fails."""
        if suite.control is None:
            return
        played = play_fairly(self.transcript, self.mode, suite.control)
        self.control = control_outcome(played.failure)
        self.control_invariants = played.invariants
        if played.failure is not None:
            pytest.skip(CONTROL_FAILS)

    @property
    def again(self) -> str:
        """Return the command that runs this item alone."""
        implementation = self.config.getoption("--implementation")
        if INSTALLED:
            words = ["postprox-conformance", "run", implementation, f"{self._place}::{self.mode}"]
        elif self.config.getoption("--progress"):  # the subcommand `run`
            words = ["python", "-m", "tests.conformance", "run", implementation]
            words.append(f"{self._place}::{self.mode}")
        else:
            words = ["python", "-m", "pytest", f"{os.path.relpath(self.path)}::{self.mode}"]
            words += ["--implementation", implementation] if implementation else []
        if profile := self.config.getoption("--profile"):
            words += ["--profile", profile]
        scale = str(self.config.getoption("--time-scale"))
        return shlex.join([*words, *(["--time-scale", scale] if scale != "1" else [])])

    @property
    def _place(self) -> str:
        """Return the transcript's name, or its path if it is not one of the suite's."""
        inside = self.path.is_relative_to(TRANSCRIPTS)
        return self.transcript.name if inside else os.path.relpath(self.path)

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None
    ) -> str:
        """Return the text of the failure instead of a traceback through the suite."""
        if isinstance(excinfo.value, JudgedError):
            return f"{excinfo.value.failure.text}\n\nrun it again: {self.again}"
        return str(super().repr_failure(excinfo))


def judge_divergence(name: str, mode: str, known: Divergence, *, failed: bool) -> None:
    """Raise an error if a known divergence passes, unless the divergence is flaky."""
    if failed:
        pytest.xfail(f"known divergence, {known.kind}: {known.reason}")
    if not known.sometimes:
        text = (
            f"{name} [{mode}] passes, but is listed as a known "
            f"divergence ({known.kind}: {known.reason}): remove the entry"
        )
        raise StaleError(
            Failure(f"{name} [{mode}] passed, but is listed as a known divergence", text, text, "")
        )


def divergence_of(item: pytest.Item) -> Divergence | None:
    """Return the known divergence for *item* in the implementation's description."""
    name, mode = _name_and_mode(item)
    return suite_of(item.config).settings.implementation.divergence(name, mode)


def _name_and_mode(item: pytest.Item) -> tuple[str, str]:
    if isinstance(item, TranscriptItem):
        return item.transcript.name, item.mode
    marker = item.get_closest_marker(PROPERTY_MARKER)
    return (str(marker.kwargs["name"]), str(marker.kwargs["mode"])) if marker else ("", "")


def is_judged(item: pytest.Item) -> bool:
    """Whether *item* has a result. Only transcripts and properties have results."""
    return _name_and_mode(item) != ("", "")


def result_of(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> Result:
    """Return the result of *item*."""
    name, mode = _name_and_mode(item)
    error = call.excinfo.value if call.excinfo else None
    title, cited, broken = _headings(item, error)
    known = divergence_of(item)
    diverged, stale = hasattr(report, "wasxfail"), isinstance(error, StaleError)
    return Result(
        transcript=name,
        mode=mode,
        title=title,
        outcome=STALE if stale else _outcome(report, permitted=diverged and known is None),
        seconds=round(call.duration, 4),
        message=_message(error),
        divergence=Known(known.kind, known.reason) if known and (diverged or stale) else None,
        cause=error.failure.cause if isinstance(error, JudgedError) else "",
        text=_text(item, error, known),
        control=getattr(item, "control", None),
        **basis(cited, broken),
    )


def _text(item: pytest.Item, error: BaseException | None, known: Divergence | None) -> str:
    """Return the report of a failure or a known divergence, which contains the dialogue."""
    if isinstance(error, JudgedError):
        return error.failure.text
    failure = getattr(item, "failure", None)
    return failure.text if known and failure else ""


def _message(error: BaseException | None) -> str:
    return str(error) if error else ""


def _headings(item: pytest.Item, error: BaseException | None) -> tuple[str, tuple[str, ...], str]:
    """Return the title, the cited requirements, and the violated requirement or ""."""
    if isinstance(item, TranscriptItem):
        header = item.transcript.header
        return header.title, header.requires, item.broken
    marker = item.get_closest_marker(PROPERTY_MARKER)
    assert marker is not None
    requires: dict[str, tuple[str, ...]] = marker.kwargs["requires"]
    known = specification().requirements
    cited = dict.fromkeys(itertools.chain.from_iterable(requires.values()))
    # The strictest requirement comes first. It determines the level of a pass.
    everything = tuple(sorted(cited, key=lambda one: LEVELS.index(known[one].level)))
    by_rule = requires.get(str(error).partition(":")[0], ("",))
    return str(marker.kwargs["title"]), everything, by_rule[0]


def _outcome(report: pytest.TestReport, *, permitted: bool) -> str:
    if permitted:
        return "skipped"  # level may, which is reported but never a failure
    return "diverged" if hasattr(report, "wasxfail") else report.outcome


def is_the_suites_fault(error: BaseException | None) -> bool:
    """Whether *error* is an error of the suite rather than of the implementation."""
    judged = JudgedError | pytest.skip.Exception | pytest.xfail.Exception | pytest.fail.Exception
    return error is not None and not isinstance(error, judged)


def give_up(config: pytest.Config, text: str, status: int) -> NoReturn:
    """End the run before it starts."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(f"conformance: {text}")
        # pytest would only print more lines around the message
        config.pluginmanager.unregister(reporter)
    pytest.exit("nothing was tested", returncode=status)
