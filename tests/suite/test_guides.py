"""The suite's guides: each printed command, configuration, output and number is current.

`./my-postprox` in the guides is a broken proxy that accepts LF.LF as the end of data.
"""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conformance import __main__ as command
from tests.conformance.cli.run_command import _JOBS
from tests.conformance.format.grammar import DEFAULT_QUIET
from tests.conformance.format.header import IMPLEMENTATION_CAPABILITIES
from tests.conformance.format.loader import chosen, load_transcript, transcript_paths
from tests.conformance.format.vocabulary import MODES
from tests.conformance.paths import PACKAGE, ROOT, SUFFIX, TRANSCRIPTS
from tests.conformance.play.harness import Settings
from tests.conformance.play.implementation import find_implementation, read_implementation
from tests.conformance.play.needs import REAL_TIME_ALLOWANCE
from tests.conformance.play.timeouts import (
    _MARGIN,
    _REPLAYS,
    EXPIRED_BEFORE_REDUCED,
    REDUCED_DIVISOR,
)
from tests.conformance.properties.search import _SHRINKING
from tests.conformance.run import verdict
from tests.conformance.run.progress import _INTERVAL
from tests.conformance.run.suite import PROPERTIES, _modes_of_everything

pytestmark = pytest.mark.any_account

CONFORMANCE = (ROOT / "docs" / "conformance.md").read_text("utf-8")
FORMAT = (ROOT / "docs" / "transcripts.md").read_text("utf-8")
#: The broken proxy used as ./my-postprox.
BROKEN = "data.accept_lf_dot_lf"
#: The command that replaces `postprox-conformance` in a checkout.
SUITE = f"{shlex.quote(sys.executable)} -m tests.conformance"
NUMBERS = {8: "eight", 4: "four", 10: "ten", 3: "three"}


def blocks(language: str, page: str = CONFORMANCE) -> list[str]:
    """Return the code blocks of a page in *language*."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```$", page, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Return the commands in the sh blocks, with continuation lines joined."""
    text = "".join(blocks("sh")).replace("\\\n", " ")
    return [" ".join(line.split()) for line in text.splitlines()]


