"""Tests of the error message for a failed check in `Dialogue`."""

from __future__ import annotations

import pytest

from postprox.core import states
from postprox.core.options import Options
from tests.unit.dialogue import RecordingSession, UnexpectedError, connected, in_filter


def test_failure_message_shows_both_sides() -> None:
    dialogue = connected()
    dialogue.client_says(b"NOOP")
    dialogue.upstream_says(b"250 fine")
    with pytest.raises(UnexpectedError) as failure:
        dialogue.client_sees(b"250 ok")
    assert str(failure.value) == "\n".join(
        (
            r"the client should see",
            r"  250 ok\r\n",
            r"but saw",
            r"  250 fine\r\n",
            r"",
            r"Dialogue, with the session state at each event:",
            r"  connecting     P> a client connects",
            r"                 P< ConnectUpstream()",
            r"  connecting     U> @connect",
            r"  connecting     U> 220 up ESMTP\r\n",
            r"""                 P< Log(7, "upstream: b'220 up ESMTP\\r\\n'")""",
            r"                 C< 220 up ESMTP\r\n",
            r"  command        C> NOOP\r\n",
            r"""                 P< Log(7, "client: b'NOOP'")""",
            r"                 U< NOOP\r\n",
            r"  awaiting_reply U> 250 fine\r\n",
            r"""                 P< Log(7, "upstream: b'250 fine\\r\\n'")""",
            r"                 C< 250 fine\r\n",
        )
    )


def test_failure_message_shows_filter_and_time() -> None:
    dialogue = in_filter()
    dialogue.seconds_pass(20)
    dialogue.filter_ends(1, b"spam")
    dialogue.seconds_pass(5)
    with pytest.raises(UnexpectedError) as failure:
        dialogue.upstream_says(b"221 bye")
    told = str(failure.value)
    assert told.startswith("the upstream connection is closed\n\n")
    assert "  filtering      F> ends: 1 spam\n" in told
    assert r"                 C< 554 spam\r\n" in told
    assert "  command        P> 5 s have passed\n" in told
    assert told.endswith("                 P< CloseUpstream()")


def test_long_input_is_truncated() -> None:
    dialogue = connected()
    dialogue.client_sends(b"x" * 1000)
    assert dialogue.history[-1] == f"  command        C> {'x' * 200} ... and 800 more"


def test_session_exception_includes_dialogue() -> None:
    dialogue = connected()
    dialogue.filter_runs = True
    with pytest.raises(AssertionError, match="no message is in progress") as failure:
        dialogue.filter_ends(1, b"spam")
    assert failure.value.__notes__[0].endswith("  command        F> ends: 1 spam")


def test_unknown_transition_raises_error() -> None:
    session = RecordingSession(Options(), lambda: 0.0)
    with pytest.raises(AssertionError, match="no transition from connecting to delivering"):
        session._set_state(states.DELIVERING)
    assert session.transitions == []
