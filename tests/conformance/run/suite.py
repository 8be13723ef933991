"""The state of a run: the implementation, the selected modes and the results.

Rule: errors in the command line or the implementation are reported once, before the run.
"""

from __future__ import annotations

import functools
import math
import os
import platform
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from ..format.by_profile import for_profile
from ..format.header import FORMAT as TRANSCRIPT_FORMAT
from ..format.loader import load_transcript, transcript_paths
from ..format.nodes import Transcript
from ..format.payload import did_you_mean
from ..format.profiles import Profile
from ..format.requirements import Requirement, specification
from ..format.vocabulary import INVARIANT_PREFIX, LEVELS, MODES, PROPERTY_PREFIX, SOURCES
from ..paths import TRANSCRIPTS
from ..play.engine import play
from ..play.failure import Failure, failure_of
from ..play.harness import Harness, Settings
from ..play.host import Host
from ..play.implementation import (
    Implementation,
    control_of,
    default_implementation,
    find_implementation,
)
from ..play.invariants import RULES, Observed
from ..play.needs import lacking, missing_need
from ..play.observers import StepFailedError
from ..play.offers import check_offers
from ..play.preflight import CANARY_FAILS, SMOKE, CannotStartError, ask, check_start
from ..play.process import adopt_orphans
from ..play.timeouts import AdaptiveTimeout
from .control import with_control
from .invariant_results import InvariantObservation, InvariantResults, stale_if_known
from .pool import Pools, use_slot_of
from .results import SUITE_VERSION, Result, ResultFile, basis
from .verdict import selection

#: The properties of random sessions, each with its mode.
PROPERTIES: dict[str, tuple[str, ...]] = {
    f"{PROPERTY_PREFIX}sessions": ("stdio",),
    f"{PROPERTY_PREFIX}crowds": ("listen",),
}


class OptionError(Exception):
    """A value on the command line is invalid."""


@dataclass(frozen=True)
class Shard:
    """Part *number* of *total* parts of the selected transcripts."""

    number: int = 1
    total: int = 1

    @classmethod
    def of(cls, text: str) -> Shard:
        """Parse I/N."""
        number, slash, total = text.partition("/")
        if slash and number.isdecimal() and total.isdecimal() and 0 < int(number) <= int(total):
            return cls(int(number), int(total))
        raise OptionError(f"--shard must be I/N with I from 1 to N, not '{text}'")

    def has(self, index: int) -> bool:
        """Whether the file with this *index* belongs to this part."""
        return index % self.total == self.number - 1


