"""Tests of an installation with pip from a fresh checkout into an empty environment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from postprox import __version__

pytestmark = pytest.mark.any_account

ROOT = Path(__file__).parents[2]
#: The files that a wheel requires. Tests copy them, so that builds do not change the checkout.
TAKEN = ("LICENSE", "README.md", "pyproject.toml", "postprox", "man", "examples")
PAGES = {path.name for path in (ROOT / "man").iterdir()}
RECIPE = {path.name for path in (ROOT / "examples/postfix").iterdir()}


def run(*words: object) -> str:
    """Run a command in another directory and return its output."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        list(map(str, words)),
        cwd="/",
        env=ours,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def files_of(directory: Path) -> set[Path]:
    return {path for path in directory.rglob("*") if path.is_file()}


def test_pip_installs_and_removes_commands_and_manual_pages(
    tmp_path: Path,
) -> None:
    checkout, environment = tmp_path / "checkout", tmp_path / "environment"
    checkout.mkdir()
    for name in TAKEN:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, checkout / name)
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    commands = environment / "bin"
    pip = (sys.executable, "-m", "pip", "--python", commands / "python")
    run(*pip, "wheel", "-q", "--no-deps", "-w", tmp_path / "wheels", checkout)
    before = files_of(environment)

    (wheel,) = (tmp_path / "wheels").iterdir()
    run(*pip, "install", "-q", "--no-index", wheel)
    made = files_of(environment) - before
    assert {path.name for path in made if path.parent == commands} == {
        page.removesuffix(".1") for page in PAGES
    }
    assert {path.name for path in made if path.suffix == ".1"} == PAGES
    assert {path.parent for path in made if path.suffix == ".1"} == {environment / "share/man/man1"}
    recipe = environment / "share/doc/postprox/examples/postfix"
    assert {path.name for path in recipe.iterdir()} == RECIPE
    assert run(commands / "postprox", "--version").startswith(f"postprox {__version__}\n")
    assert "3 rejected" in run(commands / "postprox-rehearse", "-c", "exit 1")
    assert run(commands / "postprox-check", "--help").startswith("usage: postprox-check ")

    run(*pip, "uninstall", "-q", "-y", "postprox")
    assert files_of(environment) - before == set()


def test_commands_in_packaging_page_install_postprox(tmp_path: Path) -> None:
    checkout, environment = tmp_path / "checkout", tmp_path / "environment"
    checkout.mkdir()
    for name in TAKEN:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, checkout / name)
    page = (ROOT / "packaging/README.md").read_text()
    commands = re.findall(r"^    (python3 -m venv .*|/opt/postprox/bin/pip .*)$", page, re.M)
    assert len(commands) == 2
    script = "\n".join(commands).replace("/opt/postprox", str(environment))
    run("sh", "-ec", f"cd {checkout}\n{script.replace('python3', sys.executable, 1)}")
    assert run(environment / "bin/postprox", "--version").startswith(f"postprox {__version__}\n")
