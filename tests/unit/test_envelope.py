"""Tests of the envelope: the parsed commands and the filter's environment variables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postprox.core import limits
from postprox.core.envelope import Envelope, decode_xtext, environment_value
from postprox.core.smtp import hello_name


@pytest.mark.parametrize(
    ("line", "sender"),
    [
        (b"MAIL FROM:<a@example>", b"a@example"),
        (b"mail from:<a@example>", b"a@example"),
        (b"MAIL FROM:<>", b"<>"),
        (b"MAIL FROM: <a@example>", b"a@example"),
        (b"MAIL FROM:\t<a@example>", b"a@example"),
        (b"MAIL FROM :<a@example>", b"a@example"),
        (b"MAIL   FROM:<a@example>", b"a@example"),
        (b"  MAIL FROM:<a@example>", b"a@example"),
        (b"MAIL FROM:<a@example> SIZE=100 BODY=8BITMIME", b"a@example"),
        (b"MAIL FROM:<a@example>SIZE=100", b"a@example"),
        (b"MAIL FROM:<> SIZE=100", b"<>"),
        (b"MAIL FROM:a@example", b"a@example"),
        (b"MAIL FROM: a@example SIZE=100", b"a@example"),
        (b"MAIL FROM:a@example\tSIZE=100", b"a@example"),
        (b"MAIL FROM:a@example SIZE=100\tBODY=8BITMIME", b"a@example"),
        (b'MAIL FROM:<"a>b"@example>', b'"a>b"@example'),
        (b'MAIL FROM:<"a b"@example> SIZE=1', b'"a b"@example'),
        (b'MAIL FROM:<"a\\">b"@example>', b'"a\\">b"@example'),
        (b'MAIL FROM:"a b"@example SIZE=1', b'"a b"@example'),
        (b"MAIL FROM:<a\\>b@example>", b"a\\>b@example"),
        (b"MAIL FROM:<@one,@two:a@example>", b"a@example"),
        (b'MAIL FROM:<"@one:a"@example>', b'"@one:a"@example'),
        (b'MAIL FROM:<@one:"a:b"@example>', b'"a:b"@example'),
        (b"MAIL FROM:<@example>", b"@example"),
        (b"MAIL FROM:<X@EXAMPLE>", b"X@EXAMPLE"),
        (b"MAIL FROM:X@EXAMPLE SIZE=1", b"X@EXAMPLE"),
        (b"MAIL FROM:<a@example", b"a@example"),
        (b"MAIL FROM:<caf\xc3\xa9@example>", b"caf\xc3\xa9@example"),
        (b"MAIL FROM:<a=b@example>", b"a=b@example"),
        (b"MAIL FROM:", b""),
        (b"MAIL FROM", b""),
        (b"MAIL", b""),
        (b"MAIL TO:<a@example>", b""),
    ],
)
def test_sender_is_parsed(line: bytes, sender: bytes) -> None:
    envelope = Envelope()
    envelope.add_sender(line)
    assert envelope.sender == sender


@pytest.mark.parametrize(
    ("line", "recipient"),
    [
        (b"RCPT TO:<b@example>", b"b@example"),
        (b"rcpt to: <b@example> NOTIFY=NEVER", b"b@example"),
        (b"RCPT TO:b@example", b"b@example"),
        (b"RCPT TO:<@one:b@example>", b"b@example"),
        (b"RCPT TO:<postmaster>", b"postmaster"),
        (b"RCPT FROM:<b@example>", b""),
    ],
)
def test_recipient_is_parsed(line: bytes, recipient: bytes) -> None:
    envelope = Envelope()
    envelope.add_recipient(line)
    assert envelope.recipients == [recipient]


def test_first_recipient_is_in_environment() -> None:
    envelope = Envelope()
    envelope.add_recipient(b"RCPT TO:<b@example>")
    envelope.add_recipient(b"RCPT TO:<c@example>")
    assert envelope.environment(b"")[b"RECIPIENT"] == b"b@example"


def test_recipients_beyond_log_limit_are_counted() -> None:
    envelope = Envelope()
    for number in range(1000):
        envelope.add_recipient(b"RCPT TO:<%d@example>" % number)
    assert envelope.recipient_count == 1000
    assert len(envelope.recipients) == limits.LOGGED_RECIPIENTS


def test_empty_envelope_results_in_empty_variables() -> None:
    assert Envelope().environment(b"") == {
        b"SENDER": b"",
        b"RECIPIENT": b"",
        b"REMOTEIP": b"",
        b"HELO": b"",
        b"RECIPIENTS": b"",
        b"RECIPIENTCOUNT": b"0",
        b"QUEUE_ID": b"",
        b"CLIENT_NAME": b"",
    }


def test_environment_contains_additional_variables() -> None:
    envelope = Envelope()
    envelope.add_xforward(b"XFORWARD NAME=mx.example IDENT=4QxY")
    envelope.add_recipient(b"RCPT TO:<b@example>")
    envelope.add_recipient(b"RCPT TO:<c\x01@example>")
    told = envelope.environment(b"")
    assert told[b"RECIPIENTS"] == b"b@example\nc@example"
    assert told[b"RECIPIENTCOUNT"] == b"2"
    assert (told[b"CLIENT_NAME"], told[b"QUEUE_ID"]) == (b"mx.example", b"4QxY")


def test_recipient_list_is_truncated_after_complete_address() -> None:
    envelope = Envelope()
    for number in range(9000):
        envelope.add_recipient(b"RCPT TO:<%06d@example>" % number)
    told = envelope.environment(b"")
    assert limits.RECIPIENTS - 16 < len(told[b"RECIPIENTS"]) <= limits.RECIPIENTS
    assert told[b"RECIPIENTS"].endswith(b"@example")
    assert told[b"RECIPIENTCOUNT"] == b"9000"


def test_null_sender_is_passed_as_angle_brackets() -> None:
    envelope = Envelope()
    envelope.add_sender(b"MAIL FROM:<>")
    assert envelope.environment(b"")[b"SENDER"] == b"<>"


def forwarded(*lines: bytes) -> Envelope:
    envelope = Envelope()
    for line in lines:
        envelope.add_xforward(line)
    return envelope


@pytest.mark.parametrize(
    ("line", "address"),
    [
        (b"XFORWARD ADDR=192.0.2.1", b"192.0.2.1"),
        (b"xforward addr=192.0.2.1", b"192.0.2.1"),
        (b"XFORWARD NAME=spike ADDR=192.0.2.1 PROTO=ESMTP", b"192.0.2.1"),
        (b"XFORWARD ADDR=IPv6:2001:db8::1", b"2001:db8::1"),
        (b"XFORWARD ADDR=ipv6:2001:db8::1", b"2001:db8::1"),
        (b"XFORWARD ADDR=2001:db8::1", b"2001:db8::1"),
        (b"XFORWARD ADDR=IPv6+3A2001:db8::1", b"2001:db8::1"),
        (b"XFORWARD ADDR=[UNAVAILABLE]", b""),
        (b"XFORWARD ADDR=[TEMPUNAVAIL]", b""),
        (b"XFORWARD ADDR=[unavailable]", b""),
        (b"XFORWARD ADDR=", b""),
        (b"XFORWARD ADDR", b""),
        (b"XFORWARD XADDR=192.0.2.1", b""),
        (b"XFORWARD", b""),
    ],
)
def test_remote_ip_is_parsed_from_xforward(line: bytes, address: bytes) -> None:
    assert forwarded(line).environment(b"")[b"REMOTEIP"] == address


def test_last_xforward_value_takes_effect() -> None:
    lines = (b"XFORWARD ADDR=192.0.2.1", b"XFORWARD HELO=x", b"XFORWARD ADDR=192.0.2.2")
    assert forwarded(*lines).remote_ip == b"192.0.2.2"


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b"XFORWARD HELO=mail.example", b"mail.example"),
        (b"XFORWARD helo=mail.example", b"mail.example"),
        (b"XFORWARD HELO=a+20b+2Bc", b"a b+c"),
        (b"XFORWARD HELO=a=b", b"a=b"),
        (b"XFORWARD HELO=[192.0.2.1]", b"[192.0.2.1]"),
        (b"XFORWARD ADDR=192.0.2.1", b"own.example"),
        (b"XFORWARD HELO=a+00b+0Ac+7F", b"abc"),
    ],
)
def test_xforward_helo_name_takes_precedence(line: bytes, name: bytes) -> None:
    assert forwarded(line).environment(b"own.example")[b"HELO"] == name


@pytest.mark.parametrize(
    ("encoded", "decoded"),
    [
        (b"", b""),
        (b"abc", b"abc"),
        (b"+41", b"A"),
        (b"a+20b", b"a b"),
        (b"+2B41", b"+41"),
        (b"+2b", b"+"),
        (b"+C3+A9", b"\xc3\xa9"),
        (b"+", b"+"),
        (b"+4", b"+4"),
        (b"a+4", b"a+4"),
        (b"+zz", b"+zz"),
        (b"+XX", b"+XX"),
        (b"+4z", b"+4z"),
        (b"++41", b"+A"),
        (b"+-1", b"+-1"),
        (b"+ 1", b"+ 1"),
        (b"+\xff\xff", b"+\xff\xff"),
    ],
)
def test_xtext_is_decoded(encoded: bytes, decoded: bytes) -> None:
    assert decode_xtext(encoded) == decoded


@given(st.binary())
def test_decoder_reverses_xtext_encoding(text: bytes) -> None:
    encoded = b"".join(
        b"+%02X" % octet if octet in b"+=" or not 33 <= octet <= 126 else bytes([octet])
        for octet in text
    )
    assert decode_xtext(encoded) == text


E_ACUTE, EURO, CLEF = "é".encode(), "€".encode(), "𝄞".encode()


@pytest.mark.parametrize(
    ("value", "cut"),
    [
        (b"", b""),
        (b"x" * 98, b"x" * 98),
        (b"x" * 99, b"x" * 99),
        (b"x" * 100, b"x" * 99),
        (b"x" * 255, b"x" * 99),
        (b"x" * 97 + E_ACUTE, b"x" * 97 + E_ACUTE),
        (b"x" * 98 + E_ACUTE, b"x" * 98),
        (b"x" * 99 + E_ACUTE, b"x" * 99),
        (b"x" * 96 + EURO + b"x", b"x" * 96 + EURO),
        (b"x" * 97 + EURO, b"x" * 97),
        (b"x" * 98 + EURO, b"x" * 98),
        (b"x" * 95 + CLEF + b"x", b"x" * 95 + CLEF),
        (b"x" * 96 + CLEF, b"x" * 96),
        (b"x" * 97 + CLEF, b"x" * 97),
        (b"x" * 98 + CLEF, b"x" * 98),
        (E_ACUTE * 50, E_ACUTE * 49),
        (b"\xa9" * 200, b"\xa9" * 99),
        (b"\xbf" * 200, b"\xbf" * 99),
        (b"x" * 98 + b"\xc0\xa9", b"x" * 98),
        (b"x" * 95 + b"\xf0" + b"\xa9" * 10, b"x" * 95 + b"\xf0\xa9\xa9\xa9"),
        (b"\xe9" * 200, b"\xe9" * 99),
    ],
)
def test_environment_value_is_truncated_to_99_octets(value: bytes, cut: bytes) -> None:
    assert environment_value(value) == cut


def test_control_characters_are_removed_before_truncation() -> None:
    assert environment_value(b"\0\t\r\n\x1b\x1f\x7f" * 50 + b"x" * 100) == b"x" * 99


@given(st.text(max_size=150))
def test_environment_value_remains_valid_utf_8(text: str) -> None:
    value = environment_value(text.encode())
    assert len(value) <= 99
    value.decode()


@given(st.binary(max_size=250))
def test_environment_value_has_no_control_characters(value: bytes) -> None:
    assert not any(octet < 32 or octet == 127 for octet in environment_value(value))


@given(st.binary(max_size=60))
def test_any_smtp_command_line_results_in_valid_environment(argument: bytes) -> None:
    envelope = Envelope()
    envelope.add_sender(b"MAIL FROM:" + argument)
    envelope.add_recipient(b"RCPT TO:" + argument)
    envelope.add_xforward(b"XFORWARD ADDR=" + argument + b" HELO=" + argument)
    environment = envelope.environment(hello_name(b"EHLO " + argument))
    assert {b"SENDER", b"RECIPIENT", b"REMOTEIP", b"HELO"} < set(environment)
    assert all(len(value) <= 99 and b"\0" not in value for value in environment.values())


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b"", b""),
        (b"EHLO", b""),
        (b"EHLO ", b""),
        (b"EHLO client.example", b"client.example"),
        (b"helo  client.example  ", b"client.example"),
        (b"EHLO [192.0.2.1]", b"[192.0.2.1]"),
        (b"HELO two words", b"two words"),
    ],
)
def test_hello_name_is_parsed(line: bytes, name: bytes) -> None:
    assert hello_name(line) == name
