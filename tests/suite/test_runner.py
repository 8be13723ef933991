"""The runner: results, verdicts and exit statuses of runs.

The tested implementations are wrappers of the reference, with a shell command before or after it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.conformance.format.requirements import specification
from tests.conformance.paths import PACKAGE
from tests.conformance.play.invariants import RULES

pytestmark = pytest.mark.any_account

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = f'"{sys.executable}" -m postprox "$@"'
SESSION = "relay/greeting-ehlo-quit.smtp"
MUST = "relay/one-message.smtp"
#: The reference's SMTP capabilities, and all capabilities in server mode.
ESMTP = ["stdio", "pipelining", "enhanced-codes", "8bitmime", "size", "spool-dir", "quit-on-eof"]
SERVER = [*ESMTP, "listen", "foreground"]
#: A requirement of level must, and one of level may.
MUST_ID = "relay.commands-1"
MAY_ID = next(one.id for one in specification().requirements.values() if one.level == "may")

IMPLEMENTATION = """\
name = "bent"
version = "1"
argv = ["sh", "-c", {command}, "bent"]
env = {{ PYTHONPATH = "{{root}}" }}
capabilities = {capabilities}
clock_env = "POSTPROX_CLOCK_SPEED"
"""


@dataclass
class Done:
    status: int
    text: str
    records: list[dict[str, object]]

    @property
    def outcomes(self) -> list[object]:
        """Return the outcomes of transcripts and properties."""
        return [one["outcome"] for one in self._results]

    @property
    def _results(self) -> list[dict[str, object]]:
        return [
            one
            for one in self.records
            if one["type"] == "result" and not str(one["transcript"]).startswith("invariant/")
        ]

    @property
    def unasked(self) -> dict[str, dict[str, object]]:
        """Return the results of invariants by name and mode."""
        return {
            f"{one['transcript']}::{one['mode']}": one
            for one in self.records
            if one["type"] == "result" and str(one["transcript"]).startswith("invariant/")
        }

    @property
    def names(self) -> list[str]:
        return sorted(f"{one['transcript']}::{one['mode']}" for one in self._results)


class Runner:
    """Runs the suite in a new process with given transcripts and a given implementation."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def bent(self, command: str, capabilities: Sequence[str] = SERVER) -> Path:
        """Write an implementation file that runs the shell command *command*."""
        return self.described(
            IMPLEMENTATION.format(
                command=json.dumps(command), capabilities=json.dumps(list(capabilities))
            )
        )

    def described(self, text: str) -> Path:
        path = self._directory / "bent.toml"
        path.write_text(text)
        return path

    def transcript(self, script: str, header: str = "") -> Path:
        """Write a transcript with these steps."""
        path = self._directory / "own.smtp"
        path.write_text(f'+++\ntitle = "t"\nrequires = ["{MUST_ID}"]\n{header}+++\n{script}')
        return path

    def run(self, *arguments: object) -> Done:
        results = self._directory / "results.jsonl"
        command = [
            *(sys.executable, "-bb", "-m", "pytest", "-p", "tests.conformance.plugin"),
            *("-c", ROOT / "pyproject.toml", "--rootdir", ROOT, "-p", "no:cacheprovider"),
            *("-p", "no:hypothesispytest"),  # it doubles the startup time
            *("--results", results),
        ]
        done = subprocess.run(
            [*map(str, command), *map(str, arguments)],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTEST_ADDOPTS": "",
                "CI": "",
            },  # with CI set, pytest prints failures twice
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        lines = results.read_text().splitlines() if results.exists() else []
        return Done(done.returncode, done.stdout, [json.loads(line) for line in lines])


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def in_corpus(name: str) -> Path:
    return ROOT / "transcripts" / name


# --- exit status and results ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A run of the reference with one transcript."""
    return Runner(tmp_path_factory.mktemp("right")).run(in_corpus(SESSION))


def test_reference_passes_in_both_modes_with_status_0(right: Done) -> None:
    assert (right.status, right.outcomes) == (0, ["passed", "passed"])


def test_result_file_contains_header_results_and_footer(right: Done) -> None:
    assert [one["type"] for one in right.records[:3]] == ["header", "result", "result"]
    assert right.records[-1]["type"] == "footer"


def test_footer_contains_counts(right: Done) -> None:
    assert right.records[-1] == {
        "type": "footer", "passed": 2 + len(right.unasked),
        "failed": 0, "skipped": 0, "diverged": 0, "stale": 0, "exit_status": 0, "stopped": "",
    }  # fmt: skip


def test_terminal_output_contains_table_of_groups(right: Done) -> None:
    assert "relay              2         -         -         -" in right.text


