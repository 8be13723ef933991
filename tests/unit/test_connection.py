"""Tests of sessions with real sockets, files and filters, whose peers use the same loop."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import random
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from postprox.core import limits, replies, states
from postprox.core.options import parse
from postprox.shell import connection as module
from postprox.shell.connection import Connection
from postprox.shell.connector import Resolver
from postprox.shell.loop import EPOLL, Loop
from postprox.shell.spool import Spool
from postprox.shell.stream import Stream, never_delay
from postprox.shell.system import posix
from tests.support.peers import address, listening
from tests.support.upstream import MESSAGE, relays, sends_envelope
from tests.unit.peers import LoopPeer, deaf_listener, fresh_loop, run_until

pytestmark = pytest.mark.any_account


class Site:
    """A session with its client, upstream listener and spool directory."""

    def __init__(self, loop: Loop, listener: socket.socket, directory: Path) -> None:
        self.loop = loop
        self.directory = directory
        self.ended: list[Connection] = []
        self._listener = listener
        self._peers: list[LoopPeer] = []

    def serves(self, *options: str, upstream: str = "") -> LoopPeer:
        """Start a session and return its client."""
        mine, theirs = socket.socketpair()
        descriptor = theirs.detach()
        target = upstream or address(self._listener)
        wanted = parse(["-d", str(self.directory), *options, target])
        stream = Stream(descriptor, descriptor)
        self.connection = Connection(self.loop, wanted, stream, self.ended.append)
        self.connection.start()
        return self._peer(mine)

    def upstream(self) -> LoopPeer:
        """Accept the next upstream connection and send a greeting."""
        accepted, _ = self._listener.accept()
        peer = self._peer(accepted)
        peer.says(b"220 up")
        return peer

    def transaction(self, *options: str) -> tuple[LoopPeer, LoopPeer]:
        """Start a session up to an accepted recipient, and return its client and upstream peer."""
        client = self.serves(*options)
        upstream = self.upstream()
        client.sees(b"220 up")
        relays(client, upstream, b"EHLO client")
        sends_envelope(client, upstream)
        return client, upstream

    def data(self, *options: str) -> tuple[LoopPeer, LoopPeer]:
        """Start a session up to the 354 reply, and return its client and upstream peer."""
        client, upstream = self.transaction(*options)
        client.asks(b"DATA", b"354 ")
        return client, upstream

    def stalled(self) -> tuple[LoopPeer, LoopPeer]:
        """Start a session whose upstream peer does not read a message of 10 MB."""
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client, upstream = self.data()
        for _ in range(100):
            client.says(*([b"x" * 998] * 100))
        client.says(b".")
        upstream.sees(b"DATA")
        upstream.stops_reading()
        upstream.says(b"354 go on")
        return client, upstream

    def is_over(self, exit_status: int = 0) -> None:
        run_until(self.loop, lambda: self.ended)
        assert self.ended == [self.connection]
        assert self.connection.session.exit_status == exit_status
        assert list(self.directory.iterdir()) == []

    def closes(self) -> None:
        if not self.ended:
            self.connection.terminate(0)
        for peer in self._peers:
            peer.leaves()

    def _peer(self, connection: socket.socket) -> LoopPeer:
        peer = LoopPeer(self.loop, connection)
        self._peers.append(peer)
        return peer


@pytest.fixture
def site(loop: Loop, listener: socket.socket, tmp_path: Path) -> Iterator[Site]:
    directory = tmp_path / "spool"
    directory.mkdir()
    site = Site(loop, listener, directory)
    gc.collect()  # Earlier tests may have left garbage with open descriptors.
    before = os.listdir("/dev/fd")  # noqa: PTH208 - only names are needed
    yield site
    site.closes()
    assert os.listdir("/dev/fd") == before  # noqa: PTH208


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list to which log lines are appended."""
    lines: list[str] = []
    monkeypatch.setattr("postprox.shell.log.write", lambda _level, text: lines.append(text))
    return lines


def test_complete_session_ends_on_quit(site: Site) -> None:
    client, upstream = site.transaction()
    client.says(b"QUIT")
    upstream.sees(b"QUIT")
    upstream.says(b"221 bye")
    client.sees(b"221 bye")
    client.sees_end()
    upstream.sees_end()
    site.is_over()


