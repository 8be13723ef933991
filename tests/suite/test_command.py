"""The command `postprox-conformance`: its verdict, exit status and messages.

The tested implementations are wrappers of the reference, with a shell command before or after it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conformance.__main__ import main
from tests.conformance.format.requirements import specification
from tests.conformance.paths import ROOT
from tests.conformance.play.procfs import is_alive
from tests.conformance.run.progress import Progress

pytestmark = pytest.mark.any_account

MUST = "relay/one-message.smtp::stdio"
SHOULD = "cli/exit-client-eof.smtp::stdio"


@dataclass
class Done:
    status: int
    text: str


def command(*arguments: object, **variables: str) -> Done:
    """Run the command outside the checkout, as users of the suite do."""
    done = subprocess.run(
        [sys.executable, "-bb", "-m", "tests.conformance", *map(str, arguments)],
        cwd="/",
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(ROOT), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return Done(done.returncode, done.stdout)


def program(path: Path, before: str = "", after: str = "") -> Path:
    """Write a script that runs this checkout's proxy between two lines of sh."""
    proxy = f'PYTHONPATH={ROOT} {sys.executable} -m postprox "$@"'
    path.write_text(f"#!/bin/sh\n{before}\n{proxy}\n{after}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bent(tmp_path: Path) -> Path:
    """A proxy with a wrong exit status, which violates only requirements of level should."""
    return program(tmp_path / "bent", after="exit 9")


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A proxy that prints a line before its greeting, and therefore fails every transcript."""
    return program(tmp_path / "broken", before="echo oops; echo oops >&2")


def test_conformant_implementation_results_in_status_0() -> None:
    done = command("run", "reference", MUST, SHOULD, "--strict")
    verdict = "conformant: all 1 passed at level MUST, all 6 passed at level SHOULD"
    assert f"verdict: {verdict}" in done.text
    assert done.status == 0


def test_failure_at_level_should_counts_only_with_strict_option(bent: Path) -> None:
    for strict, status in (((), 0), (("--strict",), 1)):
        done = command("run", bent, SHOULD, *strict)
        assert "verdict: not tested at level MUST: 1 of " in done.text
        assert "    cli/exit-client-eof.smtp [stdio]" in done.text
        assert done.status == status


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PYTEST_ADDOPTS", "-k nothing"),
        ("PYTEST_PLUGINS", "no_such_plugin"),
        ("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1"),
    ],
)
def test_pytest_environment_variables_are_ignored(name: str, value: str) -> None:
    done = command("run", "reference", MUST, SHOULD, "-j2", **{name: value})
    assert "only a selection was tested: 2 of " in done.text
    assert done.status == 0


def test_implementation_is_the_only_required_argument() -> None:
    done = command("run")
    assert done.text.endswith("the following arguments are required: IMPLEMENTATION\n")
    assert done.status == 2


def test_failed_must_requirement_results_in_status_1(broken: Path) -> None:
    done = command("run", broken, MUST)
    assert "verdict: not conformant: 1 of 1 failed at level MUST" in done.text
    assert done.status == 1


def test_known_divergence_from_must_requirement_results_in_status_0(broken: Path) -> None:
    path = broken.with_suffix(".toml")
    path.write_text(
        f'name = "broken"\nargv = ["{broken}"]\ncapabilities = ["stdio"]\n[[divergence]]\n'
        f'transcripts = ["{MUST.partition("::")[0]}"]\nkind = "bug"\nreason = "known"\n'
    )
    done = command("run", path, MUST)
    assert "verdict: not conformant" in done.text
    assert done.status == 0


def test_silent_program_is_not_reported_as_missing(tmp_path: Path) -> None:
    silent = program(tmp_path / "silent", before='test "${1#--}" = "$1" || exit; exec sleep 60')
    done = command("run", silent, MUST, "--time-scale", "0.05")
    assert f"conformance: {silent} was started, but within 0.5 s it neither connected" in done.text
    assert "cannot start" not in done.text
    assert done.status == 2


@pytest.mark.parametrize("name", [MUST, SHOULD])
def test_known_divergence_that_passes_results_in_status_1(tmp_path: Path, name: str) -> None:
    path = tmp_path / "right.toml"
    path.write_text(
        f'name = "right"\nargv = ["{program(tmp_path / "right")}"]\n'
        'capabilities = ["stdio", "quit-on-eof"]\n[[divergence]]\n'
        f'transcripts = ["{name.partition("::")[0]}"]\nkind = "bug"\nreason = "known"\n'
    )
    done = command("run", path, name)
    assert f"remove the entries for: {name.partition('::')[0]}" in done.text
    assert "missed" not in done.text
    assert done.status == 1


def test_repeated_cause_is_reported_only_once(bent: Path) -> None:
    done = command("run", bent, "cli/exit-after-message.smtp", SHOULD)
    assert done.text.count("expected: exit 0") == 1
    assert "1 more with the same cause: " in done.text


def test_failing_smoke_test_ends_run_with_one_report(broken: Path) -> None:
    done = command(
        "run", broken, "--modes", "stdio,command", "-k", "one-message or cli/help", "-j1"
    )
    assert "a session with one message failed; nothing else is run in stdio, command" in done.text
    assert "level MUST: relay/one-message.smtp failed; no other transcript was run" in done.text
    assert done.text.count("expected: ") == 1
    assert done.status == 1


def test_repeated_failure_of_should_requirement_is_reported_once(tmp_path: Path) -> None:
    noisy = program(tmp_path / "noisy", before="echo oops >&2")
    done = command("run", noisy, "--modes", "stdio", "-k", "one-message or greeting-ehlo", "-j1")
    assert "verdict: conformant, not strict" in done.text
    assert "(cli.stderr-silent-1)\n    invariant/standard-error [stdio]" in done.text
    assert done.text.count("expected: ") == 1
    assert done.status == 0


def test_failing_smoke_test_skips_selected_group(broken: Path) -> None:
    done = command("run", broken, "files", "--modes", "stdio")
    assert "verdict: not conformant: 1 of 1 failed at level MUST" in done.text
    assert "at level MUST: relay/one-message.smtp failed; no other transcript" in done.text
    assert done.text.count("expected: ") == 1
    assert done.status == 1


@pytest.mark.parametrize("name", ["relay/one-mesage.smtp", "relay/one-mesage", "/no/such.smtp"])
def test_misspelt_transcript_results_in_status_2(name: str) -> None:
    done = command("run", "reference", name)
    assert f"unknown transcript, group or requirement {name}" in done.text
    assert done.status == 2


def test_misspelt_name_is_reported_with_suggestion(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["show", "relay/one-mesage"]) == 2
    assert "did you mean 'relay/one-message.smtp'?" in capsys.readouterr().err


def own_transcript(path: Path, *, title: str = "t") -> Path:
    """Write a transcript that does not belong to the suite."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'+++\ntitle = "{title}"\nrequires = ["relay.replies-1"]\n+++\nU> 220 here\nC< 220 here\n'
    )
    return path


