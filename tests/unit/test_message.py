"""Tests of the state of a message."""

from __future__ import annotations

import pytest

from postprox.core import limits
from postprox.core.message import Message


def test_message_octets_are_counted_after_decoding() -> None:
    message = Message(0.0)
    assert message.decode(b"a\r") == b"a"
    assert message.decode(b"\n.\r\nNOOP\r\n") == b"\n"
    assert (message.size, message.complete, message.trailing) == (2, True, b"NOOP\r\n")


def test_received_octets_are_counted_before_decoding() -> None:
    message = Message(0.0)
    message.decode(b"..a\r")
    message.decode(b"\n.\r\n")
    assert (message.received, message.size) == (len(b"..a\r\n.\r\n"), len(b".a\n"))


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (b"Message-ID: <1@x>\r\n\r\n", b"<1@x>"),
        (b"Subject: x\r\nmessage-id:<1@x> \r\nTo: y\r\n\r\n", b"<1@x>"),
        (b"Subject: x\r\n\r\nMessage-ID: <body@x>\r\n", b""),
        (b"Subject: x\r\nMessage-ID: <no-body@x>\r\n", b"<no-body@x>"),
        (b"", b""),
        (b"Message-ID : <1@x:25>\r\n\r\n", b"<1@x:25>"),
    ],
)
def test_message_id_is_read_from_header(header: bytes, found: bytes) -> None:
    message = Message(0.0)
    message.decode(header + b".\r\n")
    assert message.message_id == found


def test_message_id_is_found_across_block_boundaries() -> None:
    message = Message(0.0)
    for octet in b"Message-ID: <1@x>\r\n\r\nbody\r\n.\r\n":
        message.decode(bytes([octet]))
    assert message.message_id == b"<1@x>"


@pytest.mark.parametrize("size", [1000, 60_000])
def test_message_id_after_header_limit_is_ignored(size: int) -> None:
    field = b"Message-ID: <1@x>\r\n"
    for before in (limits.HEADER - 18, *range(limits.HEADER + 18, limits.HEADER + 3000, 100)):
        text = b"X" * (before - 1) + b"\r\n" + field + b"X" * 2000
        message = Message(0.0)
        for start in range(0, len(text), size):
            message.decode(text[start : start + size])
        assert message.message_id == (b"<1@x>" if before < limits.HEADER else b"")
