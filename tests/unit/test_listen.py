"""Tests of the listening server: sessions, limits, passed sockets, files and shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import count, takewhile
from pathlib import Path
from typing import NoReturn, cast

import aiosmtplib
import pytest

from postprox.core import limits
from postprox.core.options import parse
from postprox.shell import listen
from postprox.shell.loop import Loop
from postprox.shell.metrics import Metrics
from tests.support.answering import Answering
from tests.support.fixtures import Serve
from tests.support.peers import TIMEOUT, Peer, listening
from tests.support.proxies import PYTHON, ROOT, environment, wait_for_end
from tests.support.upstream import MESSAGE, Upstream, greeted, in_data, quits, relays, takes_message
from tests.unit.peers import run_until

Fails = Callable[[], Exception]


def silent(client: Peer) -> bool:
    return not select.select([client.socket], [], [], 0)[0]


# listen.same, listen.sessions


def test_session_delivers_message(serve: Serve, upstream: Upstream, tmp_path: Path) -> None:
    server = serve("-c", "true", "-d", str(tmp_path), upstream.address)
    client = server.client()
    peer = in_data(client, upstream)
    client.says(*MESSAGE)
    takes_message(client, peer, *MESSAGE)
    quits(client, peer)
    assert list(tmp_path.iterdir()) == []


def test_concurrent_sessions_are_independent(serve: Serve, upstream: Upstream) -> None:
    server = serve(upstream.address)
    sessions = [(client := server.client(), greeted(client, upstream)) for _ in range(5)]
    for client, peer in reversed(sessions):
        relays(client, peer, b"NOOP")


def test_slow_filter_does_not_delay_other_sessions(
    serve: Serve, upstream: Upstream, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "gate")
    command = f'case $SENDER in slow*) read -r go <"{tmp_path}/gate";; esac'
    server = serve("-c", command, upstream.address)
    slow, quick = server.client(), server.client()
    slow_peer = in_data(slow, upstream, b"slow@example")
    slow.says(*MESSAGE)
    quick_peer = in_data(quick, upstream)
    quick.says(*MESSAGE)
    takes_message(quick, quick_peer, *MESSAGE)
    assert silent(slow)
    (tmp_path / "gate").write_text("go\n")
    takes_message(slow, slow_peer, *MESSAGE)


def test_hostile_client_does_not_affect_other_sessions(serve: Serve, upstream: Upstream) -> None:
    server = serve(upstream.address)
    hostile = server.client()
    greeted(hostile, upstream)
    hostile.sends(b"\0\n" * 10_000 + b"x" * 100_000)
    client = server.client()
    peer = greeted(client, upstream)
    quits(client, peer)


def test_client_reset_does_not_affect_other_sessions(serve: Serve, upstream: Upstream) -> None:
    server = serve(upstream.address)
    lost = server.client()
    peer = greeted(lost, upstream)
    lost.resets()
    peer.sees(b"QUIT")
    client = server.client()
    quits(client, greeted(client, upstream))


def test_every_client_gets_421_reply_if_upstream_is_unreachable(serve: Serve) -> None:
    with listening() as closed:
        where = Upstream(closed).address
    server = serve(where)
    for _ in range(3):
        client = server.client()
        client.sees_reply(b"421 4.4.1 ")
        client.sees_end()


class Keeping(Answering):
    """An upstream server that stores the messages."""

    def __init__(self) -> None:
        super().__init__()
        self.received: list[bytes] = []

    def take(self, lines: Iterable[bytes]) -> bool:
        self.received.append(b"".join(takewhile(b".\r\n".__ne__, lines)))
        return True


FILTER = 'read -r first <"$EMAIL"; case $first in *spam*) echo 550 spam >&2; exit 1;; esac'


async def deliver(address: tuple[str, int], number: int) -> int:
    """Send a message and return the code of the final reply."""
    subject = b"spam" if number % 2 else b"ham"
    client = aiosmtplib.SMTP(hostname=address[0], port=address[1], use_tls=False, timeout=60)
    async with client:
        text = b"Subject: %b\r\n\r\n%d\r\n" % (subject, number)
        try:
            await client.sendmail("a@example", ["b@example"], text)
        except aiosmtplib.SMTPDataError as error:
            return error.code
    return 250


def test_hundred_concurrent_clients_are_served(serve: Serve, tmp_path: Path) -> None:
    async def deliver_all(address: tuple[str, int]) -> list[int]:
        return await asyncio.gather(*(deliver(address, number) for number in range(100)))

    with contextlib.closing(Keeping()) as upstream:
        server = serve("-c", FILTER, "-d", str(tmp_path), upstream.address)
        codes = asyncio.run(deliver_all(server.address))
    assert codes == [250, 550] * 50
    expected = [b"Subject: ham\r\n\r\n%d\r\n" % number for number in range(0, 100, 2)]
    assert sorted(upstream.received) == sorted(expected)
    assert upstream.messages == len(expected)
    assert list(tmp_path.iterdir()) == []


def test_clients_over_session_limit_must_wait(serve: Serve, upstream: Upstream) -> None:
    server = serve("--max-sessions", "2", upstream.address)
    first, second = server.client(), server.client()
    first_peer, second_peer = greeted(first, upstream), greeted(second, upstream)
    third = server.client()
    relays(first, first_peer, b"NOOP")
    relays(second, second_peer, b"NOOP")
    assert silent(third)
    quits(first, first_peer)
    quits(third, greeted(third, upstream))


def test_all_clients_over_session_limit_are_eventually_served(
    serve: Serve, upstream: Upstream
) -> None:
    server = serve("--max-sessions", "1", upstream.address)
    clients = [server.client() for _ in range(5)]
    for client in clients:
        quits(client, greeted(client, upstream))


def test_descriptor_shortage_does_not_end_session(serve: Serve, upstream: Upstream) -> None:
    limiting = ("/bin/sh", "-c", 'ulimit -n 12; exec "$@"', "sh")
    server = serve(upstream.address, prelude=limiting)
    client = server.client()
    peer = greeted(client, upstream)
    others = [server.client() for _ in range(10)]
    relays(client, peer, b"NOOP")
    quits(client, peer)
    assert len(others) == 10


def no_descriptor() -> OSError:
    return OSError(errno.EMFILE, "Too many open files")


class Exhausted:
    """A listener whose accept(2) fails, as if no descriptors or memory were available."""

    def __init__(self, listener: socket.socket, error: Fails = no_descriptor) -> None:
        self._listener = listener
        self._error = error
        self.tries = 0

    def fileno(self) -> int:
        return self._listener.fileno()

    def _accept(self) -> NoReturn:
        self.tries += 1
        raise self._error()


@pytest.mark.parametrize("error", [no_descriptor, MemoryError])
def test_failed_accept_is_retried_after_pause(
    loop: Loop, listener: socket.socket, monkeypatch: pytest.MonkeyPatch, error: Fails
) -> None:
    monkeypatch.setattr(listen, "Loop", lambda _speed, _poller: loop)
    monkeypatch.setattr(limits, "ACCEPT_PAUSE", 0.1)
    exhausted = Exhausted(listener, error)
    server = listen.Server(parse(["up", "-l1"]))
    with socket.create_connection(listener.getsockname(), TIMEOUT):
        server.accept_from([cast("socket.socket", exhausted)])
        began = loop.clock()
        run_until(loop, lambda: exhausted.tries == 3)
    assert loop.clock() - began >= 0.2


def test_failed_poll_registration_of_listener_is_retried_after_pause(
    loop: Loop, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []
    watch = loop.watch

    def fails_twice(descriptor: int, events: int, handler: Callable[[], None]) -> None:
        if descriptor == listener.fileno() and events:
            tries.append(descriptor)
            if len(tries) <= 2:
                raise OSError(errno.ENOMEM, "Cannot allocate memory")
        watch(descriptor, events, handler)

    monkeypatch.setattr(listen, "Loop", lambda _speed, _poller: loop)
    monkeypatch.setattr(limits, "ACCEPT_PAUSE", 0.01)
    monkeypatch.setattr(loop, "watch", fails_twice)
    exhausted = Exhausted(listener)
    with socket.create_connection(listener.getsockname(), TIMEOUT):
        listen.Server(parse(["up", "-l1"])).accept_from([cast("socket.socket", exhausted)])
        run_until(loop, lambda: exhausted.tries)
    assert len(tries) == 3


@pytest.mark.parametrize(("pause", "told"), [(limits.FULL_WARNING, 1), (0.0, 3)])
def test_failed_accept_is_logged_once_per_minute(
    loop: Loop,
    listener: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
    pause: float,
    told: int,
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(listen, "Loop", lambda _speed, _poller: loop)
    monkeypatch.setattr("postprox.shell.log.write", lambda _level, text: lines.append(text))
    monkeypatch.setattr(limits, "ACCEPT_PAUSE", 0.01)
    monkeypatch.setattr(limits, "FULL_WARNING", pause)
    exhausted = Exhausted(listener)
    with socket.create_connection(listener.getsockname(), TIMEOUT):
        listen.Server(parse(["up", "-l1"])).accept_from([cast("socket.socket", exhausted)])
        run_until(loop, lambda: exhausted.tries == 3)
    assert lines == ["cannot accept a client: Too many open files"] * told


# listen.stop


def test_stop_ends_idle_sessions(serve: Serve, upstream: Upstream) -> None:
    server = serve(upstream.address)
    client = server.client()
    peer = greeted(client, upstream)
    server.stop()
    client.sees_reply(b"421 4.3.2 ")
    client.sees_end()
    peer.sees(b"QUIT")
    peer.leaves()
    assert server.exit_status() == 0


def test_stop_without_sessions_exits_immediately(serve: Serve, upstream: Upstream) -> None:
    server = serve(upstream.address)
    client = server.client()
    quits(client, greeted(client, upstream))
    server.stop()
    assert server.exit_status() == 0


def test_stop_waits_for_running_filter(serve: Serve, upstream: Upstream, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    server = serve("-c", f'read -r go <"{tmp_path}/gate"', upstream.address)
    idle, client = server.client(), server.client()
    greeted(idle, upstream)
    peer = in_data(client, upstream)
    client.says(b"Subject: x")
    server.stop()
    idle.sees_reply(b"421 4.3.2 ")
    client.says(b"", b"body", b".")
    (tmp_path / "gate").write_text("go\n")
    takes_message(client, peer, *MESSAGE)
    client.sees_reply(b"421 4.3.2 ")
    client.sees_end()
    peer.sees(b"QUIT")
    peer.leaves()
    upstream.closes()
    assert server.exit_status() == 0


def test_stop_closes_listening_socket(serve: Serve, upstream: Upstream) -> None:
    server = serve(upstream.address)
    busy, idle = server.client(), server.client()
    in_data(busy, upstream)
    greeted(idle, upstream)
    server.stop()
    idle.sees_reply(b"421 4.3.2 ")
    with pytest.raises(ConnectionRefusedError):
        server.client()


def test_stop_has_time_limit(serve: Serve, upstream: Upstream, tmp_path: Path) -> None:
    server = serve("-d", str(tmp_path), upstream.address, variables={"POSTPROX_CLOCK_SPEED": "30"})
    client = server.client()
    in_data(client, upstream)
    server.stop()
    client.sees_reply(b"421 ")
    client.leaves()
    assert server.exit_status() == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_server_ignores_hangup_and_user_signals(
    serve: Serve, upstream: Upstream, number: int
) -> None:
    server = serve(upstream.address)
    client = server.client()
    peer = greeted(client, upstream)
    server.process.send_signal(number)
    relays(client, peer, b"NOOP")
    greeted(server.client(), upstream)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGQUIT])
def test_second_signal_terminates_all_sessions(
    serve: Serve, upstream: Upstream, tmp_path: Path, number: int
) -> None:
    os.mkfifo(tmp_path / "started")
    command = f'sleep 1000 & echo $! >"{tmp_path}/started"; wait'
    server = serve("-c", command, upstream.address)
    idle, client = server.client(), server.client()
    greeted(idle, upstream)
    in_data(client, upstream)
    client.says(*MESSAGE)
    child = int((tmp_path / "started").read_text())
    server.process.send_signal(number)
    idle.sees_reply(b"421 ")  # The server has processed the first signal.
    server.process.send_signal(number)
    client.sees_reply(b"421 ")
    assert server.exit_status() == 0
    wait_for_end(child)


# listen.background

_ports = count(20_000)


def own_address() -> tuple[str, int]:
    """Return an address in 127.0.0.0/8 that no other test process uses."""
    pid = os.getpid()
    return f"127.{1 + pid // 65536 % 254}.{pid // 256 % 256}.{1 + pid % 254}", next(_ports)


def run_listening(*arguments: str, prelude: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*prelude, *PYTHON, "-m", "postprox", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=environment(),
        check=False,
    )


def test_command_returns_after_server_starts_listening(upstream: Upstream, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pid")
    host, port = own_address()
    command = f'echo $PPID >"{tmp_path}/pid"; exit 1'
    done = run_listening(upstream.address, "-l", f"{host}:{port}", "-c", command)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    client = Peer(socket.create_connection((host, port), TIMEOUT))
    peer = in_data(client, upstream)
    client.says(*MESSAGE)
    server = int((tmp_path / "pid").read_text())
    assert os.getsid(server) == server
    client.sees_reply(b"554 ")
    peer.leaves()
    os.kill(server, signal.SIGTERM)
    client.sees_reply(b"421 ")
    client.leaves()
    wait_for_end(server)


@pytest.mark.parametrize("foreground", [(), ("--foreground",)])
def test_port_in_use_is_reported(foreground: tuple[str, ...]) -> None:
    with listening() as taken:
        host, port = taken.getsockname()
        done = run_listening("up", "-l", f"{host}:{port}", *foreground)
    assert done.returncode == 1
    assert done.stderr == f"postprox: cannot listen on {host}:{port}: Address already in use\n"


@pytest.mark.parametrize(
    "address", ["192.0.2.1:25252", "name.invalid:25252", "a..b:25252", "x" * 300 + ":25252"]
)
def test_unavailable_listen_address_is_reported(address: str) -> None:
    done = run_listening("up", "-l", address)
    assert done.returncode == 1
    assert done.stderr.startswith(f"postprox: cannot listen on {address}: ")
    assert done.stderr.count("\n") == 1


def test_listen_fds_for_another_process_is_ignored(upstream: Upstream) -> None:
    with listening() as taken:
        host, port = taken.getsockname()
        variables = environment(LISTEN_FDS="1", LISTEN_PID="1")
        done = subprocess.run(
            [*PYTHON, "-m", "postprox", upstream.address, "-l", f"{host}:{port}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            env=variables,
            check=False,
        )
    assert done.returncode == 1


FOR_US = 'export LISTEN_PID=$$; exec "$@"'


@pytest.mark.parametrize("count", ["9" * 5000, "9" * 10, "soon", "-1", "1.5", " 1", "0x1"])
def test_invalid_listen_fds_is_reported(count: str) -> None:
    host, port = own_address()
    handing = ("/usr/bin/env", f"LISTEN_FDS={count}", "/bin/sh", "-c", FOR_US, "sh")
    done = run_listening("up", "-l", f"{host}:{port}", "--foreground", prelude=handing)
    reason = "LISTEN_FDS must be the number of passed sockets"
    expected = f"postprox: cannot listen on {host}:{port}: {reason}\n"
    assert (done.returncode, done.stderr) == (1, expected)


@pytest.mark.parametrize("variables", [("LISTEN_FDS=",), ("LISTEN_FDS=0",)])
def test_port_is_bound_if_no_socket_is_passed(variables: tuple[str, ...], tmp_path: Path) -> None:
    host, port = own_address()
    file = tmp_path / "pid"
    handing = ("/usr/bin/env", *variables, "/bin/sh", "-c", FOR_US, "sh")
    arguments = ("up", "-l", f"{host}:{port}", "--pid-file", str(file))
    assert run_listening(*arguments, prelude=handing).returncode == 0
    server = int(file.read_text())
    os.kill(server, signal.SIGTERM)
    wait_for_end(server)


@pytest.mark.parametrize("process", ["", "9" * 5000, "soon", "-1"])
def test_passed_sockets_are_ignored_if_listen_pid_is_invalid(
    process: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {b"LISTEN_PID": process.encode(), b"LISTEN_FDS": b"1"}
    monkeypatch.setattr(listen, "environ", variables)
    assert listen._passed_listeners() == []
    assert variables == {}


@pytest.mark.parametrize("given", ["3</dev/null", "3<&-"])  # After 3<&-, the proxy reuses 3.
def test_passed_descriptor_that_is_not_a_socket_is_reported(given: str) -> None:
    host, port = own_address()
    handing = ("/bin/sh", "-c", f"export LISTEN_FDS=1; exec {given}; {FOR_US}", "sh")
    done = run_listening("up", "-l", f"{host}:{port}", "--foreground", prelude=handing)
    reason = "descriptor 3 of LISTEN_FDS: Socket operation on non-socket"
    expected = f"postprox: cannot listen on {host}:{port}: {reason}\n"
    assert (done.returncode, done.stderr) == (1, expected)


def test_longest_listen_fds_value_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {b"LISTEN_PID": b"%d" % os.getpid(), b"LISTEN_FDS": b"0" * 9}
    monkeypatch.setattr(listen, "environ", variables)
    assert listen._passed_listeners() == []


def test_passed_socket_is_not_inheritable() -> None:
    with listening() as manager:
        descriptor = os.dup(manager.fileno())
        os.set_inheritable(descriptor, True)
        with contextlib.closing(listen._passed(descriptor)):
            assert not os.get_inheritable(descriptor)


def test_passed_socket_that_does_not_listen_is_reported() -> None:
    ours, theirs = socket.socketpair()
    descriptor = theirs.detach()
    with ours, pytest.raises(OSError, match="LISTEN_FDS") as raised:
        listen._passed(descriptor)
    reason = f"descriptor {descriptor} of LISTEN_FDS is not a listening socket"
    assert raised.value.strerror == reason
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)


def test_filter_does_not_inherit_service_manager_variables(
    serve: Serve, upstream: Upstream, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "answer")
    command = f'{{ env; ls /proc/self/fd; }} >"{tmp_path}/answer"'
    server = serve("-c", command, upstream.address)
    client = server.client()
    in_data(client, upstream)
    client.says(*MESSAGE)
    seen = (tmp_path / "answer").read_text().splitlines()
    assert not [line for line in seen if line.startswith("LISTEN_")]
    assert [line for line in seen if line.isdigit()] == ["0", "1", "2", "3"]


RUN = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from postprox.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize("descriptors", range(5, 12))
def test_server_with_few_descriptors_starts_or_reports_error(
    descriptors: int, tmp_path: Path
) -> None:
    host, port = own_address()
    file = tmp_path / "pid"
    arguments = ("up", "-l", f"{host}:{port}", "--pid-file", str(file))
    limiting = ("/bin/sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh")
    done = subprocess.run(
        [*limiting, sys.executable, "-I", "-S", "-c", RUN, str(ROOT), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=environment(),
        check=False,
    )
    if file.exists():
        server = int(file.read_text())
        os.kill(server, signal.SIGTERM)
        wait_for_end(server)
        assert done.stderr == ""
    else:
        assert done.returncode == 1
        assert re.fullmatch("postprox: cannot .*: Too many open files\n", done.stderr)


# log.stderr


def logging_to(stderr: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", f'exec "$@" 2>{stderr}', "sh")


def test_filter_failure_is_logged_to_standard_error(
    serve: Serve, upstream: Upstream, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    command = "echo the scanner is down >&2; exit 2"
    logging = ("-c", command, "-d", str(tmp_path), "--log", "stderr")
    server = serve(*logging, upstream.address, prelude=logging_to(f">{log}"))
    client = server.client()
    peer = in_data(client, upstream)
    client.says(*MESSAGE)
    takes_message(client, peer, *MESSAGE)
    server.stop()
    assert server.exit_status() == 0
    before, line = log.read_text().splitlines()
    assert before == "before"
    assert f" postprox[{server.process.pid}]: filter failed: exit status 2; message passed" in line
    assert line.endswith(' said="the scanner is down"')


def test_blocked_standard_error_does_not_delay_message(
    serve: Serve, upstream: Upstream, tmp_path: Path
) -> None:
    fifo, metrics = tmp_path / "fifo", tmp_path / "postprox.prom"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    os.write(writer, b"x" * fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ))
    logging = ("-vv", "--log", "stderr", "--metrics", str(metrics), "-d", str(tmp_path))
    server = serve(*logging, upstream.address, prelude=logging_to(str(fifo)))
    client = server.client()
    peer = in_data(client, upstream)
    client.says(*MESSAGE)
    takes_message(client, peer, *MESSAGE)
    for _ in range(2 * limits.LOG_BACKLOG // limits.LOG_LINE):
        relays(client, peer, b"NOOP " + b"x" * limits.LOG_LINE)
    quits(client, peer)
    server.stop()
    assert server.exit_status() == 0
    assert not re.search("^postprox_log_dropped_total 0$", metrics.read_text(), re.MULTILINE)
    os.close(reader)
    os.close(writer)


# --metrics, --pid-file


def test_metrics_file_reports_server_activity(
    serve: Serve, upstream: Upstream, tmp_path: Path
) -> None:
    metrics = tmp_path / "postprox.prom"
    server = serve("-c", "true", "-d", str(tmp_path), "--metrics", str(metrics), upstream.address)
    client = server.client()
    peer = in_data(client, upstream)
    assert "postprox_sessions_max 100\n" in metrics.read_text()
    client.says(*MESSAGE)
    takes_message(client, peer, *MESSAGE)
    quits(client, peer)
    server.stop()
    assert server.exit_status() == 0
    told = metrics.read_text()
    assert 'postprox_messages_total{verdict="accept",result="delivered"} 1\n' in told
    assert "postprox_filter_seconds_count 1\n" in told
    assert "postprox_message_bytes_total 17\n" in told
    assert [path.name for path in tmp_path.iterdir()] == ["postprox.prom"]


def test_metrics_file_reports_waiting_clients(
    serve: Serve, upstream: Upstream, tmp_path: Path
) -> None:
    metrics = tmp_path / "postprox.prom"
    told = ("--metrics", str(metrics), "--max-sessions", "1")
    # The file is written every 0.75 s, long before the idle first client is disconnected.
    server = serve(*told, upstream.address, variables={"POSTPROX_CLOCK_SPEED": "20"})
    greeted(server.client(), upstream)
    server.client()
    deadline = time.monotonic() + TIMEOUT
    while "postprox_waiting 1\n" not in metrics.read_text():
        assert time.monotonic() < deadline


def test_repeated_metrics_write_failures_log_one_warning(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr("postprox.shell.log.write", lambda _level, text: lines.append(text))
    file = tmp_path / "there/postprox.prom"
    file.parent.mkdir()
    metrics = Metrics(loop, str(file), lambda: "postprox_sessions 0\n")
    metrics.begin()
    file.parent.rename(tmp_path / "gone")
    metrics.write()
    metrics.write()
    assert lines == [f"cannot write --metrics {file}: No such file or directory"]
    (tmp_path / "gone").rename(file.parent)
    metrics.write()
    assert (list(file.parent.iterdir()), len(lines)) == ([file], 1)


def test_pid_file_exists_while_server_runs(
    serve: Serve, upstream: Upstream, tmp_path: Path
) -> None:
    file = tmp_path / "pid"
    server = serve("--pid-file", str(file), upstream.address)
    greeted(server.client(), upstream)
    assert file.read_text() == f"{server.process.pid}\n"
    server.process.kill()


def test_pid_file_is_removed_on_exit(serve: Serve, upstream: Upstream, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    server = serve("--pid-file", str(file), upstream.address)
    quits(client := server.client(), greeted(client, upstream))
    server.stop()
    assert server.exit_status() == 0
    assert not file.exists()


def test_pid_file_exists_when_command_returns(tmp_path: Path) -> None:
    host, port = own_address()
    file = tmp_path / "pid"
    assert run_listening("up", "-l", f"{host}:{port}", "--pid-file", str(file)).returncode == 0
    server = int(file.read_text())
    os.kill(server, signal.SIGTERM)
    wait_for_end(server)
    assert not file.exists()


@pytest.mark.parametrize("option", ["--metrics", "--pid-file"])
def test_unwritable_file_is_reported(option: str, tmp_path: Path) -> None:
    file = tmp_path / "missing/file"
    host, port = own_address()
    done = run_listening("up", "-l", f"{host}:{port}", option, str(file))
    assert done.returncode == 1
    assert done.stderr == f"postprox: cannot write {file}: No such file or directory\n"


@pytest.mark.parametrize("foreground", [(), ("--foreground",)])
@pytest.mark.parametrize("option", ["--metrics", "--pid-file"])
def test_file_size_limit_is_reported(
    option: str, foreground: tuple[str, ...], tmp_path: Path
) -> None:
    host, port = own_address()
    file = tmp_path / "file"
    limiting = ("/bin/sh", "-c", 'ulimit -f 0; exec "$@"', "sh")
    listening_there = ("up", "-l", f"{host}:{port}", option, str(file), *foreground)
    done = run_listening(*listening_there, prelude=limiting)
    assert (done.returncode, done.stderr) == (1, f"postprox: cannot write {file}: File too large\n")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, port), TIMEOUT)


@pytest.mark.parametrize("option", ["--metrics", "--pid-file"])
def test_file_in_dev_is_rejected(option: str) -> None:
    host, port = own_address()
    file = Path("/dev/postprox-test")  # A proxy with a bug could remove /dev/stdout.
    done = run_listening("up", "-l", f"{host}:{port}", "--foreground", option, str(file))
    is_there = file.exists()
    file.unlink(missing_ok=True)
    expected = f"postprox: cannot write {file}: it would replace a device\n"
    assert (done.returncode, done.stdout, done.stderr, is_there) == (1, "", expected, False)


@pytest.mark.parametrize("option", ["--metrics", "--pid-file"])
def test_directory_is_not_replaced_by_file(option: str, tmp_path: Path) -> None:
    host, port = own_address()
    done = run_listening("up", "-l", f"{host}:{port}", "--foreground", option, str(tmp_path))
    expected = f"postprox: cannot write {tmp_path}: Is a directory\n"
    assert (done.returncode, done.stderr) == (1, expected)
    assert tmp_path.is_dir()


def test_exit_preserves_pid_file_of_another_server(
    serve: Serve, upstream: Upstream, tmp_path: Path
) -> None:
    file = tmp_path / "pid"
    first = serve("--pid-file", str(file), upstream.address)
    greeted(first.client(), upstream)
    second = serve("--pid-file", str(file), upstream.address)
    greeted(second.client(), upstream)
    first.stop()
    assert first.exit_status() == 0
    assert file.read_text() == f"{second.process.pid}\n"
    second.stop()
    assert second.exit_status() == 0
    assert not file.exists()


@pytest.mark.parametrize("child", [1, 12345678])
def test_pid_file_is_rewritten_with_child_pid(tmp_path: Path, child: int) -> None:
    file = tmp_path / "pid"
    with listen._PidFile(str(file)) as pid_file:
        pid_file.write(12345)
        inode = file.stat().st_ino
        pid_file.leave_to(child)
    assert (file.read_text(), file.stat().st_ino) == (f"{child}\n", inode)


def test_pid_file_write_failure_stops_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> NoReturn:
        raise OSError(errno.EIO, "Input/output error")

    stopped: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *told: stopped.append(told))
    with listen._PidFile(str(tmp_path / "pid")) as pid_file:
        pid_file.write(12345)
        monkeypatch.setattr("postprox.shell.newfile.write", fails)
        with pytest.raises(OSError, match="Input/output"):
            pid_file.leave_to(23456)
    assert stopped == [(23456, signal.SIGTERM)]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("refused", ["--metrics", "--pid-file"])
def test_failed_start_leaves_no_files(refused: str, tmp_path: Path) -> None:
    [other] = {"--metrics", "--pid-file"} - {refused}
    host, port = own_address()
    files = (refused, str(tmp_path / "missing/file"), other, str(tmp_path / "file"))
    assert run_listening("up", "-l", f"{host}:{port}", *files).returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_port_conflict_preserves_files_of_first_server(
    serve: Serve, upstream: Upstream, tmp_path: Path
) -> None:
    metrics, pid = tmp_path / "postprox.prom", tmp_path / "pid"
    files = ("--metrics", str(metrics), "--pid-file", str(pid))
    server = serve(*files, upstream.address)
    client = server.client()
    peer = greeted(client, upstream)
    before = metrics.stat().st_mtime_ns
    host, port = client.socket.getpeername()
    second = run_listening("up", "-l", f"{host}:{port}", "--foreground", *files)
    assert (second.returncode, second.stderr) == (
        *(1, f"postprox: cannot listen on {host}:{port}: Address already in use\n"),
    )
    assert (pid.read_text(), metrics.stat().st_mtime_ns) == (f"{server.process.pid}\n", before)
    quits(client, peer)
