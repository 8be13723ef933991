"""Tests of the messages to the service manager."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from postprox.core import limits
from postprox.core.options import parse
from postprox.shell import listen, sd_notify
from postprox.shell.loop import Loop
from tests.support.fixtures import Serve
from tests.support.peers import TIMEOUT
from tests.support.upstream import MESSAGE, Upstream, greeted, in_data

#: The watchdog timeout of the packaged unit, and a clock that is faster than real time.
PACKAGED = {"WATCHDOG_USEC": "60000000", "POSTPROX_CLOCK_SPEED": "20"}


class ServiceNotifier:
    """A socket that receives the messages of a service."""

    def __init__(self, name: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(name.replace("@", "\0"))
        self._socket.settimeout(TIMEOUT)
        self.variables = {"NOTIFY_SOCKET": name}

    def hears(self) -> list[str]:
        """Return the lines of the next message."""
        return self._socket.recv(4096).decode().splitlines()

    def waits_for(self, line: str) -> list[str]:
        """Wait for a message that contains `line`, and return the message's lines."""
        while line not in (heard := self.hears()):
            pass
        return heard

    def heard(self) -> list[list[str]]:
        """Return the lines of all messages received so far."""
        messages = []
        while select.select([self._socket], [], [], 0)[0]:
            messages.append(self.hears())
        return messages

    def closes(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceNotifier]:
    manager = ServiceNotifier(str(tmp_path / "notify"))
    yield manager
    manager.closes()


def test_manager_is_notified_of_readiness(
    serve: Serve, upstream: Upstream, manager: ServiceNotifier
) -> None:
    server = serve(upstream.address, variables=manager.variables)
    assert manager.hears() == ["READY=1", "STATUS=sessions: 0, filters: 0"]
    greeted(server.client(), upstream)


def test_abstract_socket_of_service_manager_receives_notification(
    serve: Serve, upstream: Upstream, tmp_path: Path
) -> None:
    manager = ServiceNotifier(f"@{tmp_path}")
    serve(upstream.address, variables=manager.variables)
    assert "READY=1" in manager.hears()
    manager.closes()


def test_watchdog_message_is_sent_twice_per_interval(
    serve: Serve, upstream: Upstream, manager: ServiceNotifier
) -> None:
    serve(upstream.address, variables={**manager.variables, "WATCHDOG_USEC": "200000"})
    manager.hears()
    assert manager.hears() == ["WATCHDOG=1", "STATUS=sessions: 0, filters: 0"]
    assert "WATCHDOG=1" in manager.hears()


def test_status_reports_current_activity(
    serve: Serve, upstream: Upstream, manager: ServiceNotifier, tmp_path: Path
) -> None:
    variables = {**manager.variables, **PACKAGED}
    server = serve("-c", "sleep 100", "-d", str(tmp_path), upstream.address, variables=variables)
    client = server.client()
    in_data(client, upstream)
    manager.waits_for("STATUS=sessions: 1, filters: 0")
    client.says(*MESSAGE)
    manager.waits_for("STATUS=sessions: 1, filters: 1")


def test_manager_is_notified_of_shutdown(
    serve: Serve, upstream: Upstream, manager: ServiceNotifier
) -> None:
    server = serve(upstream.address, variables=manager.variables)
    manager.hears()
    server.stop()
    assert "STOPPING=1" in manager.hears()
    assert server.exit_status() == 0


def test_status_reports_processed_messages(
    serve: Serve, upstream: Upstream, manager: ServiceNotifier, tmp_path: Path
) -> None:
    variables = {**manager.variables, **PACKAGED}
    server = serve("-c", "exit 1", "-d", str(tmp_path), upstream.address, variables=variables)
    client = server.client()
    in_data(client, upstream)
    client.says(*MESSAGE)
    client.sees_reply(b"554 ")
    manager.waits_for("STATUS=sessions: 1, filters: 0; reject 1")


