"""Session tests: log lines, counters, logged dialogues and hidden passwords (log.*)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from postprox.core import actions, log_levels, replies
from postprox.core.options import parse
from postprox.core.verdict import Outcome
from tests.unit.dialogue import (
    MAIL,
    Dialogue,
    connected,
    greeted,
    in_data,
    in_delivery,
    in_filter,
    in_transaction,
    lines,
    relayed,
    send_message,
    sending,
    sent,
)

Stage = Callable[[], Dialogue]

# log.verdict


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
def test_each_message_is_logged_exactly_once(
    status: int, last_stderr_line: bytes, reject_failures: bool, word: str, result: str
) -> None:
    dialogue = in_filter(reject_failures=reject_failures)
    dialogue.filter_ends(status, last_stderr_line)
    if dialogue.connected and not dialogue.to_client:
        dialogue.upstream_says(b"354 go on")
        assert dialogue.verdict_lines() == []
        dialogue.upstream_says(b"250 queued")
    about = 'client="" helo=client.example from=a@example to=b@example nrcpt=1 size=17 '
    (line,) = dialogue.verdict_lines()
    assert line.startswith(f"verdict={word} result={result} {about}")
    reply = bytes(dialogue.to_client).decode().strip()
    assert f' reply="{reply}" ' in line


@pytest.mark.parametrize(
    ("stage", "event", "beginning", "reply"),
    [
        (
            in_delivery,
            Dialogue.upstream_ends,
            "verdict=accept result=deferred ",
            replies.MESSAGE_LOST,
        ),
        (sending, Dialogue.upstream_ends, "verdict=accept result=deferred ", replies.MESSAGE_LOST),
        (sent, Dialogue.upstream_ends, "verdict=accept result=unknown ", replies.MESSAGE_LOST),
        (in_filter, Dialogue.is_terminated, "verdict=none result=deferred ", replies.SHUTTING_DOWN),
        (in_filter, Dialogue.client_ends, "verdict=none result=lost ", b""),
    ],
)
def test_aborted_message_is_logged(
    stage: Stage, event: Callable[[Dialogue], None], beginning: str, reply: bytes
) -> None:
    dialogue = stage()
    event(dialogue)
    (line,) = dialogue.logged(log_levels.INFO)
    assert line.startswith(beginning)
    assert f' reply="{reply.decode().strip()}" ' in line


def test_log_line_contains_durations() -> None:
    dialogue = in_filter()
    dialogue.seconds_pass(1.25)
    dialogue.filter_ends(1, b"spam")
    assert " filter=1.250 total=1.250 " in dialogue.verdict_lines()[0]


def test_log_line_omits_duration_of_unstarted_filter() -> None:
    dialogue = in_data()
    dialogue.start_error = "no process"
    dialogue.seconds_pass(7)
    dialogue.client_says(b"x", b".")
    assert "filter=0.000 total=7.000" in dialogue.logged(log_levels.INFO)[0]


def test_message_is_not_logged_again_after_upstream_eof() -> None:
    dialogue = sent()
    dialogue.upstream_says(b"250 queued")
    dialogue.client_sees(b"250 queued")
    dialogue.upstream_ends()
    dialogue.client_sees(replies.UPSTREAM_LOST.rstrip())
    assert len(dialogue.logged(log_levels.INFO)) == 1


def test_reply_precedes_log_line_and_cleanup() -> None:
    dialogue = sent()
    dialogue.upstream_says(b"250 queued")
    reply, line, cleanup = (entry.split() for entry in dialogue.history[-3:])
    assert reply[0] == "C<"
    assert line[1].startswith("Log")
    assert cleanup[1].startswith("Discard")


def test_consecutive_replies_are_sent_in_one_write() -> None:
    session = in_filter().session
    session._options.log_level = log_levels.ERROR
    session.client_received(b"RSET\r\nNOOP\r\n")
    session.filter_finished(Outcome(1, b"550 no"))
    done = session.take_actions()
    written = [action.data for action in done if isinstance(action, actions.SendToClient)]
    assert written == [b"550 no\r\n", replies.OK * 2]
    assert isinstance(done[0], actions.SendToUpstream)


@pytest.mark.parametrize("listening", [False, True])
@pytest.mark.parametrize("level", [log_levels.WARNING, log_levels.INFO])
def test_message_is_counted_only_in_listening_mode(level: int, listening: bool) -> None:
    dialogue = in_filter()
    dialogue.session._options.log_level = level
    dialogue.session._options.listen = ("127.0.0.1", 25) if listening else None
    dialogue.filter_ends(1, b"550 no")
    assert len(dialogue.logged(log_levels.INFO)) == (level == log_levels.INFO)
    counted = [actions.CountMessage("reject", "refused", 17, 0.0)] if listening else []
    assert dialogue.counted == counted


def test_informational_line_is_not_logged_at_warning_level() -> None:
    dialogue = in_transaction()
    dialogue.session._options.log_level = log_levels.WARNING
    dialogue.log.clear()
    send_message(dialogue)
    dialogue.filter_ends(1, b"spam")
    assert dialogue.log == []


def test_clock_runs_in_real_time_by_default() -> None:
    assert parse(["127.0.0.1:25"]).clock_speed == 1


# Logged dialogue without passwords


def test_command_and_reply_are_logged_verbatim() -> None:
    dialogue = connected()
    relayed(dialogue, MAIL, b"250 fine")
    assert dialogue.logged(log_levels.DEBUG) == [
        f"upstream: {lines(b'220 up ESMTP')!r}",
        f"client: {MAIL!r}",
        f"upstream: {lines(b'250 fine')!r}",
    ]


COMMANDS = (
    b"EHLO HELO MAIL RCPT DATA RSET NOOP QUIT VRFY EXPN ETRN HELP XFORWARD STARTTLS BDAT BURL"
)


@pytest.mark.parametrize(
    ("line", "logged"),
    [
        *(
            (verb + b" x", verb + b" x")
            for verb in (*COMMANDS.split(), b"XCLIENT", b"XEXCH50", b"LHLO")
        ),
        (b"AUTH PLAIN AGEAYgBj", b"AUTH"),
        (b"AUT AGEAYgBj", b"(unknown)"),
    ],
)
def test_unknown_command_and_auth_argument_are_not_logged(line: bytes, logged: bytes) -> None:
    dialogue = greeted()
    dialogue.client_says(line)
    assert (log_levels.DEBUG, f"client: {logged!r}") in dialogue.log


@pytest.mark.parametrize(
    "exchange",
    [
        [(b"AUTH PLAIN SECRET", b"235 ok")],
        [(b" auth plain SECRET", b"334 SECRET"), (b"SECRET", b"235 ok")],
        [(b"AUTH PLAIN SECRET", b"334 SECRET"), (b"SECRET", b"334 "), (b"SECRET", b"535 no")],
        [(b"AUTH=PLAIN SECRET", b"500 5.5.2 what is SECRET")],
        [(b"AUT PLAIN SECRET", b"500 5.5.2 what is SECRET")],
    ],
)
def test_auth_exchange_is_logged_without_secrets(exchange: list[tuple[bytes, bytes]]) -> None:
    dialogue = greeted()
    for line, reply in exchange:
        relayed(dialogue, line, reply)
    assert not any("SECRET" in text for _, text in dialogue.log)


def test_response_after_refused_auth_is_not_logged() -> None:
    dialogue = greeted()
    dialogue.client_says(b"AUTH LOGIN", b"c2VjcmV0")
    dialogue.upstream_sees(b"AUTH LOGIN")
    dialogue.upstream_says(b"504 5.5.4 not this one")
    dialogue.upstream_sees(b"c2VjcmV0")
    dialogue.upstream_says(b"500 5.5.2 what is c2VjcmV0")
    assert not any("c2VjcmV0" in text for _, text in dialogue.log)
    assert (log_levels.DEBUG, "upstream: b'500'") in dialogue.log
