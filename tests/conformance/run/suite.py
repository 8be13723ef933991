"""The state of one run: the implementation, the selected modes and the results.

Rule: an error in the command line or the implementation is reported once, before the run.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from ..format.header import Header
from ..format.loader import load_transcript, transcript_paths
from ..format.nodes import Transcript
from ..format.payload import did_you_mean
from ..format.vocabulary import INVARIANT_PREFIX, LEVELS, MODES, PROPERTY_PREFIX
from ..paths import TRANSCRIPTS
from ..play.engine import play
from ..play.failure import Failure, failure_of
from ..play.harness import Harness, Settings
from ..play.host import Host
from ..play.implementation import Implementation, default_implementation, find_implementation
from ..play.invariants import LEVEL, RULES, Observed
from ..play.needs import missing_need
from ..play.observers import StepFailedError
from ..play.preflight import CANARY_FAILS, SMOKE, ask, check_start
from ..play.process import adopt_orphans
from ..play.timeouts import AdaptiveTimeout
from .invariant_results import InvariantObservation, InvariantResults, stale_if_known
from .results import Result, ResultFile
from .verdict import selection

#: The properties of random sessions, and the mode of each search.
PROPERTIES: dict[str, tuple[str, ...]] = {
    f"{PROPERTY_PREFIX}sessions": ("stdio",),
    f"{PROPERTY_PREFIX}crowds": ("listen",),
}


class OptionError(Exception):
    """An invalid value in the command line."""


@dataclass
class Suite:
    """The settings from the command line, and the results."""

    config: pytest.Config
    host: Host = field(default_factory=Host)
    outcomes: list[Result] = field(default_factory=list)
    harness_failed: bool = False
    file: ResultFile | None = None
    tally: InvariantResults = field(default_factory=InvariantResults)
    #: The failures of the smoke test by mode.
    smoke_failures: dict[str, Failure] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.settings = Settings(Implementation("", ()), self.host)

    @property
    def is_worker(self) -> bool:
        """Whether this is a worker of pytest-xdist."""
        return hasattr(self.config, "workerinput")

    @property
    def modes(self) -> list[str]:
        """The selected modes."""
        return str(self.config.getoption("--modes")).split(",")

    @property
    def level(self) -> str:
        """The selected level."""
        return str(self.config.getoption("--level"))

    def plays(self, level: str) -> bool:
        """Whether *level* is selected."""
        return LEVELS.index(level) <= LEVELS.index(self.level)

    def configure(self) -> None:
        """Read the options and the implementation's description."""
        _check("--level", self.level, LEVELS)
        for mode in self.modes:
            _check("--modes", mode, MODES)
        named = self.config.getoption("--implementation")
        implementation = (
            default_implementation() if named is None else find_implementation(str(named))
        )
        if not implementation.described:
            implementation = _with_foreground_as_printed(implementation)
        self.settings = Settings(
            implementation,
            self.host,
            _positive("--time-scale", str(self.config.getoption("--time-scale"))),
            bool(self.config.getoption("--slow")),
            timeouts=AdaptiveTimeout.shared(int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))),
        )

    def begin(self) -> None:
        """Check once per run that the program starts and that its divergences have known names."""
        implementation = self.settings.implementation
        if implementation.divergences:
            implementation.check_names(_modes_of_everything())
        adopt_orphans()
        if "stdio" in self.modes:
            check_start(self.settings)
        environment = {**os.environ, **implementation.env}
        if not implementation.version:
            printed = ask(implementation, environment, "--version").stdout
            first_line = printed.partition("\n")[0]
            version = first_line.removeprefix(implementation.name).strip() or "unknown"
            self.settings.implementation = replace(implementation, version=version)
        self._open_file()
        if self.config.getoption("--smoke"):
            self._play_smoke()

    def begin_comparison(self) -> None:
        """Check that both implementations start. Otherwise every search would find only that."""
        adopt_orphans()
        other = find_implementation(str(self.config.getoption("--compare")))
        for implementation in (self.settings.implementation, other):
            check_start(replace(self.settings, implementation=implementation))

    def _play_smoke(self) -> None:
        """Play the smoke test. If it fails in all its modes, skip mode command as well."""
        transcript = load_transcript(TRANSCRIPTS / SMOKE)
        played = [
            mode for mode in transcript.header.modes if self._can_play_smoke(transcript, mode)
        ]
        for mode in played:
            if failure := play_once(transcript, mode, self.settings).failure:
                self.smoke_failures[mode] = failure
        if self.smoke_failures and list(self.smoke_failures) == played:
            self.smoke_failures["command"] = self.smoke_failures[played[0]]

    def _can_play_smoke(self, smoke: Transcript, mode: str) -> bool:
        known = self.settings.implementation.divergence(SMOKE, mode) is not None
        return mode in self.modes and not known and not missing_need(smoke, mode, self.settings)

    def _open_file(self) -> None:
        path: Path | None = self.config.getoption("--results")
        if path is None:
            return
        self.file = ResultFile(path)
        implementation = self.settings.implementation
        self.file.begin(
            {
                "name": implementation.name,
                "version": implementation.version,
                "argv": list(implementation.argv),
            },
            len(transcript_paths()),
            self.level,
            self.modes,
        )

    def add_smoke(self) -> list[Result]:
        """Add failures of the smoke test that caused skips, unless it was itself selected."""
        skipped = {one.mode for one in self.outcomes if one.message == CANARY_FAILS}
        present = {one.mode for one in self.outcomes if one.transcript == SMOKE}
        header = load_transcript(TRANSCRIPTS / SMOKE).header
        modes = [mode for mode in header.modes if mode in self.smoke_failures]
        missing = [mode for mode in modes if mode in skipped] or modes[:1]
        results = [
            _failed(SMOKE, mode, header, self.smoke_failures[mode])
            for mode in missing
            if skipped and not present
        ]
        for result in results:
            self.add(result)
        return results

    def add_invariants(self) -> list[Result]:
        """Add the results of invariants, one for each mode."""
        if not self.plays(LEVEL):
            return []
        whole = not selection(self.outcomes, len(transcript_paths()), self.modes)
        results = self.tally.results(self.settings.implementation)
        if whole:
            results = [stale_if_known(one, self.settings.implementation) for one in results]
        for result in results:
            self.add(result)
        return results

    def add(self, result: Result) -> None:
        """Add one result."""
        self.outcomes.append(result)
        if self.file is not None:
            self.file.add(result)