def test_parallel_and_serial_runs_have_same_results(runner: Runner) -> None:
    transcripts = [*sorted(in_corpus("cli").glob("port-*.smtp")), in_corpus(SESSION)]
    done = runner.run("-n", "2", *transcripts)
    alone = runner.run(*transcripts)
    assert done.status == alone.status == 0
    assert done.names == alone.names
    assert len(done.names) > len(transcripts)


def junit_rows(path: Path) -> dict[str, ET.Element]:
    """Return the test cases of a JUnit XML file by class and name."""
    cases = ET.parse(path).iter("testcase")  # noqa: S314  (written by the suite)
    return {f"{case.get('classname')} {case.get('name')}": case for case in cases}


def test_junit_report_contains_test_case_for_each_result(runner: Runner, tmp_path: Path) -> None:
    done = runner.run(in_corpus(SESSION), "--junitxml", tmp_path / "junit.xml")
    rows = set(junit_rows(tmp_path / "junit.xml"))
    results = [one for one in done.records if one["type"] == "result"]
    assert rows == {f"{one['transcript']} {one['mode']}".replace("/", ".") for one in results}
    assert {f"{SESSION} stdio".replace("/", "."), "invariant.stop listen"} <= rows


@pytest.mark.parametrize("workers", ["0", "2"])
def test_junit_test_case_contains_property_name(
    runner: Runner, tmp_path: Path, workers: str
) -> None:
    bent = runner.bent(f"exec {REFERENCE}", capabilities=SERVER)
    properties = ROOT / "tests" / "conformance" / "test_properties.py"
    junit = tmp_path / "junit.xml"
    runner.run(properties, "--implementation", bent, "--junitxml", junit, "-n", workers)
    assert set(junit_rows(junit)) == {"properties.sessions stdio", "properties.crowds listen"}


def test_junit_report_contains_broken_invariant(runner: Runner, tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    bent = runner.bent(f"echo noise >&2; exec {REFERENCE}")
    runner.run(in_corpus(SESSION), "--implementation", bent, "--junitxml", junit)
    rows = junit_rows(junit)
    failed = [name for name, row in rows.items() if row.find("failure") is not None]
    assert failed == ["invariant.standard-error stdio"]
    assert "nothing on file descriptor 2" in (rows[failed[0]].findtext("failure") or "")


def test_junit_report_shows_known_divergence_from_invariant_as_skipped(
    runner: Runner, tmp_path: Path
) -> None:
    junit = tmp_path / "junit.xml"
    path = runner.bent(f"echo noise >&2; exec {REFERENCE}")
    path.write_text(path.read_text() + DIVERGENCE.format("invariant/standard-error"))
    runner.run(in_corpus(SESSION), "--implementation", path, "--junitxml", junit)
    row = junit_rows(junit)["invariant.standard-error stdio"]
    assert row.find("failure") is None
    assert row.find("skipped") is not None


def test_junit_report_contains_failing_smoke_test(runner: Runner, tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    bent = runner.bent("echo nonsense")
    runner.run(in_corpus(SESSION), "--canary", "--implementation", bent, "--junitxml", junit)
    failed = [name for name, row in junit_rows(junit).items() if row.find("failure") is not None]
    assert "relay.one-message.smtp stdio" in failed


def test_wrong_implementation_fails_with_status_1(runner: Runner) -> None:
    done = runner.run(in_corpus(SESSION), "--implementation", runner.bent("echo nonsense"))
    assert done.status == 1
    assert set(done.outcomes) == {"failed"}


def test_missing_program_is_reported_once_with_status_2(runner: Runner) -> None:
    done = runner.run(in_corpus("filter"), "--implementation", f"{sys.executable} -m no_such_one")
    assert done.status == 2
    assert done.text.count("No module named no_such_one") == 1


def test_command_line_is_run_in_both_modes(runner: Runner) -> None:
    command = f"""sh -c 'PYTHONPATH="{ROOT}" exec {sys.executable} -m postprox "$@"' sh"""
    done = runner.run(in_corpus(SESSION), "--implementation", command)
    assert (done.status, done.outcomes) == (0, ["passed", "passed"])


def test_empty_argv_results_in_status_2(runner: Runner) -> None:
    assert runner.run(in_corpus(SESSION), "--implementation", "/no/such/program").status == 2


def test_unreadable_transcript_results_in_status_2(runner: Runner) -> None:
    done = runner.run(runner.transcript("C> @cloze\n"))
    assert done.status == 2
    assert "own.smtp:5: unknown step '@cloze' (did you mean '@close'?)" in done.text


def test_empty_selection_results_in_status_2(runner: Runner) -> None:
    done = runner.run(in_corpus(SESSION), "-k", "no_such_transcript")
    assert (done.status, done.outcomes) == (2, [])


def test_level_option_excludes_lower_levels(runner: Runner) -> None:
    should = in_corpus("cli/exit-client-eof.smtp")
    done = runner.run(should, in_corpus(MUST), "--level", "must")
    assert done.names == [f"{MUST}::listen", f"{MUST}::stdio"]
    assert {one["level"] for one in done.records if one["type"] == "result"} == {"must"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--level", "mst"),
            "--level must be one of must, should, may, not 'mst' (did you mean 'must'?)",
        ),
        (("--modes", "stdio,lisen"), "not 'lisen' (did you mean 'listen'?)"),
        (("--time-scale", "0"), "--time-scale must be a positive number, not '0'"),
        (("--time-scale", "nan"), "--time-scale must be a positive number, not 'nan'"),
        (("transcripts/relay/one-mesage.smtp",), "did you mean 'relay/one-message.smtp'?"),
        (("transcripts/cli/help.smtp::stdio",), "has no mode stdio; its modes are command"),
    ],
)
def test_invalid_option_results_in_status_2(
    runner: Runner, arguments: tuple[str, ...], message: str
) -> None:
    done = runner.run(in_corpus(SESSION), *arguments)
    assert done.status == 2
    assert message in done.text


