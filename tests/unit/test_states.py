"""Tests of the transition table with one dialogue for each transition.

`Session` rejects every other transition, here and in the random sessions of
`test_session_properties`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from postprox.core.states import (
    AUTH_RESPONSE,
    AWAITING_REPLY,
    CLOSED,
    COMMAND,
    CONNECTING,
    DELIVERING,
    FILTERING,
    OPENING_SPOOL,
    RECEIVING,
    TRANSITIONS,
)
from tests.unit.dialogue import (
    Dialogue,
    connected,
    in_data,
    in_delivery,
    in_filter,
    in_transaction,
    rejected,
    sent,
)


def after(begin: Callable[..., Dialogue], *happens: Callable[[Dialogue], None]) -> Dialogue:
    dialogue = begin()
    for event in happens:
        event(dialogue)
    return dialogue


def says(*texts: bytes) -> Callable[[Dialogue], None]:
    return lambda dialogue: dialogue.client_says(*texts)


def hears(*texts: bytes) -> Callable[[Dialogue], None]:
    return lambda dialogue: dialogue.upstream_says(*texts)


def asked_for_an_answer() -> Dialogue:
    return after(connected, says(b"AUTH LOGIN"), hears(b"334 VXNlcg=="))


def is_refused(dialogue: Dialogue) -> None:
    dialogue.filter_ends(1, b"spam")


def passes(dialogue: Dialogue) -> None:
    dialogue.filter_ends(0)


def has_no_spool(dialogue: Dialogue) -> None:
    dialogue.open_error = "No space left on device"


def has_a_fault(dialogue: Dialogue) -> None:
    """Crash the session before it opens the spool for a message."""
    dialogue.session.client_received(b"DATA\r\n")
    dialogue.session.take_actions()
    dialogue.has_a_fault()


DIALOGUES: dict[tuple[str, str], Callable[[], Dialogue]] = {
    (CONNECTING, COMMAND): lambda: after(Dialogue, Dialogue.upstream_connects, hears(b"220 up")),
    (CONNECTING, AWAITING_REPLY): lambda: after(
        rejected,
        says(b"MAIL FROM:<a@example>"),
        Dialogue.upstream_connects,
        hears(b"220 up"),
        hears(b"250 up"),
    ),
    (CONNECTING, CLOSED): lambda: after(Dialogue, Dialogue.upstream_fails),
    (COMMAND, COMMAND): lambda: after(connected, says(b"STARTTLS")),
    (COMMAND, AWAITING_REPLY): lambda: after(connected, says(b"NOOP")),
    (COMMAND, CONNECTING): lambda: after(rejected, says(b"MAIL FROM:<a@example>")),
    (COMMAND, OPENING_SPOOL): in_data,
    (COMMAND, CLOSED): lambda: after(connected, Dialogue.client_ends),
    (AUTH_RESPONSE, AWAITING_REPLY): lambda: after(asked_for_an_answer, says(b"dXNlcg==")),
    (AUTH_RESPONSE, CLOSED): lambda: after(asked_for_an_answer, Dialogue.client_ends),
    (AWAITING_REPLY, COMMAND): lambda: after(connected, says(b"NOOP"), hears(b"250 ok")),
    (AWAITING_REPLY, AUTH_RESPONSE): lambda: after(
        connected, says(b"AUTH LOGIN"), hears(b"334 VXNlcg==")
    ),
    (AWAITING_REPLY, AWAITING_REPLY): lambda: after(
        in_delivery, hears(b"450 no"), says(b"NOOP"), hears(b"250 ok")
    ),
    (AWAITING_REPLY, CLOSED): lambda: after(connected, says(b"NOOP"), Dialogue.upstream_ends),
    (OPENING_SPOOL, RECEIVING): in_data,
    (OPENING_SPOOL, COMMAND): lambda: after(in_transaction, has_no_spool, says(b"DATA")),
    (OPENING_SPOOL, CLOSED): lambda: after(in_transaction, has_a_fault),
    (RECEIVING, FILTERING): lambda: after(in_data, says(b".")),
    (RECEIVING, CLOSED): lambda: after(in_data, Dialogue.client_ends),
    (FILTERING, DELIVERING): lambda: after(in_filter, passes),
    (FILTERING, COMMAND): lambda: after(in_filter, is_refused),
    (FILTERING, CLOSED): lambda: after(in_filter, Dialogue.client_ends),
    (DELIVERING, COMMAND): lambda: after(sent, hears(b"250 queued")),
    (DELIVERING, CLOSED): lambda: after(sent, Dialogue.upstream_ends),
}
PAIRS = [(state, following) for state, them in TRANSITIONS.items() for following in them]


@pytest.mark.parametrize("pair", PAIRS, ids=" to ".join)
def test_dialogue_causes_transition(pair: tuple[str, str]) -> None:
    assert pair in DIALOGUES[pair]().session.transitions


def test_each_transition_is_covered_by_dialogue() -> None:
    assert DIALOGUES.keys() == set(PAIRS)


def test_each_state_is_reachable() -> None:
    reached = {following for state, following in PAIRS if state != following}
    assert reached | {CONNECTING} == TRANSITIONS.keys()


def test_each_state_has_transition_to_closed() -> None:
    assert all(CLOSED in them for state, them in TRANSITIONS.items() if state != CLOSED)
