"""A session at work on real sockets, files and filters, with its peers on the same loop."""

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


class Site:
    """A client's connection with all that is round it."""

    def __init__(self, loop: Loop, listener: socket.socket, directory: Path) -> None:
        self.loop = loop
        self.directory = directory
        self.ended: list[Connection] = []
        self._listener = listener
        self._peers: list[LoopPeer] = []

    def serves(self, *options: str, upstream: str = "") -> LoopPeer:
        """Start a session; return its client."""
        mine, theirs = socket.socketpair()
        descriptor = theirs.detach()
        target = upstream or address(self._listener)
        wanted = parse(["-d", str(self.directory), *options, target])
        stream = Stream(descriptor, descriptor)
        self.connection = Connection(self.loop, wanted, stream, self.ended.append)
        self.connection.start()
        return self._peer(mine)

    def upstream(self) -> LoopPeer:
        """Take the next connection to upstream, and greet it."""
        accepted, _ = self._listener.accept()
        peer = self._peer(accepted)
        peer.says(b"220 up")
        return peer

    def transaction(self, *options: str) -> tuple[LoopPeer, LoopPeer]:
        """Go on to an accepted recipient; return client and upstream."""
        client = self.serves(*options)
        upstream = self.upstream()
        client.sees(b"220 up")
        relays(client, upstream, b"EHLO client")
        sends_envelope(client, upstream)
        return client, upstream

    def data(self, *options: str) -> tuple[LoopPeer, LoopPeer]:
        """Go on to the 354."""
        client, upstream = self.transaction(*options)
        client.asks(b"DATA", b"354 ")
        return client, upstream

    def stalled(self) -> tuple[LoopPeer, LoopPeer]:
        """Go on to ten megabytes that upstream has asked for and does not read."""
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
    gc.collect()  # what earlier tests have left to it may hold descriptors
    before = os.listdir("/dev/fd")  # noqa: PTH208 - names are enough
    yield site
    site.closes()
    assert os.listdir("/dev/fd") == before  # noqa: PTH208


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is told to the log."""
    lines: list[str] = []
    monkeypatch.setattr("postprox.shell.log.write", lambda _level, text: lines.append(text))
    return lines


def test_a_session_from_greeting_to_quit(site: Site) -> None:
    client, upstream = site.transaction()
    client.says(b"QUIT")
    upstream.sees(b"QUIT")
    upstream.says(b"221 bye")
    client.sees(b"221 bye")
    client.sees_end()
    upstream.sees_end()
    site.is_over()


def test_upstream_that_cannot_be_reached(site: Site) -> None:
    with listening() as closed:
        where = address(closed)
    client = site.serves("-c", "true", upstream=where)
    client.sees_reply(b"421 4.4.1 ")
    client.sees_end()
    client.leaves()
    site.is_over(exit_status=1)


def test_upstream_that_does_not_answer(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CONNECT", 0.1)
    deaf, waiting = deaf_listener()
    client = site.serves(upstream=address(deaf))
    client.sees_reply(b"421 4.4.1 ")
    client.sees_end()
    for connection in (deaf, *waiting):
        connection.close()


def test_a_message_passes(site: Site) -> None:
    client, upstream = site.data("-c", "true")
    client.says(*MESSAGE)
    upstream.sees(b"DATA")
    upstream.says(b"354 go on")
    upstream.sees(*MESSAGE)
    upstream.says(b"250 queued")
    client.sees(b"250 queued")
    assert list(site.directory.iterdir()) == []


def test_the_filter_decides(site: Site) -> None:
    client, upstream = site.data("-c", "echo looking; echo 550 no >&2; exit 1")
    client.says(*MESSAGE)
    client.sees(b"550 no")
    upstream.sees(b"QUIT")
    assert list(site.directory.iterdir()) == []


def test_the_filter_sees_message_and_envelope(site: Site, tmp_path: Path) -> None:
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
def test_outfile_replaces_the_message(site: Site, command: str) -> None:
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
def test_the_original_passes(site: Site, command: str) -> None:
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
def test_a_failed_filter_is_a_451_if_so_wished(site: Site, command: str) -> None:
    client, upstream = site.data("-r", "-c", command)
    client.says(*MESSAGE)
    client.sees_reply(b"451 ")
    upstream.sees(b"QUIT")


def test_without_the_means_to_start_a_filter_no_message_passes(
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


def test_filter_whose_end_cannot_be_learnt_gets_451(
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


def test_running_filter_whose_end_cannot_be_learnt_is_killed(
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


def test_reaped_filter_is_not_killed_when_its_session_crashes(
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


def test_without_the_means_to_read_outfile_no_message_passes(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Spool) -> NoReturn:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Spool, "open_outfile", refuse)
    client, upstream = site.data("-c", "true")
    client.says(*MESSAGE)
    client.sees_reply(b"451 ")
    upstream.sees(b"QUIT")


def gate(tmp_path: Path) -> Path:
    """A FIFO: a filter that reads it is held until somebody writes; one that writes, is seen."""
    fifo = tmp_path / f"gate{len(list(tmp_path.iterdir()))}"
    os.mkfifo(fifo)
    return fifo


def pid_written(site: Site, path: Path) -> int:
    """Wait until a filter has written its process id to the FIFO `path`."""
    descriptor = os.open(path, os.O_RDWR)
    reader = FifoReader(site.loop, descriptor)
    run_until(site.loop, lambda: reader.text.endswith(b"\n"))
    os.close(descriptor)
    return int(reader.text)


class FifoReader:
    """Collects what comes through a FIFO."""

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
def test_a_client_that_is_gone_has_the_filter_killed(
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
    """Wait for the end of a process that was killed: the kernel takes a moment."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], 20)[0]
    finally:
        os.close(descriptor)


