"""Tests of the messages to the service manager."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from postprox.core import limits
from postprox.core.options import parse
from postprox.shell import listen, sd_notify
from postprox.shell.loop import Loop
from tests.support.fixtures import Serve
from tests.support.peers import TIMEOUT
from tests.support.upstream import MESSAGE, Upstream, greeted, in_data


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
        """Return the lines of the next message that contains `line`."""
        while line not in (heard := self.hears()):
            pass
        return heard

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


def test_abstract_manager_address_is_accepted(
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
    variables = {**manager.variables, "WATCHDOG_USEC": "20000"}
    server = serve("-c", "sleep 100", "-d", str(tmp_path), upstream.address, variables=variables)
    client = server.client()
    in_data(client, upstream)
    manager.waits_for("STATUS=sessions: 1, filters: 0")
    client.says(*MESSAGE)
    manager.waits_for("STATUS=sessions: 1, filters: 1")


def test_manager_is_notified_of_stop(
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
    variables = {**manager.variables, "WATCHDOG_USEC": "20000"}
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


def test_status_is_sent_without_watchdog(
    loop: Loop, manager: ServiceNotifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = manager.variables["NOTIFY_SOCKET"].encode()
    monkeypatch.setattr(sd_notify, "environ", {b"NOTIFY_SOCKET": address})
    told = sd_notify.ServiceNotifier(loop, lambda: "idle")
    assert told.deadline == limits.NEVER
    before = loop.clock()
    told.ready()
    assert before + limits.STATUS <= told.deadline <= loop.clock() + limits.STATUS
    assert manager.hears() == ["READY=1", "STATUS=idle"]
    told.deadline = limits.NEVER
    told.timer()
    assert before + limits.STATUS <= told.deadline <= loop.clock() + limits.STATUS
    assert manager.hears() == ["WATCHDOG=1", "STATUS=idle"]
    told.close()


def test_blocked_manager_is_not_awaited(
    loop: Loop, manager: ServiceNotifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = manager.variables["NOTIFY_SOCKET"].encode()
    monkeypatch.setattr(sd_notify, "environ", {b"NOTIFY_SOCKET": address})
    told = sd_notify.ServiceNotifier(loop, lambda: "idle")
    for _ in range(1000):
        told.timer()
    told.close()


@pytest.mark.parametrize(
    "name", [b"@", b"nowhere", b"vsock:2:1234", b"/" + b"x" * 5000, b"/\xff", b"@" + b"x" * 200]
)
def test_invalid_address_is_ignored(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, name: bytes
) -> None:
    monkeypatch.setattr(sd_notify, "environ", {b"NOTIFY_SOCKET": name})
    told = sd_notify.ServiceNotifier(loop, lambda: "idle")
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