def test_unreachable_upstream_causes_421_reply(site: Site) -> None:
    with listening() as closed:
        where = address(closed)
    client = site.serves("-c", "true", upstream=where)
    client.sees_reply(b"421 4.4.1 ")
    client.sees_end()
    client.leaves()
    site.is_over(exit_status=1)


def test_upstream_connect_timeout_causes_421_reply(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CONNECT", 0.1)
    deaf, waiting = deaf_listener()
    client = site.serves(upstream=address(deaf))
    client.sees_reply(b"421 4.4.1 ")
    client.sees_end()
    for connection in (deaf, *waiting):
        connection.close()


def test_accepted_message_is_delivered(site: Site) -> None:
    client, upstream = site.data("-c", "true")
    client.says(*MESSAGE)
    upstream.sees(b"DATA")
    upstream.says(b"354 go on")
    upstream.sees(*MESSAGE)
    upstream.says(b"250 queued")
    client.sees(b"250 queued")
    assert list(site.directory.iterdir()) == []


def test_filter_rejection_is_sent_to_client(site: Site) -> None:
    client, upstream = site.data("-c", "echo looking; echo 550 no >&2; exit 1")
    client.says(*MESSAGE)
    client.sees(b"550 no")
    upstream.sees(b"QUIT")
    assert list(site.directory.iterdir()) == []


def test_filter_receives_message_and_envelope(site: Site, tmp_path: Path) -> None:
    command = f'cat "$EMAIL" >{tmp_path}/seen; echo "$SENDER $RECIPIENT $HELO" >>{tmp_path}/seen'
    client, upstream = site.data("-c", command)
    client.says(b"..caf\xe9", b".")
    upstream.sees(b"DATA")
    assert (tmp_path / "seen").read_bytes() == b".caf\xe9\na@example b@example client\n"


@pytest.mark.parametrize(
    "command",
    [
        'printf "new\\n.dot" >"$OUTFILE"',
        'printf "new\\r\\n.dot\\r\\n" >"$OUTFILE"',
        'printf "new\\n.dot\\n" >"$OUTFILE.x"; mv "$OUTFILE.x" "$OUTFILE"',
        'rm "$EMAIL"; printf "new\\n.dot\\n" >"$OUTFILE"',
    ],
)
def test_outfile_replaces_message(site: Site, command: str) -> None:
    client, upstream = site.data("-c", command)
    client.says(*MESSAGE)
    upstream.sees(b"DATA")
    upstream.says(b"354 go on")
    upstream.sees(b"new", b"..dot", b".")


@pytest.mark.parametrize(
    "command",
    [
        "true",
        'rm "$OUTFILE"',
        'echo changed >"$EMAIL"',
        'echo changed >"$EMAIL.x"; mv "$EMAIL.x" "$EMAIL"',
        'rm "$EMAIL"',
        'echo new >"$OUTFILE"; exit 2',
        'echo new >"$OUTFILE"; kill -9 $$',
        'rm "$OUTFILE"; mkdir "$OUTFILE"',
        'rm "$OUTFILE"; mkfifo "$OUTFILE"',
        'ln -sf /etc/passwd "$OUTFILE"',
        "exec /nonexistent/program",
    ],
)
def test_original_message_is_delivered_if_outfile_is_unused(site: Site, command: str) -> None:
    client, upstream = site.data("-c", command)
    client.says(*MESSAGE)
    upstream.sees(b"DATA")
    upstream.says(b"354 go on")
    upstream.sees(*MESSAGE)
    assert list(site.directory.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        "exit 2",
        "exit 255",
        "kill -11 $$",
        'rm "$OUTFILE"; mkdir "$OUTFILE"',
        'rm "$OUTFILE"; mkfifo "$OUTFILE"',
        'ln -sf /etc/passwd "$OUTFILE"',
        "exec /nonexistent/program",
    ],
)
def test_filter_failure_with_reject_option_causes_451_reply(site: Site, command: str) -> None:
    client, upstream = site.data("-r", "-c", command)
    client.says(*MESSAGE)
    client.sees_reply(b"451 ")
    upstream.sees(b"QUIT")


