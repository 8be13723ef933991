"""Tests that the log on standard error does not delay the server."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import threading
from collections.abc import Iterator

import pytest

from postprox.core import limits, log_levels
from postprox.core.options import parse
from postprox.shell import listen, log, stderr
from postprox.shell.stderr import StandardError
from tests.support.peers import TIMEOUT


class Pipe:
    """A pipe that replaces standard error."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self._read = b""

    def fill(self) -> int:
        """Fill the pipe and return its size in octets."""
        another = os.open(f"/proc/self/fd/{self.writer}", os.O_WRONLY | os.O_NONBLOCK)
        filled = os.write(another, b"x" * fcntl.fcntl(self.writer, fcntl.F_GETPIPE_SZ))
        os.close(another)
        return filled

    def drain(self, count: int) -> None:
        """Read `count` octets."""
        while len(self._read) < count:
            self._read_more()
        self._read = self._read[count:]

    def line(self) -> bytes:
        """Read a line and return it without its newline."""
        while b"\n" not in self._read:
            self._read_more()
        line, _, self._read = self._read.partition(b"\n")
        return line

    def lines_until(self, last: bytes) -> list[bytes]:
        """Return all lines up to a line that ends with `last`."""
        lines = [self.line()]
        while not lines[-1].endswith(last):
            lines.append(self.line())
        return lines

    def _read_more(self) -> None:
        assert select.select([self.reader], [], [], TIMEOUT)[0]
        self._read += os.read(self.reader, 65536)

    def lose_reader(self) -> None:
        """Close the pipe's read end if it is open."""
        if self.reader >= 0:
            os.close(self.reader)
            self.reader = -1


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    pipe = Pipe()
    monkeypatch.setattr(stderr, "STDERR", pipe.writer)
    yield pipe
    pipe.lose_reader()
    os.close(pipe.writer)


@pytest.fixture
def written(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandardError]:
    written = StandardError()
    yield written
    # The thread must finish before another file can reuse the descriptor number of the pipe.
    pipe.lose_reader()
    monkeypatch.setattr(limits, "LOG_EXIT_FLUSH", TIMEOUT)
    written.flush_and_close()


def test_log_line_contains_time_ident_and_pid(written: StandardError, pipe: Pipe) -> None:
    written.write(log_levels.ERROR, "one\ntwo")
    head = rb"[A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8} postprox\[%d\]: " % os.getpid()
    assert re.fullmatch(head + rb"one\\ntwo", pipe.line())


def test_lines_are_written_in_order(written: StandardError, pipe: Pipe) -> None:
    for number in range(100):
        written.write(log_levels.INFO, f"line {number}")
    for number in range(100):
        assert pipe.line().endswith(b": line %d" % number)


