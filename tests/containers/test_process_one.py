"""Tests of compose.yaml's service `proxy` as process 1 in its own namespaces.

Rule: the test is the client and the upstream server. Its sockets are in the container's network.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest
import yaml

from tests.support.peers import TIMEOUT, Peer
from tests.support.upstream import MESSAGE, Upstream, in_data, quits, takes_message

from .checks import check_isolation, healthy
from .conftest import Start
from .containerfile import Service
from .namespaces import Container, Image
from .page import block

T = TypeVar("T")
Connect = Callable[[], Peer]
Tmpfs = Callable[[str], list[str]]
_CLONE_NEWNET = 0x40000000
PROXY, BEHIND = ("127.0.0.1", 10025), ("127.0.0.1", 10026)


def in_network(container: Container, function: Callable[[], T]) -> T:
    """Call `function` in a thread that has joined the container's network."""

    def join() -> T:
        with Path(f"/proc/{container.pid}/ns/net").open() as namespace:
            assert ctypes.CDLL(None).setns(namespace.fileno(), _CLONE_NEWNET) == 0
        return function()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(join).result()


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def upstream(network: Container) -> Iterator[Upstream]:
    with in_network(network, lambda: socket.create_server(BEHIND)) as listener:
        listener.settimeout(TIMEOUT)
        upstream = Upstream(listener)
        yield upstream
        upstream.closes()


@pytest.fixture
def connect(network: Container) -> Iterator[Connect]:
    """Connect to the proxy as soon as it listens."""
    with contextlib.ExitStack() as connections:

        def connected() -> Peer:
            deadline = time.monotonic() + TIMEOUT
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    peer = Peer(in_network(network, lambda: socket.create_connection(PROXY)))
                    return connections.enter_context(peer)
                assert time.monotonic() < deadline
                time.sleep(0.02)

        yield connected


@pytest.fixture
def tmpfs(found: dict[str, Service]) -> Tmpfs:
    """Return the settings for a spool of a different size."""
    options = found["proxy"].tmpfs["/var/spool/postprox"]
    assert "size=640m" in options
    return lambda size: [f"/var/spool/postprox:{options.replace('size=640m', f'size={size}')}"]


def command(*options: str) -> dict[str, list[str]]:
    """Return the settings for options that differ from the image's options."""
    return {"command": ["--strict", *options, "127.0.0.1:10026"]}


def test_proxy_runs_without_privileges_on_read_only_root(start: Start, connect: Connect) -> None:
    proxy = start()
    connect().leaves()
    check_isolation(proxy)


def test_health_check_fails_without_upstream_server(start: Start, connect: Connect) -> None:
    proxy = start()
    connect().leaves()
    checked = proxy.run(*proxy.image.stage.health)
    assert checked.returncode == 1
    assert checked.stdout.startswith("421 4.4.1 ")


def test_health_check_succeeds_with_upstream_server(
    start: Start, connect: Connect, upstream: Upstream
) -> None:
    proxy = start()
    connect().leaves()
    upstream.accepts().leaves()
    results: list[bool] = []
    check = threading.Thread(target=lambda: results.append(healthy(proxy)))
    check.start()
    peer = upstream.greets()
    peer.sees(b"QUIT")
    peer.says(b"221 bye")
    check.join()
    assert results == [True]


def test_health_check_fails_without_proxy(start: Start) -> None:
    proxy = start(entrypoint=["/bin/sleep"], command=["60"])
    checked = proxy.run(*proxy.image.stage.health)
    assert checked.returncode == 1
    assert checked.stderr == "127.0.0.1:10025: [Errno 111] Connection refused\n"


PROBES = yaml.safe_load(block("yaml", "For Kubernetes:"))


def test_readiness_probe_runs_health_check(start: Start) -> None:
    assert PROBES["readinessProbe"]["exec"]["command"] == start().image.stage.health


def test_liveness_probe_fails_if_metrics_are_outdated(start: Start, connect: Connect) -> None:
    proxy = start()
    connect().leaves()
    probe = PROBES["livenessProbe"]["exec"]["command"]
    assert proxy.run(*probe).returncode == 0
    aged = proxy.run("touch", "-d", "70 seconds ago", "/run/postprox/postprox.prom")
    assert (aged.returncode, aged.stderr) == (0, "")
    assert proxy.run(*probe).returncode == 1