def test_terminal_output_contains_verdict(right: Done) -> None:
    assert "verdict: conformant: all 2 passed at level MUST" in right.text


def test_violation_of_may_requirement_does_not_fail_run(runner: Runner) -> None:
    path = runner.transcript("U> 220 here\nC< 220 there\n")
    path.write_text(path.read_text().replace(MUST_ID, MAY_ID))
    done = runner.run(path)
    assert (done.status, done.outcomes) == (0, ["skipped", "skipped"])


# --- known divergences ----------------------------------------------------------------------------

WRONG = IMPLEMENTATION.format(command='"echo nonsense"', capabilities=json.dumps(SERVER))
RIGHT = IMPLEMENTATION.format(
    command=json.dumps(f"exec {REFERENCE}"), capabilities=json.dumps(SERVER)
)
DIVERGENCE = '[[divergence]]\ntranscripts = ["{}"]\nkind = "bug"\nreason = "known"\n'


def test_known_divergence_is_expected(runner: Runner) -> None:
    path = runner.described(WRONG + DIVERGENCE.format(SESSION))
    done = runner.run(in_corpus(SESSION), "--implementation", path)
    assert (done.status, done.outcomes) == (0, ["diverged", "diverged"])
    assert done.records[1]["divergence"] == {"kind": "bug", "reason": "known"}


def test_run_fails_if_known_divergence_passes(runner: Runner) -> None:
    path = runner.described(RIGHT + DIVERGENCE.format(SESSION))
    done = runner.run(in_corpus(SESSION), "--implementation", path)
    assert (done.status, done.outcomes) == (1, ["stale", "stale"])
    assert "remove the entry" in done.text
    assert f"verdict: conformant: all {len(done.outcomes)} passed at level MUST" in done.text


def test_flaky_divergence_may_pass(runner: Runner) -> None:
    for implementation, outcome in ((RIGHT, "passed"), (WRONG, "diverged")):
        path = runner.described(implementation + DIVERGENCE.format(SESSION) + "sometimes = true\n")
        done = runner.run(in_corpus(SESSION), "--implementation", path)
        assert (done.status, done.outcomes) == (0, [outcome, outcome])


def test_known_divergence_applies_to_one_mode(runner: Runner) -> None:
    path = runner.described(RIGHT + DIVERGENCE.format(f"{SESSION}::listen"))
    done = runner.run(in_corpus(SESSION), "--implementation", path)
    assert done.outcomes == ["passed", "stale"]


def test_known_divergence_names_requirement_and_keeps_dialogue(runner: Runner) -> None:
    entry = DIVERGENCE.format(SESSION) + 'requirement = "relay.bad-reply-1"\n'
    done = runner.run(in_corpus(SESSION), "--implementation", runner.described(WRONG + entry))
    assert {one["requirement"] for one in done.records[1:3]} == {"relay.bad-reply-1"}
    assert all("dialogue (" in str(one["text"]) for one in done.records[1:3])


def test_failure_after_relayed_bdat_counts_against_bdat_requirement(
    runner: Runner,
) -> None:
    command = f'exec "{sys.executable}" -S -m tests.fixtures relay.relay_bdat "$@"'
    name = "relay/refused-bdat-command-behind.smtp"  # its subject is relay.refused-12
    done = runner.run(in_corpus(name), "--implementation", runner.bent(command))
    assert done.records[1]["requirement"] == "relay.refused-2"


