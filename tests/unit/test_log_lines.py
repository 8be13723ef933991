"""Tests of a message's log line, whose fields cannot be forged."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postprox.core import limits, log_lines
from postprox.core.envelope import Envelope
from postprox.core.message import Message
from postprox.core.verdict import ACCEPT, REJECT, Outcome, Verdict, judge

QUEUED = b"250 2.0.0 Ok: queued as 4QxZ\r\n"


def an_envelope() -> Envelope:
    envelope = Envelope()
    envelope.add_xforward(b"XFORWARD ADDR=192.0.2.1 HELO=mail.example IDENT=4QxY")
    envelope.add_sender(b"MAIL FROM:<a@example>")
    envelope.add_recipient(b"RCPT TO:<b@example>")
    return envelope


def line(message: Message, envelope: Envelope, reply: bytes = QUEUED, now: float = 12.5) -> str:
    return log_lines.message_line(message, envelope, b"own.example", reply, now)


def test_message_log_line_contains_all_fields() -> None:
    message = Message(10.0)
    message.decode(b"Message-ID: <1@example>\r\n\r\n..b\r\n.\r\n")
    message.verdict = Verdict(ACCEPT, said=b"looks fine")
    message.filter_seconds = 0.25
    assert line(message, an_envelope()) == (
        "verdict=accept result=delivered client=192.0.2.1 helo=mail.example from=a@example "
        "to=b@example nrcpt=1 size=28 filter=0.250 total=2.500 ident=4QxY "
        'message-id=<1@example> reply="250 2.0.0 Ok: queued as 4QxZ" said="looks fine"'
    )


def test_unknown_values_are_logged_as_empty() -> None:
    envelope = Envelope()
    envelope.add_sender(b"MAIL FROM:<>")
    assert line(Message(0.0), envelope, b"", 0.0) == (
        'verdict=none result=lost client="" helo=own.example from=<> to="" nrcpt=0 size=0 '
        'filter=0.000 total=0.000 ident="" message-id="" reply="" said=""'
    )


@pytest.mark.parametrize(
    ("reply", "rejected", "result"),
    [
        (b"250 ok\r\n", b"", "delivered"),
        (b"250 ok\r\n", b"250 ok\r\n", "discarded"),
        (b"451 later\r\n", b"", "deferred"),
        (b"421 later\r\n", b"", "deferred"),
        (b"552 no\r\n", b"", "refused"),
        (b"550 spam\r\n", b"550 spam\r\n", "refused"),
        (b"354 go on\r\n", b"354 go on\r\n", "refused"),
        (b"", b"", "lost"),
    ],
)
def test_logged_result_depends_on_final_reply(reply: bytes, rejected: bytes, result: str) -> None:
    message = Message(0.0)
    message.verdict = Verdict(REJECT if rejected else ACCEPT, rejected)
    assert f" result={result} " in line(message, an_envelope(), reply)


def test_missing_final_reply_is_logged_as_unknown_result() -> None:
    message = Message(0.0)
    message.in_doubt = True
    assert " result=unknown " in line(message, an_envelope(), b"451 lost\r\n")


def test_multiline_reply_is_logged_as_one_line() -> None:
    told = line(Message(0.0), an_envelope(), b"550-5.7.1 spam\r\n550 5.7.1 see RFC\r\n")
    assert ' reply="550-5.7.1 spam 550 5.7.1 see RFC" ' in told


def test_only_first_recipients_are_logged() -> None:
    envelope = Envelope()
    for number in range(22):
        envelope.add_recipient(b"RCPT TO:<%d@example>" % number)
    assert ",19@example nrcpt=22 " in line(Message(0.0), envelope)


@pytest.mark.parametrize(
    ("reject_failures", "fate"),
    [(False, "message passed unfiltered"), (True, "message refused with 451")],
)
def test_filter_failure_warning_contains_all_fields(reject_failures: bool, fate: str) -> None:
    message = Message(0.0)
    outcome = Outcome(127, b"sh: 1: scan: not found")
    message.verdict = judge(outcome, reject_failures=reject_failures)
    assert log_lines.failure_line(message, an_envelope(), b"") == (
        f"filter failed: exit status 127 (the command was not found); {fate}: client=192.0.2.1 "
        'helo=mail.example from=a@example to=b@example nrcpt=1 said="sh: 1: scan: not found"'
    )


@pytest.mark.parametrize(
    ("octets", "shown"),
    [
        (b"a@example", "a@example"),
        (b"", '""'),
        (b"<>", "<>"),
        (b"a b", '"a b"'),
        (b"a ~", '"a ~"'),
        (b"X Y", '"X Y"'),
        (b'"a b"@example', r'"\"a b\"@example"'),
        (b"a\\b", r'"a\\b"'),
        (b"caf\xe9", r'"caf\xe9"'),
        (b"a\nb\x7f", r'"a\x0ab\x7f"'),
    ],
)
def test_value_is_quoted_if_necessary(octets: bytes, shown: str) -> None:
    assert log_lines.quoted(octets) == shown


@pytest.mark.parametrize("octet", range(256))
def test_every_octet_is_logged_in_printable_form(octet: int) -> None:
    character = chr(octet)
    if character in ('"', "\\"):
        shown = f'"\\{character}"'
    elif character == " " or not character.isascii() or not character.isprintable():
        shown = '" "' if character == " " else f'"\\x{octet:02x}"'
    else:
        shown = character
    assert log_lines.quoted(bytes([octet])) == shown


@pytest.mark.parametrize(
    ("octets", "shown"),
    [
        (b"a" * 9, "aaaaaaaa"),
        (b"a aaaaaaa", '"a aaaaaa"'),
        (b"aaaa\0", r'"aaaa\x00"'),
        (b"aaaaa\0a", '"aaaaa"'),
    ],
)
def test_value_is_truncated_to_limit(octets: bytes, shown: str) -> None:
    assert log_lines.quoted(octets, 8) == shown


def test_recipients_are_separated_by_commas() -> None:
    envelope = an_envelope()
    envelope.add_recipient(b"RCPT TO:<c@example>")
    assert " to=b@example,c@example " in line(Message(0.0), envelope)


FIELD = re.compile(r'([a-z-]+)=((?:[!#-\[\]-~])+|"(?:[ !#-\[\]-~]|\\["\\]|\\x[0-9a-f]{2})*")')


@given(st.binary(max_size=600), st.integers(0, 300))
def test_value_cannot_forge_field(octets: bytes, room: int) -> None:
    told = f"from={log_lines.quoted(octets, room)}"
    assert FIELD.fullmatch(told)
    assert len(told) <= len("from=") + room + 2


def test_longest_values_fit_on_one_line() -> None:
    envelope = Envelope()
    odd = b"\xff" * 12000
    envelope.add_xforward(b"XFORWARD ADDR=%s HELO=%s IDENT=%s" % (odd, odd, odd))
    envelope.add_sender(b"MAIL FROM:<%s>" % odd)
    for _ in range(20):
        envelope.add_recipient(b"RCPT TO:<%s>" % odd)
    message = Message(0.0)
    message.decode(b"Message-ID: %s\r\n\r\n" % odd)
    message.verdict = Verdict(REJECT, b"550 no\r\n", said=odd)
    assert len(line(message, envelope, b"550 " + odd)) <= limits.LOG_LINE
