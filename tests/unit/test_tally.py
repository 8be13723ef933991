"""What a server has done, in numbers."""

from __future__ import annotations

from postprox.core.tally import SECONDS, Tally


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


def test_every_number_has_its_type_and_meaning_before_it() -> None:
    tally = Tally()
    assert tally.exposition({"sessions": ("gauge", "Clients.", 3)}).startswith(
        "# HELP postprox_sessions Clients.\n# TYPE postprox_sessions gauge\npostprox_sessions 3\n"
    )
    assert tally.exposition({}).endswith("\n")