@dataclass
class Suite:
    """The settings from the command line, and the results."""

    config: pytest.Config
    host: Host = field(default_factory=Host)
    outcomes: list[Result] = field(default_factory=list)
    harness_failed: bool = False
    file: ResultFile | None = None
    tally: InvariantResults = field(default_factory=InvariantResults)
    #: The invariant observations of the control.
    control_tally: InvariantResults = field(default_factory=InvariantResults)
    #: The smoke test's failures by mode.
    smoke_failures: dict[str, Failure] = field(default_factory=dict)

    #: The selected part of the transcripts.
    shard: Shard = field(default_factory=Shard)

    def __post_init__(self) -> None:
        self.settings = Settings(Implementation("", ()), self.host)
        #: The same settings for the control, or None without an adapter.
        self.control: Settings | None = None
        #: The pools of a program that keeps running, in the controller.
        self.pools: Pools | None = None

    @property
    def is_worker(self) -> bool:
        """Whether this process is a pytest-xdist worker."""
        return hasattr(self.config, "workerinput")

    @property
    def modes(self) -> list[str]:
        """The selected modes."""
        return str(self.config.getoption("--modes")).split(",")

    @property
    def level(self) -> str:
        """The selected level."""
        return str(self.config.getoption("--level"))

    @property
    def source(self) -> str:
        """The only source whose requirements are tested, or "" for all."""
        return str(self.config.getoption("--source") or "")

    @property
    def profile(self) -> Profile:
        """The profile whose requirements are tested."""
        return self.settings.profile

    @functools.cached_property
    def transcripts(self) -> int:
        """The number of the suite's transcripts that belong to the profile."""
        if self.profile.is_whole:
            return len(transcript_paths())
        return sum(self.profile.has(load_transcript(path).subject) for path in transcript_paths())

    def judges(self, requirement: Requirement) -> bool:
        """Whether profile, level and source of *requirement* are selected."""
        selected = LEVELS.index(requirement.level) <= LEVELS.index(self.level)
        of_source = not self.source or requirement.is_from(self.source)
        return self.profile.has(requirement) and selected and of_source

    @property
    def judges_everything(self) -> bool:
        """Whether all requirements of levels must and should are selected."""
        return self.level != "must" and not self.source

    def configure(self) -> None:
        """Read the options and the description of the implementation."""
        _check("--level", self.level, LEVELS)
        _check("--source", self.source or SOURCES[0], SOURCES)
        for mode in self.modes:
            _check("--modes", mode, MODES)
        if shard := self.config.getoption("--shard"):
            self.shard = Shard.of(str(shard))
        named = self.config.getoption("--implementation")
        implementation = (
            default_implementation() if named is None else find_implementation(str(named))
        )
        if not implementation.described:
            implementation = _with_foreground_as_printed(implementation)
        if name := self.config.getoption("--name"):
            implementation = replace(implementation, name=str(name))
        self.settings = Settings(
            implementation,
            self.host,
            _positive("--time-scale", str(self.config.getoption("--time-scale"))),
            bool(self.config.getoption("--slow")),
            timeouts=_new_timeouts(),
            profile=_profile(self.config.getoption("--profile"), implementation.profile),
        )
        if implementation.adapter is not None:
            use_slot_of(getattr(self.config, "workerinput", {}).get("workerid", ""))
            self.control = replace(
                self.settings,
                implementation=control_of(implementation),
                timeouts=_new_timeouts(),
                broken=set(),
            )

    def begin(self) -> None:
        """Check once per run that the program starts and that its divergences have known names."""
        adopt_orphans()
        implementation = _with_version_as_printed(self.settings.implementation)
        self.settings.implementation = implementation
        self._open_file()
        if implementation.divergences:
            implementation.check_names(_modes_of_everything())
        if "stdio" in self.modes and not lacking(["stdio"], self.settings):
            check_start(self.settings)
        if self.control is not None:
            self._start_pools(self.control)
            self._check_control(self.control)
        if self.config.getoption("--smoke"):
            self._play_smoke()

    def begin_comparison(self) -> None:
        """Check that both implementations start, because otherwise a search is useless."""
        adopt_orphans()
        other = find_implementation(str(self.config.getoption("--compare")))
        for implementation in (self.settings.implementation, other):
            check_start(replace(self.settings, implementation=implementation))

    def _play_smoke(self) -> None:
        """Run the smoke test. If it fails in all its modes, also skip the mode command."""
        transcript = self._smoke
        played = [
            mode for mode in transcript.header.modes if self._can_play_smoke(transcript, mode)
        ]
        for mode in played:
            if failure := play_once(transcript, mode, self.settings).failure:
                self.smoke_failures[mode] = failure
            else:
                check_offers(self.settings, mode)
        if self.smoke_failures and list(self.smoke_failures) == played:
            self.smoke_failures["command"] = self.smoke_failures[played[0]]

    @property
    def _smoke(self) -> Transcript:
        """The smoke test, which is run in every profile."""
        return for_profile(load_transcript(TRANSCRIPTS / SMOKE), self.profile)

    def _start_pools(self, control: Settings) -> None:
        """Start programs that keep running, one for each worker."""
        implementation = self.settings.implementation
        if implementation.keeps_running:
            workers = len(self.config.getoption("tx", None) or ()) or 1
            self.pools = Pools(workers, implementation, control.implementation)

    def close(self) -> None:
        """Stop everything that the run has started."""
        if self.pools is not None:
            self.pools.close()
            self.pools = None
        self.host.close()

    def _check_control(self, control: Settings) -> None:
        """Run the smoke test with the control. If it fails, raise an error about the adapter."""
        transcript = self._smoke
        for mode in transcript.header.modes:
            if mode not in self.modes or missing_need(transcript, mode, control):
                continue
            if failure := play_once(transcript, mode, control).failure:
                raise CannotStartError(
                    f"the control (postprox behind the same adapter) fails {SMOKE}\n{failure.text}"
                )

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
                "implementation": {
                    "name": implementation.name,
                    "version": implementation.version,
                    "argv": list(implementation.argv),
                },
                "control": self._control_facts(),
                "suite": {
                    "transcripts": self.transcripts,
                    "version": SUITE_VERSION,
                    "format": TRANSCRIPT_FORMAT,
                    "specification": specification().version,
                },
                "machine": {
                    "system": platform.platform(),
                    "architecture": platform.machine(),
                    "processors": len(os.sched_getaffinity(0)),
                },
                "python": platform.python_version(),
                "root": os.geteuid() == 0,
                "time_scale": self.settings.time_scale,
                "profile": self.profile.name,
                "level": self.level,
                "source": self.source,
                "modes": self.modes,
            }
        )

    def _control_facts(self) -> dict[str, object] | None:
        """Return the header fields for the control."""
        if self.control is None:
            return None
        control = _with_version_as_printed(self.control.implementation)
        self.control.implementation = control
        return {"name": control.name, "version": control.version, "argv": list(control.argv)}

    def add_smoke(self) -> list[Result]:
        """Add the smoke test's failures that caused skips, unless it was selected itself."""
        skipped = {one.mode for one in self.outcomes if one.message == CANARY_FAILS}
        present = {one.mode for one in self.outcomes if one.transcript == SMOKE}
        smoke = self._smoke
        modes = [mode for mode in smoke.header.modes if mode in self.smoke_failures]
        missing = [mode for mode in modes if mode in skipped] or modes[:1]
        results = [
            _failed(smoke, mode, self.smoke_failures[mode])
            for mode in missing
            if skipped and not present
        ]
        for result in results:
            self.add(result)
        return results

    def add_invariants(self) -> list[Result]:
        """Add the results of invariants, one for each mode."""
        whole = not selection(self.outcomes, self.transcripts, self.modes, self.source)
        known = specification().requirements
        results = [
            one for one in self._invariant_results() if self.judges(known[one.requirements[0]])
        ]
        if whole:
            results = [stale_if_known(one, self.settings.implementation) for one in results]
        for result in results:
            self.add(result)
        return results

    def _invariant_results(self) -> list[Result]:
        results = self.tally.results(self.settings.implementation)
        if self.control is None:
            return results
        of_control = self.control_tally.results(self.control.implementation)
        return [with_control(one, of_control) for one in results]

    def add(self, result: Result) -> None:
        """Add one result."""
        self.outcomes.append(result)
        if self.file is not None:
            self.file.add(result)