@pytest.mark.parametrize(
    ("microseconds", "process", "seconds"),
    [
        (b"3000000", lambda: b"", 3.0),
        (b"3000000", lambda: b"%d" % os.getpid(), 3.0),
        (b"3000000", lambda: b"1", 0.0),
        (b"3000000", lambda: b"9" * 5000, 0.0),
        (b"%d" % (2**64 - 1), lambda: b"", (2**64 - 1) / 1e6),
        (b"9" * 5000, lambda: b"", 0.0),
        (b"soon", lambda: b"", 0.0),
        (b"-1", lambda: b"", 0.0),
        (b"1.5", lambda: b"", 0.0),
        (b"", lambda: b"", 0.0),
    ],
)
def test_watchdog_interval_is_read_from_environment(
    monkeypatch: pytest.MonkeyPatch,
    microseconds: bytes,
    process: Callable[[], bytes],
    seconds: float,
) -> None:
    variables = {b"WATCHDOG_USEC": microseconds, b"WATCHDOG_PID": process()}
    monkeypatch.setattr(sd_notify, "environ", variables)
    assert sd_notify._watchdog_seconds() == seconds
    assert variables == {}


class Timeline:
    """A loop with a clock that the test sets, and a server's status for the notifier."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sessions = 0
        self.words = ""
        self.notifier = sd_notify.ServiceNotifier(
            cast("Loop", self), lambda: f"sessions: {self.sessions}{self.words}", self.is_busy
        )

    def clock(self) -> float:
        return self.now

    def add(self, _timed: object) -> None:
        pass

    def note_deadline(self, deadline: float) -> None:
        assert deadline >= self.notifier.deadline

    def is_busy(self) -> bool:
        return bool(self.sessions)

    def has_sessions(self, number: int) -> None:
        self.sessions = number
        self.notifier.session_changed()

    def passes(self, seconds: float) -> int:
        """Advance the clock. Return how often the notifier has woken up."""
        end, wakeups = self.now + seconds, 0
        while self.notifier.deadline <= end:
            self.now = self.notifier.deadline
            self.notifier.timer()
            wakeups += 1
        self.now = end
        return wakeups


@pytest.fixture
def timeline(
    request: pytest.FixtureRequest, manager: ServiceNotifier, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Timeline]:
    """A notifier that has sent READY=1. The parameter is its watchdog timeout in seconds."""
    variables = {b"NOTIFY_SOCKET": manager.variables["NOTIFY_SOCKET"].encode()}
    if seconds := getattr(request, "param", 0):
        variables[b"WATCHDOG_USEC"] = b"%d" % (seconds * 1_000_000)
    monkeypatch.setattr(sd_notify, "environ", variables)
    timeline = Timeline()
    assert timeline.notifier.deadline == limits.NEVER
    timeline.notifier.ready()
    assert manager.heard() == [["READY=1", "STATUS=sessions: 0"]]
    yield timeline
    timeline.notifier.close()


#: The packaged unit has a watchdog timeout of 60 s.
WATCHDOGS = pytest.mark.parametrize("timeline", [0, 60], indirect=True)


@WATCHDOGS
@pytest.mark.parametrize("before", [0.0, 0.4, 7.3, 29.5])
def test_status_is_at_most_2_seconds_old(
    timeline: Timeline, manager: ServiceNotifier, before: float
) -> None:
    timeline.passes(before)
    manager.heard()
    timeline.has_sessions(1)
    timeline.passes(2)
    assert manager.heard()[-1][1] == "STATUS=sessions: 1"
    for words in (", filters: 1", ", filters: 0; accept 1"):  # the sessions do not change
        timeline.passes(before)
        timeline.words = words
        timeline.passes(2)
        assert manager.heard()[-1][1] == f"STATUS=sessions: 1{words}"
    timeline.passes(before)
    timeline.has_sessions(0)
    timeline.passes(2)
    assert manager.heard()[-1][1] == "STATUS=sessions: 0, filters: 0; accept 1"


def test_new_sessions_do_not_postpone_status(timeline: Timeline, manager: ServiceNotifier) -> None:
    for number in range(1, 8):
        timeline.has_sessions(number)
        timeline.passes(0.3)
    assert [status for _, status in manager.heard()] == [
        "STATUS=sessions: 4",
        "STATUS=sessions: 7",
    ]


def test_unchanged_status_is_not_repeated(timeline: Timeline, manager: ServiceNotifier) -> None:
    timeline.has_sessions(1)
    timeline.passes(100)
    assert manager.heard() == [["WATCHDOG=1", "STATUS=sessions: 1"]]


def test_idle_server_does_not_wake_up(timeline: Timeline) -> None:
    timeline.has_sessions(1)
    timeline.passes(10)
    timeline.has_sessions(0)
    timeline.passes(2)
    assert timeline.passes(10_000) == 0


@pytest.mark.parametrize("timeline", [60], indirect=True)
def test_idle_server_wakes_up_only_for_watchdog(
    timeline: Timeline, manager: ServiceNotifier
) -> None:
    assert timeline.passes(240) == 8
    assert manager.heard() == [["WATCHDOG=1", "STATUS=sessions: 0"]] * 8


@pytest.mark.parametrize("timeline", [60], indirect=True)
def test_watchdog_datagram_is_sent_even_if_status_is_unchanged(
    timeline: Timeline, manager: ServiceNotifier
) -> None:
    timeline.has_sessions(1)
    timeline.passes(2)
    manager.heard()
    timeline.passes(300)
    assert len(manager.heard()) == 10


def test_failed_status_send_is_retried(
    timeline: Timeline, manager: ServiceNotifier, tmp_path: Path
) -> None:
    name = tmp_path / "notify"
    name.rename(tmp_path / "away")
    timeline.has_sessions(1)
    timeline.passes(10)
    timeline.has_sessions(0)
    timeline.passes(10)
    assert manager.heard() == []
    (tmp_path / "away").rename(name)
    timeline.passes(2)
    assert manager.heard() == [["WATCHDOG=1", "STATUS=sessions: 0"]]


def test_blocked_manager_does_not_block_proxy(
    loop: Loop, manager: ServiceNotifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = manager.variables["NOTIFY_SOCKET"].encode()
    monkeypatch.setattr(sd_notify, "environ", {b"NOTIFY_SOCKET": address})
    told = sd_notify.ServiceNotifier(loop, lambda: "idle", lambda: False)
    for _ in range(1000):
        told.stopping()
    told.close()


@pytest.mark.parametrize(
    "name", [b"@", b"nowhere", b"vsock:2:1234", b"/" + b"x" * 5000, b"/\xff", b"@" + b"x" * 200]
)
def test_invalid_address_is_ignored(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, name: bytes
) -> None:
    monkeypatch.setattr(sd_notify, "environ", {b"NOTIFY_SOCKET": name})
    told = sd_notify.ServiceNotifier(loop, lambda: "idle", lambda: False)
    told.ready()
    told.timer()
    told.stopping()
    told.close()
    loop.remove(told)


def test_server_closes_notify_socket_on_exit(
    loop: Loop, manager: ServiceNotifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = manager.variables["NOTIFY_SOCKET"].encode()
    monkeypatch.setattr(sd_notify, "environ", {b"NOTIFY_SOCKET": address})
    monkeypatch.setattr(listen, "Loop", lambda _speed, _poller: loop)
    before = os.listdir("/dev/fd")  # noqa: PTH208 - only names are needed
    server = listen.Server(parse(["up", "-l1"]))
    server.accept_from([])
    server.run()
    assert os.listdir("/dev/fd") == before  # noqa: PTH208


def test_missing_manager_is_ignored(serve: Serve, upstream: Upstream, tmp_path: Path) -> None:
    variables = {"NOTIFY_SOCKET": str(tmp_path / "nothing"), "WATCHDOG_USEC": "2000"}
    server = serve(upstream.address, variables=variables)
    greeted(server.client(), upstream)


def test_filter_does_not_inherit_manager_variables(
    serve: Serve, upstream: Upstream, manager: ServiceNotifier, tmp_path: Path
) -> None:
    variables = {**manager.variables, "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}
    command = f"env >{tmp_path}/env; exit 1"
    server = serve("-c", command, "-d", str(tmp_path), upstream.address, variables=variables)
    client = server.client()
    in_data(client, upstream)
    client.says(*MESSAGE)
    client.sees_reply(b"554 ")
    seen = (tmp_path / "env").read_text()
    assert "EMAIL=" in seen
    assert "NOTIFY_SOCKET" not in seen
    assert "WATCHDOG" not in seen
