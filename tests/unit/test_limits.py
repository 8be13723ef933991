"""Bounds that lean on each other."""

from __future__ import annotations

from postprox.core import limits


def test_a_command_line_fits_into_what_is_held() -> None:
    assert limits.COMMAND_LINE + 2 < limits.INPUT_BUFFER


def test_what_the_filter_said_last_fits_into_what_is_kept() -> None:
    assert limits.REPLY_LINE < limits.FILTER_LINE


def test_an_idle_upstream_is_kept_well_before_it_loses_patience() -> None:
    assert limits.KEEPALIVE * 3 < 300


def test_connecting_ends_before_postfix_loses_patience() -> None:
    assert limits.CONNECT < 100


def test_timeouts_towards_upstream_are_those_of_rfc_5321() -> None:
    minute = 60
    assert 5 * minute <= limits.UPSTREAM_REPLY
    assert 2 * minute <= limits.UPSTREAM_DATA
    assert 3 * minute <= limits.UPSTREAM_BLOCK
    assert 10 * minute <= limits.UPSTREAM_FINAL
    assert 5 * minute <= limits.CLIENT_IDLE


def test_a_sender_of_400_octets_a_second_passes_in_bursts_of_postfix() -> None:
    burst = 128 * 1024 / limits.MESSAGE_RATE
    assert burst < 350 < min(limits.CLIENT_IDLE, limits.MESSAGE_TIME)


def test_a_stop_ends_before_a_service_manager_kills() -> None:
    assert limits.STOP_GRACE < 90


def test_what_a_client_sends_slowly_is_not_left_by_a_killed_proxy() -> None:
    assert limits.CLIENT_IDLE * 2 <= limits.STALE == 20 * 60
    assert limits.STALE_OUTFILE == 24 * 60 * 60


def test_warnings_wait_for_the_log_but_not_for_ever() -> None:
    assert limits.LOG_BACKLOG == 64 * 1024
    assert limits.LOG_EXIT_FLUSH == 1


def test_what_ninety_clients_send_at_once_is_read_in_a_fraction_of_a_second() -> None:
    assert max(limits.READ_PER_ITERATION, 90 * limits.MIN_READ) <= 1 << 19
    assert limits.MESSAGE_READ < limits.READ_PER_ITERATION
