"""What is known of the message under way."""

from __future__ import annotations

import pytest

from postprox.core.message import Message


def test_the_octets_of_a_message_are_counted_at_rest() -> None:
    message = Message(0.0)
    assert message.decode(b"a\r") == b"a"
    assert message.decode(b"\n.\r\nNOOP\r\n") == b"\n"
    assert (message.size, message.ended, message.rest) == (2, True, b"NOOP\r\n")


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (b"Message-ID: <1@x>\r\n\r\n", b"<1@x>"),
        (b"Subject: x\r\nmessage-id:<1@x> \r\nTo: y\r\n\r\n", b"<1@x>"),
        (b"Subject: x\r\n\r\nMessage-ID: <body@x>\r\n", b""),
        (b"Subject: x\r\nMessage-ID: <no-body@x>\r\n", b"<no-body@x>"),
        (b"", b""),
    ],
)
def test_the_message_id_is_that_of_the_header(header: bytes, found: bytes) -> None:
    message = Message(0.0)
    message.decode(header + b".\r\n")
    assert message.message_id == found


def test_the_message_id_is_found_however_it_arrives() -> None:
    message = Message(0.0)
    for octet in b"Message-ID: <1@x>\r\n\r\nbody\r\n.\r\n":
        message.decode(bytes([octet]))
    assert message.message_id == b"<1@x>"
