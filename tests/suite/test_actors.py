"""The observations of the suite's actors: unread octets, environments and process trees."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from tests.conformance.format.nodes import ReplyPattern, Step
from tests.conformance.play.connections import accepted_pair, unread
from tests.conformance.play.filter_stub import parse_environment
from tests.conformance.play.matching import State
from tests.conformance.play.observers import Observers
from tests.conformance.play.process import Command
from tests.conformance.play.procfs import (
    command_line,
    descendants,
    is_alive,
    listens,
    peak_memory,
    process_group,
    sleeps,
)

if TYPE_CHECKING:
    from tests.conformance.play.harness import Harness


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process in a new session that runs until its standard input is closed."""
    pipe = subprocess.PIPE
    with subprocess.Popen(["/bin/cat"], stdin=pipe, stdout=pipe, start_new_session=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()  # the reply shows that exec has completed
        yield process


def test_unread_octets_are_counted() -> None:
    client, server = accepted_pair("default", 10)
    with client, server:
        client.sendall(b"abc")
        assert unread(client) == 3
        server.recv(2)
        assert unread(client) == 1


def test_unread_octets_on_unix_socket_cannot_be_counted() -> None:
    left, right = socket.socketpair()
    with left, right:
        assert unread(left) is None


@pytest.mark.parametrize(("last_sent", "quiet"), [(99.0, True), (109.0, False)])
def test_quiet_period_starts_after_last_write(
    monkeypatch: pytest.MonkeyPatch, last_sent: float, quiet: bool
) -> None:
    """The step begins at 100 s, requires 5 s of silence, and is checked again at 110 s."""
    now = 100.0
    monkeypatch.setattr("tests.conformance.play.observers.time.monotonic", lambda: now)
    connection = SimpleNamespace(received=b"", last_sent=last_sent)
    harness = SimpleNamespace(clients={"C": connection}, seconds=lambda seconds: seconds)
    observers = Observers(cast("Harness", harness), lambda *_: None)
    look = observers.look((Step("C", "<", "@quiet", 5.0),))
    assert look().state is State.WAIT
    now = 110.0
    assert (look().state is State.YES) is quiet


def test_environment_octets_are_parsed() -> None:
    assert parse_environment(b"A=1\0B=x=\xff\n\0C=\0") == {"A": b"1", "B": b"x=\xff\n", "C": b""}


def test_small_buffers_split_a_large_write() -> None:
    client, server = accepted_pair("small", 10)
    with client, server:
        server.setblocking(False)
        accepted = [server.send(bytes(18_000)) for _ in range(3)]
    assert accepted[:2] == [18_000, 18_000]
    assert accepted[2] < 18_000


def test_running_process_is_alive(child: subprocess.Popen[bytes]) -> None:
    assert is_alive(child.pid)
    assert process_group(child.pid) == child.pid


def test_zombie_process_is_not_alive() -> None:
    with subprocess.Popen([sys.executable, "-ISc", "pass"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not is_alive(child.pid)


def test_command_line_is_split_into_words(child: subprocess.Popen[bytes]) -> None:
    assert command_line(child.pid) == "/bin/cat"


def test_missing_process_has_no_command_line() -> None:
    assert command_line(2**22 + 1) == "?"


def running(program: str) -> subprocess.Popen[str]:
    """Start the Python code *program*, which prints a line when its threads are ready."""
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-ISc", program], stdin=pipe, stdout=pipe, text=True)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_child_of_second_thread_is_descendant() -> None:
    program = """
import subprocess, threading
def second():
    with subprocess.Popen(["/bin/cat"]) as child:
        print(child.pid, flush=True)
threading.Thread(target=second).start()
"""
    with running(program) as process:
        child = int(first_line(process))
        assert descendants(process.pid) == {process.pid, child}


def comes_to_sleep(pid: int) -> None:
    """Wait until the process sleeps. It may not have been scheduled since its start."""
    give_up = time.monotonic() + 10
    while not sleeps(pid):
        assert time.monotonic() < give_up


def test_process_with_busy_second_thread_is_not_sleeping(
    child: subprocess.Popen[bytes],
) -> None:
    program = """
import threading
def second():
    print(flush=True)
    while True:
        pass
threading.Thread(target=second).start()
"""
    with running(program) as process:
        first_line(process)
        assert not sleeps(process.pid)
        process.kill()
    comes_to_sleep(child.pid)


def test_process_with_exited_main_thread_is_alive() -> None:
    program = """
import ctypes, os, sys, threading
def second():
    while open("/proc/self/stat").read().split()[2] != "Z":
        pass
    print(flush=True)
    sys.stdin.read()
    os._exit(0)
threading.Thread(target=second).start()
ctypes.CDLL(None).pthread_exit(None)
"""
    with running(program) as process:
        first_line(process)
        assert is_alive(process.pid)
        assert peak_memory(process.pid) > 0


def bound(family: socket.AddressFamily, host: str) -> tuple[socket.socket, int]:
    """Return a socket that listens on *host*, and its port."""
    listener = socket.socket(family)
    listener.bind((host, 0))
    listener.listen()
    return listener, listener.getsockname()[1]


@pytest.mark.parametrize(
    ("family", "host", "shown"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::ffff:127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::", "[::]"),
    ],
)
def test_listening_address_is_found(family: socket.AddressFamily, host: str, shown: str) -> None:
    listener, port = bound(family, host)
    with listener:
        assert f"{shown}:{port}" in listens(os.getpid())


def test_resource_limits_are_set_for_started_process() -> None:
    command = Command(
        ["sh", "-c", "ulimit -f; ulimit -n; ulimit -s; grep processes /proc/self/limits"],
        {}, 0, 1, 2, {"fsize": 4096, "nofile": 20, "stack": 524288, "nproc": 5000},
    )  # fmt: skip
    done = subprocess.run(command.words, capture_output=True, check=True)
    assert done.stdout.split()[:3] == [b"8", b"20", b"512"]
    assert b" 5000 " in done.stdout


def test_listening_socket_becomes_descriptor_3() -> None:
    show = 'echo $LISTEN_FDS; [ "$LISTEN_PID" = $$ ] && readlink /proc/$$/fd/3'
    command = Command(["sh", "-c", show], {}, 0, 1, 2, hands_over_listener=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = subprocess.run(
            command.words, stdin=listener.fileno(), capture_output=True, check=True
        )
    assert done.stdout.startswith(b"1\nsocket:")


def test_reply_class_expected_by_profile_is_shown() -> None:
    step = Step("C", "?", "", ReplyPattern(("4xx",)))
    observers = Observers(cast("Harness", SimpleNamespace()), lambda *_: None)
    assert observers.expected(step) == "4xx"