def test_filter_start_failure_causes_451_reply(
    site: Site, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postprox.shell.filter.SHELL", "/nonexistent/sh")
    client, upstream = site.data("-c", "true")
    client.says(*MESSAGE)
    client.sees_reply(b"451 ")
    upstream.sees(b"QUIT")
    assert any("cannot be started: No such file or directory" in line for line in logged)
    assert list(site.directory.iterdir()) == []


def no_end_can_be_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> NoReturn:
        raise OSError(errno.ENOSYS, "Function not implemented")

    for name in ("waitpid", "waitid"):
        monkeypatch.setattr(posix, name, fails)


def test_unknown_exit_status_causes_451_reply(
    site: Site, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    client, upstream = site.data("-c", "echo '550 virus' >&2; exit 1")
    with monkeypatch.context() as patched:
        no_end_can_be_learnt(patched)
        client.says(*MESSAGE)
        client.sees_reply(b"451 ")
    upstream.sees(b"QUIT")
    warning = next(line for line in logged if line.startswith("filter failed: "))
    assert "the system does not report its exit status; message refused with 451" in warning
    assert 'said="550 virus"' in warning


def test_filter_is_killed_if_its_status_cannot_be_determined(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    client, _ = site.data("-c", f"sleep 1000 & echo $! >{started}; wait")
    client.says(*MESSAGE)
    run_until(site.loop, lambda: site.connection.filtering)
    child = os.pidfd_open(int(started.read_text()))
    with monkeypatch.context() as patched:
        no_end_can_be_learnt(patched)
        os.kill(os.getpid(), signal.SIGCHLD)
        client.sees_reply(b"451 ")
    assert select.select([child], [], [], 20)[0]
    os.close(child)


def test_reaped_filter_is_not_signalled_after_internal_error(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    monkeypatch.setattr("postprox.shell.filter.Filter.kill", lambda self: killed.append(self.pid))

    def fails(*_: object) -> NoReturn:
        raise ZeroDivisionError

    monkeypatch.setattr("postprox.shell.filter.Filter.outcome", fails)
    client, _ = site.data("-c", "exit 0")
    client.says(*MESSAGE)
    client.sees_reply(b"421 ")
    assert killed == []


def test_outfile_open_failure_causes_451_reply(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Spool) -> NoReturn:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Spool, "open_outfile", refuse)
    client, upstream = site.data("-c", "true")
    client.says(*MESSAGE)
    client.sees_reply(b"451 ")
    upstream.sees(b"QUIT")


def gate(tmp_path: Path) -> Path:
    """Create a FIFO with which the test and the filter can wait for each other."""
    fifo = tmp_path / f"gate{len(list(tmp_path.iterdir()))}"
    os.mkfifo(fifo)
    return fifo


def pid_written(site: Site, path: Path) -> int:
    """Return the process ID that a filter writes to the FIFO `path`."""
    descriptor = os.open(path, os.O_RDWR)
    reader = FifoReader(site.loop, descriptor)
    run_until(site.loop, lambda: reader.text.endswith(b"\n"))
    os.close(descriptor)
    return int(reader.text)


class FifoReader:
    """A reader that collects the data from a FIFO."""

    def __init__(self, loop: Loop, descriptor: int) -> None:
        self.text = b""
        self._loop, self._descriptor = loop, descriptor
        os.set_blocking(descriptor, False)
        loop.watch(descriptor, 1, self._read)

    def _read(self) -> None:
        self.text += os.read(self._descriptor, 100)
        if self.text.endswith(b"\n"):
            self._loop.watch(self._descriptor, 0, self._read)


@pytest.mark.parametrize("loss", [LoopPeer.ends, LoopPeer.leaves])
def test_client_disconnect_kills_filter(
    site: Site, tmp_path: Path, loss: Callable[[LoopPeer], None]
) -> None:
    started = gate(tmp_path)
    client, upstream = site.data("-c", f"sleep 1000 & echo $! >{started}; wait")
    client.says(*MESSAGE)
    child = pid_written(site, started)
    loss(client)
    upstream.sees(b"QUIT")
    upstream.leaves()
    site.is_over()
    wait_until_dead(child)


def wait_until_dead(pid: int) -> None:
    """Wait until a killed process has exited."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], 20)[0]
    finally:
        os.close(descriptor)


def test_filter_timeout_kills_process_group(site: Site, tmp_path: Path) -> None:
    started = gate(tmp_path)
    client, _ = site.data("-r", "-t", "0.3", "-c", f"sleep 1000 & echo $! >{started}; wait")
    client.says(*MESSAGE)
    child = pid_written(site, started)
    client.sees_reply(b"451 ")
    wait_until_dead(child)


def test_timed_out_filter_is_killed_before_delivery(site: Site, tmp_path: Path) -> None:
    started = gate(tmp_path)
    client, upstream = site.data("-t", "0.3", "-c", f"echo $$ >{started}; exec sleep 1000")
    client.says(*MESSAGE)
    running = pid_written(site, started)
    upstream.sees(b"DATA")
    wait_until_dead(running)
    assert list(site.directory.iterdir()) == []


def test_standard_error_of_timed_out_filter_is_logged(site: Site, logged: list[str]) -> None:
    client, _ = site.data("-r", "-t", "0.3", "-c", "echo the scanner is down >&2; exec sleep 1000")
    client.says(*MESSAGE)
    client.sees_reply(b"451 ")
    [line] = [line for line in logged if "the scanner is down" in line]
    assert "time" in line


def test_background_process_with_open_standard_error_is_not_awaited(
    site: Site, tmp_path: Path
) -> None:
    held = gate(tmp_path)
    client, _ = site.data("-c", f"{{ cat {held}; }} & echo 550 no >&2; exit 1")
    client.says(*MESSAGE)
    client.sees(b"550 no")
    held.open("wb").close()


def test_background_process_that_writes_output_is_not_awaited(site: Site) -> None:
    client, _ = site.data("-c", "yes >&2 & exit 0")
    client.says(*MESSAGE)
    run_until(site.loop, lambda: site.connection.session._state == "delivering")


def test_large_standard_error_output_does_not_delay_reply(site: Site) -> None:
    command = "head -c 3000000 /dev/zero | tr '\\0' x >&2; echo >&2; echo 550 no >&2; exit 1"
    client, _ = site.data("-c", command)
    client.says(*MESSAGE)
    client.sees(b"550 no")


def test_missing_directory_causes_452_reply(site: Site) -> None:
    client, _ = site.transaction("-d", str(site.directory / "missing"))
    client.says(b"DATA")
    client.sees_reply(b"452 4.3.1 ")


def test_directory_removed_during_data_causes_452_reply(site: Site) -> None:
    client, upstream = site.data("-c", "true")
    site.directory.rmdir()
    client.says(*MESSAGE)
    client.sees_reply(b"452 4.3.1 ")
    upstream.sees(b"QUIT")
    site.directory.mkdir()


def test_large_message_is_delivered_completely(site: Site) -> None:
    line = b"x" * 998
    client, upstream = site.data()
    for _ in range(100):
        client.says(*([line] * 100))
    client.says(b".")
    upstream.sees(b"DATA")
    upstream.says(b"354 go on")
    upstream.sees(*([line] * 10_000), b".")


@pytest.mark.parametrize(
    ("ready_count", "size"),
    [
        (1, limits.MESSAGE_READ),
        (2, limits.READ_PER_ITERATION // 2),
        (4, limits.READ_PER_ITERATION // 4),
        (1000, limits.MIN_READ),
    ],
)
def test_message_read_size_depends_on_ready_descriptors(
    site: Site, ready_count: int, size: int
) -> None:
    site.data()
    site.loop.ready_count = ready_count
    assert site.connection._read_size == size


@pytest.mark.parametrize(("ready_count", "size"), [(6, limits.READ_SIZE), (1000, limits.MIN_READ)])
def test_command_read_size_depends_on_number_of_ready_descriptors(
    site: Site, ready_count: int, size: int
) -> None:
    site.transaction()
    site.loop.ready_count = ready_count
    assert site.connection._read_size == size


def test_blocked_upstream_socket_is_not_written_to(site: Site) -> None:
    client, _upstream = site.stalled()
    sending = site.connection._upstream
    assert sending is not None
    run_until(site.loop, lambda: not select.select([], [sending.writer], [], 0)[1])
    client.says(b"NOOP")  # This event causes no more writes.
    run_until(site.loop, lambda: site.connection.session._commands._buffer)
    assert len(sending.unsent) <= 2 * limits.COPY_SIZE


def test_each_written_block_restarts_upstream_timeout(site: Site) -> None:
    _, upstream = site.stalled()
    run_until(site.loop, lambda: site.connection._block)
    before = site.connection.session.deadline
    upstream.reads()
    run_until(site.loop, lambda: len(upstream.received) > 5_000_000)
    assert site.connection._block is not None
    assert before < site.connection.session.deadline


def test_upstream_reset_during_message_causes_451_reply(site: Site) -> None:
    client, upstream = site.stalled()
    run_until(site.loop, lambda: site.connection._block)
    upstream.leaves()  # Unread input makes close(2) reset the connection.
    client.sees_reply(b"451 ")


def test_upstream_write_failure_is_reported_to_client(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = site.transaction()
    sending = site.connection._upstream
    assert sending is not None
    write = posix.write

    def refused(descriptor: int, data: bytes) -> int:
        if descriptor == sending.writer:
            raise BrokenPipeError
        return write(descriptor, data)

    monkeypatch.setattr(posix, "write", refused)
    client.says(b"NOOP")
    client.sees_reply(b"421 4.4.2 ")
    client.ends()
    site.is_over(exit_status=1)


def test_reply_before_upstream_write_failure_is_relayed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, upstream = site.transaction()
    never_delay(upstream.socket.fileno())
    sending = site.connection._upstream
    assert sending is not None
    write = posix.write

    def refused(descriptor: int, data: bytes) -> int:
        if descriptor == sending.writer:
            upstream.says(b"250 last reply")
            raise BrokenPipeError
        return write(descriptor, data)

    monkeypatch.setattr(posix, "write", refused)
    client.says(b"NOOP")
    client.sees(b"250 last reply")
    client.sees_reply(b"421 4.4.2 ")
    client.ends()
    site.is_over(exit_status=1)


def test_command_delayed_by_full_upstream_socket_is_relayed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, upstream = site.transaction()
    sending = site.connection._upstream
    assert sending is not None
    write, failures = posix.write, [BlockingIOError]

    def writes(descriptor: int, data: bytes) -> int:
        if descriptor == sending.writer and failures:
            raise failures.pop()
        return write(descriptor, data)

    monkeypatch.setattr(posix, "write", writes)
    relays(client, upstream, b"NOOP")
    assert failures == []
    relays(client, upstream, b"HELP")


@pytest.mark.parametrize("error", [BrokenPipeError, None])
def test_early_reply_is_not_relayed_as_final_reply(
    site: Site, monkeypatch: pytest.MonkeyPatch, error: type[OSError] | None
) -> None:
    client, upstream = site.data()
    never_delay(upstream.socket.fileno())
    sending = site.connection._upstream
    assert sending is not None
    write, failure = posix.write, [BlockingIOError, error]

    def writes(descriptor: int, data: bytes) -> int:
        if descriptor == sending.writer and b"Subject" in data and failure[0]:
            raise failure[0]
        return write(descriptor, data)

    monkeypatch.setattr(posix, "write", writes)
    client.says(*MESSAGE)
    upstream.sees(b"DATA")
    upstream.says(b"354 go on")
    run_until(site.loop, lambda: sending.unsent)
    upstream.says(b"250 early")
    del failure[0]
    client.sees_reply(b"451 ")


def test_truncated_spool_is_not_delivered(site: Site) -> None:
    client, upstream = site.data()
    client.says(*MESSAGE)
    upstream.sees(b"DATA")
    spool = site.connection._spool
    assert spool is not None
    os.ftruncate(spool.original, 3)
    upstream.says(b"354 go on")
    client.sees_reply(b"452 ")
    run_until(site.loop, lambda: upstream.ended)
    assert bytes(upstream.received) == b"Sub"


def test_outfile_changed_during_delivery_is_not_delivered(
    site: Site, listener: socket.socket, tmp_path: Path
) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    size = 8_000_000
    client, upstream = site.data(
        *("-c", f'yes | head -c {size} >"$OUTFILE"; ln "$OUTFILE" {tmp_path}/kept')
    )
    client.says(*MESSAGE)
    upstream.sees(b"DATA")
    upstream.stops_reading()
    upstream.says(b"354 go on")
    run_until(site.loop, lambda: site.connection._block)
    with (tmp_path / "kept").open("a") as file:
        file.write("more")
    upstream.reads()
    client.sees_reply(b"451 ")
    run_until(site.loop, lambda: upstream.ended)
    assert not upstream.received.endswith(b"\r\n.\r\n")


def test_message_files_are_closed_exactly_once(site: Site) -> None:
    client, upstream = site.data("-c", "exit 1")
    client.says(*MESSAGE)
    client.sees_reply(b"554 ")
    number = os.open("/dev/null", os.O_RDONLY)  # This reuses the descriptor number of the spool.
    upstream.leaves()
    client.says(b"QUIT")
    client.sees_reply(b"221 ")
    client.sees_end()
    site.is_over()
    os.close(number)


def test_name_resolution_is_cancelled_only_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up: list[Resolver] = []
    asked = threading.Event()
    cancel = Resolver.cancel

    def ask(_resolver: Resolver, _target: object, writer: int) -> None:
        os.close(writer)
        asked.set()

    def note(resolver: Resolver) -> None:
        given_up.append(resolver)
        cancel(resolver)

    monkeypatch.setattr(Resolver, "cancel", note)
    monkeypatch.setattr(Resolver, "_ask", ask)
    client = site.serves(upstream="mx.example:25")
    assert asked.wait(20)
    site.connection.terminate(0)
    assert len(given_up) == 1
    client.sees_reply(b"421 ")
    site.is_over(exit_status=1)
    assert len(given_up) == 1


def settles(site: Site) -> None:
    """Wait until all buffered commands have been processed."""
    run_until(site.loop, lambda: site.connection.deadline > site.loop.clock())


def test_proxy_does_not_read_from_client_with_unread_replies(site: Site) -> None:
    """A client that sends commands without reading replies must not exhaust the memory."""
    client, _ = site.transaction()
    client.stops_reading()
    sent = 0
    while len(site.connection._client.unsent) < limits.UNREAD_REPLIES:
        assert sent < 8_000_000
        with contextlib.suppress(BlockingIOError):
            sent += client.socket.send(b"STARTTLS\r\n" * 1000)
        site.loop.run_once()
    assert not site.connection._reads_client
    settles(site)
    held = (limits.READ_SIZE + limits.INPUT_BUFFER) // len(b"STARTTLS\r\n")
    most = limits.UNREAD_REPLIES + held * len(replies.NOT_OFFERED)
    assert len(site.connection._client.unsent) < most


def test_unread_replies_suspend_reads_from_upstream(site: Site) -> None:
    client, upstream = site.transaction()
    client.stops_reading()
    reply = b"250-" + b"x" * 60_000
    for _ in range(20):
        if len(site.connection._client.unsent) >= limits.UNREAD_REPLIES:
            break
        client.says(b"HELP")
        upstream.sees(b"HELP")
        upstream.says(reply, b"250 ok")
        site.loop.run_once()
    assert (
        len(site.connection._client.unsent)
        < limits.UNREAD_REPLIES + limits.REPLY + limits.READ_SIZE
    )


def test_exception_ends_only_its_session(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    faults: list[Exception] = []
    monkeypatch.setattr("postprox.shell.log.write_fault", faults.append)
    monkeypatch.setattr(module, "_PERFORM", {})
    client = site.serves()
    client.sees_end()
    site.is_over(exit_status=1)
    assert [type(fault) for fault in faults] == [KeyError, KeyError]


def test_exception_is_reported_to_client(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise RuntimeError

    client, _ = site.transaction("-c", "true")
    monkeypatch.setattr("postprox.shell.log.write_fault", lambda _: None)
    monkeypatch.setattr("postprox.shell.spool.Spool.check", fail)
    client.says(b"DATA")
    client.sees_reply(b"354 ")
    client.says(*MESSAGE)
    client.sees_reply(b"421 ")
    site.is_over(exit_status=1)


def test_exception_ends_session_without_waiting_for_upstream_reply(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, upstream = site.data()
    client.says(*MESSAGE)
    upstream.sees(b"DATA")
    upstream.says(b"354 go on")
    upstream.sees(*MESSAGE)
    monkeypatch.setattr("postprox.shell.log.write_fault", lambda _: None)
    site.connection._crash(RuntimeError())
    client.sees_reply(b"421 ")
    client.sees_end()


def test_exception_during_error_handling_causes_421_reply(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError

    client, _ = site.transaction("-c", "true")
    monkeypatch.setattr("postprox.shell.log.write_fault", lambda _: None)
    monkeypatch.setattr("postprox.shell.spool.Spool.check", fail)
    monkeypatch.setattr(site.connection.session, "crash", fail)
    client.says(b"DATA")
    client.sees_reply(b"354 ")
    client.says(*MESSAGE)
    client.sees_reply(b"421 ")
    client.sees_end()


def without_transition(monkeypatch: pytest.MonkeyPatch, state: str, following: str) -> None:
    """Remove a transition from the table for the duration of a test."""
    events = {key: event for key, event in states.TRANSITIONS[state].items() if key != following}
    monkeypatch.setitem(states.TRANSITIONS, state, events)


@pytest.mark.parametrize("state", [states.RECEIVING, states.FILTERING])
def test_missing_state_transition_before_delivery_causes_421_reply(
    site: Site, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    following = {states.RECEIVING: states.FILTERING, states.FILTERING: states.DELIVERING}[state]
    without_transition(monkeypatch, state, following)
    monkeypatch.setattr("postprox.shell.log.write_fault", lambda _: None)
    client, upstream = site.data("-c", "true")
    client.says(*MESSAGE)
    client.sees_reply(b"421 ")
    client.sees_end()
    upstream.sees(b"QUIT")
    upstream.sees_end()
    site.is_over(exit_status=1)


def test_missing_state_transition_after_delivery_causes_421_reply(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_transition(monkeypatch, states.DELIVERING, states.COMMAND)
    monkeypatch.setattr("postprox.shell.log.write_fault", lambda _: None)
    client, upstream = site.data("-c", "true")
    client.says(*MESSAGE)
    upstream.sees(b"DATA")
    upstream.says(b"354 go on")
    upstream.sees(*MESSAGE)
    upstream.says(b"250 queued")
    client.sees_reply(b"421 ")  # No 250 reply precedes it, so the client will retry.
    client.sees_end()
    upstream.sees_end()
    site.is_over(exit_status=1)


@pytest.mark.parametrize("options", [(), ("-c", "true")])
def test_termination_releases_all_resources(site: Site, options: tuple[str, ...]) -> None:
    client, upstream = site.data(*options)
    client.says(b"Subject: x")
    site.connection.terminate(0)
    client.sees_reply(b"421 ")
    client.sees_end()
    upstream.sees(b"QUIT")
    upstream.sees_end()
    site.is_over(exit_status=1)


def test_stop_waits_for_current_message(site: Site) -> None:
    client, upstream = site.data()
    site.connection.stop()
    client.says(*MESSAGE)
    upstream.sees(b"DATA")
    upstream.says(b"354 go on")
    upstream.sees(*MESSAGE)
    upstream.says(b"250 queued")
    client.sees(b"250 queued")
    client.sees_reply(b"421 ")
    upstream.sees(b"QUIT")
    upstream.says(b"221 bye")
    client.sees_end()
    site.is_over()


def test_aborted_session_waits_for_client_disconnect(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LINGER", limits.CLIENT_IDLE)
    client, upstream = site.transaction()
    upstream.leaves()
    client.sees_reply(b"421 4.4.2 ")
    client.sees_end()
    assert site.ended == []
    assert site.connection.deadline > site.loop.clock() + limits.CLIENT_IDLE - 20
    client.ends()
    site.is_over(exit_status=1)


def test_client_receives_last_reply_despite_unread_input(site: Site) -> None:
    """Closing a TCP connection with unread input would reset it and discard the sent reply."""
    client, upstream = site.transaction()
    client.says(b"NOOP", *([b"NOOP"] * 1000))
    upstream.sees(b"NOOP")
    upstream.leaves()
    client.sees_reply(b"421 4.4.2 ")
    client.says(*([b"NOOP"] * 1000))
    client.ends()
    client.sees_end()
    site.is_over(exit_status=1)


# `BoundedLoop` checks before each wait that no deadline precedes the loop's earliest deadline.

CLIENT_SAYS = {
    "command": b"NOOP\r\n",
    "mail": b"EHLO c\r\nMAIL FROM:<a@example>\r\nRCPT TO:<b@example>\r\n",
    "data": b"DATA\r\n",
    "content": b"text\r\n",
    "end": b".\r\n",
}
UPSTREAM_SAYS = {
    "reply": b"250 ok\r\n",
    "refusal": b"550 no\r\n",
    "354": b"354 go on\r\n",
    "garbage": b"what?\r\n",
    "421": b"421 closing\r\n",
}


class Happening:
    """A session that processes random events in any order."""

    def __init__(self, site: Site, options: tuple[str, ...]) -> None:
        self.site = site
        self.client = site.serves(*options)
        self.peer: LoopPeer | None = None

    def happens(self, event: str) -> None:
        with contextlib.suppress(OSError):
            if event in CLIENT_SAYS:
                self.client.socket.send(CLIENT_SAYS[event])
            elif event in UPSTREAM_SAYS and self.peer is not None:
                self.peer.socket.send(UPSTREAM_SAYS[event])
            elif event == "client ends":
                self.client.socket.shutdown(socket.SHUT_WR)
            elif event == "client leaves":
                self.client.leaves()
            elif event == "upstream ends" and self.peer is not None:
                self.peer.socket.shutdown(socket.SHUT_WR)
        if event == "stop":
            self.site.connection.stop()
        elif event == "terminate":
            self.site.connection.terminate(limits.STOP_FINAL)
        self.turns()

    def turns(self) -> None:
        """Run the loop until no events are pending."""
        for _ in range(20):
            if self.peer is None and select.select([self.site._listener], [], [], 0)[0]:
                self.peer = self.site.upstream()
            if not select.select([self.site.loop._poll.fileno()], [], [], 0)[0]:  # type: ignore[union-attr]
                return
            self.site.loop.run_once()


EVENTS = [*CLIENT_SAYS, *UPSTREAM_SAYS]
ENDS = ["client ends", "client leaves", "upstream ends", "stop", "terminate"]


@pytest.mark.parametrize("seed", range(40))
def test_earliest_deadline_is_correct_after_random_events(
    seed: int, listener: socket.socket, tmp_path: Path
) -> None:
    chance = random.Random(seed)  # noqa: S311 - reproducible
    with fresh_loop(EPOLL) as loop:
        site = Site(loop, listener, tmp_path)
        happening = Happening(site, ("-c", "exit 0") if seed % 2 else ())
        for event in ["mail", "reply", "reply", "reply", "data", "content", "end"]:
            happening.happens(event if chance.random() < 0.8 else chance.choice(EVENTS))
        for event in chance.choices(EVENTS, k=8) + chance.choices(ENDS, k=2):
            happening.happens(event)
        site.closes()
    assert list(tmp_path.iterdir()) == []


# relay.refused


LMTP = "the client speaks LMTP: the transport must be smtp(8), not lmtp(8)"


def test_single_session_logs_lmtp_client(site: Site, logged: list[str]) -> None:
    client, _ = site.transaction()
    client.says(b"LHLO client")
    client.sees(replies.NOT_LMTP.rstrip())
    assert logged == [LMTP]


def test_lmtp_warning_is_passed_to_log_seldom_callback(site: Site, logged: list[str]) -> None:
    client, _ = site.transaction()
    lines: list[str] = []
    site.connection.log_seldom = lambda _level, text: lines.append(text)
    client.says(b"LHLO client")
    client.sees(replies.NOT_LMTP.rstrip())
    assert (lines, logged) == ([LMTP], [])
