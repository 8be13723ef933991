"""The session, in dialogues of a client, an upstream server and a filter with a manual clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from postprox.core import actions, limits, log_levels, replies
from tests.unit.dialogue import (
    MAIL,
    RCPT,
    Dialogue,
    begin_data,
    connected,
    greeted,
    in_data,
    in_delivery,
    in_filter,
    in_transaction,
    lines,
    rejected,
    relayed,
    sending,
    sent,
    time_passes_in_data,
)

Stage = Callable[[], Dialogue]
MESSAGE = (b"Subject: x", b"", b"body", b".")


# relay: between the messages


def test_upstreams_greeting_reaches_the_client_unchanged() -> None:
    dialogue = Dialogue()
    dialogue.upstream_connects()
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
def test_a_command_reaches_upstream_unchanged(command: bytes) -> None:
    dialogue = greeted()
    relayed(dialogue, command)


@pytest.mark.parametrize(
    "reply",
    [
        (b"250 ok",),
        (b"250",),
        (b"250-one", b"250-two", b"250 three"),
        (b"550 5.7.1 no caf\xe9",),
        (b"451 later",),
        (b"300 odd",),
    ],
)
def test_a_reply_reaches_the_client_unchanged(reply: tuple[bytes, ...]) -> None:
    dialogue = greeted()
    dialogue.client_says(b"HELP")
    dialogue.upstream_says(*reply)
    dialogue.client_sees(*reply)


def test_a_reply_that_ends_its_lines_with_lf_stays_so() -> None:
    dialogue = greeted()
    dialogue.client_says(b"HELP")
    dialogue.upstream_sends(b"214-a\n214 b\n")
    assert bytes(dialogue.to_client) == b"214-a\n214 b\n"


def test_a_command_that_ends_with_lf_goes_upstream_with_crlf() -> None:
    dialogue = greeted()
    dialogue.client_sends(b"NOOP\n")
    dialogue.upstream_sees(b"NOOP")


def test_commands_before_the_greeting_wait_for_it() -> None:
    dialogue = Dialogue()
    dialogue.client_says(b"EHLO client.example", b"NOOP")
    dialogue.upstream_connects()
    dialogue.nothing_is_said()
    dialogue.upstream_says(b"220 up")
    dialogue.client_sees(b"220 up")
    dialogue.upstream_sees(b"EHLO client.example")


def test_one_command_at_a_time_goes_upstream() -> None:
    dialogue = greeted()
    dialogue.client_says(b"NOOP 1", b"NOOP 2", b"NOOP 3")
    for number in (b"1", b"2", b"3"):
        dialogue.upstream_sees(b"NOOP " + number)
        dialogue.upstream_says(b"250 ok " + number)
        dialogue.client_sees(b"250 ok " + number)
    dialogue.nothing_is_said()


def test_own_replies_keep_their_place_among_upstreams() -> None:
    dialogue = greeted()
    dialogue.client_says(b"NOOP", b"STARTTLS", b"NOOP", b"DATA", b"BDAT 0")
    dialogue.upstream_says(b"250 one")
    dialogue.upstream_says(b"250 two")
    assert [reply[:3] for reply in bytes(dialogue.to_client).splitlines()] == [
        b"250",
        b"502",
        b"250",
        b"503",
        b"502",
    ]


def test_the_ehlo_reply_offers_no_way_round_the_filter() -> None:
    dialogue = connected()
    dialogue.client_says(b"ehlo client.example")
    dialogue.upstream_says(b"250-up", b"250-PIPELINING", b"250-STARTTLS", b"250 CHUNKING")
    dialogue.client_sees(b"250-up", b"250 PIPELINING")


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (b"HELP", (b"214-up", b"214 STARTTLS")),
        (b"EHLO x", (b"550-up", b"550 STARTTLS")),
        (b"HELO x", (b"250-up", b"250 STARTTLS")),
    ],
)
def test_no_other_reply_is_changed(command: bytes, reply: tuple[bytes, ...]) -> None:
    dialogue = connected()
    dialogue.client_says(command)
    dialogue.upstream_says(*reply)
    dialogue.client_sees(*reply)


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
def test_a_way_round_the_filter_is_refused(command: bytes) -> None:
    dialogue = in_transaction()
    dialogue.client_says(command)
    dialogue.client_sees_reply(b"502 5.5.1 ")
    dialogue.upstream_sees()


@pytest.mark.parametrize("stage", [connected, greeted, in_transaction])
@pytest.mark.parametrize("command", [b"LHLO client.example", b"lhlo x", b" LHLO\t"])
def test_an_lmtp_client_is_answered_421(stage: Stage, command: bytes) -> None:
    dialogue = stage()
    dialogue.client_says(command, b"MAIL FROM:<c@example>")
    dialogue.client_sees(replies.NOT_LMTP.rstrip())
    dialogue.is_over_after_goodbye(exit_status=1)


def test_an_lmtp_client_without_upstream_is_answered_421() -> None:
    dialogue = rejected()
    dialogue.client_says(b"LHLO client.example")
    dialogue.client_sees(replies.NOT_LMTP.rstrip())
    dialogue.is_over(exit_status=1)


def test_an_lmtp_client_is_logged_seldom() -> None:
    dialogue = greeted()
    dialogue.session.client_received(b"LHLO client.example\r\n")
    line = "the client speaks LMTP: the transport must be smtp(8), not lmtp(8)"
    assert actions.LogSeldom(log_levels.WARNING, line) in dialogue.session.take_actions()


def test_lhlo_as_an_answer_in_auth_is_relayed() -> None:
    relayed(in_auth(), b"LHLO", b"235 welcome")


def test_octets_that_bdat_announces_are_no_commands() -> None:
    dialogue = in_transaction()
    dialogue.client_says(b"BDAT 12 LAST")
    dialogue.client_sends(b"NOOP\r\nNOOP\r\n")
    dialogue.client_sees_reply(b"502 5.5.1 ")
    relayed(dialogue, b"RSET")


def test_octets_of_bdat_may_come_with_it_and_with_what_follows() -> None:
    dialogue = in_transaction()
    dialogue.client_sends(b"BDAT 5\r\nNO\nOPRSET\r\n")
    dialogue.client_sees_reply(b"502 ")
    dialogue.upstream_sees(b"RSET")


def test_octets_of_a_bdat_that_waits_are_dropped_when_it_is_its_turn() -> None:
    dialogue = in_transaction()
    dialogue.client_sends(b"NOOP\r\nBDAT 6\r\nDATA\r\nRSET\r\n")
    dialogue.upstream_sees(b"NOOP")
    dialogue.upstream_says(b"250 ok")
    dialogue.upstream_sees(b"RSET")


@pytest.mark.parametrize(
    "octets", [b"NO\0OP\r\n", b"NO\rOP\r\n", b"NOOP\r\r\n", b"\0\n", b"DATA\0\n"]
)
def test_a_command_with_nul_or_a_bare_cr_is_not_relayed(octets: bytes) -> None:
    dialogue = in_transaction()
    dialogue.client_sends(octets)
    dialogue.client_sees_reply(b"500 5.5.2 ")
    dialogue.upstream_sees()
    relayed(dialogue, b"NOOP")


def test_a_line_over_the_bound_is_refused_once_and_the_session_goes_on() -> None:
    dialogue = greeted()
    for _ in range(10):
        dialogue.client_sends(b"x" * 20_000)
    dialogue.client_sees_reply(b"500 5.5.2 ")
    dialogue.client_sends(b"MAIL\r\n")
    dialogue.nothing_is_said()
    relayed(dialogue, b"NOOP")


@pytest.mark.parametrize("octets", [b"QUIT", b"QUIT\r", b"x" * 20_000])
def test_a_command_without_line_end_is_dropped_at_the_clients_end(octets: bytes) -> None:
    dialogue = greeted()
    dialogue.client_sends(octets)
    dialogue.to_client.clear()
    dialogue.client_ends()
    dialogue.is_over_after_goodbye()


def test_quit_ends_the_session_with_upstreams_answer() -> None:
    dialogue = greeted()
    dialogue.client_says(b"QUIT")
    dialogue.upstream_sees(b"QUIT")
    dialogue.upstream_says(b"221-so", b"221 long")
    dialogue.client_sees(b"221-so", b"221 long")
    dialogue.is_over()


def test_quit_is_answered_though_upstream_only_closes() -> None:
    dialogue = greeted()
    dialogue.client_says(b"QUIT")
    dialogue.upstream_ends()
    dialogue.client_sees_reply(b"221 ")
    dialogue.upstream_sees(b"QUIT")
    dialogue.is_over()


def test_quit_is_answered_though_upstream_is_silent() -> None:
    dialogue = greeted()
    dialogue.client_says(b"QUIT")
    dialogue.upstream_sees(b"QUIT")
    dialogue.seconds_pass(limits.UPSTREAM_GOODBYE)
    dialogue.client_sees_reply(b"221 ")
    dialogue.is_over()


def test_commands_after_quit_are_not_relayed() -> None:
    dialogue = greeted()
    dialogue.client_says(b"QUIT", b"NOOP")
    dialogue.upstream_sees(b"QUIT")
    dialogue.upstream_says(b"221 bye")
    dialogue.client_sees(b"221 bye")
    dialogue.is_over()


def test_a_client_that_ends_at_the_greeting_ends_the_session() -> None:
    dialogue = connected()
    dialogue.client_ends()
    dialogue.is_over_after_goodbye()


@pytest.mark.parametrize("stage", [greeted, in_transaction, rejected])
def test_a_client_that_ends_between_messages_ends_the_session(stage: Stage) -> None:
    dialogue = stage()
    upstream_is_there = dialogue.connected
    dialogue.client_ends()
    if upstream_is_there:
        dialogue.is_over_after_goodbye()
    else:
        dialogue.is_over()


def test_a_client_that_ends_before_the_greeting_is_served_to_its_end() -> None:
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


def test_commands_that_wait_at_the_clients_end_are_handled() -> None:
    dialogue = greeted()
    dialogue.client_says(b"NOOP", b"VRFY x")
    dialogue.client_ends()
    dialogue.upstream_says(b"250 ok")
    dialogue.upstream_says(b"252 perhaps")
    dialogue.client_sees(b"250 ok", b"252 perhaps")
    dialogue.upstream_sees(b"NOOP", b"VRFY x", b"QUIT")
    dialogue.upstream_says(b"221 bye")
    dialogue.is_over()


def test_upstreams_goodbye_is_not_waited_for_long() -> None:
    dialogue = greeted()
    dialogue.client_ends()
    dialogue.upstream_sees(b"QUIT")
    dialogue.seconds_pass(limits.UPSTREAM_GOODBYE)
    dialogue.is_over()


# relay.auth


def in_auth() -> Dialogue:
    dialogue = greeted()
    relayed(dialogue, b"AUTH LOGIN", b"334 VXNlcm5hbWU6")
    return dialogue


@pytest.mark.parametrize(
    "answer", [b"DATA", b"QUIT", b"STARTTLS", b"BDAT 5", b"RSET", b"*", b"", b"="]
)
def test_an_answer_to_a_334_is_no_command(answer: bytes) -> None:
    dialogue = in_auth()
    relayed(dialogue, answer, b"334 UGFzc3dvcmQ6")
    relayed(dialogue, answer, b"235 2.7.0 ok")
    relayed(dialogue, b"NOOP")


def test_after_a_refused_answer_a_command_is_a_command_again() -> None:
    dialogue = in_auth()
    relayed(dialogue, b"DATA", b"535 no")
    dialogue.client_says(b"DATA")
    dialogue.client_sees_reply(b"503 ")


@pytest.mark.parametrize("octets", [b"a\0b\r\n", b"a\rb\r\n", b"x" * 20_000 + b"\r\n"])
def test_an_answer_that_cannot_be_relayed_cancels_the_exchange(octets: bytes) -> None:
    dialogue = in_auth()
    dialogue.client_sends(octets)
    dialogue.upstream_sees(b"*")
    dialogue.upstream_says(b"501 cancelled")
    dialogue.client_sees(b"501 cancelled")


def test_no_answer_of_an_exchange_is_logged() -> None:
    dialogue = greeted()
    dialogue.client_says(b"AUTH PLAIN c2VjcmV0")
    dialogue.upstream_says(b"334 ")
    dialogue.client_says(b"c2VjcmV0")
    assert "c2VjcmV0" not in str(dialogue.log)


# relay.unexpected-354, relay.bad-reply


@pytest.mark.parametrize(
    "command", [b"NOOP", b"EHLO x", b"RCPT TO:<b@example>", b"QUIT", b"AUTH X"]
)
def test_a_354_to_anything_but_data_ends_the_session(command: bytes) -> None:
    dialogue = in_transaction()
    dialogue.client_says(command)
    dialogue.upstream_sees(command)
    dialogue.upstream_says(b"354 go on")
    dialogue.client_sees_reply(b"421 ")
    dialogue.is_over(exit_status=1)


def test_a_354_as_greeting_ends_the_session() -> None:
    dialogue = Dialogue()
    dialogue.upstream_connects()
    dialogue.upstream_says(b"354 go on")
    dialogue.client_sees_reply(b"421 ")
    dialogue.is_over(exit_status=1)


def test_a_354_to_an_answer_ends_the_session() -> None:
    dialogue = in_auth()
    dialogue.client_says(b"DATA")
    dialogue.upstream_sees(b"DATA")
    dialogue.upstream_says(b"354 go on")
    dialogue.client_sees_reply(b"421 ")
    dialogue.is_over(exit_status=1)


def test_a_354_to_a_keepalive_ends_the_session() -> None:
    dialogue = in_filter(filter_timeout=1000)
    dialogue.seconds_pass(60)
    dialogue.upstream_sees(b"NOOP")
    dialogue.upstream_says(b"354 go on")
    dialogue.client_sees_reply(b"421 ")
    dialogue.is_over(exit_status=1)


def test_a_354_to_nothing_ends_the_session() -> None:
    dialogue = greeted()
    dialogue.upstream_says(b"354 go on")
    dialogue.client_sees_reply(b"421 ")
    dialogue.is_over(exit_status=1)


@pytest.mark.parametrize(
    "octets",
    [
        b"hello\r\n",
        b"\r\n",
        b"250ok\r\n",
        b"250-a\r\n251 b\r\n",
        b"\0" * 70_000,
        b"250-a\r\n" * 10_000,
    ],
)
def test_what_is_no_reply_ends_the_session(octets: bytes) -> None:
    dialogue = greeted()
    dialogue.client_says(b"NOOP")
    dialogue.upstream_sees(b"NOOP")
    dialogue.upstream_sends(octets)
    dialogue.client_sees_reply(b"421 ")
    dialogue.is_over(exit_status=1)
    assert dialogue.logged(log_levels.ERROR)


def test_a_reply_to_nothing_ends_the_session() -> None:
    dialogue = greeted()
    dialogue.upstream_says(b"250 surprise")
    dialogue.client_sees_reply(b"421 ")
    dialogue.is_over(exit_status=1)


def test_a_second_reply_to_one_command_is_not_taken_for_the_nexts() -> None:
    dialogue = greeted()
    dialogue.client_says(b"NOOP", b"MAIL FROM:<a@example>")
    dialogue.upstream_sees(b"NOOP")
    dialogue.upstream_says(b"250 ok", b"250 again")
    assert bytes(dialogue.to_client).startswith(b"250 ok\r\n421 ")
    dialogue.to_client.clear()
    dialogue.is_over(exit_status=1)


def test_upstreams_goodbye_unasked_reaches_the_client_once() -> None:
    dialogue = greeted()
    dialogue.upstream_says(b"421 4.3.2 shutting down")
    dialogue.client_sees(b"421 4.3.2 shutting down")
    dialogue.is_over(exit_status=1)


def test_a_421_as_reply_is_followed_by_nothing() -> None:
    dialogue = greeted()
    dialogue.client_says(b"NOOP")
    dialogue.upstream_sees(b"NOOP")
    dialogue.upstream_says(b"421 4.3.2 shutting down")
    dialogue.upstream_ends()
    dialogue.client_sees(b"421 4.3.2 shutting down")
    dialogue.is_over(exit_status=1)


# Upstream lost


def test_upstream_that_cannot_be_reached_is_a_421_as_greeting() -> None:
    dialogue = Dialogue()
    dialogue.upstream_fails("up:25: Connection refused")
    dialogue.client_sees_reply(b"421 4.4.1 ")
    dialogue.is_over(exit_status=1)
    assert dialogue.logged(log_levels.ERROR) == ["cannot reach upstream: up:25: Connection refused"]


def test_upstream_lost_before_its_greeting() -> None:
    dialogue = Dialogue()
    dialogue.upstream_connects()
    dialogue.upstream_ends()
    dialogue.client_sees_reply(b"421 4.4.2 ")
    dialogue.is_over(exit_status=1)


@pytest.mark.parametrize("stage", [connected, greeted, in_transaction, in_auth, in_data, in_filter])
def test_upstream_lost_costs_the_client_a_421(stage: Stage) -> None:
    dialogue = stage()
    dialogue.upstream_ends()
    dialogue.client_sees_reply(b"421 4.4.2 ")
    dialogue.is_over(exit_status=1)
    assert dialogue.logged(log_levels.ERROR)


def test_upstream_lost_under_a_command() -> None:
    dialogue = greeted()
    dialogue.client_says(b"NOOP", b"NOOP")
    dialogue.upstream_sees(b"NOOP")
    dialogue.upstream_ends()
    dialogue.client_sees_reply(b"421 4.4.2 ")
    dialogue.is_over(exit_status=1)


def test_upstream_lost_in_the_middle_of_a_reply() -> None:
    dialogue = greeted()
    dialogue.client_says(b"NOOP")
    dialogue.upstream_sees(b"NOOP")
    dialogue.upstream_sends(b"250-half\r\n250 ha")
    dialogue.upstream_ends()
    dialogue.client_sees_reply(b"421 4.4.2 ")
    dialogue.is_over(exit_status=1)


@pytest.mark.parametrize("stage", [in_delivery, sending, sent])
def test_upstream_lost_with_the_message_leaves_it_with_the_client(stage: Stage) -> None:
    dialogue = stage()
    dialogue.upstream_ends()
    dialogue.client_sees_reply(b"451 4.4.2 ")
    dialogue.is_over(exit_status=1)


@pytest.mark.parametrize("stage", [in_delivery, sending, sent])
def test_garbage_for_the_message_leaves_it_with_the_client(stage: Stage) -> None:
    dialogue = stage()
    dialogue.upstream_says(b"what?")
    dialogue.client_sees_reply(b"451 ")
    dialogue.is_over(exit_status=1)


# Time limits


def test_a_silent_client_is_told_after_600_seconds() -> None:
    dialogue = greeted()
    dialogue.seconds_pass(599.9)
    dialogue.nothing_is_said()
    dialogue.seconds_pass(0.1)
    dialogue.client_sees_reply(b"421 4.4.2 ")
    dialogue.is_over_after_goodbye(exit_status=1)


@pytest.mark.parametrize("stage", [connected, in_transaction, in_auth])
def test_a_client_is_not_waited_for_for_ever(stage: Stage) -> None:
    dialogue = stage()
    dialogue.seconds_pass(600)
    dialogue.client_sees_reply(b"421 4.4.2 ")
    assert dialogue.client_is_hung_up


def test_a_client_that_stops_in_data_is_told() -> None:
    dialogue = in_data()
    dialogue.client_says(b"Subject: x")
    time_passes_in_data(dialogue, 599)
    dialogue.nothing_is_said()
    dialogue.seconds_pass(1)
    dialogue.client_sees(replies.CLIENT_IDLE.rstrip())
    assert dialogue.client_is_hung_up
    assert dialogue.logged(log_levels.WARNING) == ["the client is silent"]


@pytest.mark.parametrize("stage", [greeted, in_transaction, rejected, in_auth])
def test_octets_of_a_line_do_not_extend_its_limit(stage: Stage) -> None:
    dialogue = stage()
    dialogue.seconds_pass(250)
    dialogue.client_sends(b"N")
    dialogue.seconds_pass(250)
    dialogue.client_sends(b"O")
    dialogue.seconds_pass(99)
    dialogue.nothing_is_said()
    dialogue.seconds_pass(1)
    dialogue.client_sees(replies.CLIENT_SLOW.rstrip())
    assert dialogue.client_is_hung_up
    assert dialogue.logged(log_levels.WARNING) == ["the client is too slow"]


@pytest.mark.parametrize("begun", [b"x" * 20_000, b"BDAT 99999999 LAST\r\n"])
def test_octets_that_are_dropped_do_not_extend_the_limit(begun: bytes) -> None:
    dialogue = in_transaction()
    dialogue.client_sends(begun)
    dialogue.client_sees_reply(b"50")
    for _ in range(2):
        dialogue.seconds_pass(250)
        dialogue.client_sends(b"x")
    dialogue.seconds_pass(100)
    dialogue.client_sees(replies.CLIENT_SLOW.rstrip())


def test_each_command_has_a_limit_of_its_own() -> None:
    dialogue = greeted()
    for _ in range(5):
        dialogue.seconds_pass(599)
        relayed(dialogue, b"NOOP")


def test_octets_of_a_message_extend_its_limit_at_400_a_second() -> None:
    dialogue = in_data()
    for _ in range(10):
        time_passes_in_data(dialogue, 599)
        dialogue.client_sends(b"x" * 599 * 400)
    time_passes_in_data(dialogue, 599)
    dialogue.nothing_is_said()


@pytest.mark.parametrize("octet", [b"x", b".", b"\r"])
def test_a_message_of_single_octets_ends_at_its_limit(octet: bytes) -> None:
    dialogue = in_data()
    time_passes_in_data(dialogue, 250)
    dialogue.client_sends(octet)
    time_passes_in_data(dialogue, 250)
    dialogue.client_sends(octet)
    time_passes_in_data(dialogue, 100)
    dialogue.nothing_is_said()
    dialogue.seconds_pass(2 / 400)
    dialogue.client_sees(replies.CLIENT_SLOW.rstrip())
    assert dialogue.client_is_hung_up
    assert "the client is too slow" in dialogue.logged(log_levels.WARNING)


def test_a_message_below_400_a_second_ends_at_its_limit() -> None:
    dialogue = in_data()
    for _ in range(24):
        dialogue.client_sends(b"x" * 100 * 300)
        time_passes_in_data(dialogue, 100)
    dialogue.client_sees(replies.CLIENT_SLOW.rstrip())
    assert dialogue.now - 1000 == 2400  # 600 s, and 720000 octets at 400 a second


def test_octets_ahead_of_the_354_extend_the_messages_limit() -> None:
    dialogue = in_transaction()
    dialogue.client_sends(b"DATA\r\n" + b"x" * 40_000)
    dialogue.client_sees_reply(b"354 ")
    time_passes_in_data(dialogue, 599)
    dialogue.client_sends(b"x")
    time_passes_in_data(dialogue, 100)
    dialogue.nothing_is_said()
    time_passes_in_data(dialogue, 2)
    dialogue.client_sees(replies.CLIENT_SLOW.rstrip())


def test_each_message_has_a_limit_of_its_own() -> None:
    dialogue = in_filter()
    dialogue.filter_ends(0)
    dialogue.upstream_sees(b"DATA")
    dialogue.upstream_says(b"550 no")
    dialogue.client_sees(b"550 no")
    dialogue.client_says(MAIL)
    dialogue.upstream_sees(b"RSET")
    dialogue.upstream_says(b"250 ok")
    dialogue.upstream_sees(MAIL)
    dialogue.upstream_says(b"250 ok")
    dialogue.client_sees(b"250 ok")
    relayed(dialogue, RCPT)
    dialogue.seconds_pass(500)
    begin_data(dialogue)
    dialogue.client_sends(b"x")
    time_passes_in_data(dialogue, 599)
    dialogue.nothing_is_said()


def test_the_clients_limit_does_not_run_while_the_filter_runs() -> None:
    dialogue = in_filter(filter_timeout=3600)
    for _ in range(20):
        dialogue.seconds_pass(60)
        dialogue.upstream_sees(b"NOOP")
        dialogue.upstream_says(b"250 ok")
        dialogue.client_sends(b"N")
    dialogue.filter_is_running()
    dialogue.nothing_is_said()


def test_a_client_is_not_held_for_silent_while_upstream_is() -> None:
    dialogue = greeted()
    dialogue.seconds_pass(200)
    dialogue.client_says(b"NOOP")
    dialogue.upstream_sees(b"NOOP")
    dialogue.seconds_pass(200)
    dialogue.upstream_says(b"250 ok")
    dialogue.client_sees(b"250 ok")
    dialogue.seconds_pass(599)
    dialogue.nothing_is_said()


def test_a_client_that_is_left_without_upstream_has_its_time_too() -> None:
    dialogue = rejected()
    dialogue.seconds_pass(600)
    dialogue.client_sees_reply(b"421 4.4.2 ")
    dialogue.is_over(exit_status=1)


def test_connecting_is_given_up_after_30_seconds() -> None:
    dialogue = Dialogue()
    dialogue.seconds_pass(29.9)
    dialogue.nothing_is_said()
    dialogue.seconds_pass(0.1)
    dialogue.client_sees_reply(b"421 4.4.1 ")
    dialogue.is_over(exit_status=1)


def test_the_greeting_is_given_up_after_300_seconds() -> None:
    dialogue = Dialogue()
    dialogue.upstream_connects()
    dialogue.seconds_pass(299.9)
    dialogue.nothing_is_said()
    dialogue.seconds_pass(0.1)
    dialogue.client_sees_reply(b"421 4.4.2 ")
    dialogue.is_over(exit_status=1)


@pytest.mark.parametrize("command", [b"NOOP", MAIL, RCPT, b"EHLO x", b"AUTH PLAIN x"])
def test_a_reply_is_given_up_after_300_seconds(command: bytes) -> None:
    dialogue = greeted()
    dialogue.client_says(command)
    dialogue.upstream_sees(command)
    dialogue.seconds_pass(299.9)
    dialogue.nothing_is_said()
    dialogue.seconds_pass(0.1)
    dialogue.client_sees_reply(b"421 4.4.2 ")
    dialogue.is_over(exit_status=1)


def test_a_part_of_a_reply_gives_upstream_no_more_time() -> None:
    dialogue = greeted()
    dialogue.client_says(b"NOOP")
    dialogue.upstream_sees(b"NOOP")
    dialogue.seconds_pass(200)
    dialogue.upstream_says(b"250-half")
    dialogue.seconds_pass(100)
    dialogue.client_sees_reply(b"421 4.4.2 ")
    dialogue.is_over(exit_status=1)


@pytest.mark.parametrize(("stage", "limit"), [(in_delivery, 120), (sending, 180), (sent, 600)])
def test_a_message_is_taken_back_when_upstream_is_silent(stage: Stage, limit: float) -> None:
    dialogue = stage()
    dialogue.seconds_pass(limit - 0.1)
    dialogue.nothing_is_said()
    dialogue.seconds_pass(0.1)
    dialogue.client_sees_reply(b"451 4.4.2 ")
    dialogue.is_over(exit_status=1)


def test_every_block_gives_upstream_its_time_anew() -> None:
    dialogue = sending()
    for _ in range(10):
        dialogue.seconds_pass(179)
        dialogue.upstream_takes_a_block()
    dialogue.upstream_takes_the_rest()
    dialogue.upstream_sees(*MESSAGE)
    dialogue.seconds_pass(599)
    dialogue.nothing_is_said()


# data.keepalive


@pytest.mark.parametrize("stage", [in_data, lambda: in_filter(filter_timeout=1000)])
def test_an_idle_upstream_is_kept_with_noop(stage: Stage) -> None:
    dialogue = stage()
    for _ in range(3):
        dialogue.seconds_pass(59.9)
        dialogue.nothing_is_said()
        dialogue.seconds_pass(0.1)
        dialogue.upstream_sees(b"NOOP")
        dialogue.upstream_says(b"250-so", b"250 what")
        dialogue.client_sees()


def test_the_time_before_data_counts_as_idle() -> None:
    dialogue = in_transaction()
    dialogue.seconds_pass(50)
    begin_data(dialogue)
    dialogue.seconds_pass(10)
    dialogue.upstream_sees(b"NOOP")


def test_no_second_noop_before_the_first_is_answered() -> None:
    dialogue = in_filter(filter_timeout=1000)
    dialogue.seconds_pass(150)
    dialogue.upstream_sees(b"NOOP")


def test_a_message_waits_for_the_answer_to_a_noop() -> None:
    dialogue = in_filter(filter_timeout=1000)
    dialogue.seconds_pass(60)
    dialogue.upstream_sees(b"NOOP")
    dialogue.filter_ends(0)
    dialogue.nothing_is_said()
    dialogue.upstream_says(b"250 ok")
    dialogue.upstream_sees(b"DATA")
    dialogue.client_sees()


def test_a_rejection_does_not_wait_for_the_answer_to_a_noop() -> None:
    dialogue = in_filter(filter_timeout=1000)
    dialogue.seconds_pass(60)
    dialogue.filter_ends(1, b"550 spam")
    dialogue.client_sees(b"550 spam")
    dialogue.upstream_sees(b"NOOP", b"QUIT")


def test_a_noop_that_is_not_answered_ends_the_session() -> None:
    dialogue = in_filter(filter_timeout=1000)
    dialogue.seconds_pass(60 + 299.9)
    dialogue.client_sees()
    dialogue.seconds_pass(0.1)
    dialogue.client_sees_reply(b"421 4.4.2 ")
    dialogue.upstream_sees(b"NOOP")
    dialogue.is_over(exit_status=1)


def test_a_noop_that_is_refused_matters_not() -> None:
    dialogue = in_filter(filter_timeout=1000)
    dialogue.seconds_pass(60)
    dialogue.upstream_says(b"502 what")
    dialogue.filter_ends(0)
    dialogue.upstream_sees(b"NOOP", b"DATA")


def test_upstream_leaving_at_a_noop_ends_the_session() -> None:
    dialogue = in_filter(filter_timeout=1000)
    dialogue.seconds_pass(60)
    dialogue.upstream_sees(b"NOOP")
    dialogue.upstream_says(b"421 timeout")
    dialogue.client_sees_reply(b"421 4.4.2 ")
    dialogue.is_over(exit_status=1)


# data: the message


@pytest.mark.parametrize("command", [b"DATA", b"data", b"dAtA ", b" DATA", b"DATA\t", b"\tDATA \t"])
def test_data_is_answered_here(command: bytes) -> None:
    dialogue = in_transaction()
    dialogue.client_says(command)
    dialogue.client_sees_reply(b"354 ")
    dialogue.upstream_sees()


@pytest.mark.parametrize("command", [b"DATA x", b"data 5", b" DATA\tx"])
def test_data_with_an_argument_is_refused(command: bytes) -> None:
    dialogue = in_transaction()
    dialogue.client_says(command)
    dialogue.client_sees_reply(b"501 5.5.4 ")
    dialogue.upstream_sees()


@pytest.mark.parametrize("stage", [connected, greeted, rejected])
def test_data_needs_a_sender(stage: Stage) -> None:
    dialogue = stage()
    dialogue.client_says(b"DATA")
    dialogue.client_sees_reply(b"503 5.5.1 ")
    dialogue.upstream_sees()


def test_data_needs_an_accepted_sender() -> None:
    dialogue = greeted()
    relayed(dialogue, MAIL, b"550 no")
    dialogue.client_says(b"DATA")
    dialogue.client_sees_reply(b"503 5.5.1 ")


def test_data_needs_a_recipient() -> None:
    dialogue = greeted()
    relayed(dialogue, MAIL)
    dialogue.client_says(b"DATA")
    dialogue.client_sees_reply(b"554 5.5.1 ")


@pytest.mark.parametrize("reply", [b"550 no", b"450 later", b"300 odd"])
def test_data_needs_an_accepted_recipient(reply: bytes) -> None:
    dialogue = greeted()
    relayed(dialogue, MAIL)
    relayed(dialogue, RCPT, reply)
    dialogue.client_says(b"DATA")
    dialogue.client_sees_reply(b"554 5.5.1 ")
    dialogue.upstream_sees()


def test_one_accepted_recipient_is_enough() -> None:
    dialogue = greeted()
    relayed(dialogue, MAIL)
    relayed(dialogue, RCPT, b"251 will forward")
    relayed(dialogue, b"RCPT TO:<no@example>", b"550 no")
    begin_data(dialogue)


@pytest.mark.parametrize("command", [b"RSET", b"EHLO x", b"HELO x"])
def test_a_transaction_ends_with_reset_and_hello(command: bytes) -> None:
    dialogue = in_transaction()
    relayed(dialogue, command)
    dialogue.client_says(b"DATA")
    dialogue.client_sees_reply(b"503 ")


def test_a_transaction_outlives_a_refused_hello() -> None:
    dialogue = in_transaction()
    relayed(dialogue, b"EHLO", b"501 syntax")
    begin_data(dialogue)


def test_nothing_of_the_message_goes_upstream_before_the_filter_has_ended() -> None:
    dialogue = in_data()
    dialogue.client_says(*MESSAGE)
    dialogue.nothing_is_said()
    dialogue.seconds_pass(29)
    dialogue.nothing_is_said()


def test_the_filter_gets_the_message_at_rest() -> None:
    dialogue = in_data()
    dialogue.client_sends(b"..dot\r\n\r\ncaf\xe9 \0\r\n.\r\n")
    assert dialogue.messages == [b".dot\n\ncaf\xe9 \0\n"]


def test_a_message_that_passes() -> None:
    dialogue = in_filter()
    dialogue.filter_ends(0)
    dialogue.upstream_sees(b"DATA")
    dialogue.upstream_says(b"354 go on")
    dialogue.upstream_sees(*MESSAGE)
    dialogue.client_sees()
    dialogue.upstream_says(b"250-2.0.0 queued", b"250 as 1234")
    dialogue.client_sees(b"250-2.0.0 queued", b"250 as 1234")
    relayed(dialogue, b"NOOP")


def test_a_message_that_is_rewritten() -> None:
    dialogue = in_filter()
    dialogue.replacement = b"Subject: [x]\n\nbody\n"
    dialogue.filter_ends(0)
    dialogue.upstream_says(b"354 go on")
    dialogue.upstream_sees(b"DATA", b"Subject: [x]", b"", b"body", b".")
    dialogue.upstream_says(b"250 ok")
    dialogue.client_sees(b"250 ok")


def test_without_a_filter_a_message_passes() -> None:
    dialogue = in_data(filtering=False)
    dialogue.client_says(*MESSAGE)
    dialogue.upstream_sees(b"DATA")
    dialogue.upstream_says(b"354 go on")
    dialogue.upstream_sees(*MESSAGE)
    dialogue.upstream_says(b"250 ok")
    dialogue.client_sees(b"250 ok")


@pytest.mark.parametrize("reply", [b"250 ok", b"450 later", b"552 too big", b"421 closing"])
def test_upstreams_final_reply_reaches_the_client_unchanged(reply: bytes) -> None:
    dialogue = sent()
    dialogue.upstream_says(reply)
    dialogue.client_sees(reply)
    assert not dialogue.client_is_hung_up


@pytest.mark.parametrize("reply", [b"354 more", b"334 what", b"300 odd"])
def test_a_final_reply_that_is_none_leaves_the_message_with_the_client(reply: bytes) -> None:
    dialogue = sent()
    dialogue.upstream_says(reply)
    dialogue.client_sees_reply(b"451 ")
    dialogue.is_over(exit_status=1)


@pytest.mark.parametrize("reply", [b"451 later", b"554 no valid recipients", b"503 what"])
def test_upstreams_refusal_of_data_answers_the_message(reply: bytes) -> None:
    dialogue = in_delivery()
    dialogue.upstream_says(reply)
    dialogue.client_sees(reply)
    dialogue.upstream_sees()


@pytest.mark.parametrize("reply", [b"250 ok", b"221 bye", b"334 what", b"300 odd"])
def test_an_odd_answer_to_data_becomes_a_temporary_refusal(reply: bytes) -> None:
    dialogue = in_delivery()
    dialogue.upstream_says(reply)
    dialogue.client_sees_reply(b"451 ")
    dialogue.upstream_sees()


def test_after_a_refused_data_upstream_is_reset_before_it_is_used() -> None:
    dialogue = in_delivery()
    dialogue.upstream_says(b"451 later")
    dialogue.client_sees(b"451 later")
    dialogue.client_says(b"MAIL FROM:<c@example>")
    dialogue.upstream_sees(b"RSET")
    dialogue.upstream_says(b"250 reset")
    dialogue.upstream_sees(b"MAIL FROM:<c@example>")
    dialogue.upstream_says(b"250 ok")
    dialogue.client_sees(b"250 ok")


@pytest.mark.parametrize("command", [b"RSET", b"QUIT", b"EHLO x", b"HELO x"])
def test_what_resets_upstream_anyhow_is_relayed_alone(command: bytes) -> None:
    dialogue = in_delivery()
    dialogue.upstream_says(b"451 later")
    dialogue.client_says(command)
    dialogue.upstream_sees(command)


def test_a_reset_that_is_refused_ends_the_session() -> None:
    dialogue = in_delivery()
    dialogue.upstream_says(b"451 later")
    dialogue.client_sees(b"451 later")
    dialogue.client_says(MAIL)
    dialogue.upstream_sees(b"RSET")
    dialogue.upstream_says(b"500 what")
    dialogue.client_sees_reply(b"421 ")
    dialogue.is_over_after_goodbye(exit_status=1)


def test_upstream_may_stop_a_message_before_its_end() -> None:
    dialogue = sending()
    dialogue.upstream_says(b"552 too big")
    dialogue.client_sees(b"552 too big")
    assert not dialogue.connected
    dialogue.upstream_sees()


def test_a_reply_before_the_end_that_accepts_is_no_answer() -> None:
    dialogue = sending()
    dialogue.upstream_says(b"250 ok")
    dialogue.client_sees_reply(b"451 ")
    dialogue.is_over(exit_status=1)


def test_a_reply_with_the_354_is_no_answer_to_the_message() -> None:
    dialogue = in_delivery()
    dialogue.upstream_is_fast = False
    dialogue.upstream_says(b"354 go on", b"250 ok")
    dialogue.client_sees_reply(b"451 ")
    assert not dialogue.connected


def test_commands_behind_the_message_wait_for_its_answer() -> None:
    dialogue = in_data()
    dialogue.client_says(*MESSAGE, b"RSET", b"NOOP")
    dialogue.filter_ends(0)
    dialogue.upstream_says(b"354 go on")
    dialogue.upstream_sees(b"DATA", *MESSAGE)
    dialogue.upstream_says(b"250 queued")
    dialogue.client_sees(b"250 queued")
    dialogue.upstream_sees(b"RSET")
    dialogue.upstream_says(b"250 reset")
    dialogue.upstream_sees(b"NOOP")


def test_a_whole_session_in_one_write() -> None:
    dialogue = greeted()
    dialogue.client_says(MAIL, RCPT, b"DATA", *MESSAGE, b"QUIT")
    dialogue.upstream_says(b"250 sender")
    dialogue.upstream_says(b"250 recipient")
    dialogue.upstream_sees(MAIL, RCPT)
    assert bytes(dialogue.to_client).startswith(lines(b"250 sender", b"250 recipient") + b"354 ")
    dialogue.to_client.clear()
    dialogue.filter_ends(0)
    dialogue.upstream_says(b"354 go on")
    dialogue.upstream_says(b"250 queued")
    dialogue.upstream_says(b"221 bye")
    dialogue.client_sees(b"250 queued", b"221 bye")
    dialogue.upstream_sees(b"DATA", *MESSAGE, b"QUIT")
    dialogue.is_over()


def test_two_messages_in_one_session() -> None:
    dialogue = sent()
    dialogue.upstream_says(b"250 first")
    dialogue.client_sees(b"250 first")
    dialogue.client_says(b"DATA")
    dialogue.client_sees_reply(b"503 ")
    relayed(dialogue, b"MAIL FROM:<c@example>")
    relayed(dialogue, b"RCPT TO:<d@example>")
    begin_data(dialogue)
    dialogue.client_says(b"two", b".")
    dialogue.filter_ends(0)
    dialogue.upstream_says(b"354 go on")
    dialogue.upstream_sees(b"DATA", b"two", b".")
    assert [env[b"SENDER"] for env in dialogue.environments] == [b"a@example", b"c@example"]


# data.client-lost


@pytest.mark.parametrize(
    "octets", [b"", b"Subject: x\r\n", b"Subject: x\r\nQUIT\r\n", b"QUIT\r\n", b".\r"]
)
def test_a_client_that_vanishes_in_data_has_its_message_forgotten(octets: bytes) -> None:
    dialogue = in_data()
    if octets:
        dialogue.client_sends(octets)
    dialogue.client_ends()
    dialogue.is_over_after_goodbye()
    assert dialogue.messages == []


def test_a_client_that_vanishes_while_the_filter_runs_has_it_killed() -> None:
    dialogue = in_filter()
    dialogue.client_ends()
    dialogue.filter_is_gone()
    dialogue.is_over_after_goodbye()


def test_a_client_that_vanishes_before_upstreams_354_has_its_message_forgotten() -> None:
    dialogue = in_delivery()
    dialogue.client_ends()
    dialogue.is_over()


def test_a_client_that_vanishes_while_its_message_is_sent_has_it_cut_short() -> None:
    dialogue = sending()
    dialogue.client_ends()
    dialogue.is_over()


def test_a_client_that_vanishes_after_its_message_was_sent_is_too_late() -> None:
    dialogue = sent()
    dialogue.client_ends()
    dialogue.nothing_is_said()
    dialogue.upstream_says(b"250 queued")
    dialogue.client_sees(b"250 queued")
    dialogue.is_over_after_goodbye()


@pytest.mark.parametrize("behind", [b"QUIT\r\n", b"NOOP\r\nquit\r\n", b" QUIT\n"])
def test_a_quit_behind_the_message_makes_the_end_orderly(behind: bytes) -> None:
    dialogue = in_data()
    dialogue.client_sends(lines(*MESSAGE) + behind)
    dialogue.client_ends()
    dialogue.filter_is_running()
    dialogue.filter_ends(0)
    dialogue.upstream_sees(b"DATA")
    dialogue.upstream_says(b"354 go on")
    dialogue.upstream_says(b"250 queued")
    dialogue.client_sees(b"250 queued")


@pytest.mark.parametrize("behind", [b"NOOP\r\n", b"QUIT", b"RSET\r\nQUI"])
def test_anything_else_behind_the_message_does_not(behind: bytes) -> None:
    dialogue = in_data()
    dialogue.client_sends(lines(*MESSAGE) + behind)
    dialogue.client_ends()
    dialogue.is_over_after_goodbye()


def test_a_client_that_sent_everything_and_its_end_at_once_is_served() -> None:
    dialogue = Dialogue()
    dialogue.client_says(b"HELO x", MAIL, RCPT, b"DATA", *MESSAGE, b"QUIT")
    dialogue.client_ends()
    dialogue.upstream_connects()
    for reply in (b"220 up", b"250 up", b"250 ok", b"250 ok"):
        dialogue.upstream_says(reply)
    dialogue.filter_ends(1, b"spam")
    assert bytes(dialogue.to_client).splitlines()[-2] == b"554 spam"
    dialogue.to_client.clear()
    dialogue.to_upstream.clear()
    dialogue.upstream_ends()
    dialogue.is_over()


@pytest.mark.parametrize("filtering", [True, False])
def test_a_client_that_sent_its_message_and_its_end_at_once_is_gone(filtering: bool) -> None:
    dialogue = Dialogue(filtering=filtering)
    dialogue.client_says(b"HELO x", MAIL, RCPT, b"DATA", *MESSAGE)
    dialogue.client_ends()
    dialogue.upstream_connects()
    for reply in (b"220 up", b"250 up", b"250 ok", b"250 ok"):
        dialogue.upstream_says(reply)
    dialogue.to_client.clear()
    dialogue.upstream_sees(b"HELO x", MAIL, RCPT, b"QUIT")
    dialogue.upstream_ends()
    dialogue.is_over()
    assert dialogue.environments == []


# data.spool-error


def test_a_spool_that_cannot_be_made_is_told_instead_of_354() -> None:
    dialogue = in_transaction()
    dialogue.open_error = "/spool: No such file or directory"
    dialogue.client_says(b"DATA")
    dialogue.client_sees_reply(b"452 4.3.1 ")
    dialogue.upstream_sees()
    assert dialogue.logged(log_levels.ERROR) == [
        "cannot spool the message: /spool: No such file or directory"
    ]


def test_after_a_spool_that_could_not_be_made_the_session_goes_on() -> None:
    dialogue = in_transaction()
    dialogue.open_error = "/spool: Permission denied"
    dialogue.client_says(b"DATA")
    dialogue.client_sees_reply(b"452 4.3.1 ")
    dialogue.open_error = ""
    begin_data(dialogue)


def test_a_spool_that_cannot_be_written_is_told_at_the_end() -> None:
    dialogue = in_data()
    dialogue.seal_error = "/spool: No space left on device"
    dialogue.client_says(b"Subject: x")
    dialogue.nothing_is_said()
    dialogue.client_says(b"", b"body", b".")
    dialogue.client_sees_reply(b"452 4.3.1 ")
    dialogue.upstream_sees(b"QUIT")
    assert dialogue.environments == []


def test_after_a_spool_that_could_not_be_written_the_session_goes_on() -> None:
    dialogue = in_data()
    dialogue.seal_error = "/spool: No space left on device"
    dialogue.client_says(*MESSAGE, MAIL)
    dialogue.client_sees_reply(b"452 4.3.1 ")
    assert dialogue.connecting


def test_a_spool_that_cannot_be_read_again_cuts_upstream_off() -> None:
    dialogue = sending()
    dialogue.spool_cannot_be_read()
    dialogue.client_sees_reply(b"452 4.3.1 ")
    dialogue.upstream_sees()
    assert not dialogue.connected
    assert not dialogue.client_is_hung_up


# filter


@pytest.mark.parametrize(
    ("status", "last_stderr_line", "reply"),
    [
        (1, b"spam", b"554 spam"),
        (1, b"450 later", b"450 later"),
        (1, b"250 swallowed", b"250 swallowed"),
        (1, b"999 x", b"999 x"),
    ],
)
def test_a_rejection_is_the_answer_to_the_message(
    status: int, last_stderr_line: bytes, reply: bytes
) -> None:
    dialogue = in_filter()
    dialogue.filter_ends(status, last_stderr_line)
    dialogue.client_sees(reply)
    dialogue.upstream_sees(b"QUIT")


@pytest.mark.parametrize(
    ("status", "failure"), [(2, ""), (127, ""), (None, "killed by signal 11"), (0, "no file")]
)
def test_a_failure_lets_the_original_pass(status: int | None, failure: str) -> None:
    dialogue = in_filter()
    dialogue.replacement = b"new\n"
    dialogue.filter_ends(status, b"550 no", failure)
    dialogue.upstream_says(b"354 go on")
    dialogue.upstream_sees(b"DATA", *MESSAGE)
    assert len(dialogue.logged(log_levels.WARNING)) == 1


@pytest.mark.parametrize(
    ("status", "failure"), [(2, ""), (127, ""), (None, "killed by signal 11"), (0, "no file")]
)
def test_a_failure_is_a_451_if_so_wished(status: int | None, failure: str) -> None:
    dialogue = in_filter(reject_failures=True)
    dialogue.filter_ends(status, b"550 no", failure)
    dialogue.client_sees_reply(b"451 ")
    dialogue.upstream_sees(b"QUIT")
    assert len(dialogue.logged(log_levels.WARNING)) == 1


def test_a_filter_out_of_time_is_killed_and_the_message_passes() -> None:
    dialogue = in_filter(filter_timeout=5)
    dialogue.seconds_pass(4.9)
    dialogue.filter_is_running()
    dialogue.seconds_pass(0.1)
    dialogue.filter_is_gone()
    dialogue.upstream_sees(b"DATA")
    assert "timed out after 5 s" in dialogue.logged(log_levels.WARNING)[0]


def test_a_filter_out_of_time_is_a_451_if_so_wished() -> None:
    dialogue = in_filter(filter_timeout=0.5, reject_failures=True)
    dialogue.seconds_pass(0.5)
    dialogue.filter_is_gone()
    dialogue.client_sees_reply(b"451 ")


def test_the_time_of_receiving_is_not_the_filters() -> None:
    dialogue = in_data(filter_timeout=5)
    dialogue.seconds_pass(50)
    dialogue.client_says(*MESSAGE)
    dialogue.seconds_pass(4.9)
    dialogue.filter_is_running()


# filter.env-reset


def test_the_filter_gets_the_envelope() -> None:
    dialogue = greeted()
    relayed(dialogue, b"XFORWARD ADDR=192.0.2.1 HELO=mail.example")
    relayed(dialogue, MAIL)
    relayed(dialogue, b"RCPT TO:<no@example>", b"550 no")
    relayed(dialogue, RCPT)
    relayed(dialogue, b"RCPT TO:<c@example>")
    begin_data(dialogue)
    dialogue.client_says(*MESSAGE)
    assert dialogue.environments == [
        {
            b"SENDER": b"a@example",
            b"RECIPIENT": b"b@example",
            b"REMOTEIP": b"192.0.2.1",
            b"HELO": b"mail.example",
            b"RECIPIENTS": b"b@example\nc@example",
            b"RECIPIENTCOUNT": b"2",
            b"QUEUE_ID": b"",
            b"CLIENT_NAME": b"",
        }
    ]


def filter_sees(dialogue: Dialogue, **expected: bytes) -> None:
    relayed(dialogue, MAIL)
    relayed(dialogue, RCPT)
    begin_data(dialogue)
    dialogue.client_says(*MESSAGE)
    seen = {name.decode(): value for name, value in dialogue.environments[-1].items()}
    assert {name: seen[name] for name in expected} == expected


def test_the_clients_own_name_serves_if_none_is_forwarded() -> None:
    filter_sees(greeted(), HELO=b"client.example", REMOTEIP=b"")


def test_a_refused_hello_is_not_the_clients_name() -> None:
    dialogue = greeted()
    relayed(dialogue, b"EHLO other.example", b"501 no")
    filter_sees(dialogue, HELO=b"client.example")


@pytest.mark.parametrize("command", [b"RSET", b"EHLO client.example"])
def test_forwarded_attributes_end_with_the_transaction(command: bytes) -> None:
    dialogue = greeted()
    relayed(dialogue, b"XFORWARD ADDR=192.0.2.1 HELO=mail.example")
    relayed(dialogue, command)
    filter_sees(dialogue, REMOTEIP=b"", HELO=b"client.example")


def test_forwarded_attributes_end_with_the_message() -> None:
    dialogue = greeted()
    relayed(dialogue, b"XFORWARD ADDR=192.0.2.1 HELO=mail.example")
    filter_sees(dialogue, REMOTEIP=b"192.0.2.1")
    dialogue.filter_ends(0)
    dialogue.upstream_says(b"354 go on")
    dialogue.upstream_says(b"250 ok")
    dialogue.client_sees(b"250 ok")
    dialogue.to_upstream.clear()
    filter_sees(dialogue, REMOTEIP=b"", HELO=b"client.example")


def test_refused_attributes_do_not_count() -> None:
    dialogue = greeted()
    relayed(dialogue, b"XFORWARD ADDR=192.0.2.1", b"550 no")
    filter_sees(dialogue, REMOTEIP=b"")


def test_a_refused_command_changes_no_envelope() -> None:
    dialogue = in_transaction()
    relayed(dialogue, b"MAIL FROM:<c@example>", b"503 nested")
    begin_data(dialogue)
    dialogue.client_says(*MESSAGE)
    assert dialogue.environments[0][b"SENDER"] == b"a@example"


# filter.reject-session


def test_without_upstream_the_client_is_answered_here() -> None:
    dialogue = rejected()
    dialogue.client_says(b"RSET", b"noop", b"QUIT")
    seen = bytes(dialogue.to_client).splitlines()
    assert [reply[:4] for reply in seen] == [b"250 ", b"250 ", b"221 "]
    dialogue.to_client.clear()
    dialogue.is_over()


def test_a_command_that_needs_upstream_reconnects() -> None:
    dialogue = rejected()
    dialogue.client_says(MAIL)
    dialogue.upstream_connects()
    dialogue.nothing_is_said()
    dialogue.upstream_says(b"220 up again")
    dialogue.upstream_sees(b"EHLO client.example")
    dialogue.upstream_says(b"250-up", b"250 STARTTLS")
    dialogue.upstream_sees(MAIL)
    dialogue.upstream_says(b"250 ok")
    dialogue.client_sees(b"250 ok")


@pytest.mark.parametrize("hello", [b"EHLO new.example", b"helo new.example"])
def test_a_new_hello_is_not_replayed(hello: bytes) -> None:
    dialogue = rejected()
    dialogue.client_says(hello)
    dialogue.upstream_connects()
    dialogue.upstream_says(b"220 up again")
    dialogue.upstream_sees(hello)
    dialogue.upstream_says(b"250 up")
    dialogue.client_sees(b"250 up")


def test_a_client_that_never_said_hello_has_none_replayed() -> None:
    dialogue = connected()
    relayed(dialogue, MAIL)
    relayed(dialogue, RCPT)
    begin_data(dialogue)
    dialogue.client_says(*MESSAGE)
    dialogue.filter_ends(1, b"spam")
    dialogue.client_says(MAIL)
    dialogue.to_upstream.clear()
    dialogue.upstream_connects()
    dialogue.upstream_says(b"220 up again")
    dialogue.upstream_sees(MAIL)


def test_upstreams_goodbye_is_not_waited_for_before_reconnecting() -> None:
    dialogue = in_filter()
    dialogue.filter_ends(1, b"spam")
    dialogue.client_sees(b"554 spam")
    dialogue.upstream_sees(b"QUIT")
    dialogue.client_says(MAIL)
    assert dialogue.connecting


def test_a_message_after_a_rejected_one() -> None:
    dialogue = rejected()
    dialogue.client_says(MAIL, RCPT, b"DATA", *MESSAGE)
    dialogue.upstream_connects()
    for reply in (b"220 up again", b"250 up", b"250 sender", b"250 recipient"):
        dialogue.upstream_says(reply)
    dialogue.filter_ends(0)
    dialogue.upstream_says(b"354 go on")
    dialogue.upstream_says(b"250 queued")
    assert [reply[:3] for reply in bytes(dialogue.to_client).splitlines()] == [
        b"250",
        b"250",
        b"354",
        b"250",
    ]


def test_a_client_that_had_authenticated_must_do_so_again() -> None:
    dialogue = greeted()
    relayed(dialogue, b"AUTH PLAIN x", b"235 ok")
    relayed(dialogue, MAIL)
    relayed(dialogue, RCPT)
    begin_data(dialogue)
    dialogue.client_says(*MESSAGE)
    dialogue.filter_ends(1, b"spam")
    dialogue.client_sees(b"554 spam")
    dialogue.upstream_sees(b"QUIT")
    dialogue.upstream_says(b"221 bye")
    dialogue.client_says(b"RSET")
    dialogue.client_sees_reply(b"250 ")
    dialogue.client_says(MAIL)
    dialogue.client_sees_reply(b"421 ")
    dialogue.is_over(exit_status=1)


@pytest.mark.parametrize("greeting", [b"554 no", b"421 busy", b"300 odd"])
def test_upstream_that_does_not_greet_again_ends_the_session(greeting: bytes) -> None:
    dialogue = rejected()
    dialogue.client_says(MAIL)
    dialogue.upstream_connects()
    dialogue.upstream_says(greeting)
    dialogue.client_sees_reply(b"421 ")
    dialogue.is_over(exit_status=1)


def test_upstream_that_refuses_the_replayed_hello_ends_the_session() -> None:
    dialogue = rejected()
    dialogue.client_says(MAIL)
    dialogue.upstream_connects()
    dialogue.upstream_says(b"220 up again")
    dialogue.upstream_says(b"550 no")
    dialogue.client_sees_reply(b"421 ")
    assert dialogue.client_is_hung_up


def test_upstream_that_cannot_be_reached_again_ends_the_session() -> None:
    dialogue = rejected()
    dialogue.client_says(MAIL)
    dialogue.upstream_fails()
    dialogue.client_sees_reply(b"421 4.4.1 ")
    dialogue.is_over(exit_status=1)


# listen.stop, files.term


@pytest.mark.parametrize("stage", [connected, greeted, in_transaction, in_auth, rejected])
def test_a_session_without_a_message_stops_at_once(stage: Stage) -> None:
    dialogue = stage()
    dialogue.is_told_to_stop()
    dialogue.client_sees_reply(b"421 4.3.2 ")
    assert dialogue.client_is_hung_up
    assert dialogue.session.exit_status == 0


def test_a_session_that_waits_for_a_reply_stops_after_it() -> None:
    dialogue = greeted()
    dialogue.client_says(b"NOOP", b"NOOP")
    dialogue.is_told_to_stop()
    dialogue.client_sees()
    dialogue.upstream_says(b"250 ok")
    assert bytes(dialogue.to_client).startswith(b"250 ok\r\n421 4.3.2 ")
    assert dialogue.client_is_hung_up


def test_a_session_with_a_message_stops_after_it() -> None:
    dialogue = in_data()
    dialogue.is_told_to_stop()
    dialogue.client_says(*MESSAGE)
    dialogue.filter_ends(0)
    dialogue.upstream_says(b"354 go on")
    dialogue.client_sees()
    dialogue.upstream_says(b"250 queued")
    assert bytes(dialogue.to_client).startswith(b"250 queued\r\n421 4.3.2 ")
    assert dialogue.client_is_hung_up


@pytest.mark.parametrize("stage", [in_filter, in_delivery, sending, sent])
def test_a_message_under_way_is_finished_before_a_stop(stage: Stage) -> None:
    dialogue = stage()
    dialogue.is_told_to_stop()
    dialogue.nothing_is_said()
    assert not dialogue.client_is_hung_up


def test_a_session_that_connects_stops_after_the_greeting() -> None:
    dialogue = Dialogue()
    dialogue.is_told_to_stop()
    dialogue.upstream_connects()
    dialogue.upstream_says(b"220 up")
    assert bytes(dialogue.to_client).startswith(b"220 up\r\n421 ")
    assert dialogue.client_is_hung_up


@pytest.mark.parametrize("stage", [Dialogue, in_data, in_filter, in_delivery, sending, sent])
def test_a_client_that_waits_is_told_of_the_end(stage: Stage) -> None:
    dialogue = stage()
    dialogue.is_terminated()
    dialogue.client_sees(b"421 4.3.2 The mail filter is shutting down")
    dialogue.to_upstream.clear()
    dialogue.is_over(exit_status=1)


@pytest.mark.parametrize("stage", [connected, greeted, in_transaction, in_auth, rejected])
def test_a_client_that_does_not_wait_is_told_nothing(stage: Stage) -> None:
    dialogue = stage()
    dialogue.is_terminated()
    dialogue.client_sees()
    dialogue.to_upstream.clear()
    dialogue.is_over(exit_status=1)


@pytest.mark.parametrize("stage", [connected, greeted, in_transaction, in_auth, in_data, in_filter])
def test_a_client_is_told_of_a_fault_whether_it_waits_or_not(stage: Stage) -> None:
    dialogue = stage()
    dialogue.has_a_fault()
    dialogue.client_sees(b"421 4.3.0 The mail filter has failed")
    dialogue.to_upstream.clear()
    dialogue.is_over(exit_status=1)


def test_a_session_may_be_terminated_twice() -> None:
    dialogue = in_filter()
    dialogue.is_terminated()
    dialogue.is_terminated()
    dialogue.client_sees(b"421 4.3.2 The mail filter is shutting down")
    dialogue.to_upstream.clear()
    dialogue.is_over(exit_status=1)


@pytest.mark.parametrize("event", [Dialogue.is_told_to_stop, Dialogue.is_terminated])
def test_the_end_of_a_session_that_has_ended_is_nothing(event: Callable[[Dialogue], None]) -> None:
    dialogue = greeted()
    relayed(dialogue, b"QUIT", b"221 bye")
    event(dialogue)
    dialogue.is_over()


# log.verdict


def verdict_lines(dialogue: Dialogue) -> list[str]:
    return [text for text in dialogue.logged(log_levels.INFO) if " reply=" in text]


@pytest.mark.parametrize(
    ("status", "last_stderr_line", "reject_failures", "word", "result"),
    [
        (0, b"", False, "accept", "delivered"),
        (1, b"spam", False, "reject", "refused"),
        (1, b"250 gone", False, "discard", "discarded"),
        (2, b"", False, "fail-open", "delivered"),
        (2, b"", True, "fail", "deferred"),
    ],
)
def test_every_message_has_one_line_in_the_log(
    status: int, last_stderr_line: bytes, reject_failures: bool, word: str, result: str
) -> None:
    dialogue = in_filter(reject_failures=reject_failures)
    dialogue.filter_ends(status, last_stderr_line)
    if dialogue.connected and not dialogue.to_client:
        dialogue.upstream_says(b"354 go on")
        assert verdict_lines(dialogue) == []
        dialogue.upstream_says(b"250 queued")
    about = 'client="" helo=client.example from=a@example to=b@example nrcpt=1 size=17 '
    (line,) = verdict_lines(dialogue)
    assert line.startswith(f"verdict={word} result={result} {about}")
    reply = bytes(dialogue.to_client).decode().strip()
    assert f' reply="{reply}" ' in line


def test_the_line_tells_how_long_a_message_took() -> None:
    dialogue = in_filter()
    dialogue.seconds_pass(1.25)
    dialogue.filter_ends(1, b"spam")
    assert " filter=1.250 total=1.250 " in verdict_lines(dialogue)[0]


@pytest.mark.parametrize(
    ("stage", "result"), [(in_delivery, "deferred"), (sending, "deferred"), (sent, "unknown")]
)
def test_a_message_that_was_lost_with_upstream_has_its_line_too(stage: Stage, result: str) -> None:
    dialogue = stage()
    dialogue.upstream_ends()
    (line,) = verdict_lines(dialogue)
    assert f" result={result} " in line
    assert ' reply="451 4.4.2 ' in line


def test_a_message_that_a_signal_ends_has_no_verdict() -> None:
    dialogue = in_filter()
    dialogue.is_terminated()
    assert verdict_lines(dialogue)[0].startswith("verdict=none result=deferred ")


def test_the_client_has_its_answer_before_the_log_has_a_line_and_before_the_clean_up() -> None:
    dialogue = sent()
    dialogue.upstream_says(b"250 queued")
    asked = [line.split()[0:2] for line in dialogue.history[-3:]]
    assert asked[0][0] == "C<"
    assert [line.split()[1][:3] for line in dialogue.history[-2:]] == ["Log", "Dis"]


def test_what_a_filter_said_is_told_when_its_time_is_over() -> None:
    dialogue = in_filter(filter_timeout=5)
    dialogue.said = b"still scanning"
    dialogue.seconds_pass(5)
    assert dialogue.logged(log_levels.WARNING)[0].endswith(' said="still scanning"')


def test_a_line_that_is_not_wanted_is_not_made() -> None:
    dialogue = in_transaction()
    dialogue.session._options.log_level = log_levels.WARNING
    dialogue.log.clear()
    begin_data(dialogue)
    dialogue.client_says(*MESSAGE)
    dialogue.filter_ends(1, b"spam")
    assert dialogue.log == []


@pytest.mark.parametrize("code", [b"150", b"354", b"654"])
def test_unusable_filter_reply_code_logs_warning(code: bytes) -> None:
    dialogue = in_filter()
    dialogue.filter_ends(1, code + b" odd")
    dialogue.client_sees(code + b" odd")
    (warning,) = dialogue.logged(log_levels.WARNING)
    assert "reply code is not 2yz, 4yz or 5yz" in warning


@pytest.mark.parametrize("line", [b"AUTH PLAIN AGEAYgBj", b" auth plain AGEAYgBj"])
def test_no_password_gets_into_the_log(line: bytes) -> None:
    dialogue = greeted()
    relayed(dialogue, line, b"334 VXNlcm5hbWU6")
    relayed(dialogue, b"c2VjcmV0", b"235 ok")
    for secret in ("AGEAYgBj", "c2VjcmV0", "VXNlcm5hbWU6"):
        assert not any(secret in text for _, text in dialogue.log)


def test_an_answer_to_an_auth_that_is_refused_does_not_get_into_the_log() -> None:
    dialogue = greeted()
    dialogue.client_says(b"AUTH LOGIN", b"c2VjcmV0")
    dialogue.upstream_sees(b"AUTH LOGIN")
    dialogue.upstream_says(b"504 5.5.4 not this one")
    dialogue.upstream_sees(b"c2VjcmV0")
    dialogue.upstream_says(b"500 5.5.2 what is c2VjcmV0")
    assert not any("c2VjcmV0" in text for _, text in dialogue.log)
    assert (log_levels.DEBUG, "upstream: b'500'") in dialogue.log


COMMANDS = (
    b"EHLO HELO MAIL RCPT DATA RSET NOOP QUIT VRFY EXPN ETRN HELP XFORWARD STARTTLS BDAT BURL"
)


@pytest.mark.parametrize("verb", [*COMMANDS.split(), b"XCLIENT", b"XEXCH50", b"LHLO"])
def test_what_is_no_password_gets_into_the_log(verb: bytes) -> None:
    dialogue = greeted()
    dialogue.client_says(verb + b" x")
    assert (log_levels.DEBUG, f"client: {verb + b' x'!r}") in dialogue.log


@pytest.mark.parametrize(
    ("line", "shown"), [(b"AUTH PLAIN AGEAYgBj", b"AUTH"), (b"AUT AGEAYgBj", b"(unknown)")]
)
def test_what_may_be_a_password_is_told_without_it(line: bytes, shown: bytes) -> None:
    dialogue = greeted()
    dialogue.client_says(line)
    assert (log_levels.DEBUG, f"client: {shown!r}") in dialogue.log


@pytest.mark.parametrize("line", [b"AUTH=PLAIN AGEAYgBj", b"AUT PLAIN AGEAYgBj"])
def test_a_misspelt_auth_does_not_get_into_the_log(line: bytes) -> None:
    dialogue = greeted()
    relayed(dialogue, line, b"500 5.5.2 what is AGEAYgBj")
    assert not any("AGEAYgBj" in text for _, text in dialogue.log)


# cli.strict


@pytest.mark.parametrize(
    "last_stderr_line", [b"Traceback", b"", b"150 x", b"354 x", b"550", b"550-x"]
)
def test_strictly_a_rejection_without_a_code_is_a_failure(last_stderr_line: bytes) -> None:
    dialogue = in_filter(reject_failures=True, strict=True)
    dialogue.filter_ends(1, last_stderr_line)
    dialogue.client_sees_reply(b"451 ")


@pytest.mark.parametrize("last_stderr_line", [b"250 gone", b"451 later", b"550 5.7.1 spam"])
def test_strictly_a_rejection_with_a_code_is_one(last_stderr_line: bytes) -> None:
    dialogue = in_filter(reject_failures=True, strict=True)
    dialogue.filter_ends(1, last_stderr_line)
    dialogue.client_sees(last_stderr_line)


# filter.no-resources, filter.outfile-stable


def test_a_filter_that_cannot_be_started_lets_nothing_pass() -> None:
    dialogue = in_data()
    dialogue.start_error = "cannot be started: Too many open files"
    dialogue.client_says(*MESSAGE)
    dialogue.client_sees_reply(b"451 ")
    dialogue.upstream_sees(b"QUIT")
    assert "cannot be started" in dialogue.logged(log_levels.WARNING)[0]


def test_a_replacement_that_changes_is_not_delivered() -> None:
    dialogue = in_filter()
    dialogue.replacement = b"new\n"
    dialogue.upstream_is_fast = False
    dialogue.filter_ends(0)
    dialogue.upstream_says(b"354 go on")
    dialogue.upstream_sees(b"DATA")
    dialogue.replacement_changes()
    dialogue.client_sees_reply(b"451 ")
    assert not dialogue.connected
    assert len(dialogue.logged(log_levels.WARNING)) == 1
    dialogue.client_says(MAIL)
    assert dialogue.connecting


def test_what_the_filter_said_is_told_of_a_replacement_that_changes_too() -> None:
    dialogue = in_filter()
    dialogue.replacement = b"new\n"
    dialogue.upstream_is_fast = False
    dialogue.filter_ends(0, b"rewritten")
    dialogue.upstream_says(b"354 go on")
    dialogue.replacement_changes()
    assert " said=rewritten" in verdict_lines(dialogue)[0]


# filter.timeout


def test_the_filters_time_begins_when_it_is_started() -> None:
    dialogue = in_data(filter_timeout=5)
    dialogue.seconds_pass(200)
    dialogue.client_says(*MESSAGE)
    dialogue.seconds_pass(4.9)
    dialogue.filter_is_running()


# files.term


def test_a_message_whose_end_has_gone_upstream_has_its_reply_awaited() -> None:
    dialogue = sent()
    dialogue.is_terminated(10)
    dialogue.seconds_pass(9)
    dialogue.upstream_says(b"250 queued")
    dialogue.client_sees(b"250 queued", b"421 4.3.2 The mail filter is shutting down")
    dialogue.is_over_after_goodbye()


def test_that_reply_is_not_awaited_for_ever() -> None:
    dialogue = sent()
    dialogue.is_terminated(10)
    dialogue.seconds_pass(10)
    dialogue.client_sees_reply(b"421 4.3.2 ")
    assert " result=unknown " in verdict_lines(dialogue)[0]


def test_a_second_signal_shortens_the_wait() -> None:
    dialogue = sent()
    dialogue.is_terminated(10)
    dialogue.is_terminated(2)
    dialogue.seconds_pass(2)
    dialogue.client_sees_reply(b"421 4.3.2 ")


@pytest.mark.parametrize("stage", [in_filter, in_delivery, sending])
def test_a_message_whose_end_has_not_gone_is_dropped_at_once(stage: Stage) -> None:
    dialogue = stage()
    dialogue.is_terminated(10)
    dialogue.client_sees_reply(b"421 ")
    assert dialogue.deliveries == 0


# relay.auth, relay.idle


@pytest.mark.parametrize("command", [b"NOOP", b"EHLO x", MAIL, b"QUIT"])
def test_a_334_to_what_is_not_auth_is_unexpected(command: bytes) -> None:
    dialogue = greeted()
    dialogue.client_says(command, b"BDAT 5 LAST")
    dialogue.upstream_sees(command)
    dialogue.upstream_says(b"334 go on")
    dialogue.client_sees_reply(b"421 ")
    assert b"BDAT 5 LAST\r\n" not in dialogue.commands


def test_a_client_that_is_gone_has_a_reply_awaited_for_half_a_minute() -> None:
    dialogue = greeted()
    dialogue.client_says(MAIL)
    dialogue.client_ends()
    dialogue.upstream_sees(MAIL)
    dialogue.seconds_pass(30)
    dialogue.client_sees_reply(b"421 ")
    dialogue.is_over(exit_status=1)


def test_a_client_that_is_gone_has_the_final_reply_awaited_as_ever() -> None:
    dialogue = in_filter()
    dialogue.client_says(b"QUIT")
    dialogue.client_ends()
    dialogue.filter_ends(0)
    dialogue.upstream_says(b"354 go on")
    dialogue.seconds_pass(599)
    dialogue.upstream_says(b"250 queued")
    dialogue.client_sees(b"250 queued")


@pytest.mark.parametrize("stage", [greeted, in_data, in_filter, in_delivery, sending])
def test_a_client_whose_connection_breaks_ends_the_session_at_once(stage: Stage) -> None:
    dialogue = stage()
    dialogue.client_is_reset()
    assert dialogue.client_is_hung_up
    assert dialogue.deliveries == 0
    assert dialogue.to_client == b""


def test_nothing_that_a_broken_client_sent_is_obeyed() -> None:
    dialogue = greeted()
    dialogue.client_says(b"NOOP", MAIL)
    dialogue.client_is_reset()
    assert MAIL + b"\r\n" not in dialogue.commands


def test_a_broken_client_s_message_has_its_final_reply_awaited() -> None:
    dialogue = sent()
    dialogue.client_is_reset()
    dialogue.upstream_says(b"250 queued")
    assert " result=delivered " in verdict_lines(dialogue)[0]


def test_a_broken_client_that_has_said_quit_says_it_once() -> None:
    dialogue = greeted()
    dialogue.client_says(b"QUIT")
    dialogue.client_is_reset()
    dialogue.is_over_after_goodbye()


def test_a_reply_that_drips_has_one_limit() -> None:
    dialogue = greeted()
    dialogue.client_says(MAIL)
    dialogue.upstream_sees(MAIL)
    for _ in range(10):
        dialogue.upstream_says(b"250-more")
        dialogue.seconds_pass(29.9)
    dialogue.upstream_says(b"250-more")
    dialogue.seconds_pass(1)
    dialogue.client_sees_reply(b"421 ")


def test_a_quit_among_content_that_is_dropped_is_none() -> None:
    dialogue = in_filter()
    dialogue.client_says(b"BDAT 6", b"QUIT")
    dialogue.client_ends()
    dialogue.filter_is_gone()
    assert dialogue.deliveries == 0


def test_very_many_commands_are_handled_in_several_goes() -> None:
    dialogue = greeted()
    dialogue.to_client.clear()
    dialogue.client_says(*[b"STARTTLS"] * 1000)
    assert dialogue.to_client.count(b"502 ") == limits.COMMANDS_AT_ONCE
    dialogue.seconds_pass(0)
    assert dialogue.to_client.count(b"502 ") == 1000
