"""Tests of a server's counters."""

from __future__ import annotations

from postprox import __version__
from postprox.core.counters import SECONDS, Counters


def test_messages_are_counted_by_verdict_and_result() -> None:
    counters = Counters()
    for _ in range(2):
        counters.count("accept", "delivered", 0, 0.0)
    counters.count("accept", "deferred", 0, 0.0)
    lines = counters.prometheus_text({}).splitlines()
    assert 'postprox_messages_total{verdict="accept",result="delivered"} 2' in lines
    assert 'postprox_messages_total{verdict="accept",result="deferred"} 1' in lines


def test_summary_lists_verdict_counts() -> None:
    counters = Counters()
    assert counters.summary == ""
    for verdict, result in [("reject", "refused"), ("accept", "delivered"), ("accept", "lost")]:
        counters.count(verdict, result, 0, 0.0)
    assert counters.summary == "accept 2, reject 1"


def test_filter_seconds_are_counted_in_matching_buckets() -> None:
    assert SECONDS == (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 100.0)
    counters = Counters()
    counters.count("accept", "delivered", 0, 0.1)
    counters.count("accept", "delivered", 0, 1000.0)
    lines = counters.prometheus_text({}).splitlines()
    within = [f'postprox_filter_seconds_bucket{{le="{s:g}"}} {int(s >= 0.1)}' for s in SECONDS]
    assert [line for line in lines if "_bucket" in line] == [
        *within,
        'postprox_filter_seconds_bucket{le="+Inf"} 2',
    ]
    assert "postprox_filter_seconds_sum 1000.100" in lines
    assert "postprox_filter_seconds_count 2" in lines


def test_message_sizes_are_added_up() -> None:
    counters = Counters()
    assert "postprox_message_bytes_total 0" in counters.prometheus_text({}).splitlines()
    counters.count("accept", "delivered", 5_000_000_000, 0.1)
    counters.count("none", "lost", 17, 0.0)
    assert "postprox_message_bytes_total 5000000017" in counters.prometheus_text({}).splitlines()


def test_unfiltered_message_has_no_filter_seconds() -> None:
    counters = Counters()
    counters.count("none", "delivered", 0, 0.0)
    assert "postprox_filter_seconds_count 0" in counters.prometheus_text({}).splitlines()


def test_metrics_text_is_complete() -> None:
    counters = Counters()
    counters.count("reject", "refused", 9, 0.5)
    present: dict[str, tuple[str, str, float]] = {
        "sessions": ("gauge", "Clients.", 3),
        "waiting": ("gauge", "They wait.", 0),
    }
    assert counters.prometheus_text(present).splitlines() == [
        "# HELP postprox_build_info Version of postprox.",
        "# TYPE postprox_build_info gauge",
        f'postprox_build_info{{version="{__version__}"}} 1',
        "# HELP postprox_sessions Clients.",
        "# TYPE postprox_sessions gauge",
        "postprox_sessions 3",
        "# HELP postprox_waiting They wait.",
        "# TYPE postprox_waiting gauge",
        "postprox_waiting 0",
        "# HELP postprox_messages_total Messages by verdict and result.",
        "# TYPE postprox_messages_total counter",
        'postprox_messages_total{verdict="reject",result="refused"} 1',
        "# HELP postprox_message_bytes_total Octets in messages, counted with LF line endings.",
        "# TYPE postprox_message_bytes_total counter",
        "postprox_message_bytes_total 9",
        "# HELP postprox_filter_seconds Filter run time in seconds.",
        "# TYPE postprox_filter_seconds histogram",
        *(f'postprox_filter_seconds_bucket{{le="{s:g}"}} {int(s >= 0.5)}' for s in SECONDS),
        'postprox_filter_seconds_bucket{le="+Inf"} 1',
        "postprox_filter_seconds_sum 0.500",
        "postprox_filter_seconds_count 1",
    ]


def test_metrics_text_ends_with_newline() -> None:
    assert Counters().prometheus_text({}).endswith("\n")
