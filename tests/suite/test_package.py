"""The package `postprox-conformance`, installed into an otherwise empty environment.

The wheel is built from a copy of the checkout, because a build leaves files in its directory.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conformance.format.loader import transcript_paths
from tests.conformance.format.requirements import as_json, specification
from tests.conformance.paths import PACKAGE, ROOT, TRANSCRIPTS
from tests.conformance.run.results import SUITE_VERSION
from tests.suite.adapting import write_adapter

pytestmark = pytest.mark.any_account

TAKEN = (PACKAGE.relative_to(ROOT), TRANSCRIPTS.relative_to(ROOT))
FILES = (Path("docs/specification.md"), Path("LICENSE"))
#: A transcript that remained from an earlier build.
LEFT = Path("build/lib/postprox_conformance/transcripts/filter/left-behind.smtp")
#: The pip of the environment that runs the tests. Installing pip into a new environment is slow.
PIP = (sys.executable, "-m", "pip")
#: The pytest options that load the plugin.
NAMED = ("-p", "postprox_conformance.plugin", "-p", "no:cacheprovider")


def run(*words: object, cwd: object = "/", status: int = 0, **variables: object) -> str:
    """Run a command in another directory and environment. Return its output."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PY")}
    done = subprocess.run(
        list(map(str, words)),
        cwd=str(cwd),
        env=ours | {name: str(value) for name, value in variables.items()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout
    return done.stdout


@dataclass(frozen=True)
class Installed:
    """The package in an environment that contains only Python and the package's dependencies."""

    #: A copy of the package's source files.
    checkout: Path
    environment: Path

    @property
    def wheel(self) -> Path:
        (built,) = (self.checkout / "dist").iterdir()
        return built

    def make(self) -> None:
        for folder in TAKEN:
            traces = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
            shutil.copytree(ROOT / folder, self.checkout / folder, symlinks=True, ignore=traces)
        (self.checkout / "docs").mkdir()
        for file in FILES:
            shutil.copy(ROOT / file, self.checkout / file)
        run(sys.executable, "-m", "venv", "--without-pip", self.environment)
        suite = self.checkout / TAKEN[0]
        (suite / LEFT).parent.mkdir(parents=True)
        (suite / LEFT).touch()
        run(*PIP, "wheel", "-q", "--no-deps", "-w", self.checkout / "dist", suite)
        environment = ("--python", self.environment / "bin" / "python")
        run(*PIP, *environment, "install", "-q", "--no-compile", self.wheel)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The installed package, which the first pytest-xdist worker builds for all workers."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "package"
    shared.mkdir(exist_ok=True)
    package = Installed(shared / "checkout", shared / "environment")
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "made").exists():
            package.make()
            (shared / "made").touch()
    return package


@pytest.fixture
def wheel(installed: Installed) -> Path:
    """The wheel of this checkout."""
    return installed.wheel


@pytest.fixture
def command(installed: Installed) -> Path:
    """The installed command."""
    return installed.environment / "bin" / "postprox-conformance"


@pytest.fixture
def proxy(tmp_path: Path) -> Path:
    """A script that runs this checkout's proxy."""
    path = tmp_path / "proxy"
    path.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -S -m postprox "$@"\n')
    path.chmod(0o755)
    return path


def test_wheel_contains_every_transcript(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    carried = {name.partition("/transcripts/")[2] for name in names if name.endswith(".smtp")}
    assert carried == {path.relative_to(TRANSCRIPTS).as_posix() for path in transcript_paths()}


def test_wheel_contains_json_specification_and_schema(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        made = archive.read("postprox_conformance/specification.json").decode()
        schema = archive.read("postprox_conformance/results.schema.json")
    assert made == as_json(specification())
    assert schema == (PACKAGE / "results.schema.json").read_bytes()


def test_files_from_earlier_build_are_excluded(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert [name for name in archive.namelist() if name.endswith(LEFT.name)] == []


def test_source_distribution_is_rejected_with_explanation(
    installed: Installed, tmp_path: Path
) -> None:
    run(*PIP, "install", "-q", "--no-compile", "--target", tmp_path, "setuptools>=77")
    places = f"{tmp_path}:{installed.checkout / TAKEN[0] / 'packing'}"
    asked = "import backend; backend.build_sdist('.')"
    text = run(sys.executable, "-c", asked, status=1, PYTHONPATH=places)
    assert "cannot have a source distribution" in text
    assert "python -m build --wheel" in text


def test_wheel_excludes_checkout_files(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert [name for name in names if "reference" in name or "wrong" in name] == []


def test_installed_suite_runs_without_proxy(command: Path, proxy: Path) -> None:
    chosen = (
        "relay/one-message",
        "filter/accept",
        "cli/help",
        "files",
        "-k",
        "not files or private",
    )
    text = run(command, "run", proxy, *chosen)
    assert "verdict: conformant: all " in text
    assert "No module named 'postprox'" in run(
        command.parent / "python", "-c", "import postprox", status=1
    )


def test_installed_suite_uses_installed_postprox_as_control(
    command: Path, proxy: Path, tmp_path: Path
) -> None:
    description = write_adapter(tmp_path)
    proxy.rename(tmp_path / "postprox")
    text = run(
        *(command, "run", description, "relay/greeting-ehlo-quit", "--modes", "listen"),
        PATH=f"{tmp_path}:{os.environ['PATH']}",
    )
    assert "control: postprox 1" in text
    assert "behind the same adapter passes all " in text


def test_installed_suite_runs_property_tests(command: Path, proxy: Path) -> None:
    chosen = ("-k", "one-message or every_session")
    text = run(command, "run", proxy, *chosen, HYPOTHESIS_PROFILE="few")
    assert "properties         2" in text


def test_installed_suite_shows_and_lists_transcripts(command: Path) -> None:
    assert "C> MAIL FROM:<a@example>" in run(command, "show", "relay/one-message")
    assert len(run(command, "list").splitlines()) == len(transcript_paths())
    assert run(command, "--version") == f"postprox-conformance {SUITE_VERSION}\n"


def test_installed_suite_requires_implementation(command: Path) -> None:
    text = run(command.parent / "pytest", *NAMED, "--pyargs", "postprox_conformance", status=2)
    assert "missing --implementation TOML|CMD" in text


def test_installed_help_text_does_not_mention_checkout(command: Path) -> None:
    assert "this checkout" not in run(command, "record", "--help")
    assert "this checkout" not in run(command.parent / "pytest", *NAMED, "--help")


def test_pytest_runs_suite_if_plugin_is_loaded(command: Path, proxy: Path) -> None:
    one = ("--pyargs", "postprox_conformance", "-k", "one-message", "--implementation", proxy)
    text = run(command.parent / "pytest", *NAMED, *one)
    assert "verdict: conformant: all " in text


def test_unrelated_tests_are_unaffected(command: Path, tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text("def test_a(): assert True\n")
    text = run(command.parent / "pytest", "-q", cwd=tmp_path)
    assert "1 passed" in text
    assert "conformance" not in text


def test_unrelated_pytest_option_does_not_conflict(command: Path, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "def pytest_addoption(parser): parser.addoption('--slow', action='store_true')\n"
    )
    (tmp_path / "test_other.py").write_text("def test_a(): assert True\n")
    assert "1 passed" in run(command.parent / "pytest", "-q", "--slow", cwd=tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        ("-m", "pytest", "-p", "no:cacheprovider", "tests/conformance", "-k", "one-message"),
        ("-m", "tests.conformance", "run", "reference", "relay/one-message"),
    ],
    ids=["pytest", "run"],
)
def test_checkout_takes_precedence_over_installed_package(
    command: Path, words: tuple[str, ...]
) -> None:
    text = run(command.parent / "python", "-B", *words, cwd=ROOT)
    assert "verdict: conformant: all " in text


def test_workflow_step_installs_suite_and_writes_results(
    installed: Installed, proxy: Path, tmp_path: Path
) -> None:
    suite = installed.checkout / TAKEN[0]
    output, summary = tmp_path / "output", tmp_path / "summary"
    text = run(
        *("bash", suite / "action.sh"),
        IMPLEMENTATION=proxy,
        ARGUMENTS="relay/one-message --strict",
        SUITE=suite,
        RUNNER_TEMP=tmp_path,
        GITHUB_OUTPUT=output,
        GITHUB_STEP_SUMMARY=summary,
    )
    assert "verdict: conformant: all " in text
    directory = Path(output.read_text().removeprefix("directory=").rstrip())
    assert {"results.jsonl", "report.html", "badge.json"} <= {
        path.name for path in directory.iterdir()
    }
    assert "| verdict | conformant" in summary.read_text()


def test_workflow_step_passes_required_environment() -> None:
    step = (PACKAGE / "action.yml").read_text()
    script = (PACKAGE / "action.sh").read_text()
    given = set(re.findall(r"^ {8}([A-Z]+): ", step, re.MULTILINE))
    assert given == set(re.findall(r"\$\{?(IMPLEMENTATION|ARGUMENTS|SUITE)\b", script))


def test_containerfile_copies_every_required_file() -> None:
    copied = re.findall(r"^COPY (\S+) ", (PACKAGE / "Containerfile").read_text(), re.MULTILINE)
    assert set(map(Path, copied)) == {*TAKEN, *FILES}