def test_a_filter_out_of_time_is_killed_with_its_children(site: Site, tmp_path: Path) -> None:
    started = gate(tmp_path)
    client, _ = site.data("-r", "-t", "0.3", "-c", f"sleep 1000 & echo $! >{started}; wait")
    client.says(*MESSAGE)
    child = pid_written(site, started)
    client.sees_reply(b"451 ")
    wait_until_dead(child)


def test_a_filter_out_of_time_is_gone_before_its_message_goes_on(
    site: Site, tmp_path: Path
) -> None:
    started = gate(tmp_path)
    client, upstream = site.data("-t", "0.3", "-c", f"echo $$ >{started}; exec sleep 1000")
    client.says(*MESSAGE)
    running = pid_written(site, started)
    upstream.sees(b"DATA")
    wait_until_dead(running)
    assert list(site.directory.iterdir()) == []


def test_what_a_filter_out_of_time_said_is_in_the_log(site: Site, logged: list[str]) -> None:
    client, _ = site.data("-r", "-t", "0.3", "-c", "echo the scanner is down >&2; exec sleep 1000")
    client.says(*MESSAGE)
    client.sees_reply(b"451 ")
    [line] = [line for line in logged if "the scanner is down" in line]
    assert "time" in line


def test_a_background_child_that_holds_standard_error_delays_nothing(
    site: Site, tmp_path: Path
) -> None:
    held = gate(tmp_path)
    client, _ = site.data("-c", f"{{ cat {held}; }} & echo 550 no >&2; exit 1")
    client.says(*MESSAGE)
    client.sees(b"550 no")
    held.open("wb").close()


def test_a_background_child_that_goes_on_talking_delays_nothing(site: Site) -> None:
    client, _ = site.data("-c", "yes >&2 & exit 0")
    client.says(*MESSAGE)
    run_until(site.loop, lambda: site.connection.session._state == "delivering")


def test_three_megabytes_of_standard_error(site: Site) -> None:
    command = "head -c 3000000 /dev/zero | tr '\\0' x >&2; echo >&2; echo 550 no >&2; exit 1"
    client, _ = site.data("-c", command)
    client.says(*MESSAGE)
    client.sees(b"550 no")


def test_a_missing_directory_is_a_452(site: Site) -> None:
    client, _ = site.transaction("-d", str(site.directory / "missing"))
    client.says(b"DATA")
    client.sees_reply(b"452 4.3.1 ")


