"""Session tests: the upstream server's disconnects, timeouts and invalid replies."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from postprox.core import limits, log_levels, replies
from tests.unit.dialogue import (
    MAIL,
    MESSAGE,
    RCPT,
    Dialogue,
    awaiting_greeting,
    awaiting_reply,
    connected,
    greeted,
    in_auth,
    in_data,
    in_delivery,
    in_filter,
    in_transaction,
    reconnecting,
    rejected,
    relayed,
    replaying,
    resetting,
    sending,
    sent,
)

Stage = Callable[[], Dialogue]

NOT_SMTP = "upstream does not speak SMTP: not an SMTP reply: b'hello\\r\\n'"
CONTENT = "upstream sent an unexpected 354 reply"
CHALLENGE = "upstream sent an unexpected 334 reply"
STRAY = "upstream sent an unexpected reply: b'250 ok\\r\\n'"
CLOSED = "upstream closed the connection"


def in_keepalive() -> Dialogue:
    """Return a dialogue that awaits the reply to the proxy's NOOP."""
    dialogue = in_filter(filter_timeout=1000)
    dialogue.seconds_pass(limits.KEEPALIVE)
    dialogue.upstream_sees(b"NOOP")
    return dialogue


def in_auth_reply() -> Dialogue:
    """Return a dialogue that awaits the reply to the client's AUTH response."""
    dialogue = in_auth()
    dialogue.client_says(b"DATA")
    dialogue.upstream_sees(b"DATA")
    return dialogue


def in_reply() -> Dialogue:
    """Return a dialogue in which the first half of a reply was received."""
    dialogue = awaiting_reply()
    dialogue.upstream_sends(b"250-half\r\n250 ha")
    return dialogue


def pipelined() -> Dialogue:
    """Return a dialogue with one relayed and one buffered command."""
    dialogue = greeted()
    dialogue.client_says(b"NOOP", b"NOOP")
    dialogue.upstream_sees(b"NOOP")
    return dialogue


def ended_with(dialogue: Dialogue, reply: bytes, error: str) -> None:
    """Check that the session sent `reply`, logged `error` and ended."""
    dialogue.client_sees(reply.rstrip())
    assert dialogue.logged(log_levels.ERROR) == ([error] if error else [])
    assert dialogue.session.ended_early
    dialogue.is_over(exit_status=1)


# relay.unexpected-354, relay.bad-reply


@pytest.mark.parametrize(
    ("stage", "said", "reply", "error"),
    [
        (awaiting_greeting, b"hello", replies.UPSTREAM_GARBLED, NOT_SMTP),
        (awaiting_greeting, b"334 ", replies.UPSTREAM_GARBLED, CHALLENGE),
        (awaiting_greeting, b"354 go on", replies.UPSTREAM_GARBLED, CONTENT),
        (awaiting_reply, b"hello", replies.UPSTREAM_GARBLED, NOT_SMTP),
        (lambda: awaiting_reply(b"AUTH X"), b"354 go on", replies.UPSTREAM_GARBLED, CONTENT),
        (in_auth_reply, b"354 go on", replies.UPSTREAM_GARBLED, CONTENT),
        (in_keepalive, b"354 go on", replies.UPSTREAM_GARBLED, CONTENT),
        (in_keepalive, b"350 and now?", replies.UPSTREAM_LOST, CLOSED),
        (in_keepalive, b"421 timeout", replies.UPSTREAM_LOST, CLOSED),
        (greeted, b"250 ok", replies.UPSTREAM_GARBLED, STRAY),
        (
            greeted,
            b"354 go on",
            replies.UPSTREAM_GARBLED,
            "upstream sent an unexpected reply: b'354 go on\\r\\n'",
        ),
        (in_filter, b"250 ok", replies.UPSTREAM_GARBLED, STRAY),
        (in_delivery, b"hello", replies.MESSAGE_UNANSWERED, NOT_SMTP),
        (sending, b"250 ok", replies.MESSAGE_UNANSWERED, STRAY),
        (sending, b"hello", replies.MESSAGE_UNANSWERED, NOT_SMTP),
        (sent, b"hello", replies.MESSAGE_UNANSWERED, NOT_SMTP),
        (sent, b"354 go on", replies.MESSAGE_UNANSWERED, CONTENT),
        (sent, b"334 what", replies.MESSAGE_UNANSWERED, ""),
        (sent, b"300 odd", replies.MESSAGE_UNANSWERED, ""),
        (reconnecting, b"300 odd", replies.UPSTREAM_UNREACHABLE, ""),
        (reconnecting, b"421 busy", replies.UPSTREAM_UNREACHABLE, ""),
        (reconnecting, b"554 no", replies.UPSTREAM_UNREACHABLE, ""),
        (replaying, b"550 no", replies.UPSTREAM_UNREACHABLE, ""),
        (replaying, b"334 ", replies.UPSTREAM_UNREACHABLE, ""),
        (in_data, b"421 up closes", replies.UPSTREAM_LOST, CLOSED),
        (in_filter, b"421 up closes", replies.UPSTREAM_LOST, CLOSED),
        (greeted, b"421 4.3.2 shutting down", b"421 4.3.2 shutting down\r\n", ""),
    ],
)
def test_unexpected_reply_ends_session(stage: Stage, said: bytes, reply: bytes, error: str) -> None:
    dialogue = stage()
    dialogue.upstream_says(said)
    ended_with(dialogue, reply, error)


