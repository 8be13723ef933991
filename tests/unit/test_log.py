"""The log: one printable line, to syslog."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import syslog
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postprox.core import limits, log_levels
from postprox.shell import log
from postprox.shell.log import Syslog
from postprox.shell.loop import Loop


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("plain text, %s %n 100%", "plain text, %s %n 100%"),
        ("two\nlines", "two\\nlines"),
        ("a\r\n\tb", "a\\r\\n\\tb"),
        ("nul \0", "nul \\x00"),
        ("escape \x1b[31m", "escape \\x1b[31m"),
        ("delete \x7f", "delete \\x7f"),
        ("café", "caf\\xe9"),
        ("𝄞", "\\U0001d11e"),
        ("\u2028", "\\u2028"),
        ("\ud800", "\\ud800"),
        ("one \\ of its own", "one \\ of its own"),
        ('it\'s "quoted"', 'it\'s "quoted"'),
    ],
)
def test_what_is_not_printable_ascii_is_escaped(text: str, shown: str) -> None:
    assert log.printable(text) == shown


@given(st.text())
def test_a_line_is_printable_whatever_is_in_it(text: str) -> None:
    assert all(" " <= character <= "~" for character in log.printable(text))


class Daemon:
    """A syslog daemon that reads when it is told to."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)

    def reads(self) -> list[bytes]:
        """Read all that is there."""
        lines = []
        with contextlib.suppress(BlockingIOError):
            while True:
                lines.append(self.socket.recv(65536))
        return lines


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    monkeypatch.setattr(log, "_SOCKET", str(tmp_path / "log"))
    daemon = Daemon(tmp_path / "log")
    yield daemon
    daemon.socket.close()


@pytest.fixture
def written(daemon: Daemon) -> Iterator[Syslog]:
    written = Syslog()
    yield written
    with contextlib.suppress(OSError):  # a test may have closed it
        daemon.reads()
    written.flush_and_close()


def fill(written: Syslog) -> int:
    """Write information until the daemon takes no more; return how many lines it took."""
    for count in range(100_000):
        written.write(log_levels.INFO, "x" * 1000)
        if written.has_backlog:
            return count
    raise AssertionError("the daemon takes everything")


@pytest.mark.parametrize(
    ("level", "priority"),
    [
        (log_levels.ERROR, syslog.LOG_ERR),
        (log_levels.WARNING, syslog.LOG_WARNING),
        (log_levels.INFO, syslog.LOG_INFO),
        (log_levels.DEBUG, syslog.LOG_DEBUG),
    ],
)
def test_a_line_has_priority_time_ident_and_pid(
    written: Syslog, daemon: Daemon, level: int, priority: int
) -> None:
    written.write(level, "text")
    (line,) = daemon.reads()
    head = rf"<{syslog.LOG_MAIL | priority}>[A-Z][a-z]{{2}} [ 0-9][0-9] [0-9:]{{8}} postprox"
    assert re.fullmatch(rf"{head}\[{os.getpid()}\]: text", line.decode())


def test_a_line_is_harmless_when_it_is_written(written: Syslog, daemon: Daemon) -> None:
    written.write(log_levels.ERROR, "one\ntwo")
    assert daemon.reads()[0].endswith(b": one\\ntwo")


def test_a_long_line_is_cut(written: Syslog, daemon: Daemon) -> None:
    written.write(log_levels.ERROR, "\xff" * 1_000_000)
    assert len(daemon.reads()[0].partition(b": ")[2]) == limits.LOG_LINE


def test_writing_needs_no_syslog_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_SOCKET", "/nonexistent/log")
    written = Syslog()
    written.write(log_levels.ERROR, "nobody listens")
    assert not written.has_backlog
    written.flush_and_close()


def test_information_that_the_daemon_cannot_take_is_dropped_and_counted(
    written: Syslog, daemon: Daemon
) -> None:
    fill(written)
    written.write(log_levels.INFO, "dropped")
    daemon.reads()
    written.write(log_levels.INFO, "taken again")
    told = daemon.reads()
    assert told[0].endswith(b": 2 log lines were dropped")
    assert told[1].endswith(b": taken again")
    assert not written.has_backlog
    assert written.dropped == 2


def test_warnings_wait_for_the_daemon(written: Syslog, daemon: Daemon) -> None:
    fill(written)
    written.write(log_levels.WARNING, "the filter has failed")
    daemon.reads()
    written.flush()
    assert daemon.reads()[0].endswith(b": the filter has failed")


def test_what_waits_is_bounded(written: Syslog, daemon: Daemon) -> None:
    fill(written)
    for _ in range(1000):
        written.write(log_levels.ERROR, "x" * 1000)
    kept = 0
    while written.has_backlog:
        kept += len(daemon.reads())
        written.flush()
    assert kept < 400


def test_the_loop_sees_to_what_waits(written: Syslog, daemon: Daemon, loop: Loop) -> None:
    written.attach(loop.clock, loop.note_deadline)
    loop.add(written)
    fill(written)
    written.write(log_levels.ERROR, "waits")
    daemon.reads()
    while written.has_backlog:
        loop.run_once()
    assert daemon.reads()[0].endswith(b": waits")


