"""Edges of a session that no other test stood on: each was a mutant that survived all of them."""

from __future__ import annotations

from postprox.core import levels, limits
from postprox.core.options import parse
from tests.unit.dialogue import (
    MAIL,
    RCPT,
    connected,
    greeted,
    in_data,
    in_filter,
    in_transaction,
    rejected,
    relayed,
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
    assert not dialogue.session.over
    assert not dialogue.logged(levels.ERROR)
    dialogue.client_says(b"NOOP")
    dialogue.client_sees_reply(b"250 ")


def test_a_client_that_pipelines_is_not_idle_while_upstream_owes_the_reply() -> None:
    dialogue = sent()
    dialogue.client_says(b"NOOP")
    dialogue.seconds_pass(limits.CLIENT_IDLE + 1)
    dialogue.nothing_is_said()
    dialogue.upstream_says(b"250 queued")
    dialogue.client_sees(b"250 queued")


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
    assert dialogue.session.wants_client
    dialogue.client_ends()
    assert not dialogue.session.wants_client


def test_a_session_lasts_as_long_as_upstreams_connection() -> None:
    dialogue = in_filter()
    dialogue.client_ends()
    dialogue.upstream_sees(b"QUIT")
    assert dialogue.session.over
    assert not dialogue.session.finished
    dialogue.upstream_says(b"221 bye")
    assert dialogue.session.finished


def test_an_orderly_end_is_not_cut_short() -> None:
    dialogue = connected()
    assert not dialogue.session.cut_short
    relayed(dialogue, b"QUIT", b"221 bye")
    dialogue.is_over()
    assert not dialogue.session.cut_short


def test_a_message_is_logged_once() -> None:
    dialogue = sent()
    dialogue.upstream_says(b"250 queued")
    dialogue.client_sees(b"250 queued")
    dialogue.upstream_ends()
    dialogue.client_sees_reply(b"421 ")
    assert len(dialogue.logged(levels.INFO)) == 1


def test_a_message_that_could_not_be_stored_was_not_taken() -> None:
    dialogue = in_data()
    dialogue.seal_error = "disk full"
    dialogue.client_says(b"x", b".")
    dialogue.client_sees_reply(b"452 ")
    assert "result=deferred" in dialogue.logged(levels.INFO)[0]


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
    assert "result=lost" in dialogue.logged(levels.INFO)[0]


def test_what_both_sides_say_is_in_the_log_word_for_word() -> None:
    dialogue = greeted()
    dialogue.log.clear()
    relayed(dialogue, MAIL, b"250 fine")
    assert dialogue.logged(levels.DEBUG) == [
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
    assert not dialogue.session.cut_short
