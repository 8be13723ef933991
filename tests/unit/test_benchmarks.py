"""The benchmarks: that they run, in miniature, and how figures are shown. No timing is judged."""

from __future__ import annotations

import os
import sys

import pytest

from benchmarks import __main__ as command
from benchmarks.figures import Figure, Subject, table
from benchmarks.peers import BrokenDialogueError, Message, Process, run

ONE = Subject("one", ("one", "{upstream}"))


def figure(*values: float) -> Figure:
    shown = Figure("what", "x", "≤ 2")
    for value in values:
        shown.add(ONE, value)
    return shown


@pytest.mark.parametrize("name", sorted(command.MEASURES))
def test_each_benchmark_runs_in_miniature(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([name, "--miniature", "--rounds", "1", "--python", sys.executable]) == 0
    printed = capsys.readouterr().out.splitlines()
    figures = [line for line in printed if line.startswith(f"| {name.replace('up', '-up')}: ")]
    assert figures
    assert all(any(map(str.isdigit, line.split("|")[3])) for line in figures)


def test_a_figure_shows_its_median_and_its_range() -> None:
    assert figure(3.0, 1.0, 20.0).shown("one") == "3.00 (1.00 .. 20.0)"


def test_a_figure_of_one_round_shows_no_range() -> None:
    assert figure(1234.5).shown("one") == "1234"


def test_a_program_that_was_not_measured_has_an_empty_cell() -> None:
    last = table([figure(1.5)], ["one", "other"]).splitlines()[-1]
    assert [cell.strip() for cell in last.split("|")] == ["", "what", "x", "1.50", "", "≤ 2", ""]


def test_a_command_is_given_its_upstream_and_its_options() -> None:
    assert ONE.command("[::1]:25", "-v") == ["one", "[::1]:25", "-v"]


def test_a_message_ends_once_and_with_its_last_octets() -> None:
    wire = b"".join(Message(1_000_000, last=b".").wire())
    assert wire.find(b"\r\n.\r\n") == len(wire) - 5


def test_a_command_that_fails_gives_no_figure() -> None:
    with pytest.raises(BrokenDialogueError, match="ended with wait status"):
        run(["/bin/false"])


def test_an_unknown_benchmark_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["speed"])
    assert "'speed' is none of startup, latency" in capsys.readouterr().err


def test_a_program_that_says_something_else_is_killed_and_gives_no_figure() -> None:
    command = ["/bin/sh", "-c", r"printf '554 no\r\n'; exec sleep 1000"]
    with pytest.raises(BrokenDialogueError, match="554 no"), Process(command) as process:
        process.client.reply(b"220")
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
