"""Session tests: DATA, the spool and the delivery of a message (data.*)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from postprox.core import log_levels, replies
from tests.unit.dialogue import (
    MAIL,
    MESSAGE,
    RCPT,
    Dialogue,
    accept_message,
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
    resetting,
    sending,
    sent,
)

Stage = Callable[[], Dialogue]

# data.recognised, data.needs-recipient, data.held


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        *((c, replies.SEND_MESSAGE) for c in (b"DATA", b"data", b"dAtA ", b" DATA", b"\tDATA \t")),
        *((c, replies.DATA_ARGUMENT) for c in (b"DATA x", b"data 5", b" DATA\tx")),
    ],
)
def test_data_command_is_answered_by_proxy(command: bytes, reply: bytes) -> None:
    dialogue = in_transaction()
    dialogue.client_says(command)
    dialogue.client_sees(reply.rstrip())
    dialogue.upstream_sees()


@pytest.mark.parametrize(
    ("commands", "reply"),
    [
        ([], replies.NEED_MAIL),
        ([(b"XFORWARD ADDR=192.0.2.1", b"250 ok")], replies.NEED_MAIL),
        ([(MAIL, b"550 no")], replies.NEED_MAIL),
        ([(MAIL, b"250 ok")], replies.NEED_RECIPIENT),
        ([(MAIL, b"250 ok"), (RCPT, b"550 no")], replies.NEED_RECIPIENT),
        ([(MAIL, b"250 ok"), (RCPT, b"450 later")], replies.NEED_RECIPIENT),
        ([(MAIL, b"250 ok"), (RCPT, b"300 odd")], replies.NEED_RECIPIENT),
        (
            [(MAIL, b"250 ok"), (RCPT, b"251 will forward"), (b"RCPT TO:<c@example>", b"550 no")],
            replies.SEND_MESSAGE,
        ),
        *(
            ([(MAIL, b"250 ok"), (RCPT, b"250 ok"), (command, b"250 ok")], replies.NEED_MAIL)
            for command in (b"RSET", b"EHLO x", b"HELO x")
        ),
        ([(MAIL, b"250 ok"), (RCPT, b"250 ok"), (b"EHLO", b"501 no")], replies.SEND_MESSAGE),
    ],
)
def test_data_command_requires_accepted_sender_and_recipient(
    commands: list[tuple[bytes, bytes]], reply: bytes
) -> None:
    dialogue = greeted()
    for command, answer in commands:
        relayed(dialogue, command, answer)
    dialogue.client_says(b"DATA")
    dialogue.client_sees(reply.rstrip())
    dialogue.upstream_sees()


@pytest.mark.parametrize("stage", [connected, rejected])
def test_data_command_without_transaction_gets_503_reply(stage: Stage) -> None:
    dialogue = stage()
    dialogue.client_says(b"DATA")
    dialogue.client_sees(replies.NEED_MAIL.rstrip())
    dialogue.upstream_sees()


def test_message_is_not_sent_before_filter_exits() -> None:
    dialogue = in_filter()
    dialogue.seconds_pass(29)
    dialogue.nothing_is_said()


def test_filter_receives_decoded_message() -> None:
    dialogue = in_data()
    dialogue.client_sends(b"..dot\r\n\r\ncaf\xe9 \0\r\n.\r\n")
    assert dialogue.messages == [b".dot\n\ncaf\xe9 \0\n"]


def test_session_state_is_receiving_until_end_of_data() -> None:
    assert not in_transaction().session.receiving
    assert in_data().session.receiving
    assert not in_filter().session.receiving


# data.final-reply, data.upstream-refuses


@pytest.mark.parametrize("filtering", [True, False])
def test_accepted_message_is_delivered_unchanged(filtering: bool) -> None:
    dialogue = in_data(filtering=filtering)
    dialogue.client_says(*MESSAGE)
    if filtering:
        dialogue.filter_ends(0)
    dialogue.upstream_sees(b"DATA")
    dialogue.upstream_says(b"354 go on")
    dialogue.upstream_sees(*MESSAGE)
    dialogue.client_sees()
    dialogue.upstream_says(b"250-2.0.0 queued", b"250 as 1234")
    dialogue.client_sees(b"250-2.0.0 queued", b"250 as 1234")
    relayed(dialogue, b"NOOP")


def test_replacement_is_delivered() -> None:
    dialogue = in_filter()
    dialogue.replacement = b"Subject: [x]\n\nbody\n"
    accept_message(dialogue)
    dialogue.upstream_sees(b"DATA", b"Subject: [x]", b"", b"body", b".")
    dialogue.client_sees(b"250 queued")


@pytest.mark.parametrize("reply", [b"250 ok", b"450 later", b"552 too big", b"421 closing"])
def test_final_reply_is_relayed_unchanged(reply: bytes) -> None:
    dialogue = sent()
    dialogue.upstream_says(reply)
    dialogue.client_sees(reply)
    assert not dialogue.client_is_hung_up


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        *((reply, reply) for reply in (b"451 later", b"554 no valid recipients", b"503 what")),
        *(
            (reply, replies.MESSAGE_UNANSWERED.rstrip())
            for reply in (b"250 ok", b"221 bye", b"334 what", b"300 odd")
        ),
    ],
)
def test_non_354_reply_to_data_command_ends_delivery(reply: bytes, expected: bytes) -> None:
    dialogue = in_delivery()
    dialogue.upstream_says(reply)
    dialogue.client_sees(expected)
    dialogue.upstream_sees()
    assert not dialogue.client_is_hung_up


def test_refused_data_is_followed_by_rset() -> None:
    dialogue = resetting()
    dialogue.upstream_says(b"250 reset")
    dialogue.upstream_sees(MAIL)
    dialogue.upstream_says(b"250 ok")
    dialogue.client_sees(b"250 ok")
    relayed(dialogue, RCPT)


def test_pipelined_transaction_after_refused_data_is_relayed() -> None:
    dialogue = in_data()
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


@pytest.mark.parametrize("command", [b"RSET", b"QUIT", b"EHLO x", b"HELO x"])
def test_proxy_omits_rset_if_client_command_resets_transaction(command: bytes) -> None:
    dialogue = in_delivery()
    dialogue.upstream_says(b"451 later")
    dialogue.client_sees(b"451 later")
    relayed(dialogue, command)
    if command != b"QUIT":
        relayed(dialogue, MAIL)


def test_upstream_refusal_before_end_of_data_ends_delivery() -> None:
    dialogue = sending()
    dialogue.upstream_says(b"552 too big")
    dialogue.client_sees(b"552 too big")
    assert not dialogue.connected
    dialogue.upstream_sees()
    assert dialogue.logged(log_levels.WARNING) == [
        "upstream refused the message before the end of data"
    ]


def test_commands_after_message_wait_for_final_reply() -> None:
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


def test_session_sent_in_one_block_is_handled() -> None:
    dialogue = greeted()
    dialogue.client_says(MAIL, RCPT, b"DATA", *MESSAGE, b"QUIT")
    dialogue.upstream_says(b"250 sender")
    dialogue.upstream_says(b"250 recipient")
    dialogue.upstream_sees(MAIL, RCPT)
    assert bytes(dialogue.to_client).startswith(lines(b"250 sender", b"250 recipient") + b"354 ")
    dialogue.to_client.clear()
    accept_message(dialogue)
    dialogue.upstream_says(b"221 bye")
    dialogue.client_sees(b"250 queued", b"221 bye")
    dialogue.upstream_sees(b"DATA", *MESSAGE, b"QUIT")
    dialogue.is_over()


def test_second_message_has_separate_envelope() -> None:
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


# data.spool-error


def test_failed_spool_causes_452_reply_instead_of_354() -> None:
    dialogue = in_transaction()
    dialogue.open_error = "/spool: No such file or directory"
    dialogue.client_says(b"DATA")
    dialogue.client_sees(replies.SPOOL_ERROR.rstrip())
    dialogue.upstream_sees()
    error = "cannot spool the message: /spool: No such file or directory"
    assert dialogue.logged(log_levels.ERROR) == [error]
    (line,) = dialogue.logged(log_levels.INFO)
    assert line.startswith("verdict=none result=deferred ")
    assert f'reply="{replies.SPOOL_ERROR.decode().rstrip()}"' in line
    dialogue.open_error = ""
    begin_data(dialogue)
    assert dialogue.logged(log_levels.INFO) == [line]


def test_upstream_eof_after_failed_spool_is_not_logged() -> None:
    dialogue = in_transaction()
    dialogue.open_error = "disk full"
    dialogue.client_says(b"DATA")
    dialogue.upstream_ends()
    assert len(dialogue.logged(log_levels.INFO)) == 1


def test_unwritable_spool_causes_452_reply_at_end_of_data() -> None:
    dialogue = in_data()
    dialogue.seal_error = "/spool: No space left on device"
    dialogue.client_says(b"Subject: x")
    dialogue.nothing_is_said()
    dialogue.client_says(b"", b"body", b".")
    dialogue.client_sees(replies.SPOOL_ERROR.rstrip())
    dialogue.upstream_sees(b"QUIT")
    assert dialogue.environments == []
    assert dialogue.logged(log_levels.INFO)[0].startswith("verdict=none result=deferred ")
    dialogue.client_says(MAIL)
    assert dialogue.connecting


def test_command_after_unwritable_spool_is_handled() -> None:
    dialogue = in_data()
    dialogue.seal_error = "/spool: No space left on device"
    dialogue.client_says(*MESSAGE, MAIL)
    dialogue.client_sees(replies.SPOOL_ERROR.rstrip())
    assert dialogue.connecting


def test_unreadable_spool_closes_upstream_connection() -> None:
    dialogue = sending()
    dialogue.spool_cannot_be_read()
    dialogue.client_sees(replies.SPOOL_ERROR.rstrip())
    dialogue.upstream_sees()
    assert not dialogue.connected
    assert not dialogue.client_is_hung_up


def test_spool_error_after_reply_is_ignored() -> None:
    dialogue = greeted()
    dialogue.session.spool_failed("/spool: Input/output error")
    assert not dialogue.session.take_actions()
    relayed(dialogue, b"NOOP")