@dataclass(frozen=True)
class Played:
    """The outcome of one transcript in one mode."""

    #: None if it passed.
    failure: Failure | None
    #: The observations of the invariants.
    invariants: tuple[InvariantObservation, ...] = ()
    #: Whether a wait ended at a reduced time limit.
    hasty: bool = False


def play_fairly(transcript: Transcript, mode: str, settings: Settings) -> Played:
    """Play *transcript*. Play it again with the full timeout if a reduced one may be the cause."""
    timeouts, level = settings.timeouts, transcript.header.level
    played = play_once(transcript, mode, settings)
    if played.failure is None or not played.hasty or not timeouts.may_replay(level):
        return played
    full_timeout = timeouts.full_timeout()
    again = play_once(transcript, mode, replace(settings, timeouts=full_timeout))
    timeouts.observed(full_timeout.slowest)
    if again.failure is not None:
        timeouts.confirmed(level)
    return again


def play_once(transcript: Transcript, mode: str, settings: Settings) -> Played:
    """Play *transcript*."""
    harness = Harness(transcript, mode, settings)
    try:
        return Played(None, tuple(_seen(harness, observed) for observed in play(harness)))
    except StepFailedError as error:
        return Played(failure_of(harness, error), hasty=harness.hasty)
    finally:
        harness.close()


def _failed(name: str, mode: str, header: Header, failure: Failure) -> Result:
    return Result(
        *(name, mode, header.title, header.clauses, header.level, "failed"),
        message=failure.summary,
        cause=failure.cause,
        text=failure.text,
    )


def _seen(harness: Harness, observed: Observed) -> InvariantObservation:
    if observed.kept:
        return InvariantObservation(observed.rule, harness.mode)
    error = StepFailedError(None, observed.expected, observed.got)
    return InvariantObservation(observed.rule, harness.mode, failure_of(harness, error))


def _modes_of_everything() -> dict[str, tuple[str, ...]]:
    """Return the names that a divergence may have, with their modes."""
    transcripts = map(load_transcript, transcript_paths())
    played = {transcript.name: transcript.header.modes for transcript in transcripts}
    return PROPERTIES | {INVARIANT_PREFIX + rule.name: rule.modes for rule in RULES} | played


def _check(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise OptionError(
            f"{option} knows {', '.join(choices)}, not '{value}'{did_you_mean(value, choices)}"
        )


def _positive(option: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not (number > 0 and math.isfinite(number)):
        raise OptionError(f"{option} must be a positive number, not '{text}'")
    return number


def _with_foreground_as_printed(implementation: Implementation) -> Implementation:
    """Return *implementation* without capability foreground if its usage lacks --foreground."""
    printed = ask(implementation, dict(os.environ), "--help")
    if "--foreground" in printed.stdout + printed.stderr:
        return implementation
    return replace(implementation, capabilities=implementation.capabilities - {"foreground"})
