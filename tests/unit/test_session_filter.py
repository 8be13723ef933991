"""Session tests: the filter's environment, verdicts and rejections (filter.*, cli.strict)."""

from __future__ import annotations

import pytest

from postprox.core import actions, log_levels, replies
from tests.unit.dialogue import (
    MAIL,
    MESSAGE,
    RCPT,
    Dialogue,
    accept_message,
    begin_transaction,
    connected,
    greeted,
    in_data,
    in_filter,
    in_transaction,
    reconnecting,
    rejected,
    relayed,
    replaying,
    send_message,
)

# filter.reject, filter.failure, cli.reject, cli.strict


@pytest.mark.parametrize(
    ("last_stderr_line", "reply"),
    [
        (b"spam", b"554 spam"),
        (b"450 later", b"450 later"),
        (b"250 swallowed", b"250 swallowed"),
        (b"999 x", b"999 x"),
    ],
)
def test_rejection_is_sent_as_reply_to_message(last_stderr_line: bytes, reply: bytes) -> None:
    dialogue = in_filter()
    dialogue.filter_ends(1, last_stderr_line)
    dialogue.client_sees(reply)
    dialogue.upstream_sees(b"QUIT")


FAILURES = pytest.mark.parametrize(
    ("status", "failure"), [(2, ""), (127, ""), (None, "killed by signal 11"), (0, "no file")]
)


@FAILURES
def test_original_message_is_delivered_if_filter_fails(status: int | None, failure: str) -> None:
    dialogue = in_filter()
    dialogue.replacement = b"new\n"
    dialogue.filter_ends(status, b"550 no", failure)
    dialogue.upstream_says(b"354 go on")
    dialogue.upstream_sees(b"DATA", *MESSAGE)
    assert len(dialogue.logged(log_levels.WARNING)) == 1


@FAILURES
def test_filter_failure_with_reject_option_causes_451_reply(
    status: int | None, failure: str
) -> None:
    dialogue = in_filter(reject_failures=True)
    dialogue.filter_ends(status, b"550 no", failure)
    dialogue.client_sees(replies.FILTER_FAILED.rstrip())
    dialogue.upstream_sees(b"QUIT")
    assert len(dialogue.logged(log_levels.WARNING)) == 1


@pytest.mark.parametrize(
    ("last_stderr_line", "reply"),
    [
        *(
            (line, replies.FILTER_FAILED.rstrip())
            for line in (b"Traceback", b"", b"150 x", b"354 x", b"550", b"550-x")
        ),
        *((line, line) for line in (b"250 gone", b"451 later", b"550 5.7.1 spam")),
    ],
)
def test_strict_rejection_requires_reply_code(last_stderr_line: bytes, reply: bytes) -> None:
    dialogue = in_filter(reject_failures=True, strict=True)
    dialogue.filter_ends(1, last_stderr_line)
    dialogue.client_sees(reply)


@pytest.mark.parametrize(
    ("reply", "warned"),
    [
        (b"250 discarded", False),
        (b"451 later", False),
        (b"550 no", False),
        (b"150 odd", True),
        (b"199 what", True),
        (b"354 go on", True),
        (b"654 odd", True),
    ],
)
def test_nonfinal_reply_code_from_filter_causes_warning(reply: bytes, warned: bool) -> None:
    dialogue = in_filter()
    dialogue.filter_ends(1, reply)
    dialogue.client_sees(reply)
    expected = f"the filter's reply code is not 2yz, 4yz or 5yz: {reply + bytes((13, 10))!r}"
    assert dialogue.logged(log_levels.WARNING) == ([expected] if warned else [])


# filter.no-resources, filter.outfile-stable


def test_message_is_not_delivered_after_filter_start_failure() -> None:
    dialogue = in_data()
    dialogue.start_error = "cannot be started: Too many open files"
    dialogue.client_says(*MESSAGE)
    dialogue.client_sees(replies.FILTER_FAILED.rstrip())
    dialogue.upstream_sees(b"QUIT")
    assert "cannot be started" in dialogue.logged(log_levels.WARNING)[0]


