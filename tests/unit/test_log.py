"""Tests of printable log lines and of syslog."""

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
def test_unprintable_characters_are_escaped(text: str, shown: str) -> None:
    assert log.printable(text) == shown


@given(st.text())
def test_log_line_is_printable_for_any_text(text: str) -> None:
    assert all(" " <= character <= "~" for character in log.printable(text))


class Daemon:
    """A syslog daemon that reads only on request."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)

    def reads(self) -> list[bytes]:
        """Return all available lines."""
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
    with contextlib.suppress(OSError):  # The test may have closed the socket.
        daemon.reads()
    written.flush_and_close()


def fill(written: Syslog) -> int:
    """Write lines until the daemon's socket is full, and return the number of accepted lines."""
    for count in range(100_000):
        written.write(log_levels.INFO, "x" * 1000)
        if written.has_backlog:
            return count
    raise AssertionError("the socket of the daemon is never full")


@pytest.mark.parametrize(
    ("level", "priority"),
    [
        (log_levels.ERROR, syslog.LOG_ERR),
        (log_levels.WARNING, syslog.LOG_WARNING),
        (log_levels.INFO, syslog.LOG_INFO),
        (log_levels.DEBUG, syslog.LOG_DEBUG),
    ],
)
def test_log_line_contains_priority_time_ident_and_pid(
    written: Syslog, daemon: Daemon, level: int, priority: int
) -> None:
    written.write(level, "text")
    (line,) = daemon.reads()
    head = rf"<{syslog.LOG_MAIL | priority}>[A-Z][a-z]{{2}} [ 0-9][0-9] [0-9:]{{8}} postprox"
    assert re.fullmatch(rf"{head}\[{os.getpid()}\]: text", line.decode())


def test_newline_in_text_is_escaped(written: Syslog, daemon: Daemon) -> None:
    written.write(log_levels.ERROR, "one\ntwo")
    assert daemon.reads()[0].endswith(b": one\\ntwo")


def test_long_line_is_truncated(written: Syslog, daemon: Daemon) -> None:
    written.write(log_levels.ERROR, "\xff" * 1_000_000)
    assert len(daemon.reads()[0].partition(b": ")[2]) == limits.LOG_LINE


def test_line_is_discarded_if_syslog_socket_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_SOCKET", "/nonexistent/log")
    written = Syslog()
    written.write(log_levels.ERROR, "nobody listens")
    assert not written.has_backlog
    written.flush_and_close()