def test_local_transcript_runs_from_any_directory(tmp_path: Path) -> None:
    path = own_transcript(tmp_path / "own.smtp")
    assert command("run", "reference", path).status == 0


def test_only_specified_local_transcripts_are_collected(tmp_path: Path) -> None:
    for name in ("a", "b"):
        own_transcript(tmp_path / "own" / f"{name}.smtp", title=name)
    for name in ("__init__", "conftest", "test_it"):
        (tmp_path / "own" / f"{name}.py").write_text("raise SystemExit('foreign code was run')\n")
    done = command("run", "reference", tmp_path / "own", "--modes", "stdio")
    assert "verdict: conformant: all 2 passed at level MUST" in done.text
    assert done.status == 0


def test_unknown_requirement_results_in_status_2(tmp_path: Path) -> None:
    path = own_transcript(tmp_path / "own.smtp")
    path.write_text(path.read_text().replace("relay.replies-1", "relay.repleis-1"))
    done = command("run", "reference", path)
    assert (
        "own.smtp:3: unknown requirement 'relay.repleis-1' (did you mean 'relay.replies-1'?)"
    ) in done.text
    assert done.status == 2


def test_transcripts_with_equal_names_are_rejected(tmp_path: Path) -> None:
    paths = [own_transcript(tmp_path / place / "own.smtp") for place in ("a", "b")]
    done = command("run", "reference", *paths)
    assert done.text == (
        f"conformance: {paths[0]} and {paths[1]} have the same name; run them separately\n"
    )
    assert done.status == 2


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A local transcript in the subdirectory `log`. A group is also named `log`."""
    monkeypatch.chdir(tmp_path)
    return own_transcript(tmp_path / "log" / "own.smtp")


def test_group_name_takes_precedence_over_local_path(
    beside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", "log"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert listed
    assert [line for line in listed if line.startswith(beside.name)] == []


@pytest.mark.parametrize("name", ["./log", "{there}"])
def test_explicit_path_takes_precedence_over_group_name(
    beside: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(["list", name.format(there=beside.parent)]) == 0
    assert capsys.readouterr().out.startswith("own.smtp\t")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/etc/passwd", "/etc/passwd is not a transcript; the name must end with .smtp"),
        ("include", "no transcript in include"),
        (
            "relay::stdio",
            (
                "relay::stdio: a mode can be appended only to the name of a single transcript; "
                "use --modes stdio"
            ),
        ),
    ],
)
def test_name_matching_no_transcript_results_in_status_2(
    capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    assert main(["run", "reference", name]) == 2
    assert message in capsys.readouterr().err


def test_results_and_reports_are_written(tmp_path: Path) -> None:
    names = {option: tmp_path / f"r.{option}" for option in ("html", "markdown", "junit")}
    badge = tmp_path / "badge.json"
    options = [word for option, path in names.items() for word in (f"--{option}", path)]
    assert command("run", "reference", MUST, *options, "--badge", badge).status == 0
    assert [path.stat().st_size > 0 for path in names.values()] == [True] * 3
    assert json.loads(badge.read_text())["message"] == "conformant (in part)"


@pytest.mark.parametrize("option", ["html", "markdown", "badge", "junit", "results"])
def test_unwritable_output_is_reported_before_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, option: str
) -> None:
    path = tmp_path / "no" / "such.svg"
    assert main(["run", "reference", f"--{option}", str(path)]) == 2
    said = capsys.readouterr()
    assert said.err == f"conformance: {path}: missing directory {path.parent}\n"
    assert said.out == ""
    assert not path.parent.exists()


def test_outputs_with_same_path_are_rejected(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = str(tmp_path / "r")
    assert main(["run", "reference", "--junit", path, "--results", path]) == 2
    assert f"--results and --junit must not both be '{path}'" in capsys.readouterr().err


def test_list_command_prints_details_of_each_transcript(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["list", "relay/one-message"]) == 0
    name, level, modes, requirements, title = capsys.readouterr().out.rstrip("\n").split("\t")
    assert (name, level, modes) == ("relay/one-message.smtp", "must", "stdio,listen")
    assert "relay.commands" in requirements
    assert title.startswith("Session with one message")


def test_transcript_names_after_options_are_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--level", "must", "relay/one-message"]) == 0
    assert capsys.readouterr().out.startswith("relay/one-message.smtp\t")


def test_unknown_option_results_in_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["list", "--lvel", "must"])
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert "unrecognized arguments: --lvel (did you mean '--level'?)" in told
    assert told.startswith("usage: postprox-conformance list ")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("-j", "0", "must be at least 1, not '0'"),
        ("-j", "-3", "must be at least 1, not '-3'"),
        ("-j", "two", "must be at least 1, not 'two'"),
        ("-k", "and and", "'and and' must consist of words combined with"),
        ("-k", "relay or (eof", "'relay or (eof' must consist of words"),
        ("-k", "relay eof", "'relay eof' must consist of words"),
        ("-k", "relay(eof)", "'relay(eof)' must consist of words"),
        ("-k", "relay=eof", "'relay=eof' must consist of words"),
    ],
)
def test_invalid_option_value_results_in_status_2(
    capsys: pytest.CaptureFixture[str], option: str, value: str, message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["run", "reference", option, value])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_error_about_empty_selection_mentions_selection_options() -> None:
    done = command("run", "reference", MUST, "-k", "no_such and not (it or that)", "--level=must")
    assert (
        "conformance: nothing was run; no transcript matches "
        "-k 'no_such and not (it or that)' and --level must"
    ) in done.text
    assert done.status == 2


def test_list_of_one_group_omits_other_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "listen", "--level", "must"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all(line.startswith("listen/") and "\tmust\t" in line for line in lines)


def test_show_command_expands_included_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "relay/one-message"]) == 0
    assert "  |   | C> MAIL FROM:<a@example>\n" in capsys.readouterr().out


def test_comparison_of_equal_implementations_passes() -> None:
    few = {"HYPOTHESIS_PROFILE": "few"}
    done = command("compare", "reference", "reference", "-k", "deliveries", **few)
    assert "1 passed" in done.text
    assert done.status == 0


@pytest.mark.parametrize("pair", [("reference", "/no/such"), ("/no/such", "reference")])
def test_comparison_with_missing_program_is_refused(pair: tuple[str, str]) -> None:
    done = command("compare", *pair)
    assert "conformance: cannot start /no/such: the program is missing" in done.text
    assert done.status == 2


def test_misspelt_property_is_reported_with_suggestion(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["compare", "reference", "reference", "-k", "delivries"])
    assert caught.value.code == 2
    assert "did you mean 'deliveries'?" in capsys.readouterr().err


# --- incomplete runs ------------------------------------------------------------------------------


def outputs(directory: Path) -> dict[str, Path]:
    """Return the output files of a run by option."""
    names = {"results": "jsonl", "html": "html", "junit": "xml"}
    return {f"--{option}": directory / f"out.{ending}" for option, ending in names.items()}


#: A program that sends an incomplete greeting. It records the process ID of each session.
SILENT = """\
case $1 in --*) exit;; esac
echo $$ >>{}
printf '220 '
exec sleep 99
"""


def test_reports_mention_missing_program(tmp_path: Path) -> None:
    files = outputs(tmp_path)
    words = [word for option in files.items() for word in option]
    done = command("run", "/no/such/program", MUST, *words)
    assert done.status == 2
    reason = "cannot start /no/such/program: the program is missing"
    assert all(reason in path.read_text() for path in files.values())


@pytest.mark.parametrize(
    ("names", "jobs", "starts"),
    [((MUST,), 1, 2), ((MUST, SHOULD, "relay/greeting-ehlo-quit.smtp::stdio"), 2, 3)],
    ids=["single process", "parallel workers"],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_run_writes_reports_and_leaves_no_processes(
    tmp_path: Path, names: tuple[str, ...], jobs: int, starts: int, number: signal.Signals
) -> None:
    pids = tmp_path / "pids"
    silent = program(tmp_path / "silent", before=SILENT.format(pids))
    files = outputs(tmp_path)
    words = [str(word) for option in files.items() for word in option]
    run = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.conformance", "run", str(silent), *names),
            *("-j", str(jobs), "--time-scale", "5", *words),
        ],
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while run.poll() is None and len(pids.read_text().split() if pids.exists() else ()) < starts:
        time.sleep(0.01)
    run.send_signal(number)
    assert run.wait(60) == 2
    assert "stopped by a signal" in files["--results"].read_text()
    assert "stopped by a signal" in files["--html"].read_text()
    assert files["--junit"].exists()
    assert [pid for pid in pids.read_text().split() if is_alive(int(pid))] == []


def test_exitfirst_option_ends_run_at_first_failure(broken: Path, tmp_path: Path) -> None:
    results = tmp_path / "out.jsonl"
    done = command("run", broken, MUST, SHOULD, "--exitfirst", "-j1", "--results", results)
    assert "  not complete: stopped at the first failure" in done.text
    assert done.status == 1
    assert results.read_text().count('"type": "result"') == 1


def test_transcripts_that_failed_in_earlier_run_can_be_selected(bent: Path, tmp_path: Path) -> None:
    results, name = tmp_path / "out.jsonl", "cli/help.smtp::command"
    assert "only a selection" in command("run", bent, MUST, SHOULD, "--results", results).text
    again = command("run", bent, "--failed", results, "--name", "again")
    assert "conformance of again" in again.text
    assert f"{SHOULD.partition('::')[0]} [stdio]" in again.text
    assert "selection was tested: 1 of" in again.text
    assert command("run", "reference", name, "--results", results).status == 0
    nothing = command("run", bent, "--failed", results)
    assert (nothing.status, nothing.text) == (2, f"conformance: {results}: no transcript failed\n")


def test_progress_line_shows_counts() -> None:
    written = threading.Event()
    lines: list[str] = []

    def write(line: str) -> None:
        lines.append(line)
        written.set()

    progress = Progress(write, first=0.001, interval=60)
    progress.total = 7
    progress.add("passed")
    progress.add("failed")
    progress.start()
    assert written.wait(30)
    progress.stop()
    assert lines == ["2 of 7 results, 1 failed, 0 s"]


def test_progress_line_mentions_loading_before_first_result() -> None:
    assert Progress(print).line() == "loading the transcripts, 0 s"


@pytest.mark.parametrize(
    ("fixture", "name", "way", "broken"),
    [
        (
            "data.accept_lf_dot_lf",
            "data/not-the-end-lf-dot-lf.smtp",
            "exposes mail in 1 way",
            "data.end-3",
        ),
        (
            "relay.relay_starttls",
            "relay/refused-starttls.smtp",
            "passes mail unfiltered in 1 way",
            "relay.refused-1",
        ),
        (
            "relay.drop_commands_after_message",
            "relay/order-end-and-next-envelope.smtp",
            "loses mail in 1 way",
            "relay.order-4",
        ),
    ],
)
def test_failure_report_shows_harm_and_violated_requirement(
    fixture: str, name: str, way: str, broken: str
) -> None:
    implementation = f"env PYTHONPATH={ROOT} {sys.executable} -S -m tests.fixtures {fixture}"
    place = f"{name}::stdio"
    done = command("run", implementation, place, "--name", "it")
    sentence = specification().requirements[broken].sentence
    _, heading, last = done.text.partition(" conformance of it (postprox 1.0.0) ")
    assert heading
    assert last.lstrip("=\n").startswith(
        f"{way}:\n  {sentence} ({broken})\n    {name} [stdio]\n    expected "
    )
    assert f"\n{sentence} ({broken}, harm: " in done.text
    again = f"run it again: python -m tests.conformance run '{implementation}' {place}\n"
    assert again in done.text
    assert done.status == 1


def test_progress_is_shown_during_transcript(tmp_path: Path) -> None:
    silent = program(tmp_path / "silent", before=SILENT.format("/dev/null"))
    done = command("run", silent, MUST, "-j1")
    assert re.search(r"^0 of 1 results, 0 failed, \d+ s$", done.text, re.MULTILINE)
