"""docs/adapters.md: the test writes the page's files and runs its commands in their order."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.adapters.command_line import Options
from tests.conformance.paths import IMPLEMENTATIONS, ROOT
from tests.suite.adapting import processes_with

pytestmark = pytest.mark.any_account

PAGE = (ROOT / "docs" / "adapters.md").read_text("utf-8")
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
NAMED = re.compile(r"Write `([a-z.-]+)`")
#: The name of the implementation file, which the page writes more than once.
DESCRIPTION = "haproxy.toml"


def steps() -> Iterator[tuple[str, str]]:
    """Yield ("write NAME", text), ("run", command) or ("expect", lines) for each block."""
    end = 0
    for block in BLOCK.finditer(PAGE):
        kind, text = block.groups()
        names = NAMED.findall(PAGE[end : block.start()])
        end = block.end()
        if kind == "sh":
            for command in text.splitlines():
                yield "run", command
        elif names or kind == "toml":
            yield f"write {names[-1] if names else DESCRIPTION}", text
        else:
            yield "expect", text


@pytest.mark.skipif(not Path("/usr/sbin/haproxy").exists(), reason="requires haproxy")
def test_all_commands_on_adapter_page_succeed(tmp_path: Path) -> None:
    command = tmp_path / "bin" / "postprox-conformance"
    command.parent.mkdir()
    command.write_text(
        f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m tests.conformance "$@"\n'
    )
    command.chmod(0o755)
    printed = ""
    for step, text in steps():
        if step == "run":
            done = subprocess.run(
                ["/bin/sh", "-c", text],
                cwd=tmp_path,
                env={"PATH": f"{command.parent}:/usr/sbin:/usr/bin:/bin", "HOME": str(tmp_path)},
                capture_output=True,
                text=True,
                check=False,
            )
            printed = done.stdout + done.stderr
            assert done.returncode == 0, f"{text}\n{printed}"
        elif step == "expect":
            assert [line for line in text.splitlines() if line not in printed] == [], printed
        else:
            (tmp_path / step.removeprefix("write ")).write_text(text)
    assert not processes_with(str(tmp_path))


def test_adapter_page_contains_every_kind_of_step() -> None:
    kinds = [step for step, _ in steps()]
    assert kinds.count("run") >= 7
    assert {"write by-hand.cfg", "write haproxy.py", "write haproxy.toml", "expect"} <= set(kinds)


def test_adapter_page_shows_packaged_adapter() -> None:
    ours = (IMPLEMENTATIONS / "haproxy.py").read_text("utf-8")
    shown = dict(steps())["write haproxy.py"]
    for part in ("CONFIGURATION = ", "    text = ", "ADAPTER = "):
        block = ours[ours.index(part) :].partition("\n\n\n")[0]
        assert block in shown


def test_adapter_page_lists_every_option() -> None:
    ours = set(Options.__dataclass_fields__) - {"upstream", "listen", "words"}
    table = PAGE[PAGE.index("| attribute |") :].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == ours
