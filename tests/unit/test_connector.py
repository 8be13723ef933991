"""Tests of upstream addresses and of connection attempts."""

from __future__ import annotations

import _thread
import os
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from postprox.core import limits
from postprox.core.address import UpstreamAddress
from postprox.shell import connector
from postprox.shell.connector import Connector, resolve
from postprox.shell.loop import Loop
from tests.support.peers import listening
from tests.unit.peers import deaf_listener, run_until


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("mx.example:10026", "mx.example", 10026),
        ("mx.example", "mx.example", 25),
        ("192.0.2.1:10026", "192.0.2.1", 10026),
        ("192.0.2.1", "192.0.2.1", 25),
        ("[2001:db8::1]:10026", "2001:db8::1", 10026),
        ("[2001:db8::1]", "2001:db8::1", 25),
        ("[192.0.2.1]:10026", "192.0.2.1", 10026),
        ("mx.example:1", "mx.example", 1),
        ("mx.example:65535", "mx.example", 65535),
        ("unix", "unix", 25),
        ("unix:25", "unix", 25),
    ],
)
def test_host_and_port_are_parsed(text: str, host: str, port: int) -> None:
    target = UpstreamAddress(text)
    assert (target.host, target.port, target.path) == (host, port, "")


def test_unix_socket_path_is_parsed() -> None:
    assert UpstreamAddress("unix:/run/mx:25").path == "/run/mx:25"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "the host is missing"),
        (":25", "the host is missing"),
        ("[]:25", "the host is missing"),
        ("mx.example:", "the port is missing after the colon"),
        ("[::1]:", "the port is missing after the colon"),
        ("::1", "written as [ADDRESS]:PORT"),
        ("::1:25", "written as [ADDRESS]:PORT"),
        ("[::1", "written as [ADDRESS]:PORT"),
        ("[::1]25", "written as [ADDRESS]:PORT"),
        ("inet:127.0.0.1:10026", "remove 'inet:', because HOST:PORT has no prefix"),
        ("X:127.0.0.1:10026", "remove 'X:', because HOST:PORT has no prefix"),
        ("smtp:[127.0.0.1]:10026", "remove 'smtp:', because HOST:PORT has no prefix"),
        ("fe80::1", "written as [ADDRESS]:PORT"),
        ("i\x0c\n:127.0.0.1:25", r"remove 'i\x0c\n:'"),
        ("mx.example:smtp", "not 'smtp'"),
        ("mx.example:0", "not '0'"),
        ("mx.example:65536", "not '65536'"),
        ("mx.example:-1", "not '-1'"),
        ("mx.example:+25", "not '+25'"),
        ("mx.example: 25", "not ' 25'"),
        ("unix:run/mx", "not 'run/mx'"),
    ],
)
def test_invalid_upstream_address_is_rejected(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=re.escape(error)):
        UpstreamAddress(text)


class Try:
    """A connection attempt and its result."""

    def __init__(self, loop: Loop, target: str) -> None:
        self.loop = loop
        self.descriptors: list[int] = []
        self.reasons: list[str] = []
        self.connector = Connector(
            loop, UpstreamAddress(target), self.descriptors.append, self.reasons.append
        )

    def start(self) -> Try:
        self.connector.start()
        return self

    def ends(self) -> None:
        run_until(self.loop, lambda: self.descriptors or self.reasons)

    def connection(self) -> socket.socket:
        self.ends()
        assert self.reasons == []
        return socket.socket(fileno=self.descriptors[0])

    def reason(self) -> str:
        self.ends()
        assert self.descriptors == []
        return self.reasons[0]


def port_of(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


def test_connection_to_ip_address_succeeds(loop: Loop, listener: socket.socket) -> None:
    attempt = Try(loop, f"127.0.0.1:{port_of(listener)}").start()
    with attempt.connection() as ours, listener.accept()[0] as theirs:
        assert ours.getpeername() == theirs.getsockname()
        assert not os.get_blocking(ours.fileno())


def test_connection_to_host_name_succeeds(loop: Loop, listener: socket.socket) -> None:
    with Try(loop, f"localhost:{port_of(listener)}").start().connection() as ours:
        assert ours.getpeername() == listener.getsockname()


def test_connection_to_ipv6_address_succeeds(loop: Loop) -> None:
    if not socket.has_ipv6:
        pytest.skip("IPv6 is not available")
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("IPv6 is not available")
    with listener, Try(loop, f"[::1]:{port_of(listener)}").start().connection() as ours:
        assert ours.family == socket.AF_INET6


def test_connection_to_unix_socket_succeeds(loop: Loop, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "mx"))
        listener.listen()
        with Try(loop, f"unix:{tmp_path}/mx").start().connection() as ours:
            assert ours.family == socket.AF_UNIX


def closed_port() -> int:
    with listening() as listener:
        return port_of(listener)


def test_closed_port_is_reported(loop: Loop) -> None:
    target = f"127.0.0.1:{closed_port()}"
    assert Try(loop, target).start().reason() == f"{target}: Connection refused"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/nonexistent/mx", "No such file or directory"),
        ("/dev/null", "Connection refused"),
        ("/" + "x" * 200, "AF_UNIX path too long"),
    ],
)
def test_missing_unix_socket_is_reported(loop: Loop, path: str, reason: str) -> None:
    assert reason in Try(loop, f"unix:{path}").start().reason()


