"""Tests that the ledger detects every violation of the guarantees and accepts correct outcomes."""

from __future__ import annotations

import pytest

from tests.faults.ledger import IN_DOUBT, KEPT, VIOLATED, Delivery, Judgement, Message, judge

CONTENT = b"Subject: x\r\n\r\n..dot\r\n"
AT_REST = b"Subject: x\n\n.dot\n"
OK, LATER, NEVER = b"250 ok\r\n", b"451 later\r\n", b"550 never\r\n"


def message(
    kind: str = "accepts",
    *,
    told: bytes = OK,
    left_at: str = "",
    ended: bool = True,
    seen: list[bytes] | None = None,
    upstream: list[Delivery] | None = None,
) -> Message:
    runs = [AT_REST] if seen is None else seen
    return Message("1", kind, CONTENT, ended, told, left_at, runs, upstream or [])


def taken(content: bytes = CONTENT, answer: bytes = OK) -> Delivery:
    return Delivery(content, whole=True, answer=answer)


def judged(it: Message, *, rejecting: bool = False) -> Judgement:
    return judge(it, rejecting=rejecting)


@pytest.mark.parametrize(
    "it",
    [
        message(upstream=[taken()]),
        message("refuses", told=NEVER),
        message("discards", told=OK),
        message("fails", upstream=[taken()]),
        message("replaces", upstream=[taken(b"Subject: replaced\r\n\r\n..dot\r\nlast\r\n")]),
        message(told=LATER),
        message(told=NEVER, upstream=[taken(answer=NEVER)]),
        message(told=LATER, upstream=[Delivery(CONTENT[:5])]),
        message(told=b"", left_at="filtering"),
        message(told=b"", ended=False, seen=[]),
    ],
)
def test_correct_outcome_is_accepted(it: Message) -> None:
    assert judged(it) == Judgement(KEPT)


@pytest.mark.parametrize(
    ("it", "reason"),
    [
        (message(), "lost"),
        (message(upstream=[taken(answer=LATER)]), "lost"),
        (message(upstream=[Delivery(CONTENT[:5], answer=OK)]), "lost"),
        (message(told=LATER, upstream=[taken()]), "duplicate"),
        (message(told=b""), "no reply"),
        (message(upstream=[taken(), taken()]), "twice"),
        (message(upstream=[taken(CONTENT[:9])]), "truncated"),
        (message(upstream=[taken(CONTENT[1:])]), "truncated"),
        (message(told=LATER, upstream=[Delivery(b"Sibject")]), "different content"),
        (message("refuses", told=NEVER, upstream=[Delivery(b"S")]), "filter refused"),
        (message("fails-after-replacing", upstream=[taken(b"x\r\n")]), "truncated"),
        (message(seen=[], upstream=[taken()]), "bypassed"),
        (message(seen=[AT_REST[:5]], upstream=[taken()]), "bypassed"),
        (message(seen=[AT_REST] * 2, told=LATER), "more than once"),
        (message(ended=False, upstream=[taken()]), "did not send the end"),
        (message(told=b"", left_at="ended", upstream=[taken()]), "disconnected before"),
    ],
)
def test_wrong_outcome_counts_as_violation(it: Message, reason: str) -> None:
    judgement = judged(it)
    assert judgement.outcome == VIOLATED
    assert reason in judgement.reason


def test_filter_failure_with_reject_option_prevents_delivery() -> None:
    it = message("fails", upstream=[taken()])
    assert judged(it, rejecting=True).outcome == VIOLATED
    assert judged(message("fails", told=LATER), rejecting=True) == Judgement(KEPT)


@pytest.mark.parametrize(
    "it",
    [
        message(told=LATER, upstream=[taken(answer=b"")]),
        message(told=b"", left_at="taken", upstream=[taken()]),
    ],
)
def test_missing_final_reply_leaves_outcome_unknown(it: Message) -> None:
    assert judged(it).outcome == IN_DOUBT
