"""Tests that traffic occupies a session slot for as long as SECURITY.md states (relay.idle)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from postprox.core import limits
from tests.unit.dialogue import (
    Dialogue,
    connected,
    greeted,
    in_data,
    in_transaction,
    relayed,
    time_passes_in_data,
)

pytestmark = pytest.mark.any_account

PAGE = " ".join((Path(__file__).parents[2] / "SECURITY.md").read_text().split())
HOUR, DAY = 60 * 60, 24 * 60 * 60
BEGAN = Dialogue().now
#: The seconds between the last input and the timeout.
SHORTLY = 0.5


@pytest.mark.parametrize("stage", [connected, in_transaction, in_data])
def test_idle_client_occupies_slot_for_600_seconds(stage: Callable[[], Dialogue]) -> None:
    dialogue = stage()
    time_passes_in_data(dialogue, DAY)
    assert dialogue.client_is_hung_up
    assert f"for {dialogue.now - BEGAN:.0f} s without sending an octet" in PAGE


def test_client_that_sends_one_command_per_600_seconds_keeps_slot() -> None:
    dialogue = greeted()
    octets = 0
    while dialogue.now < BEGAN + DAY - 600:
        dialogue.seconds_pass(600 - SHORTLY)
        relayed(dialogue, b"NOOP")
        octets += len(b"NOOP\r\n")
    assert f"{octets} octets a day" in PAGE
    slots = limits.SESSIONS
    assert f"{octets * slots / DAY:.0f} octet a second for {slots} slots" in PAGE


def test_400_octets_per_second_keep_slot_occupied() -> None:
    dialogue = in_data()
    octets = 0
    while dialogue.now < BEGAN + DAY:
        time_passes_in_data(dialogue, 600 - SHORTLY)
        paid = round(dialogue.now - BEGAN - octets / 400 + SHORTLY) * 400
        dialogue.client_sends(b"x" * paid)
        octets += paid
    assert not dialogue.client_is_hung_up
    assert f"{octets / 1e6:.0f} MB a day" in PAGE
    slots = limits.SESSIONS
    assert f"{octets * slots / DAY / 1000:.0f} KB a second for {slots} slots" in PAGE


def test_postfix_message_occupies_slot_for_documented_time() -> None:
    message_size_limit = 10_240_000  # Postfix's default
    hours = (limits.MESSAGE_TIME + message_size_limit / limits.MESSAGE_RATE) / HOUR
    assert f"{hours:.1f} hours" in PAGE
