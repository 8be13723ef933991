"""size-limit.sh and forged-sender.sh, which ask nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import MESSAGE, Filter, command


@pytest.mark.parametrize(("limit", "status"), [(len(MESSAGE), 0), (len(MESSAGE) - 1, 1)])
def test_size_limit(run: Filter, limit: int, status: int) -> None:
    assert run(command("size-limit.sh", limit)).status == status


def test_size_limit_says_how_much_is_too_much(run: Filter) -> None:
    reply = "552 5.3.4 The message is too large: 56 octets, and we take 10"
    assert run(command("size-limit.sh", 10), b"Subject: x\n" + b"x" * 45).reply == reply


@pytest.mark.parametrize("limit", ["", "10M", "-1"])
def test_size_limit_that_is_no_number_is_named(run: Filter, limit: str) -> None:
    ended = run(command("size-limit.sh", limit))
    assert (ended.status, f"'{limit}'" in ended.reply) == (2, True)


def test_size_limit_fails_without_a_message(run: Filter) -> None:
    assert run.again(command("size-limit.sh", 1000)).status == 2


@pytest.mark.parametrize(
    ("envelope", "status"),
    [
        ({}, 0),
        ({"SENDER": "boss@Example.ORG"}, 1),
        ({"SENDER": "boss@not-example.org"}, 0),
        ({"HELO": "example.org"}, 1),
        ({"HELO": "MX.example.org"}, 1),
        ({"HELO": "example.org.example.net"}, 0),
        ({"SENDER": "boss@example.org", "REMOTEIP": "10.1.2.3"}, 0),
        ({"SENDER": "boss@example.org", "REMOTEIP": ""}, 0),
        ({"SENDER": "<>", "HELO": "-n * $(exit 3)"}, 0),
    ],
)
def test_forged_sender(run: Filter, envelope: dict[str, str], status: int) -> None:
    assert run(command("forged-sender.sh", "example.org"), MESSAGE, **envelope).status == status


def test_forged_sender_fails_without_tr(run: Filter, tmp_path: Path) -> None:
    ended = run(command("forged-sender.sh", "example.org"), PATH=str(tmp_path))
    assert ended.status == 2


def test_forged_sender_wants_a_domain(run: Filter) -> None:
    assert run(command("forged-sender.sh")).status == 2