def test_message_appears_in_log_and_metrics(
    start: Start, connect: Connect, upstream: Upstream, place: Path
) -> None:
    proxy = start()
    peer = connect()
    behind = in_data(peer, upstream)
    peer.says(*MESSAGE)
    takes_message(peer, behind, *MESSAGE)
    quits(peer, behind)
    line = r"(?m)^\w{3} [ \d]\d [\d:]{8} postprox\[1\]: verdict=accept result=delivered "
    wait_until(lambda: re.search(line, proxy.log.read_text()))
    assert proxy.stop(signal.SIGTERM, TIMEOUT) == 0
    metrics = (place / "volume-metrics/postprox.prom").read_text()
    assert 'postprox_messages_total{verdict="accept",result="delivered"} 1' in metrics


def test_processes_left_by_filter_are_reaped(
    start: Start, connect: Connect, upstream: Upstream
) -> None:
    proxy = start(**command("-c", "(sleep 0.2 &) ; exit 0"))
    peer = connect()
    behind = in_data(peer, upstream)
    children = Path(f"/proc/{proxy.pid}/task/{proxy.pid}/children")
    peer.says(*MESSAGE)
    wait_until(children.read_text)
    takes_message(peer, behind, *MESSAGE)
    quits(peer, behind)
    wait_until(lambda: not children.read_text())


def test_current_message_is_delivered_after_sigterm(
    start: Start, connect: Connect, upstream: Upstream
) -> None:
    proxy = start(**command("-c", "sleep 0.5"))
    peer = connect()
    behind = in_data(peer, upstream)
    for ignored in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(proxy.pid, ignored)
    peer.says(*MESSAGE)
    children = Path(f"/proc/{proxy.pid}/task/{proxy.pid}/children")
    wait_until(children.read_text)
    os.kill(proxy.pid, signal.SIGTERM)
    takes_message(peer, behind, *MESSAGE)
    behind.sees(b"QUIT")
    behind.says(b"221 bye")
    peer.leaves()
    assert proxy.process.wait(TIMEOUT) == 0


def test_second_sigterm_terminates_proxy_before_filter_exits(
    start: Start, connect: Connect, upstream: Upstream
) -> None:
    proxy = start(**command("-c", "sleep 600", "-t", "900"))
    peer = connect()
    in_data(peer, upstream)
    peer.says(*MESSAGE)
    children = Path(f"/proc/{proxy.pid}/task/{proxy.pid}/children")
    wait_until(children.read_text)
    for _ in range(2):
        os.kill(proxy.pid, signal.SIGTERM)
        wait_until(lambda: int(proxy.status("SigPnd"), 16) == 0)
        time.sleep(0.1)  # the loop handles equal signals in one iteration as one signal
    peer.sees_reply(b"421 4.3.2 ")
    assert proxy.process.wait(TIMEOUT) == 0


def test_full_tmpfs_defers_message(
    start: Start, tmpfs: Tmpfs, connect: Connect, upstream: Upstream
) -> None:
    start(tmpfs=tmpfs("64k"), **command("-c", "true"))
    peer = connect()
    in_data(peer, upstream)
    peer.says(*[b"x" * 900] * 100, b".")
    peer.sees_reply(b"452 4.3.1 ")


@pytest.mark.parametrize(("times", "fits"), [(3.2, True), (2.5, False)])
def test_spool_requires_three_times_the_message_size(
    start: Start, tmpfs: Tmpfs, connect: Connect, upstream: Upstream, *, fits: bool, times: float
) -> None:
    lines = [b"x" * 998] * 400
    size = int(times * len(lines) * 1000)
    start(tmpfs=tmpfs(f"{size}"), **command("-c", 'cat "$EMAIL" > "$OUTFILE" || exit 2'))
    peer = connect()
    behind = in_data(peer, upstream)
    peer.says(*lines, b".")
    if fits:
        takes_message(peer, behind, *lines, b".")
    else:
        peer.sees_reply(b"451 4.3.0 ")


def test_image_without_filter_defers_message(
    start: Start, image: Image, connect: Connect, upstream: Upstream
) -> None:
    start(volumes=["metrics:/run/postprox"], command=image.stage.command)
    peer = connect()
    in_data(peer, upstream)
    peer.says(*MESSAGE)
    peer.sees_reply(b"451 4.3.0 ")
