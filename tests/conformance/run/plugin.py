"""The suite as a pytest plugin, with its options, collection, exit status and terminal output.

Rule: pytest selects and schedules the items. The engine tests the implementation. This module
connects both.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Generator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from ..format.loader import ChoiceError, check_choice
from ..format.nodes import FormatError
from ..format.vocabulary import BINDS, LEVELS, MODES, SOURCES
from ..paths import COMPARISON, INSTALLED, PACKAGE, ROOT, SUFFIX, TRANSCRIPTS
from ..play.failure import Failure
from ..play.implementation import ImplementationError
from ..play.preflight import CannotStartError
from ..play.process import adopt_orphans, start_children_with_default_signals
from .control import control_lines
from .invariant_results import InvariantObservation
from .items import (
    PROPERTY_MARKER,
    SUITE,
    TranscriptFile,
    divergence_of,
    give_up,
    is_judged,
    is_the_suites_fault,
    judge_divergence,
    result_of,
    suite_of,
)
from .junit import add_row, name_profile, name_row
from .progress import Progress
from .results import Control, Known, Result
from .suite import OptionError, Suite
from .summary import failure_lines, harm_lines, summary_lines
from .verdict import STALE, judge

_RESULT = "conformance"
_SMOKE = "conformance_smoke"
_SLOWEST = "conformance_slowest"
_EXIT_HARNESS = 2
_FIRST_FAILURE = "stopped at the first failure"


#: Errors that prevent the run from starting. For each, one line is printed.
_MISTAKES = (
    ChoiceError,
    FormatError,
    ImplementationError,
    CannotStartError,
    OptionError,
    OSError,
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the suite."""
    group = parser.getgroup("conformance", "conformance transcripts")
    group.addoption(
        "--implementation",
        metavar="TOML|CMD",
        help="the implementation: a file (or its name under implementations/), or a "
        "command line" + ("" if INSTALLED else "; default: this checkout"),
    )
    group.addoption(
        "--level",
        default=LEVELS[-1],
        metavar="LEVEL",
        help="run transcripts up to this level: must, should or may (default: may)",
    )
    group.addoption(
        "--source",
        metavar="WORD",
        help=f"test only the requirements from one source: {', '.join(SOURCES)}",
    )
    group.addoption(
        "--profile",
        metavar="NAME",
        help="test only the requirements of the given profile: one or more of "
        f"{', '.join(BINDS)}, separated by commas",
    )
    group.addoption("--name", metavar="NAME", help="the implementation's name in the report")
    group.addoption(
        "--shard", metavar="I/N", help=("run only part I of N of the selected transcripts")
    )
    group.addoption(
        "--modes",
        default=",".join(MODES),
        metavar="LIST",
        help="run only these modes (default: stdio,listen,command)",
    )
    group.addoption(
        "--time-scale",
        default="1",
        metavar="F",
        help="multiply the suite's timeouts by F: 3 for a slow machine, 0.2 for a quick test",
    )
    group.addoption(
        "--slow",
        action="store_true",
        help="run transcripts that test long time limits, in real time",
    )
    group.addoption(
        "--progress",
        action="store_true",
        help="print the number of results every ten seconds instead of a letter for each",
    )
    group.addoption("--results", type=Path, metavar="FILE.jsonl", help="write JSON lines")
    group.addoption(
        "--smoke",
        "--canary",
        action="store_true",
        help="run one complete session first; if it fails in a mode, nothing else is run in that "
        "mode",
    )
    group.addoption(
        "--compare",
        metavar="TOML|CMD",
        help="search for a dialogue in which this second implementation differs",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Create the Suite, and add the transcripts if the arguments name the suite's own directory."""
    start_children_with_default_signals()
    config.addinivalue_line(
        "markers", f"{PROPERTY_MARKER}(name, title, requires, mode): a property of random sessions"
    )
    suite = config.stash[SUITE] = Suite(config)
    if not suite.is_worker:
        config.pluginmanager.register(Controller(suite), "conformance-controller")
    config.args = _with_transcripts(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Close the host, even if the run did not start."""
    suite_of(config).close()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Close the host first, because a worker may be killed after its report."""
    suite_of(session.config).close()


# --- evaluation of the command line ------------------------------------------------------------


def _paths(config: pytest.Config) -> list[Path]:
    return [(config.invocation_params.dir / arg.split("::")[0]).resolve() for arg in config.args]


def _with_transcripts(config: pytest.Config) -> list[str]:
    """Return the arguments, with the transcripts added if they name the suite's own directory."""
    paths = _paths(config)
    if any(path.is_relative_to(TRANSCRIPTS) or path == ROOT for path in paths):
        return config.args
    if any(PACKAGE.is_relative_to(path) for path in paths):
        return [*config.args, str(TRANSCRIPTS)]
    return config.args


def _means_transcripts(config: pytest.Config) -> bool:
    return not config.getoption("collectonly") and any(
        path.is_relative_to(TRANSCRIPTS)
        or TRANSCRIPTS.is_relative_to(path)
        or path.suffix == SUFFIX
        for path in _paths(config)
    )


def _means_comparison(config: pytest.Config) -> bool:
    return not config.getoption("collectonly") and config.getoption("--compare") is not None


@pytest.hookimpl(tryfirst=True)
def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """With --noconftest, collect a directory without importing its __init__.py."""
    if parent.config.getoption("noconftest"):
        return pytest.Dir.from_parent(parent, path=path)
    return None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Ignore the comparison without a second implementation."""
    if collection_path == COMPARISON and config.getoption("--compare") is None:
        return True
    return None


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect every *.smtp file as a transcript."""
    if file_path.suffix == SUFFIX:
        return TranscriptFile.from_parent(parent, path=file_path)
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep only the items in `--shard`. Omit random sessions outside the profile postprox.

    All modes of a transcript are in one shard. Workers run the transcripts last and in a shuffled
    order, which is the same in every run. Otherwise, the slow transcripts, whose names are similar,
    would be run at the same time, and most processors would be idle.
    """
    suite = suite_of(config)
    files = {path: number for number, path in enumerate(dict.fromkeys(one.path for one in items))}

    def is_selected(item: pytest.Item) -> bool:
        is_property = item.get_closest_marker(PROPERTY_MARKER) is not None
        return suite.shard.has(files[item.path]) and (suite.profile.is_whole or not is_property)

    kept = list(filter(is_selected, items))
    config.hook.pytest_deselected(items=list(itertools.filterfalse(is_selected, items)))
    if suite.is_worker:
        kept.sort(key=lambda item: zlib.crc32(item.nodeid.encode()) if is_judged(item) else -1)
    items[:] = kept


# --- running --------------------------------------------------------------------------------------


def pytest_sessionstart(session: pytest.Session) -> None:
    """Configure the implementation and the options. Report errors in them only once."""
    config, suite = session.config, suite_of(session.config)
    try:
        for arg in config.args:
            check_choice(arg, config.invocation_params.dir)
        suite.configure()
        if suite.is_worker:
            suite.smoke_failures.update(_received_smoke_failures(config))
            suite.settings.timeouts.observed(getattr(config, "workerinput", {}).get(_SLOWEST, 0.0))
        elif _means_transcripts(config):
            suite.begin()
        elif _means_comparison(config):
            suite.begin_comparison()
    except _MISTAKES as error:
        if suite.file is not None:
            suite.file.end(_EXIT_HARNESS, stopped=str(error))
        give_up(config, str(error), _EXIT_HARNESS)
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if suite.smoke_failures and reporter is not None:
        modes = ", ".join(suite.smoke_failures)
        reporter.write_line(f"a session with one message failed; nothing else is run in {modes}")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Send the smoke test's result and the response time to each pytest-xdist worker."""
    suite = suite_of(node.config)
    node.workerinput[_SMOKE] = {
        mode: asdict(failure) for mode, failure in suite.smoke_failures.items()
    }
    node.workerinput[_SLOWEST] = suite.settings.timeouts.slowest


def _received_smoke_failures(config: pytest.Config) -> dict[str, Failure]:
    received: dict[str, dict[str, str]] = getattr(config, "workerinput", {}).get(_SMOKE, {})
    return {mode: Failure(**failure) for mode, failure in received.items()}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Require properties that are known divergences to fail, like transcripts."""
    known = divergence_of(item) if item.get_closest_marker(PROPERTY_MARKER) else None
    adopt_orphans()
    try:
        yield
    except pytest.fail.Exception:
        if known is None:
            raise
        judge_divergence(item.name, "", known, failed=True)
    else:
        if known is not None:
            judge_divergence(item.name, "", known, failed=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the result to the report, which the worker sends to the controller."""
    report = yield
    if is_judged(item) and (call.when == "call" or not report.passed):
        error = call.excinfo.value if call.excinfo else None
        facts = {
            "result": asdict(result_of(item, call, report)),
            "harness": is_the_suites_fault(error),
            "invariants": [asdict(seen) for seen in getattr(item, "invariants", ())],
            "control_invariants": [
                asdict(seen) for seen in getattr(item, "control_invariants", ())
            ],
        }
        report.user_properties.append((_RESULT, facts))
    return report


class Controller:
    """The hooks of the process that receives all results."""

    def __init__(self, suite: Suite) -> None:
        self._suite = suite
        self._told: dict[str, str] = {}
        self._nothing_chosen = False
        self._stopped = ""
        self._progress: Progress | None = None
        self._no_items: list[Result] = []

    @pytest.hookimpl(trylast=True)  # after the options have been checked
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Start the progress lines, and write the profile to the JUnit XML."""
        name_profile(session.config, self._suite.profile)
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if session.config.getoption("--progress") and reporter is not None:
            self._progress = Progress(lambda line: reporter.write_line(line, flush=True))
            self._progress.start()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Count the selected results."""
        self._expect(len(session.items))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """Count the results selected by a worker, which are equal for all workers."""
        self._expect(len(ids))

    def _expect(self, results: int) -> None:
        if self._progress is not None:
            self._progress.total = results

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(
        self, report: pytest.TestReport, config: pytest.Config
    ) -> tuple[str, str, str] | None:
        """Do not print a letter for each result if progress lines are printed."""
        if self._progress is None or (report.when != "call" and report.passed):
            return None
        return report.outcome, "", ""

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Store the reason why the run ended early."""
        first = isinstance(excinfo.value, pytest.Session.Interrupted)
        self._stopped = _FIRST_FAILURE if first else "stopped by a signal"

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Store and write the result."""
        for name, facts in report.user_properties:
            if name == _RESULT and isinstance(facts, dict):
                self._suite.harness_failed |= bool(facts["harness"])
                for seen in facts["invariants"]:
                    self._suite.tally.add(_seen(seen))
                for seen in facts["control_invariants"]:
                    self._suite.control_tally.add(_seen(seen))
                result = _result(facts["result"])
                self._suite.add(result)
                if self._progress is not None:
                    self._progress.add(result.outcome)
                name_row(self._suite.config, report, result)
                if result.outcome == "failed":
                    self._told.setdefault(result.name, str(report.longrepr))

    @pytest.hookimpl(tryfirst=True)  # before JUnit XML is written
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Set the exit status: 0 as expected, 1 for unexpected results, 2 for suite errors."""
        suite = self._suite
        if self._progress is not None:
            self._progress.stop()
        if session.shouldfail or self._stopped == _FIRST_FAILURE:
            self._stopped = _FIRST_FAILURE
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if _means_transcripts(session.config):
            none = session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED
            self._nothing_chosen = none
            if suite.harness_failed or none:
                session.exitstatus = _EXIT_HARNESS
        self._no_items = [*suite.add_smoke(), *suite.add_invariants()]
        for result in self._no_items:
            add_row(suite.config, result)
            self._told.setdefault(result.name, result.text)
            if result.outcome in ("failed", STALE) and session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if suite.file is not None:
            suite.file.end(int(session.exitstatus), self._stopped)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the complete failures, their causes, a table of groups, and the verdict."""
        suite = self._suite
        if self._nothing_chosen:
            terminalreporter.write_line(f"conformance: {_why_nothing(suite)}")
        if not suite.outcomes:
            return
        if suite.config.option.tbstyle == "no":
            for line in failure_lines(suite.outcomes, self._told):
                terminalreporter.write_line(line)
        else:  # pytest itself prints the failures of items
            for text in [result.text for result in self._no_items if result.text]:
                terminalreporter.write_line(f"\n{text}")
        verdict = judge(
            suite.outcomes, suite.transcripts, suite.modes, suite.source, suite.profile.name
        )
        implementation = suite.settings.implementation
        version = implementation.version
        name = f"{implementation.name} {version if implementation.described else f'({version})'}"
        terminalreporter.section(f"conformance of {name.strip()}")
        for line in harm_lines(suite.outcomes):
            terminalreporter.write_line(line)
        control = suite.control.implementation if suite.control else None
        of_control = control_lines(control, suite.outcomes) if control else ()
        for line in (*summary_lines(suite.outcomes), *of_control, *verdict.lines()):
            terminalreporter.write_line(line)
        if self._stopped:
            terminalreporter.write_line(f"  not complete: {self._stopped}")


def _why_nothing(suite: Suite) -> str:
    """Return the reason why nothing was run despite the lack of errors."""
    words = suite.config.getoption("keyword")
    asked = [f"-k '{words}'"] if words else []
    if suite.level != LEVELS[-1]:
        asked.append(f"--level {suite.level}")
    if not suite.profile.is_whole:
        asked.append(f"profile {suite.profile.name}")
    if suite.source:
        asked.append(f"--source {suite.source}")
    if set(suite.modes) != set(MODES):
        asked.append(f"--modes {','.join(suite.modes)}")
    return f"nothing was run{'; no transcript matches ' if asked else ''}{' and '.join(asked)}"


def _seen(table: dict[str, Any]) -> InvariantObservation:
    failure = table.pop("failure")
    return InvariantObservation(**table, failure=None if failure is None else Failure(**failure))


def _result(table: dict[str, object]) -> Result:
    known, control = table.pop("divergence"), table.pop("control")
    result = Result(**table)  # type: ignore[arg-type]
    return replace(
        result,
        clauses=tuple(result.clauses),
        requirements=tuple(result.requirements),
        divergence=Known(**known) if isinstance(known, dict) else None,
        control=Control(**control) if isinstance(control, dict) else None,
    )
