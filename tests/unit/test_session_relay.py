"""Session tests: commands and replies between messages (relay.*)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from postprox.core import actions, limits, log_levels, replies
from tests.unit.dialogue import (
    MAIL,
    RCPT,
    Dialogue,
    awaiting_greeting,
    awaiting_reply,
    connected,
    greeted,
    in_auth,
    in_transaction,
    rejected,
    relayed,
)

Stage = Callable[[], Dialogue]


def test_greeting_is_relayed_unchanged() -> None:
    dialogue = awaiting_greeting()
    dialogue.client_sees()
    dialogue.upstream_says(b"220-up", b"220 ESMTP caf\xe9")
    dialogue.client_sees(b"220-up", b"220 ESMTP caf\xe9")


@pytest.mark.parametrize(
    "command",
    [
        b"NOOP",
        b"noop  two  blanks ",
        b" NOOP",
        b"",
        b"VRFY caf\xe9",
        b"HELP me",
        b"ETRN x",
        b"MAIL FROM:<a@example> SIZE=1 BODY=8BITMIME",
        b"XFORWARD NAME=[UNAVAILABLE]",
        b"EXPN " + b"x" * 12283,
        b"DATAX",
    ],
)
def test_command_is_relayed_unchanged(command: bytes) -> None:
    relayed(greeted(), command)


def test_command_with_lf_is_relayed_with_crlf() -> None:
    dialogue = greeted()
    dialogue.client_sends(b"NOOP\n")
    dialogue.upstream_sees(b"NOOP")


@pytest.mark.parametrize(
    "reply",
    [
        b"250 ok\r\n",
        b"250\r\n",
        b"250-one\r\n250-two\r\n250 three\r\n",
        b"550 5.7.1 no caf\xe9\r\n",
        b"451 later\r\n",
        b"300 odd\r\n",
        b"214-a\n214 b\n",
    ],
)
def test_reply_is_relayed_unchanged(reply: bytes) -> None:
    dialogue = greeted()
    dialogue.client_says(b"HELP")
    dialogue.upstream_sends(reply)
    assert bytes(dialogue.to_client) == reply


@pytest.mark.parametrize(
    ("command", "reply", "expected"),
    [
        (
            b"ehlo client.example",
            (b"250-up", b"250-PIPELINING", b"250-STARTTLS", b"250 CHUNKING"),
            (b"250-up", b"250 PIPELINING"),
        ),
        (b"HELP", (b"214-up", b"214 STARTTLS"), (b"214-up", b"214 STARTTLS")),
        (b"EHLO x", (b"550-up", b"550 STARTTLS"), (b"550-up", b"550 STARTTLS")),
        (b"HELO x", (b"250-up", b"250 STARTTLS"), (b"250-up", b"250 STARTTLS")),
    ],
)
def test_keywords_are_removed_only_from_ehlo_reply(
    command: bytes, reply: tuple[bytes, ...], expected: tuple[bytes, ...]
) -> None:
    dialogue = connected()
    dialogue.client_says(command)
    dialogue.upstream_says(*reply)
    dialogue.client_sees(*expected)


# relay.lockstep


def test_commands_wait_for_upstream_greeting() -> None:
    dialogue = Dialogue()
    dialogue.client_says(b"EHLO client.example", b"NOOP")
    dialogue.upstream_connects()
    dialogue.nothing_is_said()
    dialogue.upstream_says(b"220 up")
    dialogue.client_sees(b"220 up")
    dialogue.upstream_sees(b"EHLO client.example")


def test_pipelined_commands_are_relayed_one_by_one() -> None:
    dialogue = greeted()
    dialogue.client_says(b"NOOP 1", b"NOOP 2", b"NOOP 3")
    for number in (b"1", b"2", b"3"):
        dialogue.upstream_sees(b"NOOP " + number)
        dialogue.upstream_says(b"250 ok " + number)
        dialogue.client_sees(b"250 ok " + number)
    dialogue.nothing_is_said()


def test_proxy_replies_are_sent_in_order() -> None:
    dialogue = greeted()
    dialogue.client_says(b"NOOP", b"STARTTLS", b"NOOP", b"DATA", b"BDAT 0")
    dialogue.upstream_says(b"250 one")
    dialogue.upstream_says(b"250 two")
    codes = [reply[:3] for reply in bytes(dialogue.to_client).splitlines()]
    assert codes == [b"250", b"502", b"250", b"503", b"502"]


def test_number_of_commands_per_iteration_is_limited() -> None:
    dialogue = greeted()
    dialogue.to_client.clear()
    dialogue.client_says(*[b"STARTTLS"] * 1000)
    assert dialogue.to_client.count(b"502 ") == limits.COMMANDS_AT_ONCE
    dialogue.seconds_pass(0)
    assert dialogue.to_client.count(b"502 ") == 1000


# relay.refused


@pytest.mark.parametrize(
    "command",
    [
        b"STARTTLS",
        b"starttls",
        b" STARTTLS ",
        b"STARTTLS now",
        b"BDAT 0 LAST",
        b"BURL imap://x LAST",
        b"XCLIENT ADDR=192.0.2.1",
        b"xclient NAME=x",
        b"XEXCH50 1 2",
    ],
)
def test_command_that_would_bypass_filter_gets_502_reply(command: bytes) -> None:
    dialogue = in_transaction()
    dialogue.client_says(command)
    dialogue.client_sees_reply(b"502 5.5.1 ")
    dialogue.upstream_sees()


@pytest.mark.parametrize("stage", [connected, greeted, in_transaction, rejected])
@pytest.mark.parametrize("command", [b"LHLO client.example", b"lhlo x", b" LHLO\t"])
def test_lhlo_command_gets_421_reply(stage: Stage, command: bytes) -> None:
    dialogue = stage()
    upstream_is_connected = dialogue.connected
    dialogue.client_says(command, b"MAIL FROM:<c@example>")
    dialogue.client_sees(replies.NOT_LMTP.rstrip())
    if upstream_is_connected:
        dialogue.is_over_after_goodbye(exit_status=1)
    else:
        dialogue.is_over(exit_status=1)


def test_lhlo_warning_is_rate_limited() -> None:
    dialogue = greeted()
    dialogue.session.client_received(b"LHLO client.example\r\n")
    line = "the client speaks LMTP: the transport must be smtp(8), not lmtp(8)"
    assert actions.LogSeldom(log_levels.WARNING, line) in dialogue.session.take_actions()


@pytest.mark.parametrize(
    "writes",
    [
        (b"BDAT 12 LAST\r\n", b"NOOP\r\nNOOP\r\n", b"RSET\r\n"),
        (b"BDAT 5\r\nNO\nOPRSET\r\n",),
    ],
)
def test_bdat_content_is_discarded(writes: tuple[bytes, ...]) -> None:
    dialogue = in_transaction()
    for octets in writes:
        dialogue.client_sends(octets)
    dialogue.client_sees_reply(b"502 5.5.1 ")
    dialogue.upstream_sees(b"RSET")


def test_pipelined_bdat_content_is_discarded() -> None:
    dialogue = in_transaction()
    dialogue.client_sends(b"NOOP\r\nBDAT 6\r\nDATA\r\nRSET\r\n")
    dialogue.upstream_sees(b"NOOP")
    dialogue.upstream_says(b"250 ok")
    dialogue.upstream_sees(b"RSET")


# relay.line-ends, relay.long-lines


@pytest.mark.parametrize(
    "octets", [b"NO\0OP\r\n", b"NO\rOP\r\n", b"NOOP\r\r\n", b"\0\n", b"DATA\0\n"]
)
def test_command_with_nul_or_cr_is_not_relayed(octets: bytes) -> None:
    dialogue = in_transaction()
    dialogue.client_sends(octets)
    dialogue.client_sees(replies.BAD_CHARACTER.rstrip())
    dialogue.upstream_sees()
    relayed(dialogue, b"NOOP")


def test_long_line_received_in_parts_is_rejected_only_once() -> None:
    dialogue = greeted()
    for _ in range(10):
        dialogue.client_sends(b"x" * 20_000)
    dialogue.client_sees(replies.LINE_TOO_LONG.rstrip())
    dialogue.client_sends(b"MAIL\r\n")
    dialogue.nothing_is_said()
    relayed(dialogue, b"NOOP")


def test_command_after_long_line_is_relayed() -> None:
    dialogue = greeted()
    dialogue.client_says(b"x" * (limits.COMMAND_LINE + 1), b"NOOP")
    dialogue.client_sees(replies.LINE_TOO_LONG.rstrip())
    dialogue.upstream_sees(b"NOOP")


# QUIT


def test_reply_to_quit_ends_session() -> None:
    dialogue = awaiting_reply(b"QUIT")
    dialogue.upstream_says(b"221-so", b"221 long")
    dialogue.client_sees(b"221-so", b"221 long")
    dialogue.is_over()
    assert not dialogue.session.ended_early


def upstream_stays_silent(dialogue: Dialogue) -> None:
    dialogue.seconds_pass(limits.UPSTREAM_GOODBYE)


@pytest.mark.parametrize("event", [Dialogue.upstream_ends, upstream_stays_silent])
def test_proxy_sends_221_if_upstream_does_not_answer_quit(
    event: Callable[[Dialogue], None],
) -> None:
    dialogue = awaiting_reply(b"QUIT")
    event(dialogue)
    dialogue.client_sees(replies.BYE.rstrip())
    dialogue.is_over()
    assert not dialogue.logged(log_levels.ERROR)


def test_commands_after_quit_are_not_relayed() -> None:
    dialogue = greeted()
    dialogue.client_says(b"QUIT", b"NOOP")
    dialogue.upstream_sees(b"QUIT")
    dialogue.upstream_says(b"221 bye")
    dialogue.client_sees(b"221 bye")
    dialogue.is_over()


# relay.auth


@pytest.mark.parametrize(
    "response", [b"DATA", b"QUIT", b"STARTTLS", b"BDAT 5", b"RSET", b"*", b"", b"=", b"LHLO"]
)
def test_auth_response_is_not_parsed_as_command(response: bytes) -> None:
    dialogue = in_auth()
    relayed(dialogue, response, b"334 UGFzc3dvcmQ6")
    relayed(dialogue, response, b"235 2.7.0 ok")
    relayed(dialogue, b"NOOP")


def test_quit_as_auth_response_does_not_set_deadline() -> None:
    dialogue = in_auth()
    dialogue.client_says(b"QUIT")
    dialogue.upstream_sees(b"QUIT")
    dialogue.seconds_pass(limits.UPSTREAM_GOODBYE + 1)
    dialogue.nothing_is_said()
    dialogue.upstream_says(b"535 no")
    dialogue.client_sees(b"535 no")
    relayed(dialogue, b"NOOP")


def test_line_after_refused_auth_is_parsed_as_command() -> None:
    dialogue = in_auth()
    relayed(dialogue, b"DATA", b"535 no")
    dialogue.client_says(b"DATA")
    dialogue.client_sees_reply(b"503 ")


@pytest.mark.parametrize("octets", [b"a\0b\r\n", b"a\rb\r\n", b"x" * 20_000 + b"\r\n"])
def test_invalid_auth_response_cancels_auth(octets: bytes) -> None:
    dialogue = in_auth()
    dialogue.client_sends(octets)
    dialogue.upstream_sees(b"*")
    dialogue.upstream_says(b"501 cancelled")
    dialogue.client_sees(b"501 cancelled")


# relay.eof


@pytest.mark.parametrize("stage", [connected, greeted, in_transaction])
def test_client_eof_between_messages_ends_session(stage: Stage) -> None:
    dialogue = stage()
    dialogue.client_ends()
    dialogue.is_over_after_goodbye()


def test_client_eof_without_upstream_connection_ends_session() -> None:
    dialogue = rejected()
    dialogue.client_ends()
    dialogue.is_over()


@pytest.mark.parametrize("octets", [b"QUIT", b"QUIT\r", b"x" * 20_000])
def test_client_eof_discards_incomplete_command(octets: bytes) -> None:
    dialogue = greeted()
    dialogue.client_sends(octets)
    dialogue.to_client.clear()
    dialogue.client_ends()
    dialogue.is_over_after_goodbye()


def test_commands_are_handled_if_client_eof_precedes_greeting() -> None:
    dialogue = Dialogue()
    dialogue.client_says(b"EHLO x", b"QUIT")
    dialogue.client_ends()
    dialogue.upstream_connects()
    dialogue.upstream_says(b"220 up")
    dialogue.upstream_says(b"250 up")
    dialogue.upstream_says(b"221 bye")
    dialogue.client_sees(b"220 up", b"250 up", b"221 bye")
    dialogue.upstream_sees(b"EHLO x", b"QUIT")
    dialogue.is_over()


def test_commands_are_handled_despite_client_eof() -> None:
    dialogue = greeted()
    dialogue.client_says(b"NOOP", b"VRFY x")
    dialogue.client_ends()
    dialogue.upstream_says(b"250 ok")
    dialogue.upstream_says(b"252 perhaps")
    dialogue.client_sees(b"250 ok", b"252 perhaps")
    dialogue.upstream_sees(b"NOOP", b"VRFY x", b"QUIT")
    dialogue.upstream_says(b"221 bye")
    dialogue.is_over()


def test_client_eof_shortens_wait_for_quit_reply() -> None:
    dialogue = greeted()
    dialogue.client_ends()
    dialogue.upstream_sees(b"QUIT")
    dialogue.seconds_pass(limits.UPSTREAM_GOODBYE)
    dialogue.is_over()


def test_client_eof_shortens_wait_for_reply() -> None:
    dialogue = awaiting_reply()
    dialogue.client_ends()
    dialogue.seconds_pass(30)
    dialogue.client_sees(replies.UPSTREAM_SILENT.rstrip())
    dialogue.is_over(exit_status=1)


def test_client_eof_before_data_aborts_message() -> None:
    dialogue = greeted()
    relayed(dialogue, MAIL)
    dialogue.client_says(RCPT, b"DATA")
    dialogue.upstream_sees(RCPT)
    dialogue.client_ends()
    dialogue.upstream_says(b"250 ok")
    dialogue.client_sees(b"250 ok", replies.SEND_MESSAGE.rstrip())
    dialogue.is_over_after_goodbye()


# Session attributes that the shell reads


def test_proxy_does_not_read_from_client_after_eof() -> None:
    dialogue = awaiting_reply()
    assert dialogue.session.reads_client
    dialogue.client_ends()
    assert not dialogue.session.reads_client


def test_closed_session_discards_input() -> None:
    dialogue = greeted()
    dialogue.seconds_pass(limits.CLIENT_IDLE)
    assert dialogue.session.client_closed
    assert not dialogue.session.reads_client
    dialogue.session.client_received(b"NOOP")
    assert dialogue.session._commands.take_buffered() == b""


def test_client_counts_as_disconnected_after_eof() -> None:
    dialogue = awaiting_reply(b"NOOP")
    assert not dialogue.session.client_gone
    dialogue.client_ends()
    assert dialogue.session.client_gone


def test_client_with_buffered_command_counts_as_connected() -> None:
    dialogue = in_transaction()
    dialogue.client_says(b"NOOP", b"QUIT")
    dialogue.client_ends()
    assert not dialogue.session.client_gone
    dialogue.upstream_sees(b"NOOP")
    dialogue.upstream_says(b"250 ok")
    dialogue.upstream_sees(b"QUIT")
    assert dialogue.session.client_gone


def test_session_continues_without_upstream_connection_after_rejection() -> None:
    dialogue = rejected()
    assert not dialogue.session.client_closed
    assert not dialogue.session.finished
    dialogue.client_says(b"QUIT")
    dialogue.client_sees(replies.BYE.rstrip())
    dialogue.is_over()
    assert not dialogue.session.ended_early
