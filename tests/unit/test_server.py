"""Tests of the listening server with fake sessions: limits, log lines and shutdown."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn, cast

import pytest

from postprox.core import limits, log_levels
from postprox.core.options import Options, parse
from postprox.shell import listen, newfile, system
from postprox.shell.connection import Connection
from postprox.shell.loop import Loop
from postprox.shell.stream import Stream
from tests.support.peers import TIMEOUT
from tests.unit.peers import run_until

Lines = list[tuple[int, str]]


class Session:
    """A fake session that records calls and runs until the test ends it."""

    def __init__(
        self,
        _loop: Loop,
        _options: Options,
        client: Stream,
        ended: Callable[[Connection], None],
        _counters: object,
    ) -> None:
        self.session = SimpleNamespace(client_gone=False)
        self.filtering = False
        self.log_seldom: Callable[[int, str], None]
        self.stopped = 0
        self.terminated: list[float] = []
        self._client = client
        self._ended = ended

    def start(self) -> None:
        pass

    def stop(self) -> None:
        self.stopped += 1

    def terminate(self, patience: float) -> None:
        self.terminated.append(patience)

    def ends(self) -> None:
        self._client.close()
        self._ended(cast("Connection", self))


class Site:
    """A server with fake sessions on the test's loop."""

    def __init__(self, loop: Loop, listener: socket.socket) -> None:
        self.loop = loop
        self.listener = listener
        self.sessions: list[Session] = []
        self.clients: list[socket.socket] = []
        self.watched: list[int] = []

    def serves(self, *options: str) -> listen.Server:
        """Start the server."""
        self.listener.setblocking(False)
        server = listen.Server(parse(["up", "-l1", *options]))
        server.accept_from([self.listener])
        return server

    def client(self) -> None:
        """Connect another client."""
        self.clients.append(socket.create_connection(self.listener.getsockname(), TIMEOUT))

    def has(self, number: int) -> None:
        """Wait until `number` sessions have started."""
        run_until(self.loop, lambda: len(self.sessions) == number)

    def accepts(self) -> bool:
        """Return whether the server watches its listener."""
        return bool(self.watched[-1])


