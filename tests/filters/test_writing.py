"""docs/filters.md: the tests write the page's files, run its commands and compare the output."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.any_account

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "filters.md").read_text()
FILES = re.findall(r"(?ms)^`([\w.-]+)`:\n\n```\w+\n(.*?)^```$", TEXT)
SESSIONS = re.findall(r"(?ms)^```console\n\$ ([^\n]*)\n(.*?)^```$", TEXT)
SNIPPETS = re.findall(r"(?ms)^```sh\n(.*?)^```$", TEXT)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with all files from the page and with postprox-rehearse."""
    directory = tmp_path_factory.mktemp("writing")
    for name, content in FILES:
        (directory / name).write_text(content)
        if content.startswith("#!"):
            (directory / name).chmod(0o755)
    command = directory / "bin" / "postprox-rehearse"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m postprox.rehearse "$@"\n')
    command.chmod(0o755)
    return directory


def settled(text: str) -> str:
    """Replace varying times, omit the slowest message, and normalize spaces."""
    text = re.sub(r"(< )?\d+\.\d\d s", "N s", text)
    text = re.sub(r"(?m)^(  [\w-]+ +\d+ .*N s).*$", r"\1", text)
    return re.sub(r" +", " ", text)


@pytest.mark.parametrize(("command", "printed"), SESSIONS, ids=lambda value: value[:40])
def test_documented_output_is_current(directory: Path, command: str, printed: str) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=directory,
        env={"PATH": f"{directory}/bin:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert settled(done.stdout) == settled(printed), done.stderr


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda value: value[:30])
def test_shell_script_has_valid_syntax(snippet: str) -> None:
    subprocess.run(["/bin/sh", "-n", "-c", snippet], check=True)


def test_recipients_snippet_falls_back_to_first_recipient() -> None:
    (snippet,) = (text for text in SNIPPETS if text.startswith("recipients="))
    script = snippet + 'printf "%s\\n" "$recipients"'
    for variables, expected in (
        ({"RECIPIENT": "a"}, "a\n"),
        ({"RECIPIENT": "a", "RECIPIENTS": "a\nb"}, "a\nb\n"),
    ):
        done = subprocess.run(
            ["/bin/sh", "-c", script], env=variables, stdout=subprocess.PIPE, text=True, check=True
        )
        assert done.stdout == expected


def test_every_example_file_is_used_in_a_command() -> None:
    commands = " ".join(command for command, _ in SESSIONS)
    unused = [name for name, _ in FILES if name not in commands]
    assert unused == []


def test_links_are_valid() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert target.startswith("https://") or (ROOT / "docs" / target).exists(), target