def test_misspelt_transcript_in_divergence_results_in_status_2(runner: Runner) -> None:
    path = runner.described(RIGHT + DIVERGENCE.format("relay/greeting-ehlo-quitt.smtp"))
    done = runner.run(in_corpus(SESSION), "--implementation", path)
    assert done.status == 2
    assert f"did you mean '{SESSION}'" in done.text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nmae = 1", "did you mean 'name'"),
        ("[[divergence]]\ntranscripts = ['x']\nkind = 'odd'\nreason = 'y'", "one of bug, wontfix"),
        ("[[divergence]]\ntranscripts = ['x']\nkind = 'bug'", "'reason' is missing"),
        (
            "[[divergence]]\ntranscripts = ['x']\nkind = 'bug'\nreason = 'y'\nrequirement = 'b-1'",
            "unknown requirement 'b-1'",
        ),
        (
            "[[divergence]]\ntranscript = 'x'",
            "'transcript' was replaced by a list; use transcripts = [",
        ),
        (
            "[[divergence]]\ntranscripts = ['x::lsten']\nkind = 'bug'\nreason = 'y'",
            "divergence x::lsten: mode must be one of stdio, listen, command, not 'lsten'",
        ),
    ],
)
def test_invalid_implementation_file_results_in_status_2(
    runner: Runner, line: str, message: str
) -> None:
    done = runner.run(in_corpus(SESSION), "--implementation", runner.described(RIGHT + line))
    assert done.status == 2
    assert message in done.text


# --- invariants -----------------------------------------------------------------------------------

BEHIND_D = 'for word; do [ "$before" = -d ] && dir=$word; before=$word; done;'


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (f"{REFERENCE}; echo 250 more", "@eof"),
        (f"{REFERENCE}; sleep 60", "@eof"),
    ],
    ids=["additional output", "no exit"],
)
def test_unexpected_behaviour_fails_transcript(runner: Runner, command: str, message: str) -> None:
    done = runner.run(
        *(in_corpus(MUST), "--modes", "stdio", "--time-scale", "0.2"),
        *("--implementation", runner.bent(command)),
    )
    assert done.status == 1
    assert message in done.text


TEMP_DIRECTORY = next(rule for rule in RULES if rule.name == "temp-directory")

#: Commands that violate an invariant, with its name, its clause and the expected message.
BREAKS = {
    "fd 2": (
        f"echo oops >&2; exec {REFERENCE}",
        *("standard-error", "cli.stderr-silent", "nothing on file descriptor 2"),
    ),
    "file left": (
        f'{BEHIND_D} : >"$dir/left"; exec {REFERENCE}',
        *("temp-directory", "files.gone", "an empty temporary directory"),
    ),
    "descendant left": (
        f"sleep 60 </dev/null >/dev/null 2>&1 & exec {REFERENCE}",
        *("processes", "cli.exit", "no descendants that outlive"),
    ),
    "killed": (
        f"{REFERENCE}; kill -9 $$",
        *("death", "cli.exit", "an exit without a signal (the suite sent no signal)"),
    ),
}


@pytest.mark.parametrize(
    ("command", "rule", "clause", "message"), BREAKS.values(), ids=BREAKS.keys()
)
def test_violated_invariant_fails_only_its_requirement(
    runner: Runner, command: str, rule: str, clause: str, message: str
) -> None:
    done = runner.run(
        *(in_corpus(MUST), "--modes", "stdio", "--time-scale", "0.2"),
        *("--implementation", runner.bent(command)),
    )
    missed = done.unasked.pop(f"invariant/{rule}::stdio")
    assert (missed["outcome"], missed["level"], missed["clauses"]) == ("failed", "should", [clause])
    assert str(missed["message"]).startswith(
        "in 1 of 1 runs; first failure: relay/one-message.smtp"
    )
    assert {one["outcome"] for one in done.unasked.values()} <= {"passed", "failed"}
    assert (done.status, done.outcomes) == (1, ["passed"])
    assert message in done.text


def test_broken_invariant_produces_one_result(runner: Runner) -> None:
    bent = runner.bent(f"echo oops >&2; exec {REFERENCE}", capabilities=[*ESMTP, "filter"])
    done = runner.run(
        *(in_corpus("recorded"), "-n", "2", "--modes", "stdio", "-k", "relay.eof"),
        *("--implementation", bent),
    )
    runs = len(done.outcomes)
    assert set(done.outcomes) == {"passed"}
    message = str(done.unasked["invariant/standard-error::stdio"]["message"])
    assert message.startswith(f"in {runs} of {runs} runs; first failure: ")


