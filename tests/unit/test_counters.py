"""What a server has done, in numbers."""

from __future__ import annotations

from postprox.core.counters import SECONDS, Tally


def test_messages_are_counted_by_verdict_and_result() -> None:
    tally = Tally()
    for _ in range(2):
        tally.count("accept", "delivered", 0.0)
    tally.count("accept", "deferred", 0.0)
    lines = tally.exposition({}).splitlines()
    assert 'postprox_messages_total{verdict="accept",result="delivered"} 2' in lines
    assert 'postprox_messages_total{verdict="accept",result="deferred"} 1' in lines


def test_the_verdicts_in_words() -> None:
    tally = Tally()
    assert tally.words == ""
    for verdict, result in [("reject", "refused"), ("accept", "delivered"), ("accept", "lost")]:
        tally.count(verdict, result, 0.0)
    assert tally.words == "accept 2, reject 1"


def test_a_filters_seconds_are_within_every_bound_that_is_not_below_them() -> None:
    assert SECONDS == (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 100.0)
    tally = Tally()
    tally.count("accept", "delivered", 0.1)
    tally.count("accept", "delivered", 1000.0)
    lines = tally.exposition({}).splitlines()
    within = [f'postprox_filter_seconds_bucket{{le="{s:g}"}} {int(s >= 0.1)}' for s in SECONDS]
    assert [line for line in lines if "_bucket" in line] == [
        *within,
        'postprox_filter_seconds_bucket{le="+Inf"} 2',
    ]
    assert "postprox_filter_seconds_sum 1000.100" in lines
    assert "postprox_filter_seconds_count 2" in lines


def test_a_message_that_no_filter_saw_has_no_seconds() -> None:
    tally = Tally()
    tally.count("none", "delivered", 0.0)
    assert "postprox_filter_seconds_count 0" in tally.exposition({}).splitlines()


def test_the_whole_text() -> None:
    tally = Tally()
    tally.count("reject", "refused", 0.5)
    present = {"sessions": ("gauge", "Clients.", 3), "waiting": ("gauge", "They wait.", 0)}
    assert tally.exposition(present).splitlines() == [
        "# HELP postprox_sessions Clients.",
        "# TYPE postprox_sessions gauge",
        "postprox_sessions 3",
        "# HELP postprox_waiting They wait.",
        "# TYPE postprox_waiting gauge",
        "postprox_waiting 0",
        "# HELP postprox_messages_total Messages by verdict and result.",
        "# TYPE postprox_messages_total counter",
        'postprox_messages_total{verdict="reject",result="refused"} 1',
        "# HELP postprox_filter_seconds How long filters ran.",
        "# TYPE postprox_filter_seconds histogram",
        *(f'postprox_filter_seconds_bucket{{le="{s:g}"}} {int(s >= 0.5)}' for s in SECONDS),
        'postprox_filter_seconds_bucket{le="+Inf"} 1',
        "postprox_filter_seconds_sum 0.500",
        "postprox_filter_seconds_count 1",
    ]


def test_the_text_ends_with_a_line_end() -> None:
    assert Tally().exposition({}).endswith("\n")
