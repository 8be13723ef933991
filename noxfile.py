"""The checks of this project, each in an environment of its own: `nox` runs all of them.

Rule: a check is defined here once; the gate (.ci/run) and pre-commit ask for it by its name.
CONTRIBUTING.md says when to run which.
"""

from __future__ import annotations

import os
from pathlib import Path

import nox

nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
STRICT_PYTEST = ["python", "-bb", "-m", "pytest", "-n", "auto"]
WHICH_PEER = (
    "nox -s peers -- FOLDER builds the Go module in FOLDER (go.mod, package main), a program with "
    "postprox's command line. Its sources are no part of this repository; what it is known to miss "
    "stands in tests/conformance/implementations/postprox-go.toml"
)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the unit tests and the conformance suite on every installed Python."""
    session.install("-e", ".[test]")
    session.run(
        *STRICT_PYTEST, *(session.posargs or ["tests/unit", "tests/suite", "tests/conformance"])
    )


@nox.session
def postfix(session: nox.Session) -> None:
    """Run the tests with a real Postfix; root and Debian's package postfix are required."""
    session.install("-e", ".[test]")
    session.run(
        *STRICT_PYTEST, "tests/postfix", *session.posargs, env={"POSTPROX_REQUIRE_POSTFIX": "1"}
    )


@nox.session
def conformance(session: nox.Session) -> None:
    """Judge an implementation: nox -s conformance -- --implementation './my-postprox'."""
    session.install("-e", ".[test]")
    session.run(*STRICT_PYTEST, "tests/conformance", *session.posargs)


@nox.session
def peers(session: nox.Session) -> None:
    """Build the implementation in Go that lies in FOLDER and judge it: nox -s peers -- FOLDER."""
    if not session.posargs:
        session.skip(f"no folder is given: {WHICH_PEER}")
    folder, *options = session.posargs
    if not Path(folder, "go.mod").is_file():
        session.error(f"there is no {folder}/go.mod: {WHICH_PEER}")
    session.install("-e", ".[test]")
    built = session.create_tmp()
    program = Path(built).resolve() / "postprox-go"
    with session.chdir(folder):
        session.run("go", "build", "-buildvcs=false", "-o", str(program), ".", external=True)
    path = os.pathsep.join([str(program.parent), os.environ["PATH"]])
    judged = ("tests/conformance", "--implementation", "postprox-go", *options)
    session.run(*STRICT_PYTEST, *judged, env={"PATH": path})


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, layout and imports."""
    session.install("-e", ".[lint]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", "--no-cache", "--no-logo")


@nox.session
def typing(session: nox.Session) -> None:
    """Check types."""
    session.install("-e", ".[typing]")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site into build/site; a link or an anchor that leads nowhere is an error."""
    session.install("-e", ".[docs]")
    # What its authors have to say about the theme's future is no fault of a page.
    session.run("mkdocs", "build", "--strict", *session.posargs, env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def faults(session: nox.Session) -> None:
    """Let everything round the proxy fail, at every step; root is wanted."""
    session.install("-e", ".[test]")
    session.run("python", "-bb", "-m", "tests.faults", *(session.posargs or ["--all"]))
    session.run(*STRICT_PYTEST, "tests/faults", env={"POSTPROX_FAULTS": "all"})
    session.run("python", "-bb", "-m", "tests.faults.probe")


@nox.session
def fuzz(session: nox.Session) -> None:
    """Search an hour for an input that breaks something; `-- --seconds N` for another time."""
    session.install("-e", ".[test]")
    session.run("python", "-bb", "-m", "tests.fuzz", *(session.posargs or ["--seconds", "3600"]))


@nox.session
def soak(session: nox.Session) -> None:
    """Send 100 000 messages through one listening proxy, and see that nothing grows."""
    session.install("-e", ".")
    session.run("python", "-bb", "-m", "tests.faults.soak", *session.posargs)


@nox.session(venv_backend="none")
def deb(session: nox.Session) -> None:
    """Build the Debian package into dist/ and let lintian judge it; debhelper is required."""
    session.run("sh", "packaging/deb", *session.posargs, external=True)


@nox.session(venv_backend="none")
def clean_system(session: nox.Session) -> None:
    """Install, use, upgrade and purge the Debian package on a clean system; root is required."""
    session.run("python3", "-m", "tests.debian", *session.posargs, external=True)


@nox.session(default=False)
def mutation(session: nox.Session) -> None:
    """Change the proxy in every small way, and see a test fail each time."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.mutation", *session.posargs)