def test_wrong_exit_status_after_sigterm_violates_only_stop_invariant(runner: Runner) -> None:
    done = runner.run(
        *(in_corpus(MUST), "--modes", "listen", "--time-scale", "0.2"),
        *("--implementation", runner.bent(f"trap '' TERM; {REFERENCE}; exit 3")),
    )
    assert done.outcomes == ["passed"]
    assert [name for name, one in done.unasked.items() if one["outcome"] == "failed"] == [
        "invariant/stop::listen"
    ]


@pytest.mark.parametrize("requirement", TEMP_DIRECTORY.requires)
def test_transcript_citing_violated_invariant_fails(runner: Runner, requirement: str) -> None:
    path = runner.transcript("@include include/greeting.smtp-part\nC> @eof\nU< QUIT\n")
    path.write_text(path.read_text().replace(f'"{MUST_ID}"', f'"{MUST_ID}", "{requirement}"'))
    bent = runner.bent(f'{BEHIND_D} : >"$dir/left"; exec {REFERENCE}')
    done = runner.run(path, "--modes", "stdio", "--implementation", bent)
    assert done.outcomes == ["failed"]
    assert done.records[1]["requirement"] == requirement
    assert "invariant/temp-directory::stdio" not in done.unasked


def test_must_level_excludes_invariants(runner: Runner) -> None:
    assert runner.run(in_corpus(MUST), "--level", "must").unasked == {}


def test_known_divergence_applies_to_invariant(runner: Runner) -> None:
    path = runner.bent(f"echo oops >&2; exec {REFERENCE}")
    path.write_text(path.read_text() + DIVERGENCE.format("invariant/standard-error"))
    done = runner.run(in_corpus(MUST), "--modes", "stdio", "--implementation", path)
    assert (done.status, done.outcomes) == (0, ["passed"])
    assert done.unasked["invariant/standard-error::stdio"]["outcome"] == "diverged"


def test_unexpected_output_fails_transcript(runner: Runner) -> None:
    done = runner.run(runner.transcript("U> 220 a\\r\\n220 b\nC< 220 a\n"), "--modes", "stdio")
    assert done.status == 1


def test_unexpected_connection_fails_transcript(runner: Runner) -> None:
    bent = runner.bent(
        f'for port; do :; done; {sys.executable} -c "import socket; '
        f"socket.create_connection(('127.0.0.1', ${{port#*:}}))\" & wait; exec {REFERENCE}"
    )
    done = runner.run(
        *(in_corpus(SESSION), "--modes", "stdio", "--time-scale", "0.2"),
        *("--implementation", bent),
    )
    assert done.status == 1


