"""Edge cases of a session. Each test detects a mutant that survived all other tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from postprox.core import actions, limits, log_levels, replies
from postprox.core.options import parse
from postprox.core.verdict import Outcome
from tests.unit.dialogue import (
    MAIL,
    RCPT,
    Dialogue,
    connected,
    greeted,
    in_data,
    in_delivery,
    in_filter,
    in_transaction,
    rejected,
    relayed,
    sending,
    sent,
)


def test_the_clock_runs_as_the_walls_does_unless_told_otherwise() -> None:
    assert parse(["127.0.0.1:25"]).clock_speed == 1


def test_an_upstream_that_does_not_answer_the_farewell_costs_the_client_nothing() -> None:
    dialogue = in_filter()
    dialogue.filter_ends(1, b"spam")
    dialogue.client_sees(b"554 spam")
    dialogue.upstream_sees(b"QUIT")
    dialogue.seconds_pass(limits.UPSTREAM_GOODBYE)
    assert not dialogue.connected
    dialogue.nothing_is_said()
    assert not dialogue.session.client_closed
    assert not dialogue.logged(log_levels.ERROR)
    dialogue.client_says(b"NOOP")
    dialogue.client_sees_reply(b"250 ")


def test_a_3yz_to_the_keepalive_is_no_answer() -> None:
    dialogue = in_data()
    dialogue.seconds_pass(limits.KEEPALIVE)
    dialogue.upstream_sees(b"NOOP")
    dialogue.upstream_says(b"350 and now?")
    dialogue.client_sees_reply(b"421 ")
    dialogue.is_over(1)


def test_upstream_closing_in_the_middle_of_a_message_is_told_in_the_proxys_words() -> None:
    dialogue = in_data()
    dialogue.upstream_says(b"421 up closes")
    dialogue.client_sees_reply(b"421 4.4.2 ")
    dialogue.is_over(1)


def test_upstream_closing_while_a_reply_is_awaited_is_relayed_as_that_reply() -> None:
    dialogue = greeted()
    dialogue.client_says(MAIL)
    dialogue.upstream_sees(MAIL)
    dialogue.upstream_says(b"421 up closes")
    dialogue.client_sees(b"421 up closes")
    dialogue.upstream_ends()
    dialogue.is_over(1)


def test_a_client_that_was_gone_before_its_message_began_sends_none() -> None:
    dialogue = greeted()
    relayed(dialogue, MAIL)
    dialogue.client_says(RCPT, b"DATA")
    dialogue.upstream_sees(RCPT)
    dialogue.client_ends()
    dialogue.upstream_says(b"250 ok")
    dialogue.client_sees(b"250 ok", b"354 End data with <CR><LF>.<CR><LF>")
    dialogue.is_over_after_goodbye()


def test_a_client_that_has_ended_is_not_read_any_more() -> None:
    dialogue = greeted()
    dialogue.client_says(MAIL)
    assert dialogue.session.reads_client
    dialogue.client_ends()
    assert not dialogue.session.reads_client


def test_a_session_lasts_as_long_as_upstreams_connection() -> None:
    dialogue = in_filter()
    dialogue.client_ends()
    dialogue.upstream_sees(b"QUIT")
    assert dialogue.session.client_closed
    assert not dialogue.session.finished
    dialogue.upstream_says(b"221 bye")
    assert dialogue.session.finished


def test_an_orderly_end_is_not_cut_short() -> None:
    dialogue = connected()
    assert not dialogue.session.ended_early
    relayed(dialogue, b"QUIT", b"221 bye")
    dialogue.is_over()
    assert not dialogue.session.ended_early


def test_a_message_is_logged_once() -> None:
    dialogue = sent()
    dialogue.upstream_says(b"250 queued")
    dialogue.client_sees(b"250 queued")
    dialogue.upstream_ends()
    dialogue.client_sees_reply(b"421 ")
    assert len(dialogue.logged(log_levels.INFO)) == 1


def test_a_message_that_could_not_be_stored_was_not_taken() -> None:
    dialogue = in_data()
    dialogue.seal_error = "disk full"
    dialogue.client_says(b"x", b".")
    dialogue.client_sees_reply(b"452 ")
    assert dialogue.logged(log_levels.INFO)[0].startswith("verdict=none result=deferred ")


def test_quit_as_an_answer_within_auth_ends_nothing() -> None:
    dialogue = greeted()
    dialogue.client_says(b"AUTH LOGIN")
    dialogue.upstream_sees(b"AUTH LOGIN")
    dialogue.upstream_says(b"334 VXNlcg==")
    dialogue.client_sees(b"334 VXNlcg==")
    dialogue.client_says(b"QUIT")
    dialogue.upstream_sees(b"QUIT")
    dialogue.seconds_pass(limits.UPSTREAM_GOODBYE + 1)
    dialogue.nothing_is_said()
    dialogue.upstream_says(b"535 no")
    dialogue.client_sees(b"535 no")
    relayed(dialogue, b"NOOP")


def test_a_lost_message_is_said_to_be_lost() -> None:
    dialogue = in_filter()
    dialogue.client_ends()
    assert "result=lost" in dialogue.logged(log_levels.INFO)[0]


def test_what_both_sides_say_is_in_the_log_word_for_word() -> None:
    dialogue = greeted()
    dialogue.log.clear()
    relayed(dialogue, MAIL, b"250 fine")
    assert dialogue.logged(log_levels.DEBUG) == [
        f"client: {MAIL!r}",
        f"upstream: {b'250 fine' + bytes((13, 10))!r}",
    ]


def test_an_auth_line_is_in_the_log_without_its_secret() -> None:
    dialogue = greeted()
    relayed(dialogue, b"AUTH PLAIN AHVzZXIAc2VjcmV0", b"235 ok")
    assert not any("AHVzZXI" in text for _, text in dialogue.log)


def test_after_a_refused_data_the_next_transaction_may_come_in_one_write() -> None:
    dialogue = in_transaction()
    dialogue.client_says(b"DATA")
    dialogue.client_sees_reply(b"354 ")
    dialogue.client_says(b"x", b".", MAIL, RCPT)
    dialogue.filter_ends(0)
    dialogue.upstream_sees(b"DATA")
    dialogue.upstream_says(b"451 not now")
    dialogue.client_sees(b"451 not now")
    dialogue.upstream_sees(b"RSET")
    dialogue.upstream_says(b"250 reset")
    dialogue.upstream_sees(MAIL)
    dialogue.upstream_says(b"250 ok")
    dialogue.client_sees(b"250 ok")
    dialogue.upstream_sees(RCPT)


def test_a_rejected_clients_session_is_in_order() -> None:
    dialogue = rejected()
    dialogue.client_says(b"QUIT")
    dialogue.client_sees_reply(b"221 ")
    dialogue.is_over(0)
    assert not dialogue.session.ended_early


# Which words end a session in disorder, and what the log says of it.


def asked(*commands: bytes) -> Dialogue:
    """Upstream owes the reply to the last of `commands`."""
    dialogue = greeted()
    for command in commands[:-1]:
        relayed(dialogue, command)
    dialogue.client_says(commands[-1])
    dialogue.upstream_sees(commands[-1])
    return dialogue


def again() -> Dialogue:
    """Upstream is asked for a second connection, by a client that wants to send on."""
    dialogue = rejected()
    dialogue.client_says(MAIL)
    dialogue.upstream_connects()
    return dialogue


def replaying() -> Dialogue:
    dialogue = again()
    dialogue.upstream_says(b"220 up ESMTP")
    dialogue.upstream_sees(b"EHLO client.example")
    return dialogue


def resetting() -> Dialogue:
    """Upstream has refused DATA, and is told to forget the transaction."""
    dialogue = in_delivery()
    dialogue.upstream_says(b"451 not now")
    dialogue.client_sees(b"451 not now")
    dialogue.client_says(MAIL)
    dialogue.upstream_sees(b"RSET")
    return dialogue


def greeting() -> Dialogue:
    dialogue = Dialogue()
    dialogue.upstream_connects()
    return dialogue


NOT_SMTP = "upstream does not speak SMTP: not an SMTP reply: b'hello\\r\\n'"
CONTENT = "upstream sent an unexpected 354 reply"
CHALLENGE = "upstream sent an unexpected 334 reply"
REPLY_TO_NOTHING = "upstream sent an unexpected reply: b'250 ok\\r\\n'"


@pytest.mark.parametrize(
    ("begin", "said", "name", "error"),
    [
        (greeting, b"hello", "UPSTREAM_GARBLED", NOT_SMTP),
        (greeting, b"334 ", "UPSTREAM_GARBLED", CHALLENGE),
        (lambda: asked(MAIL), b"hello", "UPSTREAM_GARBLED", NOT_SMTP),
        (lambda: asked(MAIL), b"334 ", "UPSTREAM_GARBLED", CHALLENGE),
        (lambda: asked(MAIL), b"354 go on", "UPSTREAM_GARBLED", CONTENT),
        (greeted, b"250 ok", "UPSTREAM_GARBLED", REPLY_TO_NOTHING),
        (in_filter, b"250 ok", "UPSTREAM_GARBLED", REPLY_TO_NOTHING),
        (sending, b"250 ok", "MESSAGE_UNANSWERED", REPLY_TO_NOTHING),
        (sending, b"hello", "MESSAGE_UNANSWERED", NOT_SMTP),
        (sent, b"hello", "MESSAGE_UNANSWERED", NOT_SMTP),
        (sent, b"354 go on", "MESSAGE_UNANSWERED", CONTENT),
        (sent, b"350 what?", "MESSAGE_UNANSWERED", ""),
        (again, b"554 no", "UPSTREAM_UNREACHABLE", ""),
        (replaying, b"550 no", "UPSTREAM_UNREACHABLE", ""),
        (replaying, b"334 ", "UPSTREAM_UNREACHABLE", ""),
        (resetting, b"550 no", "UPSTREAM_GARBLED", ""),
        (in_filter, b"421 up closes", "UPSTREAM_LOST", "upstream closed the connection"),
    ],
)
def test_an_upstream_that_is_mistaken_ends_the_session(
    begin: Callable[[], Dialogue], said: bytes, name: str, error: str
) -> None:
    dialogue = begin()
    dialogue.upstream_says(said)
    assert bytes(dialogue.to_client) == getattr(replies, name)
    assert dialogue.logged(log_levels.ERROR) == ([error] if error else [])
    assert dialogue.session.exit_status == 1
    assert dialogue.session.ended_early


def test_an_upstream_that_asks_for_an_answer_to_what_is_not_auth_is_left_without_a_word() -> None:
    dialogue = asked(MAIL)
    dialogue.upstream_says(b"334 ")
    dialogue.client_sees(replies.UPSTREAM_GARBLED.rstrip())
    dialogue.is_over(1)


@pytest.mark.parametrize(
    ("begin", "seconds", "name", "missing"),
    [
        (Dialogue, limits.CONNECT, "UPSTREAM_UNREACHABLE", "connection"),
        (greeting, limits.UPSTREAM_REPLY, "UPSTREAM_SILENT", "greeting"),
        (
            lambda: asked(MAIL),
            limits.UPSTREAM_REPLY,
            "UPSTREAM_SILENT",
            "reply to the client's command",
        ),
        (in_delivery, limits.UPSTREAM_DATA, "MESSAGE_LOST", "reply to DATA"),
        (sent, limits.UPSTREAM_FINAL, "MESSAGE_LOST", "final reply"),
    ],
)
def test_an_upstream_that_is_silent_ends_the_session(
    begin: Callable[[], Dialogue], seconds: float, name: str, missing: str
) -> None:
    dialogue = begin()
    dialogue.seconds_pass(seconds - 1)
    dialogue.nothing_is_said()
    dialogue.seconds_pass(1)
    assert bytes(dialogue.to_client) == getattr(replies, name)
    assert dialogue.logged(log_levels.ERROR) == [f"upstream does not answer: no {missing}"]


@pytest.mark.parametrize(
    ("begin", "name"),
    [(lambda: asked(MAIL), "UPSTREAM_LOST"), (in_filter, "UPSTREAM_LOST"), (sent, "MESSAGE_LOST")],
)
def test_an_upstream_that_closes_ends_the_session(begin: Callable[[], Dialogue], name: str) -> None:
    dialogue = begin()
    dialogue.upstream_ends()
    assert bytes(dialogue.to_client) == getattr(replies, name)
    assert dialogue.logged(log_levels.ERROR) == ["upstream closed the connection"]


def test_an_upstream_that_cannot_be_reached_is_told_once() -> None:
    dialogue = Dialogue()
    dialogue.upstream_fails()
    assert bytes(dialogue.to_client) == replies.UPSTREAM_UNREACHABLE
    dialogue.to_client.clear()
    dialogue.is_over(1)


@pytest.mark.parametrize("begin", [lambda: asked(MAIL), sent])
def test_a_silent_upstream_does_not_hold_up_the_servers_end(begin: Callable[[], Dialogue]) -> None:
    dialogue = begin()
    dialogue.is_told_to_stop()
    dialogue.seconds_pass(limits.UPSTREAM_FINAL)
    assert bytes(dialogue.to_client) == replies.SHUTTING_DOWN


def test_a_clients_silence_is_in_the_log() -> None:
    dialogue = greeted()
    dialogue.seconds_pass(limits.CLIENT_IDLE)
    dialogue.client_sees(replies.CLIENT_IDLE.rstrip())
    assert dialogue.logged(log_levels.WARNING) == ["the client is silent"]


def goes_unanswered(dialogue: Dialogue) -> None:
    dialogue.seconds_pass(limits.UPSTREAM_GOODBYE)


@pytest.mark.parametrize("happens", [Dialogue.upstream_ends, goes_unanswered])
def test_a_quit_that_upstream_does_not_answer_is_no_error(
    happens: Callable[[Dialogue], None],
) -> None:
    dialogue = asked(b"QUIT")
    happens(dialogue)
    assert bytes(dialogue.to_client) == replies.BYE
    dialogue.to_client.clear()
    dialogue.is_over()
    assert not dialogue.logged(log_levels.ERROR)


def test_a_command_behind_upstreams_421_is_answered_when_upstream_closes() -> None:
    dialogue = greeted()
    relayed(dialogue, MAIL, b"421 up closes")
    dialogue.client_says(b"NOOP")
    dialogue.upstream_sees(b"NOOP")
    dialogue.upstream_ends()
    assert bytes(dialogue.to_client) == replies.UPSTREAM_LOST


# When the client is read, and what of it is obeyed.


def test_a_client_that_is_hung_up_is_not_read() -> None:
    dialogue = greeted()
    dialogue.seconds_pass(limits.CLIENT_IDLE)
    assert dialogue.session.client_closed
    assert not dialogue.session.reads_client


def test_what_a_client_sends_after_the_end_is_not_kept() -> None:
    dialogue = greeted()
    dialogue.seconds_pass(limits.CLIENT_IDLE)
    dialogue.session.client_received(b"NOOP")
    assert dialogue.session._commands.take_buffered() == b""


def test_a_client_that_sends_ahead_is_read_up_to_a_bound() -> None:
    dialogue = in_filter()
    dialogue.client_sends(b"x" * limits.INPUT_BUFFER)
    assert dialogue.session.reads_client
    dialogue.client_sends(b"x")
    assert not dialogue.session.reads_client


def test_a_session_without_upstream_lasts_as_long_as_its_client() -> None:
    dialogue = rejected()
    assert not dialogue.session.client_closed
    assert not dialogue.session.finished


def test_the_quit_of_a_client_whose_connection_broke_is_not_obeyed() -> None:
    dialogue = in_filter()
    dialogue.client_says(b"QUIT")
    dialogue.client_is_reset()
    dialogue.filter_is_gone()
    assert dialogue.session.client_closed


def test_a_line_that_is_too_long_is_told_so_and_the_next_one_is_handled() -> None:
    dialogue = greeted()
    dialogue.client_says(b"x" * (limits.COMMAND_LINE + 1), b"NOOP")
    dialogue.client_sees(replies.LINE_TOO_LONG.rstrip())
    dialogue.upstream_sees(b"NOOP")


def test_the_clients_own_rset_is_the_only_one() -> None:
    dialogue = in_delivery()
    dialogue.upstream_says(b"451 not now")
    dialogue.client_sees(b"451 not now")
    relayed(dialogue, b"RSET")
    relayed(dialogue, MAIL)


def test_what_came_before_mail_is_no_transaction() -> None:
    dialogue = greeted()
    relayed(dialogue, b"XFORWARD ADDR=192.0.2.1")
    dialogue.client_says(b"DATA")
    dialogue.client_sees(replies.NEED_MAIL.rstrip())


def test_a_command_that_came_during_the_message_is_handled_after_a_failure() -> None:
    dialogue = in_filter()
    dialogue.upstream_is_fast = False
    dialogue.replacement = b"changed\n"
    dialogue.filter_ends(0)
    dialogue.upstream_sees(b"DATA")
    dialogue.upstream_says(b"354 go on")
    dialogue.client_says(b"NOOP")
    dialogue.replacement_changes()
    dialogue.client_sees(replies.FILTER_FAILED.rstrip(), replies.OK.rstrip())


# What is told of a message, and when it is forgotten.


def test_a_message_without_a_spool_is_told_once() -> None:
    dialogue = in_transaction()
    dialogue.open_error = "no room"
    dialogue.client_says(b"DATA")
    dialogue.client_sees(replies.SPOOL_ERROR.rstrip())
    (told,) = dialogue.logged(log_levels.INFO)
    assert "result=deferred" in told
    assert f'reply="{replies.SPOOL_ERROR.decode().rstrip()}"' in told
    dialogue.upstream_ends()
    assert dialogue.logged(log_levels.INFO) == [told]


def test_a_spool_that_fails_when_its_message_is_answered_is_nothing_to_tell() -> None:
    dialogue = greeted()
    dialogue.session.spool_failed("/spool: Input/output error")
    assert not dialogue.session.take_actions()
    relayed(dialogue, b"NOOP")


def test_a_filter_that_was_not_started_took_no_time() -> None:
    dialogue = in_data()
    dialogue.start_error = "no process"
    dialogue.seconds_pass(7)
    dialogue.client_says(b"x", b".")
    assert "filter=0.000 total=7.000" in dialogue.logged(log_levels.INFO)[0]


def test_a_filter_that_is_late_took_its_whole_time() -> None:
    dialogue = in_filter(filter_timeout=30, reject_failures=True)
    dialogue.seconds_pass(31)
    assert "filter=30.000" in dialogue.logged(log_levels.INFO)[0]


def test_a_filter_that_is_late_is_ended_once() -> None:
    dialogue = in_filter(filter_timeout=30)
    dialogue.now += 30
    dialogue.session.timer(dialogue.now)
    assert dialogue.session.take_actions() == [actions.KillFilter("timed out after 30 s")]
    assert dialogue.session.deadline > dialogue.now


def test_timer_ignores_deadlines_after_its_reading() -> None:
    dialogue = in_filter(filter_timeout=90)
    keepalive = dialogue.session.deadline
    dialogue.now = keepalive + 1000
    dialogue.session.timer(keepalive)
    assert dialogue.session.take_actions() == [actions.SendToUpstream(b"NOOP\r\n")]


def test_an_upstream_that_neither_takes_nor_refuses_data_gave_no_answer() -> None:
    dialogue = in_delivery()
    dialogue.upstream_says(b"250 fine")
    dialogue.client_sees(replies.MESSAGE_UNANSWERED.rstrip())


def test_a_message_that_upstream_refuses_before_its_end_is_in_the_log() -> None:
    dialogue = sending()
    dialogue.upstream_says(b"552 too big")
    dialogue.client_sees(b"552 too big")
    assert dialogue.logged(log_levels.WARNING) == ["upstream refused the message before its end"]


@pytest.mark.parametrize(
    ("said", "warned"),
    [
        (b"250 discarded", False),
        (b"451 later", False),
        (b"550 no", False),
        (b"354 go on", True),
        (b"199 what", True),
    ],
)
def test_nonfinal_filter_reply_code_logs_warning(said: bytes, warned: bool) -> None:
    dialogue = in_filter()
    dialogue.filter_ends(1, said)
    dialogue.client_sees(said)
    expected = f"the filter's reply code is not 2yz, 4yz or 5yz: {said + bytes((13, 10))!r}"
    assert dialogue.logged(log_levels.WARNING) == ([expected] if warned else [])


@pytest.mark.parametrize("listening", [False, True])
@pytest.mark.parametrize("level", [log_levels.WARNING, log_levels.INFO])
def test_a_message_is_logged_with_v_and_counted_by_a_server(level: int, listening: bool) -> None:
    dialogue = in_filter()
    dialogue.session._options.log_level = level
    dialogue.session._options.listen = ("127.0.0.1", 25) if listening else None
    dialogue.filter_ends(1, b"550 no")
    assert len(dialogue.logged(log_levels.INFO)) == (level == log_levels.INFO)
    counted = [actions.CountMessage("reject", "refused", 0.0)] if listening else []
    assert dialogue.counted == counted


def test_the_session_tells_whether_it_receives_a_message() -> None:
    assert not in_transaction().session.receiving
    assert in_data().session.receiving
    assert not in_filter().session.receiving


def test_the_session_tells_whether_the_client_has_gone() -> None:
    dialogue = in_transaction()
    dialogue.client_says(b"NOOP")
    assert not dialogue.session.client_gone
    dialogue.client_ends()
    assert dialogue.session.client_gone


def test_a_client_whose_message_s_reply_is_awaited_has_not_gone() -> None:
    dialogue = sent()
    dialogue.client_ends()
    assert not dialogue.session.client_gone


def test_answers_behind_each_other_are_written_at_once() -> None:
    session = in_filter().session
    session._options.log_level = log_levels.ERROR
    session.client_received(b"RSET\r\nNOOP\r\n")
    session.filter_finished(Outcome(1, b"550 no"))
    done = session.take_actions()
    written = [action.data for action in done if isinstance(action, actions.SendToClient)]
    assert written == [b"550 no\r\n", replies.OK * 2]
    assert isinstance(done[0], actions.SendToUpstream)


def test_a_client_that_has_left_commands_has_not_gone() -> None:
    dialogue = in_transaction()
    dialogue.client_says(b"NOOP", b"QUIT")
    dialogue.client_ends()
    assert not dialogue.session.client_gone
    dialogue.upstream_sees(b"NOOP")
    dialogue.upstream_says(b"250 ok")
    dialogue.upstream_sees(b"QUIT")
    assert dialogue.session.client_gone


def test_a_client_whose_message_is_under_way_has_not_gone() -> None:
    dialogue = in_filter()
    dialogue.client_says(b"QUIT")
    dialogue.client_ends()
    assert not dialogue.session.client_gone
    dialogue.filter_ends(1, b"550 no")
    dialogue.client_sees(b"550 no", replies.BYE.rstrip())
