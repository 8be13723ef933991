"""The control run: the reference is tested behind the same adapter as the program."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.conformance.play import implementation as described
from tests.conformance.play.implementation import (
    ImplementationError,
    control_of,
    find_implementation,
)
from tests.conformance.run.control import CONTROL_FAILS, with_control
from tests.conformance.run.results import Result
from tests.suite.adapting import Done, run, write_adapter

pytestmark = pytest.mark.any_account

SESSION = "relay/greeting-ehlo-quit.smtp"
#: A transcript that the octet relay fails.
REFUSED = "relay/refused-xclient.smtp"
#: A relay that changes the reply to QUIT.
BROKEN = """Early())

class Broken(Rewriter):
    def to_client(self, octets):
        return octets.replace(b"221 2", b"421 2")

ADAPTER = Adapter(program, Early(rewriter=Broken)"""


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A run with a correct relay. The program fails one of two transcripts."""
    directory = tmp_path_factory.mktemp("right")
    write_adapter(directory)
    return run(directory, SESSION, REFUSED)


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A run with a broken relay."""
    directory = tmp_path_factory.mktemp("wrong")
    write_adapter(directory, BROKEN)
    return run(directory, SESSION)


def test_control_runs_every_transcript(right: Done) -> None:
    for name in (SESSION, REFUSED):
        assert right.result(name)["control"] == {"outcome": "passed", "message": "", "text": ""}


def test_program_failure_is_counted_if_control_passes(right: Done) -> None:
    assert (right.status, right.result(REFUSED)["outcome"]) == (1, "failed")


def test_result_header_identifies_control(right: Done) -> None:
    assert right.records[0]["control"]["name"] == "postprox"
    assert right.records[0]["control"]["version"] not in ("", "unknown")


def test_result_is_skipped_if_control_fails(wrong: Done) -> None:
    result = wrong.result(SESSION)
    assert (wrong.status, result["outcome"], result["message"]) == (0, "skipped", CONTROL_FAILS)


def test_result_contains_report_of_failed_control_run(wrong: Done) -> None:
    control = wrong.result(SESSION)["control"]
    assert control["outcome"] == "failed"
    assert "421 2" in control["text"]


def test_terminal_output_lists_control_failures(wrong: Done) -> None:
    assert "behind the same adapter fails 1 of " in wrong.text
    assert f"  {SESSION} [listen]" in wrong.text
    assert f"not tested: 1 result, 1 of them at level MUST: {CONTROL_FAILS}" in wrong.text


def test_terminal_output_reports_passing_control(right: Done) -> None:
    assert "behind the same adapter passes all " in right.text


def test_html_report_contains_control_section(wrong: Done) -> None:
    section = wrong.html.partition('<h2 id="control">')[2]
    assert SESSION in section
    assert "421 2" in section


def test_markdown_report_lists_control_failures(wrong: Done) -> None:
    assert f"- {SESSION} (listen): " in wrong.markdown.partition("## Not tested")[2]
    assert "| control | postprox " in wrong.markdown


def test_control_that_fails_smoke_test_ends_run(tmp_path: Path) -> None:
    write_adapter(tmp_path, BROKEN.replace("221 2", "250 2").replace("421 2", "450 2"))
    done = run(tmp_path, SESSION)
    assert done.status == 2
    assert (
        "the control (postprox behind the same adapter) fails relay/one-message.smtp" in done.text
    )


def invariant(outcome: str) -> Result:
    """Return an invariant's result with this outcome."""
    return Result("invariant/stop", "listen", "t", ("listen.stop",), "should", outcome)


def test_syntax_error_in_adapter_ends_run(tmp_path: Path) -> None:
    write_adapter(tmp_path, "Early(")
    done = run(tmp_path, SESSION)
    assert done.status == 2
    assert "SyntaxError" in done.text


def test_invariant_violated_by_control_is_skipped() -> None:
    found = with_control(invariant("failed"), [invariant("failed")])
    assert (found.outcome, found.message, found.requirement) == ("skipped", CONTROL_FAILS, "")


def test_invariant_that_control_run_satisfies_is_tested() -> None:
    assert with_control(invariant("failed"), [invariant("passed")]).outcome == "failed"


# --- the implementation file


@pytest.mark.parametrize("lines", ['adapter = "x.py"\nargv = ["true"]', ""])
def test_implementation_file_requires_either_argv_or_adapter(tmp_path: Path, lines: str) -> None:
    (tmp_path / "x.py").touch()
    (tmp_path / "x.toml").write_text(f'name = "x"\n{lines}\n')
    with pytest.raises(ImplementationError, match="exactly one of 'argv' and 'adapter'"):
        find_implementation(f"{tmp_path}/x.toml")


def test_missing_adapter_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text('name = "x"\nadapter = "x.py"\n')
    with pytest.raises(ImplementationError, match=r"adapter: missing file .*/x\.py"):
        find_implementation(f"{tmp_path}/x.toml")


def test_control_requires_installed_postprox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(described, "INSTALLED", True)
    monkeypatch.setattr(sys, "executable", f"{tmp_path}/python")
    monkeypatch.setenv("PATH", str(tmp_path))
    adapted = find_implementation(str(write_adapter(tmp_path)))
    with pytest.raises(ImplementationError, match="requires the package postprox"):
        control_of(adapted)


def test_installed_suite_uses_postprox_from_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(described, "INSTALLED", True)
    monkeypatch.setattr(sys, "executable", f"{tmp_path}/python")
    (tmp_path / "postprox").touch(mode=0o755)
    adapted = find_implementation(str(write_adapter(tmp_path)))
    assert f'["{tmp_path}/postprox"]' in control_of(adapted).argv