#: A session that waits longer than @quiet, sends RSET upstream, and requires a reply to it.
LATE_RSET = """\
import socket, sys, time
upstream = socket.create_connection(("127.0.0.1", int(sys.argv[-1].rpartition(":")[2])))
upstream.recv(99)
time.sleep(0.5)
if {replies_first}:
    print("550 no", end="\\r\\n", flush=True)
    time.sleep(0.2)
upstream.sendall(b"RSET\\r\\n")
upstream.recv(99)
if not {replies_first}:
    print("550 no", end="\\r\\n", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("replies_first", [False, True])
def test_command_after_quiet_step_is_still_answered(runner: Runner, replies_first: bool) -> None:
    program = runner.described("").with_name("late.py")
    program.write_text(LATE_RSET.format(replies_first=replies_first))
    steps = "U> 220 a\n@include include/filter-refused.smtp-part\nC< 550 no\n"
    done = runner.run(
        *(runner.transcript(steps), "--modes", "stdio", "--time-scale", "0.2"),
        *("--implementation", runner.bent(f'exec {sys.executable} {program} "$@"')),
    )
    assert done.outcomes == ["passed"], done.text


def test_background_server_is_found_and_stopped(runner: Runner) -> None:
    bent = runner.bent(f"exec {REFERENCE}", capabilities=[*ESMTP, "listen"])
    done = runner.run(in_corpus(SESSION), "--modes", "listen", "--implementation", bent)
    assert (done.status, done.outcomes) == (0, ["passed"])


def test_missing_capability_skips_transcript_with_reason(runner: Runner) -> None:
    bent = runner.bent(f"exec {REFERENCE}", capabilities=ESMTP)
    done = runner.run(in_corpus(SESSION), "--implementation", bent)
    assert (done.status, done.outcomes) == (0, ["passed", "skipped"])
    assert "bent lacks 'listen'" in done.text


@pytest.mark.parametrize(
    "header",
    [
        'filter = "exit 0"\n',
        'argv = ["-c", "exec {filter}", "{upstream}"]\n',
        'argv = ["-c", "exec {filter}", "{upstream}"]\nfilter = "exit 0"\n',
    ],
)
def test_missing_filter_capability_skips_transcript(runner: Runner, header: str) -> None:
    bent = runner.bent(f"exec {REFERENCE}", capabilities=SERVER)
    path = runner.transcript("U> 220 x\nC< 220 x\n", header)
    done = runner.run(path, in_corpus(SESSION), "--implementation", bent)
    assert (done.status, done.outcomes) == (0, ["skipped"] * 2 + ["passed"] * 2)
    assert "bent lacks 'filter'" in done.text


def test_missing_filter_capability_skips_random_sessions(runner: Runner) -> None:
    bent = runner.bent(f"exec {REFERENCE}", capabilities=SERVER)
    properties = ROOT / "tests" / "conformance" / "test_properties.py"
    done = runner.run(in_corpus(SESSION), properties, "--implementation", bent)
    assert (done.status, done.outcomes) == (0, ["passed"] * 2 + ["skipped"] * 2)
    assert "bent lacks 'filter'" in done.text


def test_transcripts_with_long_timeouts_are_skipped_without_clock_variable(runner: Runner) -> None:
    bent = runner.described(RIGHT.replace('clock_env = "POSTPROX_CLOCK_SPEED"\n', ""))
    path = runner.transcript("U> 220 x\nC< 220 x\n", "clock = 100\ntakes = 300\n")
    done = runner.run(path, "--modes", "stdio", "--implementation", bent)
    assert (done.status, done.outcomes) == (0, ["skipped"])
    assert "use --slow to run it in real time" in done.text


def test_short_timeouts_are_tested_without_clock_variable(runner: Runner) -> None:
    bent = runner.described(RIGHT.replace('clock_env = "POSTPROX_CLOCK_SPEED"\n', ""))
    path = runner.transcript("U> 220 x\nC< 220 x\n", "clock = 100\ntakes = 5\n")
    done = runner.run(path, "--modes", "stdio", "--implementation", bent)
    assert (done.status, done.outcomes) == (0, ["passed"])


# --- failure reports ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def failure(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of a failed step, which expects a different rejection text."""
    runner = Runner(tmp_path_factory.mktemp("failure"))
    path = runner.transcript(
        "@include include/envelope.smtp-part\n@include include/message.smtp-part\n"
        "F< run\n# In other words.\nC< 554 spam\\xff\n",
        'filter = "echo nope >&2; exit 1"\n',
    )
    return runner.run(path, "--modes", "stdio").text


@pytest.mark.parametrize(
    "text",
    [
        ">>> C< 554 spam\\xff",
        "expected: 554 spam\\xff\\r\\n",
        "got:      554 nope\\r\\n",
        "    # In other words.",
        "    @include include/envelope.smtp-part",
        "    C> MAIL FROM:<a@example>\\r\\n",
        "    U< MAIL FROM:<a@example>\\r\\n",
        "    SENDER=a@example",
        "    in EMAIL: Subject: x\\n\\nhello\\n",
        "process: ",
        "syslog: ",
        "run it again: python -m pytest ",
        "own.smtp::stdio",
    ],
)
def test_failure_report_contains_diagnostic_details(failure: str, text: str) -> None:
    assert text in failure


def test_failure_report_contains_expected_listening_address(runner: Runner) -> None:
    header = 'argv = ["-l", "{listen}", "{upstream}"]\n'
    done = runner.run(runner.transcript("P< listens \\{upstream}\n", header), "--modes", "listen")
    assert re.search(r"expected: listening on 127\.0\.0\.1:\d+\n", done.text)


def test_failed_step_in_repeated_part_is_marked(runner: Runner) -> None:
    path = runner.transcript(
        "@include include/greeting.smtp-part\n@include include/mail.smtp-part\n"
        "C> @eof\nU< QUIT\n@include include/mail.smtp-part\n"
    )
    text = runner.run(path, "--modes", "stdio").text
    where = path.read_text().splitlines().index("U< QUIT") + 2
    assert f"own.smtp:{where} [stdio]" in text
    assert [line for line in text.splitlines() if line.startswith(">>>")] == [
        ">>>   | U< MAIL FROM:<a@example>"
    ]


def test_failure_report_omits_suite_internals(failure: str) -> None:
    assert "Traceback" not in failure
    assert ".py:" not in failure


# --- the violated requirement ---------------------------------------------------------------------

#: A session that checks the exit status.
EXIT = "@include include/greeting.smtp-part\nC> @eof\nU< QUIT\nP< exit 0\n"