def test_outfile_changed_during_delivery_causes_451_reply() -> None:
    dialogue = in_filter()
    dialogue.replacement = b"new\n"
    dialogue.upstream_is_fast = False
    dialogue.filter_ends(0, b"rewritten")
    dialogue.upstream_says(b"354 go on")
    dialogue.upstream_sees(b"DATA")
    dialogue.client_says(b"NOOP")
    dialogue.replacement_changes()
    dialogue.client_sees(replies.FILTER_FAILED.rstrip(), replies.OK.rstrip())
    assert not dialogue.connected
    assert len(dialogue.logged(log_levels.WARNING)) == 1
    assert " said=rewritten" in dialogue.verdict_lines()[0]
    dialogue.client_says(MAIL)
    assert dialogue.connecting


# filter.timeout


def test_timed_out_filter_is_killed_and_message_is_accepted() -> None:
    dialogue = in_filter(filter_timeout=5)
    dialogue.said = b"still scanning"
    dialogue.seconds_pass(4.9)
    dialogue.filter_is_running()
    dialogue.seconds_pass(0.1)
    dialogue.filter_is_gone()
    dialogue.upstream_sees(b"DATA")
    (warning,) = dialogue.logged(log_levels.WARNING)
    assert "timed out after 5 s" in warning
    assert warning.endswith(' said="still scanning"')


def test_filter_timeout_with_reject_option_causes_451_reply() -> None:
    dialogue = in_filter(filter_timeout=30, reject_failures=True)
    dialogue.seconds_pass(31)
    dialogue.filter_is_gone()
    dialogue.client_sees(replies.FILTER_FAILED.rstrip())
    assert "filter=30.000" in dialogue.logged(log_levels.INFO)[0]


def test_timed_out_filter_is_killed_only_once() -> None:
    dialogue = in_filter(filter_timeout=30)
    dialogue.now += 30
    dialogue.session.timer(dialogue.now)
    assert dialogue.session.take_actions() == [actions.KillFilter("timed out after 30 s")]
    assert dialogue.session.deadline > dialogue.now


def test_filter_timeout_starts_at_filter_start() -> None:
    dialogue = in_data(filter_timeout=5)
    dialogue.seconds_pass(200)
    dialogue.client_says(*MESSAGE)
    dialogue.seconds_pass(4.9)
    dialogue.filter_is_running()


def test_timer_ignores_future_deadlines() -> None:
    dialogue = in_filter(filter_timeout=90)
    keepalive = dialogue.session.deadline
    dialogue.now = keepalive + 1000
    dialogue.session.timer(keepalive)
    assert dialogue.session.take_actions() == [actions.SendToUpstream(b"NOOP\r\n")]


# filter.env-reset


XFORWARD = (b"XFORWARD ADDR=192.0.2.1 HELO=mail.example", b"250 ok")


def test_filter_receives_envelope() -> None:
    dialogue = greeted()
    relayed(dialogue, *XFORWARD)
    relayed(dialogue, MAIL)
    relayed(dialogue, b"RCPT TO:<no@example>", b"550 no")
    relayed(dialogue, RCPT)
    relayed(dialogue, b"RCPT TO:<c@example>")
    send_message(dialogue)
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


def seen_by_filter(dialogue: Dialogue) -> tuple[bytes, bytes]:
    """Send a message and return the filter's HELO and REMOTEIP values."""
    begin_transaction(dialogue)
    send_message(dialogue)
    environment = dialogue.environments[-1]
    return environment[b"HELO"], environment[b"REMOTEIP"]


@pytest.mark.parametrize(
    "commands",
    [
        [],
        [(b"EHLO other.example", b"501 no")],
        [XFORWARD, (b"RSET", b"250 ok")],
        [XFORWARD, (b"EHLO client.example", b"250 ok")],
        [(XFORWARD[0], b"550 no")],
    ],
)
def test_filter_receives_hello_name_if_no_xforward_values_apply(
    commands: list[tuple[bytes, bytes]],
) -> None:
    dialogue = greeted()
    for command, reply in commands:
        relayed(dialogue, command, reply)
    assert seen_by_filter(dialogue) == (b"client.example", b"")


