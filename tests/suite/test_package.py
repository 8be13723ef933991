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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conformance.format.header import FORMAT
from tests.conformance.format.loader import transcript_paths
from tests.conformance.format.requirements import as_json, specification
from tests.conformance.paths import PACKAGE, ROOT, TRANSCRIPTS
from tests.conformance.run.results import SUITE_VERSION
from tests.suite.adapting import write_adapter
from tests.suite.workflow import BASH, Executed, Job, run_action

pytestmark = pytest.mark.any_account

TAKEN = (PACKAGE.relative_to(ROOT), TRANSCRIPTS.relative_to(ROOT))
FILES = (Path("docs/specification.md"), Path("LICENSE"))
#: The output of `postprox-conformance --version`.
VERSIONS = (
    f"postprox-conformance {SUITE_VERSION} (specification {specification().version}, "
    f"transcript format {FORMAT})"
)
#: A Python that checks its version, or creates an environment in which pip checks its argument.
QUICK_PYTHON = """#!/bin/sh
[ "$1" = -c ] && exit
mkdir -p "$3/bin" && ln -s {} "$3/bin/" || exit
printf '#!/bin/sh\\nshift 2; exec test -e "$1"\\n' >"$3/bin/pip" && chmod +x "$3/bin/pip"
"""
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
    assert run(command, "--version") == f"{VERSIONS}\n"


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


def test_installed_plugin_does_not_affect_unrelated_tests(command: Path, tmp_path: Path) -> None:
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


@pytest.fixture
def act(installed: Installed, tmp_path: Path) -> Callable[..., Job]:
    """Runs the steps of action.yml. PATH begins with the directory of the test.

    The default for the input `python` is a script, which creates an environment that uses the
    installed package, because pip would install the package again for each test.
    """
    suite = installed.checkout / TAKEN[0]
    python = tmp_path / "quick-python"
    python.write_text(QUICK_PYTHON.format(installed.environment / "bin" / "postprox-conformance"))
    python.chmod(0o755)

    def execute(script: str, variables: Mapping[str, str]) -> Executed:
        files = [tmp_path / name for name in ("step.sh", "output", "summary")]
        for file, text in zip(files, (script, "", ""), strict=True):
            file.write_text(text)
        done = subprocess.run(
            [*BASH, str(files[0])],
            cwd=tmp_path,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("PY")},
                **variables,
                "PATH": f"{tmp_path}:{os.environ['PATH']}",
                "RUNNER_TEMP": str(tmp_path),
                "GITHUB_OUTPUT": str(files[1]),
                "GITHUB_STEP_SUMMARY": str(files[2]),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return Executed(done.returncode, done.stdout, *(file.read_text() for file in files[1:]))

    def run_it(**inputs: str) -> Job:
        given = {"python": str(python), "release": str(installed.wheel), **inputs}
        return run_action(suite / "action.yml", str(suite), given, execute)

    return run_it


def test_action_writes_reports_of_conformant_program(act: Callable[..., Job], proxy: Path) -> None:
    job = act(
        implementation=str(proxy),
        arguments="relay/one-message --strict",
        python=sys.executable,
    )
    assert (job.status, job.outputs["status"]) == (0, "0"), job.printed
    assert VERSIONS in job.printed
    assert "verdict: conformant: all " in job.printed
    assert "| verdict | conformant" in job.summary
    for name in ("results", "report", "badge"):
        assert Path(job.outputs[name]).is_file()


def test_action_fails_with_status_1_if_program_is_not_conformant(
    act: Callable[..., Job], tmp_path: Path
) -> None:
    program = tmp_path / "broken"
    broken = "-S -m tests.fixtures data.accept_lf_dot_lf"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} {broken} "$@"\n')
    program.chmod(0o755)
    job = act(implementation="./broken", arguments="data/not-the-end-lf-dot-lf.smtp::stdio")
    assert (job.status, job.outputs["status"]) == (1, "1"), job.printed
    assert "::The program is not conformant." in job.printed
    assert Path(job.outputs["report"]).is_file()


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"implementation": "./missing"}, "the suite ended with status 2"),
        ({"python": "missing-python"}, "missing-python is not Python 3.11 or later"),
        ({"release": "./missing.whl"}, "pip cannot install ./missing.whl"),
        ({"root": "yes"}, "root is 'yes', but must be auto or no"),
    ],
    ids=["implementation", "python", "release", "root"],
)
def test_action_fails_with_status_2_if_program_was_not_tested(
    act: Callable[..., Job], proxy: Path, inputs: dict[str, str], reason: str
) -> None:
    job = act(**{"implementation": str(proxy), "arguments": "relay/one-message", **inputs})
    assert (job.status, job.outputs["status"]) == (2, "2"), job.printed
    assert f"::The program was not tested: {reason}\n" in job.printed
    assert f"The program was not tested: {reason}\n" in job.summary


@pytest.mark.parametrize("root", ["auto", "no"])
def test_action_uses_sudo_only_if_permitted(
    act: Callable[..., Job], proxy: Path, tmp_path: Path, root: str
) -> None:
    """Replace id, so that root is an ordinary user, and sudo, so that it records its use."""
    for name, script in {
        "id": 'case $1 in -u) echo 1000 ;; *) exec /usr/bin/id "$@" ;; esac',
        "sudo": f'echo "$*" >>{tmp_path}/used; [ "$2" != unshare ] && [ "$2" != chown ] || exit 0\n'
        'shift; exec "$@"',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    job = act(implementation=str(proxy), arguments="relay/one-message", root=root)
    assert job.status == 0, job.printed
    used = tmp_path / "used"
    words = [line.split()[1] for line in used.read_text().splitlines()] if used.exists() else []
    assert words == (["unshare", "env", "chown"] if root == "auto" else [])


def test_action_passes_required_environment() -> None:
    step = (PACKAGE / "action.yml").read_text().partition("- id: verdict")[0]
    script = (PACKAGE / "action.sh").read_text()
    given = set(re.findall(r"^ {8}([A-Z]+): ", step, re.MULTILINE))
    assert given == set(re.findall(r"\$\{?([A-Z]+)\b", script)) - {"PATH", "HOME"}


def test_containerfile_copies_every_required_file() -> None:
    copied = re.findall(r"^COPY (\S+) ", (PACKAGE / "Containerfile").read_text(), re.MULTILINE)
    assert set(map(Path, copied)) == {*TAKEN, *FILES}