@pytest.mark.parametrize(("reply", "error"), [(b"354 go on", CONTENT), (b"334 go on", CHALLENGE)])
@pytest.mark.parametrize("command", [b"NOOP", b"EHLO x", MAIL, RCPT, b"QUIT"])
def test_unexpected_intermediate_reply_ends_session(
    command: bytes, reply: bytes, error: str
) -> None:
    dialogue = in_transaction()
    dialogue.client_says(command, b"BDAT 5 LAST")
    dialogue.upstream_sees(command)
    dialogue.upstream_says(reply)
    ended_with(dialogue, replies.UPSTREAM_GARBLED, error)


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
def test_invalid_reply_ends_session(octets: bytes) -> None:
    dialogue = awaiting_reply(b"NOOP")
    dialogue.upstream_sends(octets)
    dialogue.client_sees(replies.UPSTREAM_GARBLED.rstrip())
    dialogue.is_over(exit_status=1)
    (error,) = dialogue.logged(log_levels.ERROR)
    assert error.startswith("upstream does not speak SMTP: ")


def test_refused_rset_ends_session() -> None:
    dialogue = resetting()
    dialogue.upstream_says(b"550 no")
    dialogue.client_sees(replies.UPSTREAM_GARBLED.rstrip())
    assert dialogue.session.ended_early
    assert not dialogue.logged(log_levels.ERROR)
    dialogue.is_over_after_goodbye(exit_status=1)


def test_unsolicited_reply_does_not_answer_next_command() -> None:
    dialogue = greeted()
    dialogue.client_says(b"NOOP", MAIL)
    dialogue.upstream_sees(b"NOOP")
    dialogue.upstream_says(b"250 ok", b"250 again")
    dialogue.client_sees(b"250 ok", replies.UPSTREAM_GARBLED.rstrip())
    dialogue.is_over(exit_status=1)


def test_reply_pipelined_with_354_is_not_relayed() -> None:
    dialogue = in_delivery()
    dialogue.upstream_is_fast = False
    dialogue.upstream_says(b"354 go on", b"250 ok")
    dialogue.client_sees(replies.MESSAGE_UNANSWERED.rstrip())
    assert not dialogue.connected


def test_upstream_421_reply_ends_session() -> None:
    dialogue = awaiting_reply()
    dialogue.upstream_says(b"421 up closes")
    dialogue.client_sees(b"421 up closes")
    dialogue.upstream_ends()
    dialogue.is_over(exit_status=1)


def test_command_after_relayed_421_gets_421_reply() -> None:
    dialogue = greeted()
    relayed(dialogue, MAIL, b"421 up closes")
    dialogue.client_says(b"NOOP")
    dialogue.upstream_sees(b"NOOP")
    dialogue.upstream_ends()
    dialogue.client_sees(replies.UPSTREAM_LOST.rstrip())


# Refused and lost connections


def connecting_again() -> Dialogue:
    """Return a dialogue that awaits the second upstream connection."""
    dialogue = rejected()
    dialogue.client_says(MAIL)
    return dialogue


@pytest.mark.parametrize("stage", [Dialogue, connecting_again])
def test_refused_connection_ends_session(stage: Stage) -> None:
    dialogue = stage()
    dialogue.upstream_fails("up:25: Connection refused")
    error = "cannot reach upstream: up:25: Connection refused"
    ended_with(dialogue, replies.UPSTREAM_UNREACHABLE, error)


@pytest.mark.parametrize(
    "stage",
    [
        *(awaiting_greeting, connected, greeted, in_transaction, in_auth, in_data, in_filter),
        *(awaiting_reply, in_reply, pipelined),
    ],
)
def test_upstream_eof_causes_421_reply(stage: Stage) -> None:
    dialogue = stage()
    dialogue.upstream_ends()
    ended_with(dialogue, replies.UPSTREAM_LOST, CLOSED)


@pytest.mark.parametrize("stage", [in_delivery, sending, sent])
def test_upstream_eof_during_delivery_causes_451_reply(stage: Stage) -> None:
    dialogue = stage()
    dialogue.upstream_ends()
    ended_with(dialogue, replies.MESSAGE_LOST, CLOSED)


