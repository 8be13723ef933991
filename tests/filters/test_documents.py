"""The documented commands in examples/README.md and in each filter, run with the real proxy."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import FILTERS, ROOT, rehearse
from .uses import NAMES, README, head, uses

pytestmark = pytest.mark.any_account

HELLO = "postprox/rehearse/demo/1-hello.eml"


@pytest.mark.parametrize("name", NAMES)
def test_each_filter_is_listed_and_executable(name: str) -> None:
    assert f"[`{name}`](filters/{name})" in README
    assert (FILTERS / name).stat().st_mode & 0o111


@pytest.mark.parametrize("name", NAMES)
def test_each_filter_header_has_required_sections(name: str) -> None:
    for word in ("Needs:", "Use:", "Down:"):
        assert re.search(rf"(?m)^{word} ", head(name)), word


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".sh")])
def test_shell_script_has_valid_syntax(name: str) -> None:
    subprocess.run(["/bin/sh", "-n", FILTERS / name], check=True)


@pytest.fixture
def here(clamd: Path, spamd: Path, rspamd: Path, tmp_path: Path) -> Callable[[str], str]:
    """Return a function that replaces documented paths with the tests' paths."""
    places = {
        "/usr/local/bin/": f"{FILTERS}/",
        "/etc/clamav/mail.conf": str(clamd),
        "/run/spamd.sock": str(spamd),
        "/run/rspamd/mail.sock": str(rspamd),
        "/var/spool/": f"{tmp_path}/",
    }

    def placed(command: str) -> str:
        for there, place in places.items():
            command = command.replace(there, place)
        return command

    return placed


@pytest.mark.parametrize(("name", "use"), [(name, use) for name in NAMES for use in uses(name)])
def test_documented_usage_works(here: Callable[[str], str], name: str, use: str) -> None:
    message = rehearse(here(use), ROOT / HELLO, "--strict")
    # The filter may fail if the command uses a server that is not running on this machine.
    asks_the_machine = re.search(r"(clamav|spamassassin)\.sh(?! [1/])|rspamd\.py(?! /)", use)
    allowed = {0, 2} if asks_the_machine else {0}
    assert message["filter"]["status"] in allowed, message["filter"]["stderr"]


def test_each_filter_header_contains_usage_command() -> None:
    assert [name for name in NAMES if not uses(name)] == []


def test_documented_copy_command_works(tmp_path: Path) -> None:
    lines = re.findall(r"^    (cp .*|python3 .*)$", README, re.MULTILINE)
    script = "\n".join(lines).replace("my-filter", f"{tmp_path}/my-filter").replace("./", "")
    done = subprocess.run(
        ["/bin/sh", "-ec", script], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    assert "1 message: 1 accepted" in done.stdout
