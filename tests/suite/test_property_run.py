"""Tests that the transcript of a random session can be run."""

from __future__ import annotations

import pytest

from tests.conformance.play.process import adopt_orphans
from tests.conformance.properties.plan import Command, Message, Plan, Verdict
from tests.conformance.properties.player import perform
from tests.conformance.properties.rules import broken
from tests.conformance.properties.script import as_transcript
from tests.conformance.run.items import suite_of
from tests.conformance.run.suite import play_once

PLAN = Plan(
    (
        Command(b"EHLO client.example"),
        Command(b"MAIL FROM:<a@example>", joined=True, address=b"a@example"),
        Command(b"RCPT TO:<b@example>", joined=True, address=b"b@example"),
        Message(b"Subject: x\r\n\r\n.\nhello\xff\0\r\n", Verdict(1, b"", b"550 no\n"), joined=True),
        Command(b"MAIL FROM:<>", joined=True, address=b"<>"),
        Command(b"RCPT TO:<b@example>", joined=True, address=b"b@example"),
        Message(b"x" * 200 + b"\r\n", Verdict(0, b"y\n.\n")),
        Command(b"QUIT", joined=True),
    ),
    cuts=((3,), (), (-1, -2, -3)),
)


def test_transcript_of_random_session_can_be_run(request: pytest.FixtureRequest) -> None:
    adopt_orphans()
    settings = suite_of(request.config).settings
    run = perform(PLAN, settings)
    assert broken(run) == []
    assert play_once(as_transcript(run, "A run written down"), "stdio", settings).failure is None