def test_full_backlog_of_unix_socket_is_reported(loop: Loop, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(path)
        listener.listen(0)
        waiting.connect(path)
        reason = Try(loop, f"unix:{path}").start().reason()
    assert reason == f"unix:{path}: Resource temporarily unavailable"


@pytest.mark.parametrize("host", ["name.invalid", "x" * 300, "a..b", "caf\xe9.invalid", "\udcff.x"])
def test_unresolvable_name_is_reported(loop: Loop, host: str) -> None:
    assert Try(loop, f"{host}:25").start().reason().startswith(f"{host}:25: ")


Addresses = list[tuple[int, tuple[str, int]]]


@pytest.fixture
def resolving(monkeypatch: pytest.MonkeyPatch) -> Callable[[Addresses], None]:
    """Return a function that sets the addresses to which names resolve."""

    def resolve_to(addresses: Addresses) -> None:
        monkeypatch.setattr(connector, "resolve", lambda _target, _flags: list(addresses))

    return resolve_to


def test_every_address_is_tried(
    loop: Loop, listener: socket.socket, resolving: Callable[[Addresses], None]
) -> None:
    resolving(
        [
            (socket.AF_INET, ("127.0.0.1", closed_port())),
            (socket.AF_INET, ("127.0.0.1", closed_port())),
            (socket.AF_INET, listener.getsockname()),
        ]
    )
    with Try(loop, "mx.example").start().connection() as ours:
        assert ours.getpeername() == listener.getsockname()


def test_unsupported_address_family_is_skipped(
    loop: Loop, listener: socket.socket, resolving: Callable[[Addresses], None]
) -> None:
    resolving([(socket.AF_X25, ("x", 0)), (socket.AF_INET, listener.getsockname())])
    with Try(loop, "mx.example").start().connection() as ours:
        assert ours.getpeername() == listener.getsockname()


def test_failure_of_last_address_is_reported(
    loop: Loop, resolving: Callable[[Addresses], None]
) -> None:
    resolving([(socket.AF_INET, ("127.0.0.1", closed_port()))] * 2)
    assert Try(loop, "mx.example").start().reason() == "mx.example: Connection refused"


def test_host_name_without_addresses_is_reported(
    loop: Loop, resolving: Callable[[Addresses], None]
) -> None:
    resolving([])
    assert Try(loop, "mx.example").start().reason() == "mx.example: no address found"


def test_unresponsive_address_leaves_time_for_next_address(
    loop: Loop,
    listener: socket.socket,
    resolving: Callable[[Addresses], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "CONNECT", 0.2)
    deaf, waiting = deaf_listener()
    resolving([(socket.AF_INET, deaf.getsockname()), (socket.AF_INET, listener.getsockname())])
    attempt = Try(loop, "mx.example")
    attempt.connector.start()
    assert loop.clock() < attempt.connector.deadline < loop.clock() + 0.15
    attempt.connector.timer()
    with attempt.connection() as ours:
        assert ours.getpeername() == listener.getsockname()
    for connection in (deaf, *waiting):
        connection.close()


def test_unresponsive_last_address_is_reported_as_timeout(loop: Loop) -> None:
    deaf, waiting = deaf_listener()
    attempt = Try(loop, "{}:{}".format(*deaf.getsockname())).start()
    attempt.connector.timer()
    assert attempt.reason().endswith(": connection timed out")
    for connection in (deaf, *waiting):
        connection.close()


def test_successful_attempt_has_no_deadline(loop: Loop, listener: socket.socket) -> None:
    attempt = Try(loop, f"127.0.0.1:{port_of(listener)}").start()
    with attempt.connection() as ours:
        assert ours.fileno() not in loop._watched
    assert attempt.connector.deadline == limits.NEVER


def test_cancelled_attempt_does_not_trigger_handler(loop: Loop, listener: socket.socket) -> None:
    before = os.listdir("/dev/fd")  # noqa: PTH208 - only names are needed
    attempt = Try(loop, f"127.0.0.1:{port_of(listener)}").start()
    attempt.connector.cancel()
    assert os.listdir("/dev/fd") == before  # noqa: PTH208
    other = Try(loop, f"127.0.0.1:{port_of(listener)}").start()
    other.connection().close()
    assert (attempt.descriptors, attempt.reasons) == ([], [])


def test_slow_name_resolution_does_not_delay_other_sessions(
    loop: Loop, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer = threading.Event(), threading.Event()

    def slow(target: UpstreamAddress, flags: int) -> object:
        if flags == socket.AI_NUMERICHOST:
            return resolve(target, flags)
        asked.set()
        assert answer.wait(20)
        return [(socket.AF_INET, listener.getsockname())]

    monkeypatch.setattr(connector, "resolve", slow)
    attempt = Try(loop, "mx.example").start()
    assert asked.wait(20)
    other = Try(loop, f"127.0.0.1:{port_of(listener)}").start()
    other.connection().close()
    assert attempt.descriptors == []
    answer.set()
    attempt.connection().close()


def test_resolver_thread_failure_is_reported(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    assert "cannot start a thread for name resolution" in Try(loop, "mx.example").start().reason()


def test_name_resolution_can_be_cancelled(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    answer, answered = threading.Event(), threading.Event()

    def slow(target: UpstreamAddress, flags: int) -> object:
        if flags == socket.AI_NUMERICHOST:
            return resolve(target, flags)
        assert answer.wait(20)
        answered.set()
        return []

    monkeypatch.setattr(connector, "resolve", slow)
    attempt = Try(loop, "mx.example").start()
    attempt.connector.cancel()
    answer.set()
    assert answered.wait(20)
    assert (attempt.descriptors, attempt.reasons) == ([], [])
