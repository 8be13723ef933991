"""Session tests: client disconnects during a message (data.client-lost)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from postprox.core import replies
from tests.unit.dialogue import (
    MAIL,
    MESSAGE,
    RCPT,
    Dialogue,
    greeted,
    in_data,
    in_delivery,
    in_filter,
    lines,
    sending,
    sent,
)

Stage = Callable[[], Dialogue]


@pytest.mark.parametrize(
    "octets", [b"", b"Subject: x\r\n", b"Subject: x\r\nQUIT\r\n", b"QUIT\r\n", b".\r"]
)
def test_client_eof_in_data_aborts_message(octets: bytes) -> None:
    dialogue = in_data()
    if octets:
        dialogue.client_sends(octets)
    dialogue.client_ends()
    dialogue.is_over_after_goodbye()
    assert dialogue.messages == []


def test_client_eof_kills_filter() -> None:
    dialogue = in_filter()
    dialogue.client_ends()
    dialogue.filter_is_gone()
    dialogue.is_over_after_goodbye()


@pytest.mark.parametrize("stage", [in_delivery, sending])
def test_client_eof_aborts_delivery(stage: Stage) -> None:
    dialogue = stage()
    dialogue.client_ends()
    dialogue.is_over()


def test_proxy_awaits_final_reply_after_client_eof() -> None:
    dialogue = sent()
    dialogue.client_ends()
    dialogue.nothing_is_said()
    assert not dialogue.session.client_gone
    dialogue.upstream_says(b"250 queued")
    dialogue.client_sees(b"250 queued")
    dialogue.is_over_after_goodbye()


@pytest.mark.parametrize("behind", [b"QUIT\r\n", b"NOOP\r\nquit\r\n", b" QUIT\n"])
def test_quit_before_client_eof_prevents_abort(behind: bytes) -> None:
    dialogue = in_data()
    dialogue.client_sends(lines(*MESSAGE) + behind)
    dialogue.client_ends()
    dialogue.filter_is_running()
    assert not dialogue.session.client_gone
    dialogue.filter_ends(0)
    dialogue.upstream_sees(b"DATA")
    dialogue.upstream_says(b"354 go on")
    dialogue.seconds_pass(599)
    dialogue.upstream_says(b"250 queued")
    dialogue.client_sees(b"250 queued")


def test_quit_before_client_eof_is_answered() -> None:
    dialogue = in_filter()
    dialogue.client_says(b"QUIT")
    dialogue.client_ends()
    dialogue.filter_ends(1, b"550 no")
    dialogue.client_sees(b"550 no", replies.BYE.rstrip())


@pytest.mark.parametrize("behind", [b"NOOP\r\n", b"QUIT", b"RSET\r\nQUI"])
def test_only_complete_quit_prevents_abort_at_client_eof(behind: bytes) -> None:
    dialogue = in_data()
    dialogue.client_sends(lines(*MESSAGE) + behind)
    dialogue.client_ends()
    dialogue.is_over_after_goodbye()


def test_quit_in_bdat_content_does_not_prevent_abort() -> None:
    dialogue = in_filter()
    dialogue.client_says(b"BDAT 6", b"QUIT")
    dialogue.client_ends()
    dialogue.filter_is_gone()
    assert dialogue.deliveries == 0


def sent_ahead(*, filtering: bool, quits: bool) -> Dialogue:
    """Return a dialogue whose client sent all commands and EOF before the greeting."""
    dialogue = Dialogue(filtering=filtering)
    dialogue.client_says(b"HELO x", MAIL, RCPT, b"DATA", *MESSAGE, *([b"QUIT"] if quits else []))
    dialogue.client_ends()
    dialogue.upstream_connects()
    for reply in (b"220 up", b"250 up", b"250 ok", b"250 ok"):
        dialogue.upstream_says(reply)
    return dialogue


def test_pipelined_message_with_quit_survives_client_eof() -> None:
    dialogue = sent_ahead(filtering=True, quits=True)
    dialogue.to_client.clear()
    dialogue.filter_ends(1, b"spam")
    dialogue.client_sees(b"554 spam", replies.BYE.rstrip())
    dialogue.to_upstream.clear()
    dialogue.upstream_ends()
    dialogue.is_over()


@pytest.mark.parametrize("filtering", [True, False])
def test_pipelined_message_is_aborted_if_client_sends_no_quit(filtering: bool) -> None:
    dialogue = sent_ahead(filtering=filtering, quits=False)
    dialogue.to_client.clear()
    dialogue.upstream_sees(b"HELO x", MAIL, RCPT, b"QUIT")
    dialogue.upstream_ends()
    dialogue.is_over()
    assert dialogue.environments == []


# Connection reset


@pytest.mark.parametrize("stage", [greeted, in_data, in_filter, in_delivery, sending])
def test_client_reset_ends_session(stage: Stage) -> None:
    dialogue = stage()
    dialogue.client_is_reset()
    assert dialogue.client_is_hung_up
    assert dialogue.deliveries == 0
    assert dialogue.to_client == b""


def test_client_reset_discards_buffered_commands() -> None:
    dialogue = greeted()
    dialogue.client_says(b"NOOP", MAIL)
    dialogue.client_is_reset()
    assert MAIL + b"\r\n" not in dialogue.commands


def test_client_reset_aborts_message_despite_quit() -> None:
    dialogue = in_filter()
    dialogue.client_says(b"QUIT")
    dialogue.client_is_reset()
    dialogue.filter_is_gone()
    assert dialogue.session.client_closed


def test_client_reset_causes_no_second_quit() -> None:
    dialogue = greeted()
    dialogue.client_says(b"QUIT")
    dialogue.client_is_reset()
    dialogue.is_over_after_goodbye()


def test_proxy_awaits_final_reply_after_client_resets_connection() -> None:
    dialogue = sent()
    dialogue.client_is_reset()
    dialogue.upstream_says(b"250 queued")
    assert " result=delivered " in dialogue.verdict_lines()[0]