def after_wrong_status(runner: Runner, *arguments: str, cites: str) -> dict[str, object]:
    """Return the result of a session that is correct apart from its exit status."""
    path = runner.transcript(EXIT)
    path.write_text(path.read_text().replace(f'"{MUST_ID}"', f'"{MUST_ID}"{cites}'))
    bent = runner.bent(f"{REFERENCE}; exit 9")
    done = runner.run(path, "--modes", "stdio", "--implementation", bent, *arguments)
    return done.records[1]


def test_wrong_exit_status_violates_cited_exit_requirement(
    runner: Runner,
) -> None:
    result = after_wrong_status(runner, cites=', "cli.exit-2"')
    assert result["requirement"] == "cli.exit-2"
    assert (result["level"], result["harm"]) == ("should", "misreported")
    assert result["clauses"] == ["cli.exit"]
    assert result["requirements"] == [MUST_ID, "cli.exit-2"]
    assert str(result["text"]).startswith(str(result["sentence"]))


def test_wrong_exit_status_counts_against_first_cited_requirement_by_default(
    runner: Runner,
) -> None:
    result = after_wrong_status(runner, cites="")
    assert (result["requirement"], result["level"]) == (MUST_ID, "must")


def test_failure_of_unselected_requirement_is_reported_as_skipped(runner: Runner) -> None:
    result = after_wrong_status(runner, "--source", "manual", cites=', "cli.exit-2"')
    assert result["outcome"] == "skipped"
    assert str(result["message"]).startswith("cli.exit-2 was not selected: ")


def test_source_option_selects_transcripts_and_changes_verdict(runner: Runner) -> None:
    path = runner.transcript("U> 220 x\nC< 220 x\n")
    done = runner.run(path, "--modes", "stdio", "--source", "manual")
    assert done.records[0]["source"] == "manual"
    assert "only requirements from source manual" in done.text
    assert runner.run(path, "--modes", "stdio", "--source", "CVE").status == 2


def test_property_failure_cites_requirement_of_violated_rule(runner: Runner) -> None:
    properties = ROOT / "tests" / "conformance" / "test_properties.py"
    bent = runner.bent(f"{REFERENCE}; exit 9", capabilities=[*ESMTP, "filter"])
    done = runner.run(in_corpus(SESSION), properties, "--implementation", bent, "--modes", "stdio")
    (failed,) = (one for one in done.records if one.get("transcript") == "properties/sessions")
    assert (failed["outcome"], failed["requirement"]) == ("failed", "files.gone-1")


@pytest.mark.parametrize(
    ("part", "name"), [("1/2", "cli/help.smtp"), ("2/2", "cli/license-long.smtp")]
)
def test_shard_runs_only_its_share_of_transcripts(runner: Runner, part: str, name: str) -> None:
    done = runner.run(
        in_corpus("cli/help.smtp"), in_corpus("cli/license-long.smtp"), "--shard", part
    )
    assert done.names == [f"{name}::command"]


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "x/y"])
def test_invalid_shard_results_in_status_2(runner: Runner, part: str) -> None:
    done = runner.run(in_corpus("cli/help.smtp"), "--shard", part)
    assert f"--shard must be I/N with I from 1 to N, not '{part}'" in done.text
    assert done.status == 2


def test_result_header_contains_machine_and_versions(right: Done) -> None:
    head = right.records[0]
    suite, machine = head["suite"], head["machine"]
    assert isinstance(suite, dict)
    assert isinstance(machine, dict)
    assert (suite["specification"], suite["format"]) == (specification().version, 2)
    assert {"version", "transcripts"} <= suite.keys()
    assert machine.keys() == {"system", "architecture", "processors"}
    assert (head["root"], head["time_scale"]) == (os.geteuid() == 0, 1.0)


# --- capabilities ---------------------------------------------------------------------------------


def test_program_without_stdio_support_is_not_run_in_stdio_mode(runner: Runner) -> None:
    bent = runner.bent(
        f'case "$*" in *-l*) exec {REFERENCE};; esac; exit 9', ["listen", "foreground"]
    )
    done = runner.run(in_corpus(SESSION), "--implementation", bent)
    assert (done.status, done.outcomes) == (0, ["skipped", "passed"])
    assert "bent lacks 'stdio'" in done.text


def test_printed_rerun_command_works_without_stdio_support(runner: Runner) -> None:
    bent = runner.bent("exit 9", ["listen", "foreground"])
    done = runner.run(in_corpus(SESSION), "--implementation", bent)
    found = re.search(r"run it again: (.*)$", done.text, re.M)
    assert found
    words = [sys.executable, *shlex.split(found[1])[1:]]
    again = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "verdict: not conformant: 1 of 1 failed at level MUST" in again.stdout