def test_a_directory_that_goes_away_is_a_452(site: Site) -> None:
    client, upstream = site.data("-c", "true")
    site.directory.rmdir()
    client.says(*MESSAGE)
    client.sees_reply(b"452 4.3.1 ")
    upstream.sees(b"QUIT")
    site.directory.mkdir()


def test_a_large_message_passes_whole(site: Site) -> None:
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
def test_of_a_message_so_much_is_read_at_once_as_the_number_of_clients_allows(
    site: Site, ready_count: int, size: int
) -> None:
    site.data()
    site.loop.ready_count = ready_count
    assert site.connection._read_size == size


@pytest.mark.parametrize(("ready_count", "size"), [(6, limits.READ_SIZE), (1000, limits.MIN_READ)])
def test_of_commands_less_is_read_at_once_if_there_are_many(
    site: Site, ready_count: int, size: int
) -> None:
    site.transaction()
    site.loop.ready_count = ready_count
    assert site.connection._read_size == size


def test_a_slow_upstream_is_sent_no_more_than_it_takes(site: Site) -> None:
    client, _upstream = site.stalled()
    sending = site.connection._upstream
    assert sending is not None
    run_until(site.loop, lambda: not select.select([], [sending.writer], [], 0)[1])
    client.says(b"NOOP")  # an event, upon which nothing more is sent
    run_until(site.loop, lambda: site.connection.session._commands._buffer)
    assert sending.unsent <= 2 * limits.COPY_SIZE


def test_each_block_that_upstream_takes_gives_it_time_for_the_next(site: Site) -> None:
    _, upstream = site.stalled()
    run_until(site.loop, lambda: site.connection._block)
    before = site.connection.session.deadline
    upstream.reads()
    run_until(site.loop, lambda: len(upstream.received) > 5_000_000)
    assert site.connection._block is not None
    assert before < site.connection.session.deadline


def test_an_upstream_that_fails_while_it_is_sent_the_message_is_told(site: Site) -> None:
    client, upstream = site.stalled()
    run_until(site.loop, lambda: site.connection._block)
    upstream.leaves()  # with octets unread, which resets the connection
    client.sees_reply(b"451 ")


