"""Tests that the metrics file is replaced atomically."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from postprox.core import limits, log_levels
from postprox.shell import log, newfile
from postprox.shell.loop import Loop
from postprox.shell.metrics import Metrics


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    lines: list[tuple[int, str]] = []
    monkeypatch.setattr(log, "write", lambda level, text: lines.append((level, text)))
    return lines


def test_world_readable_metrics_file_is_written_at_start(loop: Loop, tmp_path: Path) -> None:
    path = tmp_path / "postprox.prom"
    metrics = Metrics(loop, str(path), lambda: "sessions 1\n")
    assert metrics.deadline == limits.NEVER
    before = loop.clock()
    metrics.begin()
    assert path.read_text() == "sessions 1\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]
    assert before + limits.METRICS <= metrics.deadline <= loop.clock() + limits.METRICS
    loop.remove(metrics)


def test_metrics_file_is_rewritten_periodically(loop: Loop, tmp_path: Path) -> None:
    path = tmp_path / "postprox.prom"
    texts = iter(["first", "second"])
    metrics = Metrics(loop, str(path), lambda: next(texts))
    metrics.begin()
    metrics.deadline = loop.clock()
    loop.note_deadline(metrics.deadline)
    loop.run_once()
    assert path.read_text() == "second"
    assert metrics.deadline > loop.clock()
    loop.remove(metrics)


def test_metrics_are_first_written_to_temporary_file(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "postprox.prom"
    path.write_text("old")
    right = newfile.write

    def write(descriptor: int, content: bytes) -> None:
        (beside,) = set(tmp_path.iterdir()) - {path}
        assert beside.suffix != ".prom"
        right(descriptor, content)
        assert path.read_text() == "old"

    monkeypatch.setattr(newfile, "write", write)
    Metrics(loop, str(path), lambda: "new").write()
    assert path.read_text() == "new"


def test_link_or_fifo_with_predicted_temporary_name_is_not_opened(
    loop: Loop, tmp_path: Path
) -> None:
    path, victim = tmp_path / "postprox.prom", tmp_path / "victim"
    victim.write_text("precious")
    beside = Path(f"{path}.{os.getpid()}")
    beside.symlink_to(victim)
    metrics = Metrics(loop, str(path), lambda: "new")
    metrics.write()
    assert victim.read_text() == "precious"
    beside.unlink(missing_ok=True)
    os.mkfifo(beside)
    # With a reader, opening the FIFO for writing would not block.
    reader = os.open(beside, os.O_RDONLY | os.O_NONBLOCK)
    metrics.write()
    assert os.read(reader, 1) == b""
    assert (path.read_text(), path.is_fifo()) == ("new", False)
    os.close(reader)


def test_start_removes_stale_metrics_files(loop: Loop, tmp_path: Path) -> None:
    (tmp_path / f".postprox-{os.getpid()}-0123456789abcdef").touch()
    path = tmp_path / "postprox.prom"
    metrics = Metrics(loop, str(path), lambda: "new")
    metrics.begin()
    assert list(tmp_path.iterdir()) == [path]
    loop.remove(metrics)


def test_writing_metrics_closes_descriptor(loop: Loop, tmp_path: Path) -> None:
    metrics = Metrics(loop, str(tmp_path / "postprox.prom"), lambda: "new")
    before = os.listdir("/dev/fd")  # noqa: PTH208 - only names are needed
    metrics.write()
    assert os.listdir("/dev/fd") == before  # noqa: PTH208


def test_write_failure_is_logged_once_until_write_succeeds(
    loop: Loop, tmp_path: Path, told: list[tuple[int, str]]
) -> None:
    directory = tmp_path / "later"
    metrics = Metrics(loop, str(directory / "postprox.prom"), lambda: "x")
    metrics.write()
    metrics.write()
    warning = f"cannot write --metrics {directory}/postprox.prom: No such file or directory"
    assert told == [(log_levels.WARNING, warning)]
    directory.mkdir()
    metrics.write()
    assert len(told) == 1
    (directory / "postprox.prom").unlink()
    directory.rmdir()
    metrics.write()
    assert len(told) == 2
