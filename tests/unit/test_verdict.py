"""Tests of the verdict and the reply for each filter outcome."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postprox.core import limits
from postprox.core.replies import FILTER_FAILED
from postprox.core.verdict import LastLine, Outcome, judge, rejection

OWN_TEXT = b"554 5.7.1 Message rejected by the mail filter\r\n"


def last_stderr_line(text: bytes) -> bytes:
    reader = LastLine()
    reader.feed(text)
    return reader.value


@pytest.mark.parametrize(
    ("outcome", "reject_failures", "action", "reply"),
    [
        (Outcome(0), False, "accept", b""),
        (Outcome(0), True, "accept", b""),
        (Outcome(0, b"550 no"), False, "accept", b""),
        (Outcome(0, replaced=True), False, "rewrite", b""),
        (Outcome(0, replaced=True), True, "rewrite", b""),
        (Outcome(0, failure="OUTFILE is not a regular file"), False, "fail-open", b""),
        (Outcome(0, failure="OUTFILE is not a regular file"), True, "fail", FILTER_FAILED),
        (Outcome(1, b"spam found"), False, "reject", b"554 spam found\r\n"),
        (Outcome(1, b"spam found"), True, "reject", b"554 spam found\r\n"),
        (Outcome(1, b"450 later"), False, "reject", b"450 later\r\n"),
        (Outcome(1, b"250 taken"), False, "discard", b"250 taken\r\n"),
        (Outcome(1, b"2500 taken"), False, "reject", b"554 2500 taken\r\n"),
        (Outcome(1, b"354 more"), False, "reject", b"354 more\r\n"),
        (Outcome(1), False, "reject", OWN_TEXT),
        (Outcome(2, b"550 no"), False, "fail-open", b""),
        (Outcome(2, b"550 no"), True, "fail", FILTER_FAILED),
        (Outcome(126), False, "fail-open", b""),
        (Outcome(127), True, "fail", FILTER_FAILED),
        (Outcome(255), False, "fail-open", b""),
        (Outcome(255, replaced=True), True, "fail", FILTER_FAILED),
        (Outcome(failure="killed by signal 9"), False, "fail-open", b""),
        (Outcome(failure="killed by signal 9"), True, "fail", FILTER_FAILED),
        (Outcome(failure="timed out after 30 s"), False, "fail-open", b""),
    ],
)
def test_filter_outcome_determines_action_and_reply(
    outcome: Outcome, reject_failures: bool, action: str, reply: bytes
) -> None:
    verdict = judge(outcome, reject_failures=reject_failures)
    assert (verdict.action, verdict.reply) == (action, reply)


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (Outcome(0), ""),
        (Outcome(1), ""),
        (Outcome(2), "exit status 2"),
        (Outcome(126), "exit status 126 (the command cannot be executed)"),
        (Outcome(127), "exit status 127 (the command was not found)"),
        (Outcome(failure="killed by signal 15"), "killed by signal 15"),
        (Outcome(0, failure="OUTFILE is not a regular file"), "OUTFILE is not a regular file"),
    ],
)
@pytest.mark.parametrize("reject_failures", [False, True])
def test_only_failures_have_a_reason(outcome: Outcome, reason: str, reject_failures: bool) -> None:
    assert judge(outcome, reject_failures=reject_failures).reason == reason


def test_default_outcome_is_empty() -> None:
    end = Outcome()
    assert (end.status, end.last_stderr_line, end.failure) == (None, b"", "")
    assert (end.replaced, end.out_of_resources) == (False, False)


@pytest.mark.parametrize(
    ("status", "reject_failures"), [(0, False), (1, False), (2, False), (2, True)]
)
def test_verdict_always_contains_filter_output(status: int, reject_failures: bool) -> None:
    assert judge(Outcome(status, b"550 no"), reject_failures=reject_failures).said == b"550 no"


@pytest.mark.parametrize(
    ("line", "rejects"),
    [
        (b"250 x", True),
        (b"450 x", True),
        (b"550 x", True),
        (b"550 ", True),
        (b"350 x", False),
        (b"5x0 x", False),
        (b"55x x", False),
        (b"550x", False),
        (b"x50 x", False),
        (b"x", False),
        (b"", False),
    ],
)
def test_strict_rejection_requires_2yz_4yz_or_5yz_reply_code(line: bytes, rejects: bool) -> None:
    reason = judge(Outcome(1, line), reject_failures=True, strict=True).reason
    assert reason == ("" if rejects else "exit status 1 without a reply code (--strict)")


def test_filter_failure_reply_has_code_451() -> None:
    assert FILTER_FAILED.startswith(b"451 ")
    assert FILTER_FAILED.endswith(b"\r\n")


PREFIX_RULE = [
    pytest.param(b"550 x\n", b"550 x", id="code-and-space"),
    pytest.param(b"550-x\n", b"554 550-x", id="code-and-hyphen"),
    pytest.param(b"55 x\n", b"554 55 x", id="two-digits"),
    pytest.param(b"5501 x\n", b"554 5501 x", id="four-digits"),
    pytest.param(b"550\n", b"554 550", id="only-code"),
    pytest.param(b"550 \n", b"550 ", id="only-code-and-space"),
    pytest.param(b"550\tx\n", b"554 550?x", id="code-and-tab"),
    pytest.param(b" 550 x\n", b"554  550 x", id="leading-space"),
    pytest.param(b"999 x\n", b"999 x", id="invalid-smtp-code"),
    pytest.param(b"000 x\n", b"000 x", id="zeros"),
    pytest.param(b"250 x\n", b"250 x", id="positive"),
    pytest.param(b"451 x\n", b"451 x", id="temporary"),
    pytest.param(b"5.7.1 x\n", b"554 5.7.1 x", id="only-enhanced-code"),
    pytest.param(b"x\n", b"554 x", id="text"),
    pytest.param(b"abc x\n", b"554 abc x", id="three-letters"),
    pytest.param(b"55x y\n", b"554 55x y", id="two-digits-and-letter"),
    pytest.param(b"-\n", b"554 -", id="punctuation"),
    pytest.param(b"550 x", b"550 x", id="no-final-newline"),
    pytest.param(b"x", b"554 x", id="text-without-final-newline"),
    pytest.param(b"550 x\r\n", b"550 x", id="crlf"),
    pytest.param(b"550 x\r", b"550 x", id="cr"),
    pytest.param(b"550 x\r\r\n", b"550 x?", id="two-crs"),
    pytest.param(b"a\rb\n", b"554 a?b", id="cr-inside"),
    pytest.param(b"first\n550 x\n", b"550 x", id="last-of-two"),
    pytest.param(b"550 first\nsecond\n", b"554 second", id="code-in-earlier-line"),
    pytest.param(b"550 x\n\n", b"550 x", id="empty-last-line"),
    pytest.param(b"550 x\n  \t\n\r\n", b"550 x", id="several-empty-last-lines"),
    pytest.param(b"550 x\n ", b"550 x", id="space-without-newline"),
    pytest.param(b"550 caf\xe9\n", b"550 caf?", id="8-bit"),
    pytest.param("550 café\n".encode(), b"550 caf??", id="utf-8"),
    pytest.param(b"550 a\x07\x1b[31mb\x7f\n", b"550 a??[31mb?", id="control"),
    pytest.param(b"550 a\0b\n", b"550 a?b", id="nul"),
    pytest.param(b"\0\n", b"554 ?", id="only-nul"),
    pytest.param("\u0665\u0665\u0660 x\n".encode(), b"554 ?????? x", id="non-ascii-digits"),
    pytest.param(b"550 %s %n\n", b"550 %s %n", id="percent"),
]


@pytest.mark.parametrize(("stderr", "reply"), PREFIX_RULE)
def test_last_output_line_becomes_reply(stderr: bytes, reply: bytes) -> None:
    assert rejection(last_stderr_line(stderr)) == reply + b"\r\n"


@pytest.mark.parametrize("octet", range(256))
def test_unprintable_characters_are_replaced_in_reply(octet: int) -> None:
    shown = octet if 0x20 <= octet <= 0x7E else ord("?")
    assert rejection(b"550 x" + bytes([octet, 0x78])) == b"550 x" + bytes([shown, 0x78]) + b"\r\n"


@pytest.mark.parametrize("stderr", [b"", b"\n", b"\n\n\n", b" \t \r\n \n", b"\x0b\x0c\n"])
def test_rejection_by_silent_filter_has_default_text(stderr: bytes) -> None:
    assert rejection(last_stderr_line(stderr)) == OWN_TEXT


@pytest.mark.parametrize("length", [505, 506, 507, 5000, 100_000])
def test_long_line_is_truncated_to_maximum_reply_length(length: int) -> None:
    text = b"550 " + b"x" * length
    assert rejection(last_stderr_line(text + b"\n")) == text[:510] + b"\r\n"


def test_added_reply_code_counts_towards_reply_line_limit() -> None:
    assert rejection(last_stderr_line(b"x" * 5000)) == b"554 " + b"x" * 506 + b"\r\n"


@given(st.binary(max_size=600))
def test_rejection_is_one_line_reply(stderr: bytes) -> None:
    reply = rejection(last_stderr_line(stderr))
    assert len(reply) <= limits.REPLY_LINE
    assert reply.endswith(b"\r\n")
    assert reply[:3].isdigit()
    assert reply[3:4] == b" "
    assert all(32 <= octet < 127 for octet in reply[:-2])


@given(st.lists(st.binary(max_size=40)))
def test_last_line_is_independent_of_block_boundaries(pieces: list[bytes]) -> None:
    reader = LastLine()
    for piece in pieces:
        reader.feed(piece)
    assert reader.value == last_stderr_line(b"".join(pieces))


@given(st.lists(st.sampled_from([b"550 a", b"", b" ", b"b", b"\r"])))
def test_last_nonempty_line_is_returned(lines: list[bytes]) -> None:
    wanted = next((line for line in reversed(lines) if line.strip()), b"")
    assert last_stderr_line(b"\n".join(lines)) == wanted


def test_empty_line_in_next_block_is_ignored() -> None:
    reader = LastLine()
    reader.feed(b"550 x\n")
    reader.feed(b"\n")
    assert reader.value == b"550 x"


def test_newline_in_next_block_ends_line() -> None:
    reader = LastLine()
    reader.feed(b"550 x")
    reader.feed(b"\n")
    assert reader.value == b"550 x"


def test_last_of_three_output_lines_is_returned() -> None:
    assert last_stderr_line(b"one\ntwo\nthree\n") == b"three"


def test_overlong_complete_line_is_truncated() -> None:
    assert len(last_stderr_line(b"x" * 65536 + b"\n")) == limits.FILTER_LINE


def test_large_output_is_not_stored() -> None:
    reader = LastLine()
    for _ in range(48):
        reader.feed(b"x" * 65536)
    assert len(reader.value) == limits.FILTER_LINE


def test_line_after_large_output_is_found() -> None:
    reader = LastLine()
    for _ in range(48):
        reader.feed(b"noise\n" * 10923)
    reader.feed(b"550 x\n")
    assert reader.value == b"550 x"