@dataclass(frozen=True)
class Played:
    """The outcome of one transcript in one mode."""

    #: The failure, or None if the transcript passed.
    failure: Failure | None
    #: The invariant observations.
    invariants: tuple[InvariantObservation, ...] = ()
    #: True if a wait ended because of a reduced time limit.
    hasty: bool = False


def play_fairly(transcript: Transcript, mode: str, settings: Settings) -> Played:
    """Run *transcript*, and repeat it if a reduced time limit may have caused its failure."""
    timeouts, level = settings.timeouts, transcript.subject.level
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
    """Run *transcript* once."""
    harness = Harness(transcript, mode, settings)
    try:
        return Played(None, tuple(_seen(harness, observed) for observed in play(harness)))
    except StepFailedError as error:
        return Played(failure_of(harness, error), hasty=harness.hasty)
    finally:
        harness.close()


def _failed(transcript: Transcript, mode: str, failure: Failure) -> Result:
    header = transcript.header
    return Result(
        *(transcript.name, mode, header.title),
        outcome="failed",
        message=failure.summary,
        cause=failure.cause,
        text=failure.text,
        **basis(header.requires, failure.requirement),
    )


def _seen(harness: Harness, observed: Observed) -> InvariantObservation:
    if observed.kept:
        return InvariantObservation(observed.rule.name, harness.mode)
    requirement = observed.rule.requires[0]
    error = StepFailedError(None, observed.expected, observed.got, requirement)
    return InvariantObservation(observed.rule.name, harness.mode, failure_of(harness, error))


def _new_timeouts() -> AdaptiveTimeout:
    return AdaptiveTimeout.shared(int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def _modes_of_everything() -> dict[str, tuple[str, ...]]:
    """Return all names that a divergence can have, with their modes."""
    transcripts = map(load_transcript, transcript_paths())
    played = {transcript.name: transcript.header.modes for transcript in transcripts}
    return PROPERTIES | {INVARIANT_PREFIX + rule.name: rule.modes for rule in RULES} | played


def _check(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise OptionError(
            f"{option} must be one of {', '.join(choices)}, not '{value}'"
            f"{did_you_mean(value, choices)}"
        )


def _profile(named: str | None, default: Profile) -> Profile:
    try:
        return default if named is None else Profile.of(named)
    except ValueError as error:
        raise OptionError(f"--{error}") from error


def _positive(option: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not (number > 0 and math.isfinite(number)):
        raise OptionError(f"{option} must be a positive number, not '{text}'")
    return number


def _with_version_as_printed(implementation: Implementation) -> Implementation:
    """Return *implementation*. If it lacks a version, add the version that --version prints."""
    if implementation.version:
        return implementation
    printed = ask(implementation, {**os.environ, **implementation.env}, "--version").stdout
    version = printed.partition("\n")[0].removeprefix(implementation.name).strip()
    return replace(implementation, version=version or "unknown")


def _with_foreground_as_printed(implementation: Implementation) -> Implementation:
    """Return *implementation* without the capability foreground if --help does not mention it."""
    printed = ask(implementation, dict(os.environ), "--help")
    if "--foreground" in printed.stdout + printed.stderr:
        return implementation
    return replace(implementation, capabilities=implementation.capabilities - {"foreground"})
