"""The checks of this project. Each one runs in a separate environment, and `nox` runs all of them.

Rule: each check is defined only here. The gate (.ci/run) and pre-commit run it by its name.
CONTRIBUTING.md explains when to run each check.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tomllib
from pathlib import Path

import nox
import nox.command

nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
STRICT_PYTEST = ["python", "-bb", "-m", "pytest", "-n", "auto"]
WHICH_PEERS = (
    "each FOLDER must contain a Go module (go.mod, package main) or a Perl program (postprox.pl). "
    "Their sources are not part of this repository; tests/conformance/implementations/ contains "
    "their descriptions, postprox-go.toml and postprox-perl.toml"
)
DESCRIPTIONS = Path("tests/conformance/implementations")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the unit tests and the conformance suite on every installed Python."""
    session.install("-e", ".[test]")
    session.run(
        *STRICT_PYTEST, *(session.posargs or ["tests/unit", "tests/suite", "tests/conformance"])
    )


@nox.session
def postfix(session: nox.Session) -> None:
    """Run the tests with a real Postfix (requires root and Debian's package postfix)."""
    session.install("-e", ".[test]")
    session.run(
        *STRICT_PYTEST, "tests/postfix", *session.posargs, env={"POSTPROX_REQUIRE_POSTFIX": "1"}
    )


@nox.session
def conformance(session: nox.Session) -> None:
    """Test an implementation: nox -s conformance -- --implementation './my-postprox'."""
    session.install("-e", ".[test]")
    session.run(*STRICT_PYTEST, "tests/conformance", *session.posargs)


@nox.session(default=False)
def peers(session: nox.Session) -> None:
    """Test the other implementations: nox -s peers -- [FOLDER...] [OPTION...].

    Without a FOLDER, the session tests every described program that is installed.
    """
    folders = list(itertools.takewhile(os.path.isdir, session.posargs))
    options = session.posargs[len(folders) :]
    session.install("-e", ".[test]")
    programs = Path(session.create_tmp()).resolve()
    names = [put_peer(session, Path(folder), programs) for folder in folders]
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    names = names or installed_peers(session, path)
    failed = [name for name in names if not is_as_announced(session, name, options, path)]
    if failed:
        session.error(f"unlisted failures or stale entries: {', '.join(failed)}")


def installed_peers(session: nox.Session, path: str) -> list[str]:
    """Return the names of the installed programs, and print how to install the others."""
    found = []
    for file in sorted(DESCRIPTIONS.glob("*.toml")):
        description = tomllib.loads(file.read_text("utf-8"))
        if file.stem == "reference":
            continue
        if shutil.which(description.get("program") or description["argv"][0], path=path):
            found.append(file.stem)
        else:
            session.warn(f"{file.stem} is not installed: {description['install'].strip()}")
    return found


def put_peer(session: nox.Session, folder: Path, programs: Path) -> str:
    """Install the program of `folder` in `programs`, and return its name."""
    if (folder / "go.mod").is_file():
        program = programs / "postprox-go"
        with session.chdir(folder):
            session.run("go", "build", "-buildvcs=false", "-o", str(program), ".", external=True)
    elif (folder / "postprox.pl").is_file():
        program = programs / "postprox-perl"
        shutil.copy(folder / "postprox.pl", program)
        program.chmod(0o755)
    else:
        session.error(f"{folder}: {WHICH_PEERS}")
    return program.name


def is_as_announced(session: nox.Session, name: str, options: list[str], path: str) -> bool:
    """Test the program `name`. Return whether its failures are exactly the known divergences."""
    judged = ("tests/conformance", "--implementation", name, *options)
    try:
        session.run(*STRICT_PYTEST, *judged, env={"PATH": path})
    except nox.command.CommandFailed:
        return False
    return True


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
    """Build the documentation site in build/site. Broken links and anchors are errors."""
    session.install("-e", ".[docs]")
    # The theme's warning about MkDocs 2 does not concern the pages.
    session.run("mkdocs", "build", "--strict", *session.posargs, env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def faults(session: nox.Session) -> None:
    """Test the proxy with injected faults at every step (preferably as root)."""
    session.install("-e", ".[test]")
    session.run("python", "-bb", "-m", "tests.faults", *(session.posargs or ["--all"]))
    session.run(*STRICT_PYTEST, "tests/faults", env={"POSTPROX_FAULTS": "all"})
    session.run("python", "-bb", "-m", "tests.faults.probe")


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzz the proxy for an hour, or for N seconds with `-- --seconds N`."""
    session.install("-e", ".[test]")
    session.run("python", "-bb", "-m", "tests.fuzz", *(session.posargs or ["--seconds", "3600"]))


@nox.session
def soak(session: nox.Session) -> None:
    """Send 100 000 messages through one server, and check that its resources do not grow."""
    session.install("-e", ".")
    session.run("python", "-bb", "-m", "tests.faults.soak", *session.posargs)


@nox.session(venv_backend="none")
def deb(session: nox.Session) -> None:
    """Build the Debian package in dist/ and check it with lintian (requires debhelper)."""
    session.run("sh", "packaging/deb", *session.posargs, external=True)


@nox.session(venv_backend="none")
def clean_system(session: nox.Session) -> None:
    """Install, use, upgrade and purge the Debian package on a clean system (requires root)."""
    session.run("python3", "-m", "tests.debian", *session.posargs, external=True)


@nox.session
def container(session: nox.Session) -> None:
    """Run the container files in namespaces (requires root and a Debian mirror)."""
    session.install("-e", ".[test]")
    session.run("python", "-bb", "-m", "tests.containers", *session.posargs)


@nox.session
def product(session: nox.Session) -> None:
    """Build the suite's wheel and image, and run its action (requires root)."""
    session.install("-e", ".[test]", "setuptools>=77")
    wheels = Path(session.create_tmp()).resolve() / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    session.run("pip", "wheel", "-q", "-w", str(wheels), "./tests/conformance", "setuptools>=77")
    session.run("python", "-bb", "-m", "tests.product", str(wheels))


@nox.session(default=False)
def mutation(session: nox.Session) -> None:
    """Run the mutation tests, in which a test must fail for each small change to the proxy."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.mutation", *session.posargs)