def test_xforward_values_expire_after_message() -> None:
    dialogue = greeted()
    relayed(dialogue, *XFORWARD)
    assert seen_by_filter(dialogue) == (b"mail.example", b"192.0.2.1")
    accept_message(dialogue)
    dialogue.client_sees(b"250 queued")
    dialogue.to_upstream.clear()
    assert seen_by_filter(dialogue) == (b"client.example", b"")


def test_refused_command_does_not_change_envelope() -> None:
    dialogue = in_transaction()
    relayed(dialogue, b"MAIL FROM:<c@example>", b"503 nested")
    send_message(dialogue)
    assert dialogue.environments[0][b"SENDER"] == b"a@example"


# filter.reject-session


def test_each_command_after_rejection_gets_one_reply() -> None:
    dialogue = rejected()
    dialogue.client_says(b"RSET", b"noop", b"QUIT")
    dialogue.client_sees(replies.OK.rstrip(), replies.OK.rstrip(), replies.BYE.rstrip())
    dialogue.is_over()


def test_command_after_rejection_causes_reconnection() -> None:
    dialogue = reconnecting()
    dialogue.nothing_is_said()
    dialogue.upstream_says(b"220 up again")
    dialogue.upstream_sees(b"EHLO client.example")
    dialogue.upstream_says(b"250-up", b"250 STARTTLS")
    dialogue.upstream_sees(MAIL)
    dialogue.upstream_says(b"250 ok")
    dialogue.client_sees(b"250 ok")


@pytest.mark.parametrize("hello", [b"EHLO new.example", b"helo new.example"])
def test_new_hello_after_rejection_replaces_earlier_hello(hello: bytes) -> None:
    dialogue = rejected()
    dialogue.client_says(hello)
    dialogue.upstream_connects()
    dialogue.upstream_says(b"220 up again")
    dialogue.upstream_sees(hello)
    dialogue.upstream_says(b"250 up")
    dialogue.client_sees(b"250 up")


def test_no_hello_is_replayed_if_client_sent_none() -> None:
    dialogue = connected()
    begin_transaction(dialogue)
    send_message(dialogue)
    dialogue.filter_ends(1, b"spam")
    dialogue.client_says(MAIL)
    dialogue.to_upstream.clear()
    dialogue.upstream_connects()
    dialogue.upstream_says(b"220 up again")
    dialogue.upstream_sees(MAIL)


def test_reconnection_does_not_wait_for_quit_reply() -> None:
    dialogue = in_filter()
    dialogue.filter_ends(1, b"spam")
    dialogue.client_sees(b"554 spam")
    dialogue.upstream_sees(b"QUIT")
    dialogue.client_says(MAIL)
    assert dialogue.connecting


def test_message_after_rejection_is_delivered() -> None:
    dialogue = replaying()
    dialogue.client_says(RCPT, b"DATA", *MESSAGE)
    for reply in (b"250 up", b"250 sender", b"250 recipient"):
        dialogue.upstream_says(reply)
    accept_message(dialogue)
    codes = [reply[:3] for reply in bytes(dialogue.to_client).splitlines()]
    assert codes == [b"250", b"250", b"354", b"250"]


def test_authenticated_client_must_reconnect_after_rejection() -> None:
    dialogue = greeted()
    relayed(dialogue, b"AUTH PLAIN x", b"235 ok")
    begin_transaction(dialogue)
    send_message(dialogue)
    dialogue.filter_ends(1, b"spam")
    dialogue.client_sees(b"554 spam")
    dialogue.upstream_sees(b"QUIT")
    dialogue.upstream_says(b"221 bye")
    dialogue.client_says(b"RSET")
    dialogue.client_sees(replies.OK.rstrip())
    dialogue.client_says(MAIL)
    dialogue.client_sees(replies.AUTHENTICATE_AGAIN.rstrip())
    dialogue.is_over(exit_status=1)
