"""Tests that each limit is consistent with the limits on which it depends."""

from __future__ import annotations

from postprox.core import limits


def test_command_line_fits_in_input_buffer() -> None:
    assert limits.COMMAND_LINE + 2 < limits.INPUT_BUFFER


def test_filter_line_limit_exceeds_reply_line_limit() -> None:
    assert limits.REPLY_LINE < limits.FILTER_LINE


def test_keepalive_interval_is_shorter_than_upstream_idle_timeout() -> None:
    assert limits.KEEPALIVE * 3 < 300


def test_connect_timeout_is_shorter_than_postfix_timeout() -> None:
    assert limits.CONNECT < 100


def test_upstream_timeouts_follow_rfc_5321() -> None:
    minute = 60
    assert 5 * minute <= limits.UPSTREAM_REPLY
    assert 2 * minute <= limits.UPSTREAM_DATA
    assert 3 * minute <= limits.UPSTREAM_BLOCK
    assert 10 * minute <= limits.UPSTREAM_FINAL
    assert 5 * minute <= limits.CLIENT_IDLE


def test_burst_interval_at_minimum_rate_is_below_timeouts() -> None:
    burst = 128 * 1024 / limits.MESSAGE_RATE
    assert burst < 350 < min(limits.CLIENT_IDLE, limits.MESSAGE_TIME)


def test_stop_grace_period_is_below_service_manager_timeout() -> None:
    assert limits.STOP_GRACE < 90


def test_stale_file_age_exceeds_client_timeouts() -> None:
    assert limits.CLIENT_IDLE * 2 <= limits.STALE == 20 * 60
    assert limits.STALE_OUTFILE == 24 * 60 * 60


def test_log_backlog_and_exit_flush_are_bounded() -> None:
    assert limits.LOG_BACKLOG == 64 * 1024
    assert limits.LOG_EXIT_FLUSH == 1


def test_reads_per_iteration_are_bounded_for_ninety_clients() -> None:
    assert max(limits.READ_PER_ITERATION, 90 * limits.MIN_READ) <= 1 << 19
    assert limits.MESSAGE_READ < limits.READ_PER_ITERATION
