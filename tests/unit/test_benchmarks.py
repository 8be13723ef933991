"""Tests of the benchmarks' miniature mode and stored results. No test checks timings."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import clock, document, report, sender, ways, whole_path
from benchmarks.clock import Spent
from benchmarks.figures import Comparison, Figure, Point, Series, Subject, Way
from benchmarks.peers import (
    BrokenDialogueError,
    Message,
    NotHereError,
    Process,
    needs_descriptors,
    run,
)
from benchmarks.results import ROOT, Conditions, Results
from tests.postfix.instance import wait_for
from tests.postfix.proxies import interpreter

#: The whole-path benchmark requires an interpreter that another user can run.
PYTHON = interpreter() or sys.executable
SUBJECT = Subject("one", ("one", "{upstream}"))
CONDITIONS = Conditions("Python 3.11.2", "Debian", 2, "2026-11-24", "abc1234", (0.5, 1.5))

SERIES = Series(
    "idle",
    "a message beside idle sessions",
    "idle sessions",
    points=[Point([1.0, 3.0, 2.0], [5.0] * 3, at=100), Point([4.0] * 3, [6.0] * 3, at=1000)],
)
COMPARISON = Comparison(
    "path",
    "behind Postfix",
    ways=[Way([2.0, 4.0], [1.0, 1.0], name="unfiltered"), Way([6.0, 8.0], [3.0, 3.0], name="ours")],
)
PATHS = Comparison(
    "path-script",
    "a script as filter",
    ways=[
        Way([2.0, 4.0], [1.0, 1.0], "unfiltered", [8.0, 9.0]),
        Way([3.0, 7.0], [1.0, 1.0], "a relay", [8.0, 9.0], 5.0, reference=True),
        Way([6.0, 8.0], [3.0, 5.0], "proxsmtpd", [96.0, 140.0], 0.5),
    ],
    absent={"Haraka": "requires haraka"},
)


def results() -> Results:
    figures = [Figure([1.0], label="with", at_most=2), Figure([1.0], label="without")]
    return Results(CONDITIONS, figures, [SERIES], [COMPARISON, PATHS], {"memory": "no room"})


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "whole-path" else pytest.mark.any_account)
        for name in sorted(command.MEASURES)
    ],
)
def test_every_benchmark_runs_in_miniature_mode(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "figures.json"
    arguments = ["--miniature", "--rounds", "1", "--python", PYTHON, "--json", str(kept)]
    assert command.main([name, *arguments]) == 0
    measured = Results.read(kept)
    if measured.missing:
        pytest.skip(measured.missing[name])
    samples = [figure.samples for figure in measured.figures]
    samples += [point.samples for series in measured.series for point in series.points]
    samples += [way.samples for compared in measured.comparisons for way in compared.ways]
    assert samples
    assert all(len(each) == 1 and each[0] > 0 for each in samples)
    said = capsys.readouterr().out
    assert measured.conditions.shown() in said
    assert all(figure.label in said for figure in measured.figures)


def test_beside_option_also_measures_given_program(tmp_path: Path) -> None:
    kept = tmp_path / "figures.json"
    beside = f"again={sys.executable} -m postprox {{upstream}}"
    arguments = ["--miniature", "--rounds", "1", "--python", PYTHON, "--beside", beside]
    assert command.main(["startup", *arguments, "--json", str(kept)]) == 0
    labels = [figure.label for figure in Results.read(kept).figures]
    assert labels[2:] == [f"{label}: again" for label in labels[:2]]


@pytest.mark.parametrize(
    ("path", "limits"),
    [
        (document.WAYS, ["≤ 1", "≤ 0.36", "≤ 0.45", "≤ 0.5", "≤ 0.75"]),
        (
            document.PARTS,
            [
                *("≤ 1.2", "≤ 1.45", "≤ 2.8", "≤ 0.8"),  # startup, listening
                *("≤ 1.2", "≤ 1.5", "≤ 1.5", "≤ 3", "≤ 2.5"),  # idle, asleep
                *("≥ 0.85", "≥ 0.7", "≥ 0.68", "≥ 0.55", "≤ 12"),  # large, memory
            ],
        ),
    ],
    ids=["ways", "parts"],
)
def test_stored_results_include_every_figure_that_has_limit(path: Path, limits: list[str]) -> None:
    kept = Results.read(ROOT / path)
    assert kept.missing == kept.broken == {}
    assert [figure.bar() for figure in kept.figures if figure.bar()] == limits


def test_documentation_matches_stored_figures() -> None:
    for path, text in document.texts(ROOT).items():
        assert path.read_text(encoding="utf-8") == text, document.HOW


def test_plots_match_stored_measurements() -> None:
    for shown in document.plotted(ROOT):
        plot = (ROOT / document.plot(shown.name)).read_text("utf-8")
        assert document.digest(shown) in plot, document.HOW


def test_every_plot_is_generated() -> None:
    plotted = {ROOT / document.plot(shown.name) for shown in document.plotted(ROOT)}
    assert set((ROOT / document.WAYS.parent).glob("*.svg")) == plotted


@pytest.mark.parametrize("shown", document.plotted(ROOT), ids=lambda shown: shown.name)
def test_text_is_legible_in_plot_400_pixels_wide(shown: Series | Comparison) -> None:
    drawing = (ROOT / document.plot(shown.name)).read_text("utf-8")
    width = re.search(r'viewBox="0 0 ([\d.]+) ', drawing)
    assert width
    sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", drawing)]
    assert len(sizes) > 8
    assert min(sizes) * min(1, 400 / float(width[1])) >= 9


@pytest.mark.parametrize(
    "shown", [SERIES, COMPARISON, PATHS], ids=["series", "comparison", "paths"]
)
def test_plot_contains_labels_as_text(shown: Series | Comparison, tmp_path: Path) -> None:
    plots = pytest.importorskip("benchmarks.plots", reason="the extra `bench` is not installed")
    path = tmp_path / "plot.svg"
    plots.draw(shown, path, "made of this")
    text = path.read_text("utf-8")
    assert f">{shown.label}</text>" in text
    assert "made of this" in text


def test_written_results_are_read_back_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    results().write(path)
    assert Results.read(path) == results()


def test_text_outside_markers_is_unchanged() -> None:
    begin = document.BEGIN.format("ways.json")
    text = f"before\n{begin}\nold\n{document.END}\nafter\n"
    assert document.replaced(text, "ways.json", "new") == (
        f"before\n{begin}\n\nnew\n\n{document.END}\nafter\n"
    )


def test_document_without_markers_is_rejected() -> None:
    with pytest.raises(SystemExit, match="has no region"):
        document.replaced("no marks", "ways.json", "new")


def test_performance_page_omits_setups_measured_only_for_comparison() -> None:
    results = Results(CONDITIONS, comparisons=[PATHS])
    assert [way.name for way in document.main(results).ways] == ["unfiltered", "proxsmtpd"]
    assert "a relay" in document.all_ways(results)


def test_values_are_printed_as_median_and_range() -> None:
    assert report.summary([3.0, 1.0, 20.0]) == "3.00 (1.00 .. 20.0)"


def test_single_value_is_printed_without_range() -> None:
    assert report.summary([1234.5]) == "1234"


@pytest.mark.parametrize(
    ("figure", "verdict"),
    [
        (Figure([1.0, 3.0, 2.0], at_most=2), "meets"),
        (Figure([2.004], at_most=2), "meets"),  # The rounded value, 2.00, meets the limit.
        (Figure([2.01], at_most=2), "misses"),
        (Figure([0.5], at_least=0.5), "meets"),
        (Figure([0.49], at_least=0.5), "misses"),
        (Figure([0.49]), ""),
    ],
)
def test_median_is_compared_with_limit(figure: Figure, verdict: str) -> None:
    assert figure.verdict() == verdict


def test_processor_time_and_elapsed_time_are_reported() -> None:
    figure = Figure(label="what", at_most=2).compare([Spent(6.0, 1.0)], [Spent(3.0, 4.0)])
    cells = [cell.strip() for cell in report.figures([figure]).splitlines()[-1].split("|")]
    assert cells[1:-1] == ["what", "x", "2.00", "0.25", "≤ 2", "meets"]


def test_slope_is_computed_from_last_two_values() -> None:
    assert SERIES.slope() == pytest.approx(0.30103)  # ten times the number costs twice the time
    assert SERIES.each() == pytest.approx(2.0 / 900)


def test_variants_are_compared_round_by_round() -> None:
    assert COMPARISON.next_to_first(COMPARISON.ways[1]) == [Spent(3.0, 3.0), Spent(2.0, 3.0)]


def test_whole_path_report_contains_latency_rate_and_memory() -> None:
    cells = [cell.strip() for cell in report.paths(PATHS).splitlines()[-1].split("|")]
    assert cells[1:-1] == ["proxsmtpd", "2.50", "7.00", "96.0", "140", "250", "0.50"]


def test_whole_path_report_lists_setups_that_were_not_measured() -> None:
    assert "Not measured: Haraka: requires haraka." in report.everything(results())


def path(name: str, *samples: float) -> Way:
    return Way(list(samples), [1.0] * len(samples), name)


def test_cost_of_relay_is_subtracted_before_comparison() -> None:
    sent = Comparison(
        "path",
        "a path",
        ways=[
            path(ways.UNFILTERED, 1.0, 2.0),
            path(ways.RELAY_BEFORE, 2.0, 3.0),
            path(ways.LISTENING_BEFORE, 4.0, 9.0),
            path("proxsmtpd, before the queue", 8.0, 12.0),
            path("Haraka, before the queue", 5.0, 90.0),
        ],
    )
    listening = ways.LISTENING_BEFORE
    assert [(figure.label, figure.samples) for figure in whole_path.bars(sent)] == [
        (f"({listening} - relay) / unfiltered", [2.0, 3.0]),
        (f"{listening} / proxsmtpd, before the queue", [0.5, 0.75]),
    ]


@pytest.mark.parametrize("name", ["script", "python"])
@pytest.mark.parametrize(("content", "status"), [(ways.MARK, 1), ("harmless", 0)])
def test_benchmark_filter_rejects_only_messages_with_mark(
    name: str, content: str, status: int, tmp_path: Path
) -> None:
    script, message = tmp_path / "filter", tmp_path / "message"
    script.write_text(ways.FILTERS[name])
    script.chmod(0o755)
    message.write_text(f"Subject: test\n\n{content}\n")
    for arguments, more in ([str(message)], {}), ([], {"EMAIL": str(message)}):
        done = subprocess.run(
            [script, *arguments], env={**os.environ, **more}, capture_output=True, check=False
        )
        assert done.returncode == status


def test_setup_whose_program_is_missing_is_not_measured() -> None:
    way = ways.Way("other", requires=("sh", "no-such-program"), source="Debian's other")
    assert way.absent() == "requires no-such-program (Debian's other)"


def test_memory_of_descendants_is_measured() -> None:
    with Process(["/bin/sh", "-c", "sleep 100 & read line"]) as shell:
        wait_for("the shell's child to run", lambda: len(clock.descendants(shell.pid)) == 2)
        pids = clock.descendants(shell.pid)
        assert clock.memory(pids) > clock.memory([shell.pid]) > 0
        (child,) = pids.keys() - {shell.pid}
        os.kill(child, signal.SIGKILL)
        shell.client.says(b"end")
    shell.wait()


def test_arrival_is_identified_by_message_number(tmp_path: Path) -> None:
    maildir = tmp_path / "new"
    maildir.mkdir()
    (tmp_path / "bounce").write_bytes(b"Subject: bounce\n\n")
    (tmp_path / "message").write_bytes(b"Received: by mx\nX-Number: 7\n\n")
    with sender.arrivals(maildir) as arrived:
        began = time.perf_counter()
        for name in ("bounce", "message"):
            (tmp_path / name).rename(maildir / name)
        assert arrived.wait(7) >= began
    assert list(arrived.times) == [7]


def test_report_lists_missing_measurements() -> None:
    assert report.everything(results()).endswith("Not measured: memory: no room")


def test_failing_benchmark_does_not_discard_earlier_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(_: object) -> Iterator[Figure]:
        yield Figure([1.0], label="before it broke")
        raise BrokenDialogueError("b'554 no' instead of b'250'")

    monkeypatch.setitem(command.MEASURES, "memory", breaks)
    kept = tmp_path / "figures.json"
    arguments = ["memory", "--miniature", "--python", PYTHON, "--json", str(kept)]
    assert command.main(arguments) == 1
    assert "Broken: memory: BrokenDialogueError: b'554 no'" in capsys.readouterr().out
    assert [figure.label for figure in Results.read(kept).figures] == ["before it broke"]


def test_command_contains_upstream_address_and_options() -> None:
    assert SUBJECT.command("[::1]:25", "-v") == ["one", "[::1]:25", "-v"]


def test_generated_message_contains_end_of_data_once() -> None:
    wire = b"".join(Message(1_000_000).wire())
    assert wire.find(b"\r\n.\r\n") == len(wire) - 5


def test_smallest_message_ends_with_end_of_data() -> None:
    assert b"".join(Message(1).wire()).endswith(b"\r\n.\r\n")


def test_processor_time_excludes_other_processes() -> None:
    with Process(["/bin/sleep", "0.01"]) as idle:
        at_work = clock.spent(lambda: clock.own(os.getpid()), lambda: sum(range(3_000_000)))
        assert at_work.processor > clock.own(idle.pid)
    idle.wait()


def test_processor_time_includes_reaped_children() -> None:
    before = clock.family(os.getpid())
    run([sys.executable, "-IS", "-c", "for _ in range(3_000_000): pass"])
    assert clock.family(os.getpid()) - before > 0.01


def test_failing_command_raises_error() -> None:
    with pytest.raises(BrokenDialogueError, match="ended with wait status"):
        run(["/bin/false"])


def test_missing_system_resource_is_reported() -> None:
    with pytest.raises(NotHereError, match="requires 9999999999 open files"):
        needs_descriptors(9_999_999_999)


def test_terminated_run_removes_its_files(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "startup", "--python", PYTHON]
    command += ["-d", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr
        assert run.stderr.readline().startswith("measuring startup")
        assert list(tmp_path.iterdir())
        run.terminate()
    assert not list(tmp_path.iterdir())


def test_unknown_benchmark_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["speed"])
    assert "unknown benchmark 'speed'; must be one of startup, listening" in capsys.readouterr().err


def test_program_with_unexpected_output_is_killed() -> None:
    command = ["/bin/sh", "-c", r"printf '554 no\r\n'; exec sleep 1000"]
    with pytest.raises(BrokenDialogueError, match="554 no"), Process(command) as process:
        process.client.expect(b"220")
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


@pytest.mark.any_account
def test_ratio_is_finite_if_processor_time_is_zero() -> None:
    ratio = Spent(0.5, 1.0).over(Spent(0.0, 2.0))
    assert ratio.wall == 0.5
    assert 0.5 < ratio.processor < float("inf")