def test_log_thread_blocks_sigttou(
    written: StandardError, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked: list[object] = []
    right = stderr._write

    def write(line: bytes) -> bool:
        blocked.extend(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        return right(line)

    monkeypatch.setattr(stderr, "_write", write)
    written.write(log_levels.ERROR, "a line")
    assert pipe.line().endswith(b": a line")
    assert signal.SIGTTOU in blocked


def test_informational_lines_are_dropped_and_counted_if_pipe_is_full(
    written: StandardError, pipe: Pipe
) -> None:
    filled = pipe.fill()
    sent = 0
    while not written.dropped:
        written.write(log_levels.INFO, "x" * 1000)
        sent += 1
    written.write(log_levels.INFO, "dropped too")
    assert written.dropped == 2
    pipe.drain(filled)
    lines = pipe.lines_until(b": 2 log lines were dropped")
    assert len(lines) == sent
    written.write(log_levels.INFO, "taken again")
    assert pipe.line().endswith(b": taken again")


def test_informational_lines_are_dropped_before_warnings(
    written: StandardError, pipe: Pipe
) -> None:
    filled = pipe.fill()
    while not written.dropped:
        written.write(log_levels.INFO, "x" * 1000)
    for _ in range(20):
        written.write(log_levels.WARNING, "w" * 1000)
    assert written.dropped == 1
    pipe.drain(filled)
    *_, warning, _ = pipe.lines_until(b": 1 log lines were dropped")
    assert warning.endswith(b": " + b"w" * 1000)


def test_informational_lines_use_half_of_backlog(written: StandardError, pipe: Pipe) -> None:
    pipe.fill()
    size = len(log.line("x" * 1000) + b"\n")
    kept = 0
    while not written.dropped:
        written.write(log_levels.INFO, "x" * 1000)
        kept += not written.dropped
    assert kept == limits.LOG_BACKLOG // 2 // size


def test_backlog_is_bounded_if_pipe_is_full(written: StandardError, pipe: Pipe) -> None:
    pipe.fill()
    for _ in range(1000):
        written.write(log_levels.ERROR, "x" * 1000)
    kept = 1000 - written.dropped
    assert kept * 1000 < limits.LOG_BACKLOG < (kept + 1) * 1100


def test_descriptor_flags_are_unchanged(written: StandardError, pipe: Pipe) -> None:
    before = fcntl.fcntl(pipe.writer, fcntl.F_GETFL)
    filled = pipe.fill()
    written.write(log_levels.ERROR, "waits")
    assert fcntl.fcntl(pipe.writer, fcntl.F_GETFL) == before
    pipe.drain(filled)
    assert pipe.line().endswith(b": waits")
    assert fcntl.fcntl(pipe.writer, fcntl.F_GETFL) == before


def test_log_thread_waits_while_nonblocking_pipe_is_full(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = threading.Event()
    right = stderr._wait_for_reader

    def wait_for_reader() -> None:
        full.set()
        right()

    monkeypatch.setattr(stderr, "_wait_for_reader", wait_for_reader)
    os.set_blocking(pipe.writer, False)
    filled = pipe.fill()
    written = StandardError()
    written.write(log_levels.ERROR, "waits")
    assert full.wait(TIMEOUT)
    pipe.drain(filled)
    assert pipe.line().endswith(b": waits")
    assert (written.dropped, os.get_blocking(pipe.writer)) == (0, False)


def test_exit_flush_has_time_limit_if_pipe_is_full(
    written: StandardError, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOG_EXIT_FLUSH", 0.02)
    pipe.fill()
    written.write(log_levels.ERROR, "waits")
    written.flush_and_close()


def test_exit_flush_writes_remaining_lines(written: StandardError, pipe: Pipe) -> None:
    written.write(log_levels.ERROR, "last words")
    written.flush_and_close()
    os.set_blocking(pipe.reader, False)
    assert os.read(pipe.reader, 4096).endswith(b": last words\n")


def test_lines_written_without_reader_are_counted_as_dropped(
    written: StandardError, pipe: Pipe
) -> None:
    pipe.lose_reader()
    written.write(log_levels.ERROR, "one")
    written.flush_and_close()
    written.write(log_levels.INFO, "two")
    written.flush_and_close()
    assert written.dropped == 2


def test_dropped_lines_are_reported_before_next_line(
    written: StandardError, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    with monkeypatch.context() as patched:
        patched.setattr(stderr, "STDERR", full)
        for text in ("one", "two"):
            written.write(log_levels.INFO, text)
            written.flush_and_close()
    os.close(full)
    written.write(log_levels.INFO, "three")
    report, _ = pipe.lines_until(b": three")
    assert report.endswith(b": 2 log lines were dropped")
    assert written.dropped == 2


def test_failed_log_thread_prevents_server_start(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    with pytest.raises(OSError, match="can't start new thread"):
        StandardError()


# Log destination


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
def test_server_log_destination_depends_on_options(
    arguments: tuple[str, ...],
    daemon: bool,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log.Syslog, "is_there", daemon)
    assert listen._logs_to_stderr(parse(["up", "-l1", *arguments])) is expected