def test_informational_lines_are_dropped_and_counted_if_daemon_blocks(
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


def test_warnings_are_delayed_if_daemon_blocks(written: Syslog, daemon: Daemon) -> None:
    fill(written)
    written.write(log_levels.WARNING, "the filter has failed")
    daemon.reads()
    written.flush()
    assert daemon.reads()[0].endswith(b": the filter has failed")


def test_log_backlog_is_bounded(written: Syslog, daemon: Daemon) -> None:
    fill(written)
    for _ in range(1000):
        written.write(log_levels.ERROR, "x" * 1000)
    kept = 0
    while written.has_backlog:
        kept += len(daemon.reads())
        written.flush()
    assert kept < 400


def test_line_that_fills_log_backlog_exactly_is_kept(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOG_BACKLOG", 2 * len(log._datagram(log_levels.ERROR, "waits")))
    written = Syslog()
    fill(written)
    before = written.dropped
    for _ in range(3):
        written.write(log_levels.ERROR, "waits")
    assert written.dropped == before + 1
    daemon.reads()
    written.flush_and_close()


def test_loop_flushes_log_backlog(written: Syslog, daemon: Daemon, loop: Loop) -> None:
    written.attach(loop.clock, loop.note_deadline)
    loop.add(written)
    fill(written)
    written.write(log_levels.ERROR, "waits")
    daemon.reads()
    while written.has_backlog:
        loop.run_once()
    assert daemon.reads()[0].endswith(b": waits")


def test_each_failed_write_to_daemon_schedules_retry(written: Syslog, daemon: Daemon) -> None:
    tries: list[float] = []
    written.attach(lambda: 5.0, tries.append)
    fill(written)
    written.write(log_levels.ERROR, "waits")
    written.timer()
    written.timer()
    assert tries == [5.0 + limits.LOG_RETRY] * 3


def test_later_log_line_does_not_overtake_backlog(
    written: Syslog, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(written)
    written.write(log_levels.ERROR, "first")
    daemon.reads()
    # The socket has space for the second line, but the first one must be sent before it.
    monkeypatch.setattr(Syslog, "flush", lambda _: None)
    written.write(log_levels.ERROR, "second")
    assert daemon.reads() == []


def test_exit_without_backlog_does_not_wait(
    written: Syslog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(_: float) -> None:
        raise AssertionError("unexpected wait")

    monkeypatch.setattr(time, "sleep", sleep)
    written.flush_and_close()
    assert not written.has_backlog


def test_empty_backlog_has_no_deadline(written: Syslog) -> None:
    written.attach(lambda: 5.0, lambda _: None)
    written.timer()
    assert written.deadline == limits.NEVER


def test_exit_flush_has_time_limit(
    written: Syslog, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOG_EXIT_FLUSH", 0.02)
    fill(written)
    written.flush_and_close()
    assert written.has_backlog


def test_exit_flush_waits_for_backlog(
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


def test_internal_error_is_logged_with_traceback(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "destination", written := Syslog())
    error = ValueError("what should not happen")
    log.write_fault(error)
    (line,) = daemon.reads()
    shown = log.printable("".join(traceback.format_exception(error)))
    assert line.endswith(f"]: internal error: {shown}".encode())
    written.flush_and_close()


def test_daemon_restart_delays_warnings_and_drops_other_lines(
    written: Syslog, daemon: Daemon, tmp_path: Path
) -> None:
    written.write(log_levels.ERROR, "one")
    daemon.socket.close()  # The socket exists, but no process reads it.
    written.write(log_levels.ERROR, "two")
    (tmp_path / "log").unlink()  # Now the socket is missing, too.
    written.write(log_levels.INFO, "dropped")
    again = Daemon(tmp_path / "log")
    written.flush()
    two, dropped = again.reads()
    assert two.endswith(b": two")
    assert b": 1 log lines were dropped" in dropped
    again.socket.close()


def test_descriptor_shortage_delays_warning(
    written: Syslog, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> NoReturn:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr("postprox.shell.log.socket.socket", refused)
        written.write(log_levels.WARNING, "message passed unfiltered")
    written.flush()
    assert daemon.reads()[0].endswith(b": message passed unfiltered")


def test_line_is_discarded_after_permission_error(
    written: Syslog, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> NoReturn:
        raise PermissionError

    monkeypatch.setattr(log, "_connected", refused)
    written.write(log_levels.ERROR, "lost")
    assert not written.has_backlog


def test_log_reconnects_to_restarted_daemon(
    written: Syslog, daemon: Daemon, tmp_path: Path
) -> None:
    written.write(log_levels.ERROR, "one")
    daemon.socket.close()
    (tmp_path / "log").unlink()
    again = Daemon(tmp_path / "log")
    written.write(log_levels.ERROR, "two")
    assert again.reads()[0].endswith(b": two")
    again.socket.close()


def test_running_daemon_is_detected(written: Syslog, daemon: Daemon) -> None:
    assert written.is_there
    assert daemon.reads() == []


def test_unread_socket_counts_as_missing_daemon(written: Syslog, daemon: Daemon) -> None:
    daemon.socket.close()
    assert not written.is_there


@pytest.mark.parametrize("kind", ["file", "directory", "loop", "stream"])
def test_path_without_datagram_socket_counts_as_missing_daemon(
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
def test_resource_shortage_does_not_count_as_missing_daemon(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused() -> NoReturn:
        raise OSError(number, "")

    monkeypatch.setattr(log, "_connected", refused)
    assert Syslog().is_there


@pytest.mark.parametrize("error", [FileNotFoundError, PermissionError])
def test_connection_error_counts_as_missing_daemon(
    monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    def refused() -> NoReturn:
        raise error

    monkeypatch.setattr(log, "_connected", refused)
    assert not Syslog().is_there
