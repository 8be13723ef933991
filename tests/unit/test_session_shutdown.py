"""Session tests: stop, termination and internal errors (listen.stop, files.term)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from postprox.core import limits, replies
from tests.unit.dialogue import (
    MESSAGE,
    Dialogue,
    accept_message,
    awaiting_reply,
    connected,
    greeted,
    in_auth,
    in_data,
    in_delivery,
    in_filter,
    in_transaction,
    rejected,
    relayed,
    sending,
    sent,
)

Stage = Callable[[], Dialogue]


@pytest.mark.parametrize("stage", [connected, greeted, in_transaction, in_auth, rejected])
def test_stop_between_messages_ends_session(stage: Stage) -> None:
    dialogue = stage()
    dialogue.is_told_to_stop()
    dialogue.client_sees(replies.SHUTTING_DOWN.rstrip())
    assert dialogue.client_is_hung_up
    assert dialogue.session.exit_status == 0


def test_stop_waits_for_greeting() -> None:
    dialogue = Dialogue()
    dialogue.is_told_to_stop()
    dialogue.upstream_connects()
    dialogue.upstream_says(b"220 up")
    dialogue.client_sees(b"220 up", replies.SHUTTING_DOWN.rstrip())
    assert dialogue.client_is_hung_up


def test_stop_waits_for_reply() -> None:
    dialogue = greeted()
    dialogue.client_says(b"NOOP", b"NOOP")
    dialogue.is_told_to_stop()
    dialogue.client_sees()
    dialogue.upstream_says(b"250 ok")
    dialogue.client_sees(b"250 ok", replies.SHUTTING_DOWN.rstrip())
    assert dialogue.client_is_hung_up


def test_stop_waits_for_current_message() -> None:
    dialogue = in_data()
    dialogue.is_told_to_stop()
    dialogue.client_says(*MESSAGE)
    dialogue.client_sees()
    accept_message(dialogue)
    dialogue.client_sees(b"250 queued", replies.SHUTTING_DOWN.rstrip())
    assert dialogue.client_is_hung_up


@pytest.mark.parametrize("stage", [in_filter, in_delivery, sending, sent])
def test_stop_does_not_abort_message(stage: Stage) -> None:
    dialogue = stage()
    dialogue.is_told_to_stop()
    dialogue.nothing_is_said()
    assert not dialogue.client_is_hung_up


@pytest.mark.parametrize("stage", [awaiting_reply, sent])
def test_unresponsive_upstream_delays_stop_until_timeout(stage: Stage) -> None:
    dialogue = stage()
    dialogue.is_told_to_stop()
    dialogue.seconds_pass(limits.UPSTREAM_FINAL)
    dialogue.client_sees(replies.SHUTTING_DOWN.rstrip())


# files.term


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        *(
            (stage, [replies.SHUTTING_DOWN.rstrip()])
            for stage in (Dialogue, in_data, in_filter, in_delivery, sending, sent)
        ),
        *((stage, []) for stage in (connected, greeted, in_transaction, in_auth, rejected)),
    ],
)
def test_waiting_client_gets_421_reply_at_termination(stage: Stage, expected: list[bytes]) -> None:
    dialogue = stage()
    dialogue.is_terminated()
    dialogue.client_sees(*expected)
    dialogue.to_upstream.clear()
    dialogue.is_over(exit_status=1)


@pytest.mark.parametrize("stage", [connected, greeted, in_transaction, in_auth, in_data, in_filter])
def test_internal_error_causes_421_reply_in_each_state(stage: Stage) -> None:
    dialogue = stage()
    dialogue.has_a_fault()
    dialogue.client_sees(replies.INTERNAL_ERROR.rstrip())
    dialogue.to_upstream.clear()
    dialogue.is_over(exit_status=1)


def test_second_termination_signal_is_ignored() -> None:
    dialogue = in_filter()
    dialogue.is_terminated()
    dialogue.is_terminated()
    dialogue.client_sees(replies.SHUTTING_DOWN.rstrip())
    dialogue.to_upstream.clear()
    dialogue.is_over(exit_status=1)


@pytest.mark.parametrize("event", [Dialogue.is_told_to_stop, Dialogue.is_terminated])
def test_stop_request_for_closed_session_is_ignored(event: Callable[[Dialogue], None]) -> None:
    dialogue = greeted()
    relayed(dialogue, b"QUIT", b"221 bye")
    event(dialogue)
    dialogue.is_over()


@pytest.mark.parametrize("stage", [in_filter, in_delivery, sending])
def test_termination_aborts_message_not_yet_delivered(stage: Stage) -> None:
    dialogue = stage()
    dialogue.is_terminated(10)
    dialogue.client_sees(replies.SHUTTING_DOWN.rstrip())
    assert dialogue.deliveries == 0


def test_termination_after_delivery_waits_for_final_reply() -> None:
    dialogue = sent()
    dialogue.is_terminated(10)
    dialogue.seconds_pass(9)
    dialogue.upstream_says(b"250 queued")
    dialogue.client_sees(b"250 queued", replies.SHUTTING_DOWN.rstrip())
    dialogue.is_over_after_goodbye()


@pytest.mark.parametrize("timeouts", [(10,), (10, 2)])
def test_wait_for_final_reply_is_limited_after_sigterm(timeouts: tuple[float, ...]) -> None:
    dialogue = sent()
    for timeout in timeouts:
        dialogue.is_terminated(timeout)
    dialogue.seconds_pass(timeouts[-1] - 0.1)
    dialogue.nothing_is_said()
    dialogue.seconds_pass(0.1)
    dialogue.client_sees(replies.SHUTTING_DOWN.rstrip())
    assert " result=unknown " in dialogue.verdict_lines()[0]