@pytest.fixture
def site(loop: Loop, listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    site = Site(loop, listener)
    number, watch = listener.fileno(), loop.watch

    def begin(*arguments: object) -> Session:
        site.sessions.append(Session(*arguments))  # type: ignore[arg-type]
        return site.sessions[-1]

    def noting(descriptor: int, events: int, handler: Callable[[], None]) -> None:
        if descriptor == number:
            site.watched.append(events)
        watch(descriptor, events, handler)

    monkeypatch.setattr(listen, "Loop", lambda _speed, _poller: loop)
    monkeypatch.setattr(listen, "Connection", begin)
    monkeypatch.setattr(loop, "watch", noting)
    yield site
    for session in site.sessions:
        session.ends()
    for client in site.clients:
        client.close()


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Lines:
    lines: Lines = []
    monkeypatch.setattr("postprox.shell.log.write", lambda *line: lines.append(line))
    return lines


# listen.sessions


def test_full_server_does_not_accept_clients(site: Site, logged: Lines) -> None:
    site.serves("--max-sessions", "1")
    assert site.accepts()
    site.client()
    site.has(1)
    assert not site.accepts()
    assert logged == [
        (log_levels.WARNING, "session limit reached (1), further clients wait"),
    ]


def test_repeated_session_log_line_is_rate_limited(
    site: Site, logged: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.serves()
    site.client()
    site.client()
    site.has(2)
    one, other = (session.log_seldom for session in site.sessions)
    one(log_levels.WARNING, "LMTP")
    other(log_levels.WARNING, "LMTP")
    assert logged == [(log_levels.WARNING, "LMTP")]
    monkeypatch.setattr(limits, "FULL_WARNING", 0.0)
    other(log_levels.WARNING, "LMTP")
    assert len(logged) == 2


def test_rate_limited_log_line_does_not_suppress_other_lines(site: Site, logged: Lines) -> None:
    site.serves("--max-sessions", "1")
    site.client()
    site.has(1)
    site.sessions[0].log_seldom(log_levels.WARNING, "LMTP")
    assert [text for _, text in logged] == [
        "session limit reached (1), further clients wait",
        "LMTP",
    ]


def test_free_slot_is_reused_immediately(
    site: Site, logged: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ACCEPT_PAUSE", limits.CLIENT_IDLE)
    site.serves("--max-sessions", "1")
    site.client()
    site.has(1)
    site.client()
    site.sessions[0].ends()
    site.has(2)
    assert len(logged) == 1


def test_slot_of_disconnected_client_is_freed(
    site: Site, logged: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ACCEPT_PAUSE", 0.01)
    site.serves("--max-sessions", "1")
    site.client()
    site.has(1)
    site.client()
    site.sessions[0].session.client_gone = True
    site.has(2)
    assert len(logged) == 1


def test_full_server_repeatedly_checks_for_disconnected_clients(
    site: Site, logged: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ACCEPT_PAUSE", 0.01)
    server = site.serves("--max-sessions", "1")
    site.client()
    site.has(1)
    site.client()
    looks: list[float] = []

    def looked() -> bool:
        if server.deadline not in looks:
            looks.append(server.deadline)
        return len(looks) == 6

    run_until(site.loop, looked)
    site.sessions[0].session.client_gone = True
    site.has(2)
    assert len(logged) == 1


def test_client_disconnect_before_accept_is_ignored(
    site: Site, logged: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = [ConnectionAbortedError(), BlockingIOError()]
    real = system.accept

    def accept(listener: socket.socket) -> object:
        if errors:
            raise errors.pop()
        return real(listener)

    monkeypatch.setattr(listen, "accept", accept)
    site.serves()
    site.client()
    site.has(1)
    assert (errors, logged) == ([], [])


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
        (OSError("odd"), "odd"),
        (MemoryError(), "no memory"),
    ],
)
def test_failed_session_start_is_logged(
    site: Site,
    logged: Lines,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    reason: str,
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(listen, "Connection", refuse)
    site.serves()
    site.client()
    run_until(site.loop, lambda: logged)
    assert logged == [(log_levels.ERROR, f"cannot serve a client: {reason}")]
    assert site.clients[0].recv(1) == b""
    assert not site.accepts()


def test_failed_poll_registration_of_listener_is_logged(
    site: Site, logged: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(site.loop, "watch", refuse)
    site.serves()
    assert logged == [(log_levels.ERROR, "cannot wait for clients: no memory")]


# listen.stop


def test_stopped_server_does_not_accept_clients(site: Site) -> None:
    server = site.serves()
    site.client()
    site.has(1)
    server._stop()
    assert not site.accepts()
    assert site.listener.fileno() == -1
    assert (site.sessions[0].stopped, site.sessions[0].terminated) == (1, [])


def test_messages_in_progress_have_grace_period(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = site.serves()
    site.client()
    site.has(1)
    server._stop()
    now = server.deadline
    assert limits.STOP_GRACE - 10 < now - site.loop.clock() <= limits.STOP_GRACE
    server.timer()
    assert site.sessions[0].terminated == []
    monkeypatch.setattr(site.loop, "now", now)
    server.timer()
    assert (site.sessions[0].terminated, server.deadline) == ([0], limits.NEVER)


def test_second_stop_reduces_upstream_timeout(site: Site) -> None:
    server = site.serves()
    site.client()
    site.has(1)
    server._stop()
    server._stop()
    assert site.sessions[0].terminated == [limits.STOP_FINAL_AGAIN]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_stop_signal_closes_listener(site: Site, number: int) -> None:
    site.serves()
    signal.raise_signal(number)
    run_until(site.loop, lambda: site.listener.fileno() == -1)


# Limit of open files


@pytest.mark.parametrize(
    ("soft", "hard", "allowed", "raised"),
    [
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 100, None),
        (1016, 1016, 100, None),
        (1015, 5000, 100, 1016),
        (1015, resource.RLIM_INFINITY, 100, 1016),
        (256, 516, 50, 516),
        (10, 10, 1, 10),
    ],
)
def test_session_limit_is_bounded_by_open_file_limit(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, allowed: int, raised: int | None
) -> None:
    limited: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: limited.append(pair))
    assert listen._sessions_allowed(100) == allowed
    assert limited == ([] if raised is None else [(raised, hard)])


def test_reduced_session_limit_is_logged(
    site: Site, logged: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listen, "_sessions_allowed", lambda wanted: wanted - 1)
    site.serves("--max-sessions", "3")
    assert logged == [
        (log_levels.WARNING, "limit on open files allows 2 sessions, fewer than --max-sessions 3"),
    ]


def test_nothing_is_logged_if_session_limit_is_not_reduced(site: Site, logged: Lines) -> None:
    site.serves("--max-sessions", "3")
    assert logged == []


def test_port_can_be_reused_immediately() -> None:
    (listener,) = listen._bind("127.0.0.1", 0)
    with contextlib.closing(listener):
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)


# --metrics, --pid-file


def test_metrics_have_help_and_type_lines(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "postprox.prom"
    server = site.serves("--metrics", str(file))
    site.client()
    site.has(1)
    site.sessions[0].filtering = True
    server.begin_metrics([site.listener])
    present = [
        ("sessions", "gauge", "Current sessions.", 1),
        ("sessions_max", "gauge", "Maximum number of concurrent sessions.", 100),
        ("waiting", "gauge", "Clients in the listen backlog.", 0),
        ("filters", "gauge", "Running filters.", 1),
        ("log_dropped_total", "counter", "Dropped log lines.", 0),
    ]
    told = file.read_text()
    for name, kind, meaning, number in present:
        described = f"# HELP postprox_{name} {meaning}\n# TYPE postprox_{name} {kind}\n"
        assert f"{described}postprox_{name} {number}\n" in told


def test_status_changes_if_session_starts_or_ends(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: list[bool] = []
    server = site.serves()
    busy = server._notifier._busy
    monkeypatch.setattr(server._notifier, "session_changed", lambda: changes.append(busy()))
    site.client()
    site.has(1)
    assert changes == [True]
    site.sessions[0].ends()
    assert changes == [True, False]


def test_server_start_time_is_unix_time(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "postprox.prom"
    monkeypatch.setattr(time, "time", lambda: 1764628483.12345)
    server = site.serves("--metrics", str(file))
    monkeypatch.setattr(time, "time", lambda: 1764629000.0)
    server.begin_metrics([site.listener])
    assert (
        "# HELP postprox_start_time_seconds Start time of the server since the Unix epoch in "
        "seconds.\n# TYPE postprox_start_time_seconds gauge\n"
        "postprox_start_time_seconds 1764628483.123\n"
    ) in file.read_text()


def test_backlog_of_non_tcp_socket_counts_as_zero() -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        assert listen._waiting(listener) == 0


def test_fork_failure_is_reported(
    site: Site,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refused() -> int:
        raise BlockingIOError(errno.EAGAIN, "no process")

    monkeypatch.setattr(os, "fork", refused)
    monkeypatch.setattr(listen, "_bind", lambda *_: [site.listener])
    assert listen.serve(parse(["up", "-l1", "--pid-file", str(tmp_path / "pid")])) == 1
    assert capsys.readouterr().err == "postprox: cannot go into the background: no process\n"
    assert list(tmp_path.iterdir()) == []


def test_background_server_replaces_standard_streams(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = site.serves()
    copies: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "setsid", lambda: None)
    monkeypatch.setattr(os, "dup2", lambda *pair: copies.append(pair))
    null = os.open("/dev/null", os.O_RDWR)
    server.go_into_background(null)
    assert copies == [(null, 0), (null, 1), (null, 2)]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(null)


def test_server_removes_stale_files_from_its_directory(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "postprox-0123456789abcdef.spool"
    file.touch()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + limits.STALE + 60)
    monkeypatch.setattr(listen, "_passed_listeners", lambda: [site.listener])
    monkeypatch.setattr(listen.Server, "run", lambda _: None)
    options = ("--foreground", "--log", "syslog", "-d", str(tmp_path))
    assert listen.serve(parse(["up", "-l1", *options])) == 0
    assert list(tmp_path.iterdir()) == []


def test_previous_content_of_pid_file_is_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    file.write_text("what another program has left\n")
    listen._PidFile(str(file)).write(7)
    assert file.read_text() == "7\n"


def test_pid_file_is_world_readable(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    before = os.umask(0o022)
    try:
        listen._PidFile(str(file)).write(7)
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == 0o644


def test_pid_file_not_written_by_server_is_not_removed(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    file.write_text("1\n")
    with listen._PidFile(str(file)):
        pass
    assert file.read_text() == "1\n"


def test_removed_pid_file_is_closed(tmp_path: Path) -> None:
    before = os.listdir("/dev/fd")  # noqa: PTH208 - only names are needed
    with listen._PidFile(str(tmp_path / "pid")) as written:
        written.write(7)
    assert os.listdir("/dev/fd") == before  # noqa: PTH208


def test_replaced_pid_file_is_not_removed(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with listen._PidFile(str(file)) as written:
        written.write(7)
        file.unlink()
        file.symlink_to("/dev/null")
    assert file.is_symlink()
    assert Path("/dev/null").is_char_device()


def test_pid_file_write_failure_is_reported(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "pid"

    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    def fork() -> int:
        monkeypatch.setattr(newfile, "write", full)
        return 7

    monkeypatch.setattr(listen, "_passed_listeners", lambda: [site.listener])
    monkeypatch.setattr(os, "fork", fork)
    monkeypatch.setattr(os, "kill", lambda *_: None)
    assert listen.serve(parse(["up", "-l1", "--pid-file", str(file)])) == 1
    assert capsys.readouterr().err == f"postprox: cannot write {file}: No space left on device\n"
