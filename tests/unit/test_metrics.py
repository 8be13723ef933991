"""The file for Prometheus: whole whenever it is looked at."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from postprox.core import levels, limits
from postprox.shell import log
from postprox.shell.loop import Loop
from postprox.shell.metrics import Metrics


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    lines: list[tuple[int, str]] = []
    monkeypatch.setattr(log, "write", lambda level, text: lines.append((level, text)))
    return lines


def test_the_file_is_there_from_the_beginning_and_for_everybody(loop: Loop, tmp_path: Path) -> None:
    path = tmp_path / "postprox.prom"
    metrics = Metrics(loop, str(path), lambda: "sessions 1\n")
    assert metrics.deadline == limits.NEVER
    before = loop.clock()
    metrics.begin()
    assert path.read_text() == "sessions 1\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]
    assert before + limits.STATUS <= metrics.deadline <= loop.clock() + limits.STATUS
    loop.remove(metrics)


def test_the_file_is_written_again_every_now_and_then(loop: Loop, tmp_path: Path) -> None:
    path = tmp_path / "postprox.prom"
    texts = iter(["first", "second"])
    metrics = Metrics(loop, str(path), lambda: next(texts))
    metrics.begin()
    metrics.deadline = loop.clock()
    loop.due(metrics.deadline)
    loop.run_once()
    assert path.read_text() == "second"
    assert metrics.deadline > loop.clock()
    loop.remove(metrics)


def test_the_file_is_written_beside_its_place(loop: Loop, tmp_path: Path) -> None:
    path = tmp_path / "postprox.prom"
    path.write_text("old")

    def text() -> str:
        (beside,) = set(tmp_path.iterdir()) - {path}
        assert beside.suffix != ".prom"
        assert path.read_text() == "old"
        return "new"

    Metrics(loop, str(path), text).write()
    assert path.read_text() == "new"


def test_a_file_that_cannot_be_written_leaves_nothing_and_is_named(
    loop: Loop, tmp_path: Path
) -> None:
    path = tmp_path / "postprox.prom"

    def text() -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError) as raised:  # noqa: PT011 - the name in it is what is looked at
        Metrics(loop, str(path), text).begin()
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(path))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_warned_of_once_until_it_can(
    loop: Loop, tmp_path: Path, told: list[tuple[int, str]]
) -> None:
    directory = tmp_path / "later"
    metrics = Metrics(loop, str(directory / "postprox.prom"), lambda: "x")
    metrics.write()
    metrics.write()
    warning = f"cannot write --metrics {directory}/postprox.prom: No such file or directory"
    assert told == [(levels.WARNING, warning)]
    directory.mkdir()
    metrics.write()
    assert len(told) == 1
    (directory / "postprox.prom").unlink()
    directory.rmdir()
    metrics.write()
    assert len(told) == 2
