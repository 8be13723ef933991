"""size-limit.sh, which uses no server."""

from __future__ import annotations

import pytest

from .conftest import MESSAGE, Filter, command


@pytest.mark.parametrize(("limit", "status"), [(len(MESSAGE), 0), (len(MESSAGE) - 1, 1)])
def test_size_limit_determines_exit_status(run: Filter, limit: int, status: int) -> None:
    assert run(command("size-limit.sh", limit)).status == status


def test_rejection_reply_contains_size_and_limit(run: Filter) -> None:
    reply = "552 5.3.4 The message is too large: 56 octets, but the limit is 10"
    assert run(command("size-limit.sh", 10), b"Subject: x\n" + b"x" * 45).reply == reply


@pytest.mark.parametrize("limit", ["", "10M", "-1", "9" * 16, "9" * 30, "1 -o 1", "1\t2"])
def test_invalid_size_limit_is_reported(run: Filter, limit: str) -> None:
    ended = run(command("size-limit.sh", limit))
    assert (ended.status, f"'{limit}'" in ended.reply) == (2, True)


def test_nul_octets_count_towards_message_size(run: Filter) -> None:
    assert run(command("size-limit.sh", 10), b"\0" * 11).status == 1


@pytest.mark.parametrize("email", ["", "-x", "/", "/nonexistent"])
def test_invalid_email_path_results_in_status_2(run: Filter, email: str) -> None:
    assert run(command("size-limit.sh", 10), EMAIL=email).status == 2


def test_missing_message_results_in_status_2(run: Filter) -> None:
    assert run.again(command("size-limit.sh", 1000)).status == 2