def test_an_upstream_that_cannot_be_written_to_is_told(
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


@pytest.mark.parametrize("error", [BrokenPipeError, None])
def test_what_upstream_says_before_the_end_has_gone_is_not_the_reply_to_it(
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


def test_a_message_that_cannot_be_read_whole_gets_no_end(site: Site) -> None:
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


def test_a_replacement_that_changes_while_it_is_sent_gets_no_end(
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


def test_the_files_of_a_message_are_closed_once(site: Site) -> None:
    client, upstream = site.data("-c", "exit 1")
    client.says(*MESSAGE)
    client.sees_reply(b"554 ")
    number = os.open("/dev/null", os.O_RDONLY)  # the number that the spool had
    upstream.leaves()
    client.says(b"QUIT")
    client.sees_reply(b"221 ")
    client.sees_end()
    site.is_over()
    os.close(number)


def test_a_question_to_the_name_service_is_given_up_once(
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
    """Wait until all commands that are held have been handled."""
    run_until(site.loop, lambda: site.connection.deadline > site.loop.clock())


def test_a_client_that_does_not_read_is_not_read(site: Site) -> None:
    """Memory stays bounded against a client that makes the proxy talk and never listens."""
    client, _ = site.transaction()
    client.stops_reading()
    sent = 0
    while site.connection._client.unsent < limits.UNREAD_REPLIES:
        assert sent < 8_000_000
        with contextlib.suppress(BlockingIOError):
            sent += client.socket.send(b"STARTTLS\r\n" * 1000)
        site.loop.run_once()
    assert not site.connection._reads_client
    settles(site)
    held = (limits.READ_SIZE + limits.INPUT_BUFFER) // len(b"STARTTLS\r\n")
    most = limits.UNREAD_REPLIES + held * len(replies.NOT_OFFERED)
    assert site.connection._client.unsent < most


def test_upstream_is_not_read_while_the_client_does_not_read(site: Site) -> None:
    client, upstream = site.transaction()
    client.stops_reading()
    reply = b"250-" + b"x" * 60_000
    for _ in range(20):
        if site.connection._client.unsent >= limits.UNREAD_REPLIES:
            break
        client.says(b"HELP")
        upstream.sees(b"HELP")
        upstream.says(reply, b"250 ok")
        site.loop.run_once()
    assert site.connection._client.unsent < limits.UNREAD_REPLIES + limits.REPLY + limits.READ_SIZE


def test_an_error_of_the_program_ends_one_session_only(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[Exception] = []
    monkeypatch.setattr("postprox.shell.log.write_fault", faults.append)
    monkeypatch.setattr(module, "_PERFORM", {})
    client = site.serves()
    client.sees_end()
    site.is_over(exit_status=1)
    assert [type(fault) for fault in faults] == [KeyError, KeyError]


def test_an_error_of_the_program_is_told_to_the_client(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_an_error_of_the_program_waits_for_no_upstream(
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


def test_an_error_on_the_way_out_is_told_to_the_client_all_the_same(
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
    """Take a transition out. The table itself stays, because its order is part of a picture."""
    events = {key: event for key, event in states.TRANSITIONS[state].items() if key != following}
    monkeypatch.setitem(states.TRANSITIONS, state, events)


@pytest.mark.parametrize("state", [states.RECEIVING, states.FILTERING])
def test_missing_transition_ends_in_421_without_delivery(
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


def test_missing_transition_after_delivery_ends_in_421(
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
    client.sees_reply(b"421 ")  # not after 250: the client sends the message again
    client.sees_end()
    upstream.sees_end()
    site.is_over(exit_status=1)


@pytest.mark.parametrize("options", [(), ("-c", "true")])
def test_terminating_leaves_nothing(site: Site, options: tuple[str, ...]) -> None:
    client, upstream = site.data(*options)
    client.says(b"Subject: x")
    site.connection.terminate(0)
    client.sees_reply(b"421 ")
    client.sees_end()
    upstream.sees(b"QUIT")
    upstream.sees_end()
    site.is_over(exit_status=1)


def test_stopping_waits_for_the_message(site: Site) -> None:
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


def test_a_client_whose_session_was_cut_short_sees_the_end_before_it_ends(
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


def test_a_reply_is_not_lost_because_of_input_that_nobody_reads(site: Site) -> None:
    """Closing with unread input resets a TCP connection, and what was sent is lost."""
    client, upstream = site.transaction()
    client.says(b"NOOP", *([b"NOOP"] * 1000))
    upstream.sees(b"NOOP")
    upstream.leaves()
    client.sees_reply(b"421 4.4.2 ")
    client.says(*([b"NOOP"] * 1000))
    client.ends()
    client.sees_end()
    site.is_over(exit_status=1)


# The loop's bound of all deadlines: `BoundedLoop` checks it before each wait.

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
    """A session that anything may happen to, in any order, for as long as it is there."""

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
        """Let the loop turn while there is something to do."""
        for _ in range(20):
            if self.peer is None and select.select([self.site._listener], [], [], 0)[0]:
                self.peer = self.site.upstream()
            if not select.select([self.site.loop._poll.fileno()], [], [], 0)[0]:  # type: ignore[union-attr]
                return
            self.site.loop.run_once()


EVENTS = [*CLIENT_SAYS, *UPSTREAM_SAYS]
ENDS = ["client ends", "client leaves", "upstream ends", "stop", "terminate"]


@pytest.mark.parametrize("seed", range(40))
def test_the_loop_s_bound_holds_whatever_happens(
    seed: int, listener: socket.socket, tmp_path: Path
) -> None:
    chance = random.Random(seed)  # noqa: S311 - chosen anew, the same each time
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


def test_an_lmtp_client_is_logged_by_its_own_session(site: Site, logged: list[str]) -> None:
    client, _ = site.transaction()
    client.says(b"LHLO client")
    client.sees(replies.NOT_LMTP.rstrip())
    assert logged == [LMTP]


def test_an_lmtp_client_is_logged_by_its_server(site: Site, logged: list[str]) -> None:
    client, _ = site.transaction()
    lines: list[str] = []
    site.connection.log_seldom = lambda _level, text: lines.append(text)
    client.says(b"LHLO client")
    client.sees(replies.NOT_LMTP.rstrip())
    assert (lines, logged) == ([LMTP], [])
