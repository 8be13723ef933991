"""The log on standard error: a reader that does not read delays nothing."""

from __future__ import annotations

import fcntl
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from postprox.core import levels, limits
from postprox.core.options import parse
from postprox.shell import listen, log, stderr
from postprox.shell.stderr import StandardError


class Pipe:
    """A pipe in the place of standard error, and its reader."""

    def __init__(self) -> None:
        reader, self.writer = os.pipe()
        self.reader: IO[bytes] = os.fdopen(reader, "rb")

    def fill(self) -> int:
        """Let nothing fit any more; return how many octets are in it."""
        another = os.open(f"/proc/self/fd/{self.writer}", os.O_WRONLY | os.O_NONBLOCK)
        size = fcntl.fcntl(self.writer, fcntl.F_GETPIPE_SZ)
        filled = os.write(another, b"x" * size)
        os.close(another)
        return filled

    def lines_until(self, last: bytes) -> list[bytes]:
        """Read the lines up to the one that ends with `last`."""
        lines: list[bytes] = []
        while not lines or not lines[-1].endswith(last + b"\n"):
            lines.append(self.reader.readline())
        return lines


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    pipe = Pipe()
    monkeypatch.setattr(stderr, "STDERR", pipe.writer)
    yield pipe
    pipe.reader.close()  # a thread that still writes goes on
    os.close(pipe.writer)


@pytest.fixture
def written(pipe: Pipe) -> StandardError:
    return StandardError()


def test_a_line_has_time_ident_and_pid(written: StandardError, pipe: Pipe) -> None:
    written.write(levels.ERROR, "one\ntwo")
    head = rb"[A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8} postprox\[%d\]: " % os.getpid()
    assert re.fullmatch(head + rb"one\\ntwo\n", pipe.reader.readline())


def test_lines_keep_their_order(written: StandardError, pipe: Pipe) -> None:
    for number in range(100):
        written.write(levels.INFO, f"line {number}")
    for number in range(100):
        assert pipe.reader.readline().endswith(b": line %d\n" % number)


def test_a_full_pipe_drops_information_and_counts_it(written: StandardError, pipe: Pipe) -> None:
    filled = pipe.fill()
    sent = 0
    while not written.dropped:
        written.write(levels.INFO, "x" * 1000)
        sent += 1
    written.write(levels.INFO, "dropped too")
    assert written.dropped == 2
    pipe.reader.read(filled)
    lines = pipe.lines_until(b": 2 lines were dropped: the log could not take them")
    assert len(lines) == sent
    written.write(levels.INFO, "taken again")
    assert pipe.reader.readline().endswith(b": taken again\n")


def test_a_full_pipe_keeps_warnings_longer_than_information(
    written: StandardError, pipe: Pipe
) -> None:
    filled = pipe.fill()
    while not written.dropped:
        written.write(levels.INFO, "x" * 1000)
    written.write(levels.WARNING, "the filter has failed")
    assert written.dropped == 1
    pipe.reader.read(filled)
    assert b": the filter has failed\n" in pipe.lines_until(b"could not take them")[-2]


def test_what_a_full_pipe_keeps_is_bounded(written: StandardError, pipe: Pipe) -> None:
    pipe.fill()
    for _ in range(1000):
        written.write(levels.ERROR, "x" * 1000)
    kept = 1000 - written.dropped
    assert kept * 1000 < limits.LOG_BACKLOG < (kept + 1) * 1100


@pytest.mark.parametrize("flags", [0, os.O_NONBLOCK])
def test_the_flags_of_the_descriptor_stay_and_a_full_pipe_is_awaited(
    pipe: Pipe, flags: int
) -> None:
    fcntl.fcntl(pipe.writer, fcntl.F_SETFL, fcntl.fcntl(pipe.writer, fcntl.F_GETFL) | flags)
    before = fcntl.fcntl(pipe.writer, fcntl.F_GETFL)
    written = StandardError()
    filled = pipe.fill()
    written.write(levels.ERROR, "waits")
    assert fcntl.fcntl(pipe.writer, fcntl.F_GETFL) == before
    pipe.reader.read(filled)
    assert pipe.reader.readline().endswith(b": waits\n")
    assert fcntl.fcntl(pipe.writer, fcntl.F_GETFL) == before
    assert written.dropped == 0


def test_at_the_end_a_full_pipe_is_not_awaited_for_long(
    written: StandardError, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOG_FAREWELL", 0.02)
    pipe.fill()
    written.write(levels.ERROR, "waits")
    written.finish()


def test_at_the_end_lines_that_can_be_written_are(written: StandardError, pipe: Pipe) -> None:
    written.write(levels.ERROR, "last words")
    written.finish()
    os.set_blocking(pipe.reader.fileno(), False)
    assert pipe.reader.readline().endswith(b": last words\n")


def test_lines_without_a_reader_are_counted(written: StandardError, pipe: Pipe) -> None:
    pipe.reader.close()
    written.write(levels.ERROR, "one")
    written.finish()
    written.write(levels.INFO, "two")
    written.finish()
    assert written.dropped == 2


def test_after_a_full_disk_the_report_precedes_the_next_line(
    written: StandardError, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    with monkeypatch.context() as patched:
        patched.setattr(stderr, "STDERR", full)
        for text in ("one", "two"):
            written.write(levels.INFO, text)
            written.finish()
    os.close(full)
    written.write(levels.INFO, "three")
    report, _ = pipe.lines_until(b": three")
    assert report.endswith(b": 2 lines were dropped: the log could not take them\n")
    assert written.dropped == 2


def test_without_a_thread_the_server_cannot_start(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    with pytest.raises(OSError, match="can't start new thread"):
        StandardError()


# Which log a server has.


@pytest.mark.parametrize(
    ("arguments", "daemon", "expected"),
    [
        ((), True, False),
        ((), False, False),
        (("--foreground",), True, False),
        (("--foreground",), False, True),
        (("--foreground", "--log", "syslog"), False, False),
        (("--foreground", "--log=stderr"), True, True),
        (("--foreground", "--log=stderr"), False, True),
    ],
)
def test_where_the_log_of_a_server_goes(
    arguments: tuple[str, ...],
    daemon: bool,
    expected: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log.Syslog, "is_there", daemon)
    assert listen._logs_to_stderr(parse(["up", "-l1", *arguments])) is expected
