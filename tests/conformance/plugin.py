"""The suite as a pytest plugin: files to items, options, outcomes, exit status, reports.

Rule: pytest decides what runs and when, the engine what is right; this is the seam.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from .engine import play
from .failure import explain
from .host import Host
from .implementation import (
    REFERENCE,
    Divergence,
    Implementation,
    ImplementationError,
    find_implementation,
)
from .loader import load_transcript, transcript_name, transcript_paths
from .looks import StepFailedError
from .needs import missing_need
from .paths import PACKAGE, ROOT, SUFFIX, TRANSCRIPTS
from .preflight import CannotStartError, ask, check_start
from .process import adopt_orphans
from .results import Result, ResultFile
from .script import FormatError, Transcript
from .stage import Settings, Stage
from .summary import summary_lines
from .words import LEVELS, MODES

_PROPERTY = "conformance"
_EXIT_HARNESS = 2


def pytest_addoption(parser: pytest.Parser) -> None:
    """The suite's own options."""
    group = parser.getgroup("conformance", "conformance transcripts")
    group.addoption(
        "--implementation",
        default=REFERENCE,
        metavar="TOML|CMD",
        help="what is judged: a file (or its name under implementations/), or a command"
        " line; default: this checkout",
    )
    group.addoption(
        "--level",
        choices=LEVELS,
        default="may",
        help="run transcripts up to this level only (default: all)",
    )
    group.addoption(
        "--modes",
        default=",".join(MODES),
        metavar="LIST",
        help="run these modes only (default: stdio,listen,command)",
    )
    group.addoption(
        "--time-scale",
        type=float,
        default=1.0,
        metavar="F",
        help="stretch the suite's own patience (slow machines: 3)",
    )
    group.addoption(
        "--slow", action="store_true", help="run transcripts about long time limits in real time"
    )
    group.addoption("--results", type=Path, metavar="FILE.jsonl", help="write JSON lines")
    group.addoption(
        "--compare",
        metavar="TOML|CMD",
        help="a second implementation: search for a dialogue on which the two differ",
    )


class Suite:
    """One pytest run's view of the conformance suite."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.host = Host()
        self.outcomes: list[Result] = []
        self.harness_failed = False
        self.file: ResultFile | None = None
        self.settings = Settings(Implementation("", ()), self.host)

    @property
    def is_worker(self) -> bool:
        """Whether this is one of pytest-xdist's workers."""
        return hasattr(self.config, "workerinput")

    @property
    def modes(self) -> list[str]:
        """The modes asked for."""
        return str(self.config.getoption("--modes")).split(",")

    @property
    def level(self) -> str:
        """The level asked for."""
        return str(self.config.getoption("--level"))

    def configure(self) -> None:
        """Read the implementation's description; whatever is wrong with it is said here."""
        wrong = [mode for mode in self.modes if mode not in MODES]
        if wrong:
            raise pytest.UsageError(f"--modes knows {', '.join(MODES)}, not {wrong[0]!r}")
        implementation = find_implementation(str(self.config.getoption("--implementation")))
        if not implementation.described:
            implementation = _with_foreground_as_printed(implementation)
        self.settings = Settings(
            implementation,
            self.host,
            float(self.config.getoption("--time-scale")),
            bool(self.config.getoption("--slow")),
        )

    def begin(self) -> None:
        """Once in the whole run: does it start, and are its divergences about something?"""
        implementation = self.settings.implementation
        if implementation.divergences:
            implementation.check_names(
                {
                    transcript_name(path): load_transcript(path).header.modes
                    for path in transcript_paths()
                }
            )
        adopt_orphans()
        check_start(self.settings)
        environment = {**os.environ, **implementation.env}
        if not implementation.version:
            printed = ask(implementation, environment, "--version").stdout
            first_line = printed.partition("\n")[0]
            version = first_line.removeprefix(implementation.name).strip() or "unknown"
            self.settings.implementation = replace(implementation, version=version)
        self._open_file()

    def _open_file(self) -> None:
        path = self.config.getoption("--results")
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

    def add(self, result: Result) -> None:
        """One more transcript has been run."""
        self.outcomes.append(result)
        if self.file is not None:
            self.file.add(result)