def test_as_long_as_nobody_reads_it_is_tried_again_and_again(
    written: Syslog, daemon: Daemon
) -> None:
    tries: list[float] = []
    written.attach(lambda: 5.0, tries.append)
    fill(written)
    written.write(log_levels.ERROR, "waits")
    written.timer()
    written.timer()
    assert tries == [5.0 + limits.LOG_RETRY] * 3


def test_no_line_overtakes_those_that_wait(
    written: Syslog, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(written)
    written.write(log_levels.ERROR, "first")
    daemon.reads()
    monkeypatch.setattr(Syslog, "flush", lambda _: None)  # room comes right behind it
    written.write(log_levels.ERROR, "second")
    assert daemon.reads() == []


def test_at_the_end_nothing_is_awaited_where_nothing_waits(
    written: Syslog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(_: float) -> None:
        raise AssertionError("it waits")

    monkeypatch.setattr(time, "sleep", sleep)
    written.flush_and_close()
    assert not written.has_backlog


def test_where_nothing_waits_nothing_is_tried_again(written: Syslog) -> None:
    written.attach(lambda: 5.0, lambda _: None)
    written.timer()
    assert written.deadline == limits.NEVER


def test_at_the_end_it_does_not_wait_for_long(
    written: Syslog, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOG_EXIT_FLUSH", 0.02)
    fill(written)
    written.flush_and_close()
    assert written.has_backlog


def test_at_the_end_it_waits_for_a_moment(
    written: Syslog, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(written)
    written.write(log_levels.ERROR, "waits")
    told: list[bytes] = []
    monkeypatch.setattr(time, "sleep", lambda _: told.extend(daemon.reads()))
    written.flush_and_close()
    told += daemon.reads()
    assert not written.has_backlog
    assert any(line.endswith(b": waits") for line in told)


def test_a_fault_is_told_with_the_place_where_it_happened(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "destination", written := Syslog())
    error = ValueError("what should not happen")
    log.write_fault(error)
    (line,) = daemon.reads()
    shown = log.printable("".join(traceback.format_exception(error)))
    assert line.endswith(f"]: internal error: {shown}".encode())
    written.flush_and_close()


def test_while_a_daemon_starts_anew_warnings_wait_and_information_is_counted(
    written: Syslog, daemon: Daemon, tmp_path: Path
) -> None:
    written.write(log_levels.ERROR, "one")
    daemon.socket.close()  # its socket is there, and nobody behind it
    written.write(log_levels.ERROR, "two")
    (tmp_path / "log").unlink()  # not even that
    written.write(log_levels.INFO, "dropped")
    again = Daemon(tmp_path / "log")
    written.flush()
    two, dropped = again.reads()
    assert two.endswith(b": two")
    assert b": 1 log lines were dropped" in dropped
    again.socket.close()


def test_without_a_descriptor_to_reach_the_daemon_with_a_warning_waits(
    written: Syslog, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> NoReturn:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr("postprox.shell.log.socket.socket", refused)
        written.write(log_levels.WARNING, "message passed unfiltered")
    written.flush()
    assert daemon.reads()[0].endswith(b": message passed unfiltered")


def test_a_daemon_that_may_not_be_reached_is_none(
    written: Syslog, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> NoReturn:
        raise PermissionError

    monkeypatch.setattr(log, "_connected", refused)
    written.write(log_levels.ERROR, "lost")
    assert not written.has_backlog


def test_a_daemon_that_starts_anew_is_written_to(
    written: Syslog, daemon: Daemon, tmp_path: Path
) -> None:
    written.write(log_levels.ERROR, "one")
    daemon.socket.close()
    (tmp_path / "log").unlink()
    again = Daemon(tmp_path / "log")
    written.write(log_levels.ERROR, "two")
    assert again.reads()[0].endswith(b": two")
    again.socket.close()


def test_a_daemon_that_reads_is_there(written: Syslog, daemon: Daemon) -> None:
    assert written.is_there
    assert daemon.reads() == []


def test_socket_that_no_daemon_reads_is_no_daemon(written: Syslog, daemon: Daemon) -> None:
    daemon.socket.close()
    assert not written.is_there


@pytest.mark.parametrize("kind", ["file", "directory", "loop", "stream"])
def test_what_is_no_datagram_socket_is_no_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = tmp_path / "devlog"
    with socket.socket(socket.AF_UNIX) as stream:
        if kind == "file":
            path.touch()
        elif kind == "directory":
            path.mkdir()
        elif kind == "loop":
            path.symlink_to(path)
        else:
            stream.bind(str(path))
            stream.listen()
        monkeypatch.setattr(log, "_SOCKET", str(path))
        assert not Syslog().is_there


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM])
def test_daemon_is_assumed_for_want_of_descriptors_or_memory(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused() -> NoReturn:
        raise OSError(number, "")

    monkeypatch.setattr(log, "_connected", refused)
    assert Syslog().is_there


@pytest.mark.parametrize("error", [FileNotFoundError, PermissionError])
def test_a_daemon_that_cannot_be_reached_is_not_there(
    monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    def refused() -> NoReturn:
        raise error

    monkeypatch.setattr(log, "_connected", refused)
    assert not Syslog().is_there