SUITE_COMMANDS = [
    one for one in commands() if "postprox-conformance " in one and "podman" not in one
]
PYTEST_COMMANDS = [one for one in commands() if "python -m pytest transcripts" in one]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with ./my-postprox."""
    program = tmp_path / "my-postprox"
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -S -m tests.fixtures {BROKEN} "$@"\n'
    )
    program.chmod(0o755)
    return tmp_path


def printed(text: str, folder: Path) -> str:
    """Run a command in *folder*. Return its output as the installed package would print it."""
    done = subprocess.run(
        ["/bin/sh", "-c", text.replace("postprox-conformance", SUITE)],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout.replace("python -m tests.conformance", "postprox-conformance")


@pytest.mark.parametrize("block", blocks("console"), ids=lambda block: block.partition("\n")[0])
def test_printed_output_is_current(block: str, folder: Path) -> None:
    first, _, wanted = block.partition("\n")
    got = printed(first.removeprefix("$ "), folder)
    # Progress lines depend on the machine's speed.
    got = re.sub(r"^(?:loading the transcripts|\d+ of \d+ results).*\n", "", got, flags=re.M)
    assert first.startswith("$ postprox-conformance ")
    checker = doctest.OutputChecker()
    assert checker.check_output(wanted, got, doctest.ELLIPSIS), got


@pytest.mark.parametrize("line", SUITE_COMMANDS)
def test_printed_command_uses_valid_options_and_names(line: str) -> None:
    words = shlex.split(line.partition("postprox-conformance ")[2])
    options = command._parsers()[0].parse_args(words)
    places = [place for name in getattr(options, "names", ()) for place in chosen(name)]
    assert all(SUFFIX in place for place in places)


def test_guides_contain_commands_and_output() -> None:
    assert len(SUITE_COMMANDS) >= 8
    assert len(PYTEST_COMMANDS) == 2
    assert len(blocks("console")) == 2


@pytest.mark.parametrize("line", PYTEST_COMMANDS)
def test_printed_pytest_command_selects_transcripts(line: str) -> None:
    words = line.replace("$PWD", str(ROOT)).replace("python -m", f"{sys.executable} -m", 1)
    done = subprocess.run(
        ["/bin/sh", "-c", f"{words} --collect-only -q"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert re.search(r"^transcripts/.*::stdio$", done.stdout, re.MULTILINE), done.stdout
    assert done.returncode == 0


def test_example_implementation_file_has_valid_keys_and_names(folder: Path) -> None:
    text = blocks("toml")[0]
    path = folder / "my-postprox.toml"
    path.write_text(text)
    implementation = read_implementation(path)
    implementation.check_names(_modes_of_everything())
    assert implementation.argv == (str(folder / "my-postprox"),)
    assert set(tomllib.loads(text)) == {
        *("name", "version", "argv", "capabilities", "clock_env", "divergence")
    }


def test_known_divergence_results_in_status_0(folder: Path) -> None:
    text = blocks("toml")[0]
    (folder / "my-postprox.toml").write_text(text)
    run = "postprox-conformance run my-postprox.toml data/not-the-end-lf-dot-lf.smtp::stdio"
    assert printed(f"{run} >out; echo $?; cat out", folder).startswith("0\n")


def test_workflow_uses_existing_action_inputs_and_outputs() -> None:
    text, condition = blocks("yaml")
    assert "steps.suite.outputs.status" in condition
    action = (PACKAGE / "action.yml").read_text("utf-8")
    given = re.findall(r"^    (\w+):", text.partition("  with:\n")[2].partition("- uses")[0], re.M)
    used = re.findall(r"steps\.suite\.outputs\.(\w+)", text)
    assert given == ["implementation", "arguments"]
    listed = re.search(r"The inputs are (.*?)\.\s", CONFORMANCE, re.DOTALL)
    assert listed
    inputs_part = action.partition("outputs:\n")[0].partition("inputs:\n")[2]
    assert re.findall(r"`(\w+)`", listed[1]) == re.findall(r"^  (\w+):$", inputs_part, re.M)
    assert used == ["report"]
    inputs, outputs = action.partition("outputs:\n")[::2]
    assert all(f"\n  {name}:\n" in inputs for name in given)
    assert all(f"  {name}:\n" in outputs for name in [*used, "status"])
    assert "id: suite" in text


def test_guide_lists_capabilities_assumed_without_implementation_file(folder: Path) -> None:
    paragraph = CONFORMANCE[CONFORMANCE.index("The capabilities are `stdio`") :].partition(".")[0]
    assert tuple(re.findall(r"`([a-z0-9-]+)`", paragraph)) == IMPLEMENTATION_CAPABILITIES
    assumed = find_implementation(str(folder / "my-postprox"))
    assert assumed.capabilities == set(IMPLEMENTATION_CAPABILITIES)
    assert assumed.clock_env is None
    assert not assumed.described


def test_tables_contain_all_run_options_and_subcommands() -> None:
    _, words = command._parsers()
    options = {
        name
        for action in words["run"]._actions
        for name in action.option_strings[-1:]
        if name != "--help"
    }
    table = CONFORMANCE[CONFORMANCE.index("| option of `run` |") :].partition("\n\n")[0]
    rows = [row.split("|")[1] for row in table.splitlines()[2:]]
    listed = set(re.findall(r"`(-[-a-z]+)", "".join(rows)))
    assert listed - {"-j"} == options - {"--jobs"}
    table = CONFORMANCE[CONFORMANCE.index("| command | result |") :].partition("\n\n")[0]
    assert re.findall(r"^\| `([a-z]+)", table, re.MULTILINE) == [
        *("run", "list", "show", "explain", "report", "record", "compare")
    ]
    assert set(words) == {"run", "list", "show", "explain", "report", "record", "compare"}


def test_table_contains_every_verdict() -> None:
    table = CONFORMANCE[CONFORMANCE.index("| verdict | meaning |") :].partition("\n\n")[0]
    assert [row.split("|")[1].strip() for row in table.splitlines()[2:]] == [
        *(verdict.CONFORMANT, verdict.NOT_STRICT, verdict.NOT_CONFORMANT),
        *(verdict.NOT_AT_MUST, verdict.NOT_JUDGED),
    ]


def test_example_transcript_is_current() -> None:
    lines = blocks("", FORMAT)[0].splitlines()
    shown = "".join(f"{line.removeprefix('   ')}\n" for line in lines)
    assert shown == (TRANSCRIPTS / "filter" / "reject-prefix.smtp").read_text("ascii")


def real_time() -> tuple[int, int]:
    """Return the number of results that --slow adds, and their total duration in minutes."""
    slow = [
        one.header
        for one in map(load_transcript, transcript_paths())
        if (one.header.takes or 0) > REAL_TIME_ALLOWANCE
    ]
    seconds = sum((one.takes or 0) * len(one.modes) for one in slow)
    return sum(len(one.modes) for one in slow), round(seconds / 60)


def test_guides_mention_current_suite_limits() -> None:
    limit = Settings.timeout
    shorter = f"{limit / REDUCED_DIVISOR:g} s"
    must, should = (NUMBERS[_REPLAYS[level]] for level in ("must", "should"))
    results, minutes = real_time()
    for statement in (
        f"the suite waits {limit:g} s for each missing event",
        f"After {NUMBERS[EXPIRED_BEFORE_REDUCED]} such timeouts the suite waits only {shorter}",
        f"at least {NUMBERS[_MARGIN]} times as long as the slowest response",
        f"until {must} failures at MUST and {should} at SHOULD have been confirmed",
        f"its own time limit of {limit:g} s for each event",
        f"a transcript that takes at most {REAL_TIME_ALLOWANCE:g} seconds",
        f"the search for the shortest one takes up to {_SHRINKING:g} s more",
        f"prints its progress every {_INTERVAL:g} s",
        f"{results} results with {minutes} minutes of waits",
        f"default: {NUMBERS[_JOBS // len(os.sched_getaffinity(0))]} for each processor",
    ):
        assert statement in " ".join(CONFORMANCE.split()), statement
    for statement in (
        f"for {limit:g} seconds at most",
        f"within {limit:g} seconds after the script",
        f"If `takes` is at most {REAL_TIME_ALLOWANCE:g} seconds",
        f"Its default of {DEFAULT_QUIET * 1000:g} ms",
    ):
        assert statement in " ".join(FORMAT.split()), statement


def test_guides_mention_current_suite_size() -> None:
    transcripts = len(transcript_paths())
    results = sum(len(load_transcript(path).header.modes) for path in transcript_paths())
    results += sum(map(len, PROPERTIES.values()))
    stated = re.search(r"about ([0-9 ]+) results", CONFORMANCE)
    assert stated
    assert abs(int(stated[1].replace(" ", "")) - results) < results / 20
    headers = [load_transcript(path) for path in transcript_paths()]
    must = [one for one in headers if one.subject.level == "must" and "stdio" in one.header.modes]
    assert "`--level must --modes stdio` has a quarter of the results" in " ".join(
        CONFORMANCE.split()
    )
    assert 0.2 < len(must) / results < 0.3
    # Both pages have the same measured time.
    assert "about two minutes on two idle cores" in CONFORMANCE
    contributing = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert "-n auto tests/conformance` (two minutes)" in contributing
    stated = re.search(r"more than ([0-9 ]+)\.", FORMAT)
    assert stated
    assert transcripts * 0.9 < int(stated[1].replace(" ", "")) <= transcripts
    assert set(MODES) == {"stdio", "listen", "command"}