@pytest.mark.parametrize(
    ("line", "name"),
    [('bare-lf = "refuse"', "bare-lf"), ("line-max = 1000", "line-max")],
)
def test_transcript_skipped_for_declared_limit_shows_reason(
    runner: Runner, line: str, name: str
) -> None:
    transcript = {"bare-lf": "data/faithful-bare-lf.smtp", "line-max": "relay/long-mail.smtp"}[name]
    described = runner.described(f"{line}\n{RIGHT}")
    done = runner.run(in_corpus(transcript), "--implementation", described)
    assert (done.status, set(done.outcomes)) == (0, {"skipped"})
    assert f"bent declares {line.replace(chr(34), '')}" in done.text


@pytest.mark.parametrize(
    ("capabilities", "message"),
    [
        (ESMTP, ""),
        (
            [one for one in ESMTP if one != "size"],
            "bent: capability 'size' is missing, but the reply to EHLO offers SIZE",
        ),
    ],
)
def test_ehlo_reply_contradicting_capabilities_results_in_status_2(
    runner: Runner, capabilities: list[str], message: str
) -> None:
    bent = runner.bent(f"exec {REFERENCE}", capabilities)
    done = runner.run(in_corpus(SESSION), "--smoke", "--modes", "stdio", "--implementation", bent)
    assert message in done.text
    assert done.status == (2 if message else 0)


# --- profiles -------------------------------------------------------------------------------------

#: A transcript that belongs to the relay profile. SESSION does not belong to it.
RELAYED = "data/end-of-data-in-pieces.smtp"
#: A transcript of the transparent profile that checks the exit status.
CLOSED = "relay/eof-client-unfinished.smtp"


def test_transcript_outside_profile_is_not_run(runner: Runner) -> None:
    done = runner.run(in_corpus(SESSION), in_corpus(RELAYED), "--profile", "relay")
    assert {name.partition("::")[0] for name in done.names} == {RELAYED}
    assert done.records[0]["profile"] == "relay"


def test_invariant_outside_profile_produces_no_result(runner: Runner) -> None:
    assert runner.run(in_corpus(RELAYED), "--profile", "relay").unasked == {}


def test_property_outside_profile_is_not_run(runner: Runner) -> None:
    properties = ROOT / "tests" / "conformance" / "test_properties.py"
    done = runner.run(properties, in_corpus(RELAYED), "--profile", "filter")
    assert {name.partition("::")[0] for name in done.names} == {RELAYED}


def test_profile_option_overrides_implementation_file(runner: Runner) -> None:
    described = runner.described(RIGHT + 'profile = "relay"\n')
    for options, profile in (((), "relay"), (("--profile", "transparent"), "transparent")):
        done = runner.run(in_corpus(RELAYED), "--implementation", described, *options)
        assert f" (profile {profile})\n" in done.text


def test_profile_without_selected_transcript_results_in_status_2(runner: Runner) -> None:
    done = runner.run(in_corpus(SESSION), "--profile", "relay")
    assert "nothing was run; no transcript matches profile relay" in done.text
    assert done.status == 2


def test_unknown_profile_results_in_status_2(runner: Runner) -> None:
    done = runner.run(in_corpus(SESSION), "--profile", "rely")
    assert "--profile must be one of relay, " in done.text
    assert done.status == 2


def test_exit_status_is_tested_only_in_postprox_profile(runner: Runner) -> None:
    bent = runner.bent(f"{REFERENCE}; exit 9", capabilities=[*ESMTP, "filter"])
    arguments = (in_corpus(CLOSED), "--modes", "stdio", "--implementation", bent)
    assert runner.run(*arguments).outcomes == ["failed"]
    assert runner.run(*arguments, "--profile", "transparent").outcomes == ["passed"]


def test_printed_rerun_command_includes_profile(runner: Runner) -> None:
    bent = runner.bent("echo 500 no")
    done = runner.run(in_corpus(RELAYED), "--implementation", bent, "--profile", "relay")
    assert re.search(r"run it again: .* --profile relay$", done.text, re.M)


def test_junit_report_contains_profile_name(runner: Runner, tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    runner.run(in_corpus(RELAYED), "--profile", "relay", "--junitxml", junit)
    (found,) = ET.parse(junit).iter("property")  # noqa: S314  (written by the suite)
    assert (found.get("name"), found.get("value")) == ("profile", "relay")


SCHEMA = json.loads((PACKAGE / "results.schema.json").read_text())["$defs"]


def test_result_file_keys_match_schema(right: Done) -> None:
    for record in right.records:
        known = SCHEMA[record["type"]]
        assert set(record) == set(known["properties"]) == set(known["required"])
