"""What the log says about a message."""

from __future__ import annotations

import pytest

from postprox.core.envelope import Envelope
from postprox.core.message import Message
from postprox.core.verdict import Outcome, judge


def an_envelope() -> Envelope:
    envelope = Envelope()
    envelope.add_xforward(b"XFORWARD ADDR=192.0.2.1 HELO=mail.example")
    envelope.add_sender(b"MAIL FROM:<a@example>")
    envelope.add_recipient(b"RCPT TO:<b@example>")
    return envelope


def test_the_line_about_a_message() -> None:
    message = Message(10.0)
    message.decode(b"a\r\n..b\r\n.\r\n")
    assert message.verdict_line(an_envelope(), b"own", b"250 2.0.0 queued\r\n", 12.5) == (
        "accept: client=192.0.2.1 helo=mail.example from=<a@example> to=<b@example> "
        "size=5 seconds=2.500 reply=250 2.0.0 queued"
    )


def test_the_line_about_a_message_of_an_unknown_client() -> None:
    envelope = Envelope()
    envelope.add_sender(b"MAIL FROM:<>")
    line = Message(0.0).verdict_line(envelope, b"own.example", b"554 no\r\n", 0.0)
    assert line == (
        "accept: client=unknown helo=own.example from=<> to= size=0 seconds=0.000 reply=554 no"
    )


def test_only_the_first_recipients_are_named() -> None:
    envelope = Envelope()
    for number in range(22):
        envelope.add_recipient(b"RCPT TO:<%d@example>" % number)
    line = Message(0.0).verdict_line(envelope, b"", b"250 ok\r\n", 0.0)
    assert "to=<0@example>,<1@example>," in line
    assert ",<19@example>,and 2 more size=" in line


@pytest.mark.parametrize(
    ("reject_failures", "fate"),
    [(False, "message passed unfiltered"), (True, "message refused with 451")],
)
def test_the_warning_about_a_filter_that_failed(reject_failures: bool, fate: str) -> None:
    message = Message(0.0)
    message.verdict = judge(Outcome(127), reject_failures=reject_failures)
    assert message.failure_line(an_envelope(), b"") == (
        f"filter failed: exit status 127; {fate}: client=192.0.2.1 helo=mail.example "
        "from=<a@example> to=<b@example>"
    )


def test_octets_that_are_no_text_do_not_matter() -> None:
    envelope = Envelope()
    envelope.add_sender(b"MAIL FROM:<caf\xe9@example>")
    assert "from=<caf\\xe9@example>" in Message(0.0).verdict_line(envelope, b"", b"", 0.0)


def test_the_octets_of_a_message_are_counted_at_rest() -> None:
    message = Message(0.0)
    assert message.decode(b"a\r") == b"a"
    assert message.decode(b"\n.\r\nNOOP\r\n") == b"\n"
    assert (message.size, message.ended, message.rest) == (2, True, b"NOOP\r\n")