def test_session_finishes_after_upstream_connection_closes() -> None:
    dialogue = in_filter()
    dialogue.client_ends()
    dialogue.upstream_sees(b"QUIT")
    assert dialogue.session.client_closed
    assert not dialogue.session.finished
    dialogue.upstream_says(b"221 bye")
    assert dialogue.session.finished


# Upstream timeouts (relay.idle)


@pytest.mark.parametrize(
    ("stage", "seconds", "reply", "missing"),
    [
        (Dialogue, 30, replies.UPSTREAM_UNREACHABLE, "connection"),
        (awaiting_greeting, 300, replies.UPSTREAM_SILENT, "greeting"),
        *(
            (
                lambda command=command: awaiting_reply(command),
                300,
                replies.UPSTREAM_SILENT,
                "reply to the client's command",
            )
            for command in (b"NOOP", MAIL, RCPT, b"EHLO x", b"AUTH PLAIN x")
        ),
        (replaying, 300, replies.UPSTREAM_SILENT, "reply to HELO or EHLO"),
        (resetting, 300, replies.UPSTREAM_SILENT, "reply to RSET"),
        (in_keepalive, 300, replies.UPSTREAM_SILENT, "reply to NOOP"),
        (in_delivery, 120, replies.MESSAGE_LOST, "reply to DATA"),
        (sending, 180, replies.MESSAGE_LOST, "reply"),
        (sent, 600, replies.MESSAGE_LOST, "final reply"),
    ],
)
def test_silent_upstream_ends_session(
    stage: Stage, seconds: float, reply: bytes, missing: str
) -> None:
    dialogue = stage()
    dialogue.seconds_pass(seconds - 0.1)
    dialogue.nothing_is_said()
    dialogue.seconds_pass(0.1)
    ended_with(dialogue, reply, f"upstream does not answer: no {missing}")


def test_partial_reply_does_not_extend_timeout() -> None:
    dialogue = awaiting_reply()
    for _ in range(10):
        dialogue.upstream_says(b"250-more")
        dialogue.seconds_pass(29.9)
    dialogue.upstream_says(b"250-more")
    dialogue.seconds_pass(0.9)
    dialogue.nothing_is_said()
    dialogue.seconds_pass(0.1)
    dialogue.client_sees(replies.UPSTREAM_SILENT.rstrip())
    dialogue.is_over(exit_status=1)


def test_each_sent_block_restarts_timeout() -> None:
    dialogue = sending()
    for _ in range(10):
        dialogue.seconds_pass(179)
        dialogue.upstream_takes_a_block()
    dialogue.upstream_takes_the_rest()
    dialogue.upstream_sees(*MESSAGE)
    dialogue.seconds_pass(599)
    dialogue.nothing_is_said()


def test_timeout_after_quit_is_not_an_error() -> None:
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
    dialogue.client_sees(replies.OK.rstrip())


# data.keepalive


@pytest.mark.parametrize("stage", [in_data, lambda: in_filter(filter_timeout=1000)])
def test_proxy_sends_noop_to_idle_upstream_each_minute(stage: Stage) -> None:
    dialogue = stage()
    for _ in range(3):
        dialogue.seconds_pass(59.9)
        dialogue.nothing_is_said()
        dialogue.seconds_pass(0.1)
        dialogue.upstream_sees(b"NOOP")
        dialogue.upstream_says(b"250-so", b"250 what")
        dialogue.client_sees()


def test_keepalive_interval_includes_idle_time_before_data() -> None:
    dialogue = in_transaction()
    dialogue.seconds_pass(50)
    dialogue.client_says(b"DATA")
    dialogue.seconds_pass(10)
    dialogue.upstream_sees(b"NOOP")


def test_unanswered_noop_is_not_repeated() -> None:
    dialogue = in_keepalive()
    dialogue.seconds_pass(90)
    dialogue.nothing_is_said()


@pytest.mark.parametrize("reply", [b"250 ok", b"502 what"])
def test_data_command_waits_for_noop_reply(reply: bytes) -> None:
    dialogue = in_keepalive()
    dialogue.filter_ends(0)
    dialogue.nothing_is_said()
    dialogue.upstream_says(reply)
    dialogue.upstream_sees(b"DATA")
    dialogue.client_sees()


def test_refused_keepalive_is_ignored() -> None:
    dialogue = in_keepalive()
    dialogue.upstream_says(b"502 what")
    dialogue.filter_ends(0)
    dialogue.upstream_sees(b"DATA")


def test_rejection_does_not_wait_for_noop_reply() -> None:
    dialogue = in_keepalive()
    dialogue.filter_ends(1, b"550 spam")
    dialogue.client_sees(b"550 spam")
    dialogue.upstream_sees(b"QUIT")
