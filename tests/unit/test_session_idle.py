"""Session tests: an idle or slow client (relay.idle)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from postprox.core import limits, log_levels, replies
from tests.unit.dialogue import (
    Dialogue,
    accept_message,
    begin_data,
    begin_transaction,
    connected,
    greeted,
    in_auth,
    in_data,
    in_filter,
    in_transaction,
    rejected,
    relayed,
    time_passes_in_data,
)

Stage = Callable[[], Dialogue]


@pytest.mark.parametrize("stage", [connected, greeted, in_transaction])
def test_idle_client_gets_421_reply(stage: Stage) -> None:
    dialogue = stage()
    dialogue.seconds_pass(599.9)
    dialogue.nothing_is_said()
    dialogue.seconds_pass(0.1)
    dialogue.client_sees(replies.CLIENT_IDLE.rstrip())
    assert dialogue.logged(log_levels.WARNING) == ["the client is silent"]
    dialogue.is_over_after_goodbye(exit_status=1)


@pytest.mark.parametrize("stage", [rejected, in_auth])
def test_idle_client_gets_421_reply_without_quit_to_upstream(stage: Stage) -> None:
    dialogue = stage()
    dialogue.seconds_pass(600)
    dialogue.client_sees(replies.CLIENT_IDLE.rstrip())
    dialogue.is_over(exit_status=1)


def test_idle_client_gets_421_reply_during_data() -> None:
    dialogue = in_data()
    dialogue.client_says(b"Subject: x")
    time_passes_in_data(dialogue, 599)
    dialogue.nothing_is_said()
    dialogue.seconds_pass(1)
    dialogue.client_sees(replies.CLIENT_IDLE.rstrip())
    assert dialogue.client_is_hung_up
    assert dialogue.logged(log_levels.WARNING) == ["the client is silent"]


@pytest.mark.parametrize("stage", [greeted, in_transaction, rejected, in_auth])
def test_partial_line_does_not_extend_timeout(stage: Stage) -> None:
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
def test_discarded_octets_do_not_extend_timeout(begun: bytes) -> None:
    dialogue = in_transaction()
    dialogue.client_sends(begun)
    dialogue.client_sees_reply(b"50")
    for _ in range(2):
        dialogue.seconds_pass(250)
        dialogue.client_sends(b"x")
    dialogue.seconds_pass(100)
    dialogue.client_sees(replies.CLIENT_SLOW.rstrip())


def test_client_timeout_restarts_with_each_command() -> None:
    dialogue = greeted()
    for _ in range(5):
        dialogue.seconds_pass(599)
        relayed(dialogue, b"NOOP")


def test_client_timeout_is_paused_while_reply_is_awaited() -> None:
    dialogue = greeted()
    dialogue.seconds_pass(200)
    dialogue.client_says(b"NOOP")
    dialogue.upstream_sees(b"NOOP")
    dialogue.seconds_pass(200)
    dialogue.upstream_says(b"250 ok")
    dialogue.client_sees(b"250 ok")
    dialogue.seconds_pass(599)
    dialogue.nothing_is_said()


def test_client_timeout_is_paused_while_filter_runs() -> None:
    dialogue = in_filter(filter_timeout=3600)
    for _ in range(20):
        dialogue.seconds_pass(60)
        dialogue.upstream_sees(b"NOOP")
        dialogue.upstream_says(b"250 ok")
        dialogue.client_sends(b"N")
    dialogue.filter_is_running()
    dialogue.nothing_is_said()


def test_client_input_is_read_up_to_buffer_limit() -> None:
    dialogue = in_filter()
    dialogue.client_sends(b"x" * limits.INPUT_BUFFER)
    assert dialogue.session.reads_client
    dialogue.client_sends(b"x")
    assert not dialogue.session.reads_client


# Time limit for a message


def test_message_at_minimum_rate_can_exceed_message_timeout() -> None:
    dialogue = in_data()
    for _ in range(10):
        time_passes_in_data(dialogue, 599)
        dialogue.client_sends(b"x" * 599 * 400)
    time_passes_in_data(dialogue, 599)
    dialogue.nothing_is_said()


def test_message_below_minimum_rate_times_out() -> None:
    dialogue = in_data()
    for _ in range(24):
        dialogue.client_sends(b"x" * 100 * 300)
        time_passes_in_data(dialogue, 100)
    dialogue.client_sees(replies.CLIENT_SLOW.rstrip())
    assert dialogue.now - 1000 == 2400  # 600 s, plus 720000 octets at 400 octets/s


@pytest.mark.parametrize("octet", [b"x", b".", b"\r"])
def test_message_sent_octet_by_octet_times_out(octet: bytes) -> None:
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


def test_octets_before_354_extend_message_timeout() -> None:
    dialogue = in_transaction()
    dialogue.client_sends(b"DATA\r\n" + b"x" * 40_000)
    dialogue.client_sees_reply(b"354 ")
    time_passes_in_data(dialogue, 599)
    dialogue.client_sends(b"x")
    time_passes_in_data(dialogue, 100)
    dialogue.nothing_is_said()
    time_passes_in_data(dialogue, 2)
    dialogue.client_sees(replies.CLIENT_SLOW.rstrip())


def test_message_timeout_restarts_with_each_message() -> None:
    dialogue = in_filter()
    accept_message(dialogue)
    dialogue.client_sees(b"250 queued")
    dialogue.to_upstream.clear()
    begin_transaction(dialogue)
    dialogue.seconds_pass(500)
    begin_data(dialogue)
    dialogue.client_sends(b"x")
    time_passes_in_data(dialogue, 599)
    dialogue.nothing_is_said()
