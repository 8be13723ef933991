"""Tests of streams on sockets and pipes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from postprox.shell.stream import Stream, never_delay


@pytest.fixture
def pair() -> Iterator[tuple[Stream, socket.socket]]:
    ours, theirs = socket.socketpair()
    descriptor = ours.detach()
    stream = Stream(descriptor, descriptor)
    with theirs:
        yield stream, theirs
        stream.close()


Pair = tuple[Stream, socket.socket]


def test_read_without_input_returns_none(pair: Pair) -> None:
    stream, _ = pair
    assert stream.read() is None


def test_octets_are_read_unchanged(pair: Pair) -> None:
    stream, peer = pair
    peer.send(b"\0\xff\r\n")
    assert stream.read() == b"\0\xff\r\n"


def test_eof_is_read_as_empty_bytes(pair: Pair) -> None:
    stream, peer = pair
    peer.close()
    assert stream.read() == b""


def test_reset_is_read_as_eof(listener: socket.socket) -> None:
    client = socket.create_connection(listener.getsockname())
    accepted, _ = listener.accept()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    descriptor = accepted.detach()
    stream = Stream(descriptor, descriptor)
    client.close()  # The linger time of 0 makes close(2) reset the connection.
    assert stream.read() == b""
    stream.close()


def test_octets_are_written_immediately(pair: Pair) -> None:
    stream, peer = pair
    stream.write(b"250 ok\r\n")
    assert not stream.unsent
    assert peer.recv(100) == b"250 ok\r\n"


def test_excess_output_is_buffered(pair: Pair) -> None:
    stream, peer = pair
    text = bytes(range(256)) * 20_000
    stream.write(text)
    assert 0 < len(stream.unsent) < len(text)
    received = bytearray()
    while len(received) < len(text):
        received += peer.recv(1 << 20)
        stream.flush()
    assert bytes(received) == text
    assert not stream.unsent


def test_output_for_disconnected_peer_is_discarded(pair: Pair) -> None:
    stream, peer = pair
    peer.close()
    stream.write(b"x" * 5_000_000)
    assert not stream.unsent


def test_failed_stream_remains_failed(pair: Pair) -> None:
    stream, peer = pair
    peer.setblocking(False)
    stream.failed = True
    assert stream.read() == b""
    stream.write(b"x")
    with pytest.raises(BlockingIOError):
        peer.recv(1)


def test_stream_is_readable_after_finish(pair: Pair) -> None:
    stream, peer = pair
    stream.finish()
    assert peer.recv(100) == b""
    peer.send(b"more")
    assert stream.read() == b"more"


def test_finish_without_peer_has_no_effect(pair: Pair) -> None:
    stream, peer = pair
    peer.close()
    stream.finish()
    stream.finish()


def test_second_close_has_no_effect(pair: Pair) -> None:
    stream, peer = pair
    stream.close()
    reused = os.dup(peer.fileno())
    stream.close()
    os.fstat(reused)
    os.close(reused)


def test_pipes_can_replace_socket() -> None:
    (reader, theirs_out), (theirs_in, writer) = os.pipe(), os.pipe()
    stream = Stream(reader, writer)
    os.write(theirs_out, b"QUIT\r\n")
    assert stream.read() == b"QUIT\r\n"
    stream.write(b"221 bye\r\n")
    assert os.read(theirs_in, 100) == b"221 bye\r\n"
    stream.finish()
    stream.close()
    assert os.read(theirs_in, 100) == b""
    os.close(theirs_in)
    os.close(theirs_out)


def test_output_to_closed_pipe_is_discarded() -> None:
    (reader, theirs_out), (theirs_in, writer) = os.pipe(), os.pipe()
    stream = Stream(reader, writer)
    os.close(theirs_in)
    stream.write(b"221 bye\r\n")
    assert not stream.unsent
    stream.close()
    os.close(theirs_out)


def test_tcp_nodelay_is_set(listener: socket.socket) -> None:
    with socket.create_connection(listener.getsockname()) as client:
        descriptor = os.dup(client.fileno())
        Stream(descriptor, descriptor).close()
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_tcp_nodelay_is_ignored_for_other_descriptors(pair: Pair) -> None:
    stream, _ = pair
    never_delay(stream.writer)
    reader, writer = os.pipe()
    never_delay(writer)
    os.close(reader)
    os.close(writer)