def _with_foreground_as_printed(implementation: Implementation) -> Implementation:
    """For a mere command: --foreground is used if its usage names it."""
    printed = ask(implementation, dict(os.environ), "--help")
    if "--foreground" in printed.stdout + printed.stderr:
        return implementation
    return replace(implementation, capabilities=implementation.capabilities - {"foreground"})


def suite_of(config: pytest.Config) -> Suite:
    """The run's one Suite."""
    return config.stash[_SUITE]


_SUITE = pytest.StashKey[Suite]()


def pytest_configure(config: pytest.Config) -> None:
    """Make the Suite, and let the runner's own directory mean the transcripts too."""
    suite = config.stash[_SUITE] = Suite(config)
    if not suite.is_worker:
        config.pluginmanager.register(Controller(suite), "conformance-controller")
    config.args = _with_transcripts(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """The same for a run that ended before it began."""
    suite_of(config).host.close()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Take down what the run made; first of all, for a worker may be ended once it has reported."""
    suite_of(session.config).host.close()


def _with_transcripts(config: pytest.Config) -> list[str]:
    """The run's arguments: where tests/conformance is meant, transcripts/ is."""
    paths = [(config.invocation_params.dir / arg.split("::")[0]).resolve() for arg in config.args]
    if any(path.is_relative_to(TRANSCRIPTS) or path == ROOT for path in paths):
        return config.args
    if any(PACKAGE.is_relative_to(path) for path in paths):
        return [*config.args, str(TRANSCRIPTS)]
    return config.args


# --- collecting -----------------------------------------------------------------------------------


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Every *.smtp file is a transcript."""
    if file_path.suffix == SUFFIX:
        return TranscriptFile.from_parent(parent, path=file_path)
    return None


class TranscriptFile(pytest.File):
    """One transcript; an item for each mode it runs in."""

    def collect(self) -> Iterator[pytest.Item]:
        """The transcript once for each of its modes that was asked for."""
        transcript = load_transcript(self.path)
        suite = suite_of(self.config)
        if LEVELS.index(transcript.header.level) > LEVELS.index(suite.level):
            return
        for mode in transcript.header.modes:
            if mode in suite.modes:
                yield TranscriptItem.from_parent(self, name=mode, transcript=transcript)

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None
    ) -> str:
        """A transcript that cannot be read: file, line and what was meant, nothing else."""
        if isinstance(excinfo.value, FormatError):
            return f"transcripts/{excinfo.value}"
        return str(super().repr_failure(excinfo))


class TranscriptFailedError(Exception):
    """The text for a person, and its first line for the reports."""

    def __init__(self, summary: str, text: str) -> None:
        super().__init__(summary)
        self.text = text


class TranscriptItem(pytest.Item):
    """One transcript in one mode."""

    def __init__(self, *, transcript: Transcript, **arguments: object) -> None:
        super().__init__(**arguments)  # type: ignore[arg-type]
        self.transcript = transcript
        self.mode = self.name
        header = transcript.header
        self.extra_keyword_matches.update(
            {transcript.name, header.title, header.level, *header.clauses}
        )

    @property
    def divergence(self) -> Divergence | None:
        """What the implementation's file says of this item."""
        implementation = suite_of(self.config).settings.implementation
        return implementation.divergence(self.transcript.name, self.mode)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where it is, for headings."""
        return self.path, None, f"{self.transcript.name}::{self.mode}"

    def runtest(self) -> None:
        """Play the transcript; known divergences must fail, all else must not."""
        suite = suite_of(self.config)
        settings = suite.settings
        reason = missing_need(self.transcript, self.mode, settings)
        if reason:
            pytest.skip(reason)
        adopt_orphans()
        failure = self._play(settings)
        known = self.divergence
        if known is None:
            if failure is not None and self.transcript.header.level == "may":
                pytest.xfail(f"permitted: {failure}")
            if failure is not None:
                raise failure
        elif failure is None and not known.sometimes:
            text = (
                f"{self.transcript.name} [{self.mode}] passes, but is listed as a known "
                f"divergence ({known.kind}: {known.reason}): remove the entry"
            )
            raise TranscriptFailedError("a known divergence passes", text)
        elif failure is not None:
            pytest.xfail(f"known divergence, {known.kind}: {known.reason}")

    def _play(self, settings: Settings) -> TranscriptFailedError | None:
        stage = Stage(self.transcript, self.mode, settings)
        try:
            play(stage)
        except StepFailedError as error:
            text = explain(stage, error, self._again())
            return TranscriptFailedError(text.partition("\n")[0], text)
        finally:
            stage.close()
        return None

    def _again(self) -> str:
        words = ["python", "-m", "pytest", f"{os.path.relpath(self.path)}::{self.mode}"]
        for option in ("--implementation", "--time-scale"):
            value = str(self.config.getoption(option))
            if value not in (REFERENCE, "1.0"):
                words += [option, value]
        return shlex.join(words)

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None
    ) -> str:
        """The failure's own text instead of a traceback through the suite."""
        if isinstance(excinfo.value, TranscriptFailedError):
            return excinfo.value.text
        return str(super().repr_failure(excinfo))


# --- running --------------------------------------------------------------------------------------


def pytest_sessionstart(session: pytest.Session) -> None:
    """Settle the implementation; one that cannot be started is said once, here."""
    suite = suite_of(session.config)
    try:
        suite.configure()
        if not suite.is_worker and _means_transcripts(session.config):
            suite.begin()
    except (ImplementationError, FormatError, OSError) as error:
        _give_up(session.config, str(error))
    except CannotStartError as error:
        command = shlex.join(suite.settings.implementation.argv)
        _give_up(session.config, f"cannot start {command}: {error}")


def _give_up(config: pytest.Config, text: str) -> NoReturn:
    """End the run before it begins."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(f"conformance: {text}")
    pytest.exit("nothing was judged", returncode=_EXIT_HARNESS)


def _means_transcripts(config: pytest.Config) -> bool:
    if config.getoption("collectonly"):
        return False
    paths = [(config.invocation_params.dir / arg.split("::")[0]).resolve() for arg in config.args]
    return any(
        path.is_relative_to(TRANSCRIPTS)
        or TRANSCRIPTS.is_relative_to(path)
        or path.suffix == SUFFIX
        for path in paths
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach what the reports need; it travels with the report from worker to controller."""
    report = yield
    if isinstance(item, TranscriptItem) and (call.when == "call" or report.failed):
        report.user_properties.append((_PROPERTY, _facts(item, call, report)))
    return report


def _facts(
    item: TranscriptItem, call: pytest.CallInfo[None], report: pytest.TestReport
) -> dict[str, object]:
    header = item.transcript.header
    known = item.divergence
    error = call.excinfo.value if call.excinfo else None
    harness = error is not None and not isinstance(
        error, TranscriptFailedError | pytest.skip.Exception | pytest.xfail.Exception
    )
    diverged = hasattr(report, "wasxfail")
    result = {
        "transcript": item.transcript.name,
        "mode": item.mode,
        "title": header.title,
        "clauses": list(header.clauses),
        "level": header.level,
        "outcome": _outcome(report, permitted=diverged and known is None),
        "seconds": round(call.duration, 4),
        "message": str(error) if error else "",
        "divergence": {"kind": known.kind, "reason": known.reason} if known and diverged else None,
    }
    return {"result": result, "harness": harness}


def _outcome(report: pytest.TestReport, *, permitted: bool) -> str:
    if permitted:
        return "skipped"  # level may: observed and reported, never a failure
    return "diverged" if hasattr(report, "wasxfail") else report.outcome


class Controller:
    """Hooks of the one process that hears of every result."""

    def __init__(self, suite: Suite) -> None:
        self._suite = suite

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep and write the result."""
        for name, facts in report.user_properties:
            if name == _PROPERTY and isinstance(facts, dict):
                self._suite.harness_failed |= bool(facts["harness"])
                self._suite.add(Result(**facts["result"]))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """0 as expected, 1 not, 2 the suite itself failed."""
        suite = self._suite
        nothing_chosen = session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED
        if _means_transcripts(session.config) and (suite.harness_failed or nothing_chosen):
            session.exitstatus = _EXIT_HARNESS
        if suite.file is not None:
            suite.file.end(int(session.exitstatus))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """A table by clause group."""
        if self._suite.outcomes:
            implementation = self._suite.settings.implementation
            name = f"{implementation.name} {implementation.version}".strip()
            terminalreporter.section(f"conformance of {name}")
            for line in summary_lines(self._suite.outcomes):
                terminalreporter.write_line(line)
