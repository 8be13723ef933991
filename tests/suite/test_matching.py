"""Verdicts on received octets: yes or no if the result is certain, wait otherwise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conformance.format.nodes import ReplyPattern
from tests.conformance.play.matching import (
    MessageAwaited,
    NoSuccessAwaited,
    OctetsAwaited,
    ReplyAwaited,
    State,
    UnfinishedAwaited,
    Verdict,
    describe,
    text_fits,
)


def octets(expected: bytes, came: bytes) -> Verdict:
    return OctetsAwaited(expected).look(bytearray(came))


def reply(codes: str, came: bytes, enhanced: str | None = None) -> Verdict:
    return ReplyAwaited(ReplyPattern(tuple(codes.split("|")), enhanced)).look(bytearray(came))


def test_only_expected_octets_are_consumed() -> None:
    assert octets(b"250 ok\r\n", b"250 ok\r\n221 bye\r\n") == Verdict(State.YES, 8)


@pytest.mark.parametrize("came", [b"", b"2", b"250 ok\r"])
def test_incomplete_match_is_undecided(came: bytes) -> None:
    assert octets(b"250 ok\r\n", came).state is State.WAIT


def test_match_fails_at_first_wrong_octet() -> None:
    verdict = octets(b"250 ok\r\n", b"251")
    assert (verdict.state, verdict.got) == (State.NO, "251")


@given(st.binary(min_size=1), st.data())
def test_octet_match_is_independent_of_block_boundaries(
    expected: bytes, data: st.DataObject
) -> None:
    awaited, buffer, rest = OctetsAwaited(expected), bytearray(), expected
    while rest:
        assert awaited.look(buffer).state is State.WAIT
        count = data.draw(st.integers(1, len(rest)))
        buffer += rest[:count]
        rest = rest[count:]
    assert awaited.look(buffer) == Verdict(State.YES, len(expected))


@pytest.mark.parametrize(
    ("codes", "came", "used"),
    [
        ("250", b"250 ok\r\n", 8),
        ("2xx", b"250\r\n", 5),
        ("5xx", b"554 no\r\n250 next\r\n", 8),
        ("45x", b"451-one\r\n451 two\r\n", 18),
        ("503|554", b"554 no\r\n", 8),
    ],
)
def test_complete_reply_matches(codes: str, came: bytes, used: int) -> None:
    assert reply(codes, came) == Verdict(State.YES, used)


@pytest.mark.parametrize(
    "came", [b"", b"25", b"250 ok", b"250 ok\r", b"250-one\r\n", b"250-a\r\n2"]
)
def test_incomplete_reply_is_undecided(came: bytes) -> None:
    assert reply("250", came).state is State.WAIT


@pytest.mark.parametrize(
    "came",
    [
        b"251 ok\r\n",
        b"250 ok\n",
        b"250ok\r\n",
        b"hello\r\n",
        b"250-one\r\n550 two\r\n",
        b"250 a\rb\r\n",
        b"250 a\0b\r\n",
        b"\r\n",
        b"x" * 5000,
    ],
)
def test_different_reply_fails(came: bytes) -> None:
    assert reply("250", came).state is State.NO


@pytest.mark.parametrize(
    ("wanted", "came", "state"),
    [
        ("4.3.0", b"451 4.3.0 text\r\n", State.YES),
        ("4.3", b"451 4.3.5 text\r\n", State.YES),
        ("4.x.x", b"451 4.7.1\r\n", State.YES),
        ("4.3.0", b"451 4.3.01 text\r\n", State.NO),
        ("4.3.0", b"451 text\r\n", State.NO),
        ("4.3.0", b"451\r\n", State.NO),
    ],
)
def test_enhanced_codes_are_compared_numerically(wanted: str, came: bytes, state: State) -> None:
    assert reply("451", came, wanted).state is state


@pytest.mark.parametrize(
    ("operator", "wanted", "text", "fits"),
    [
        ("contains", b"b", b"abc", True),
        ("contains", b"x", b"abc", False),
        ("lacks", b"x", b"abc", True),
        ("lacks", b"b", b"abc", False),
        ("is", b"abc", b"abc", True),
        ("is", b"ab", b"abc", False),
        ("matches", b"^b\\d$", b"a\nb1\n", True),
        ("matches", b"^1$", b"a\nb1\n", False),
        ("empty", b"", b"", True),
        ("empty", b"", b"x", False),
    ],
)
def test_operator_determines_text_comparison(
    operator: str, wanted: bytes, text: bytes, fits: bool
) -> None:
    assert text_fits(operator, wanted, text) is fits


def message(came: bytes) -> Verdict:
    return MessageAwaited().look(bytearray(came))


@pytest.mark.parametrize(
    "content", [b"", b"hello\r\n", b"a\r..\rb\r\n", b"a\r\r\n", b"..\r\n", b"a\n..\r\n", b"a.\r\n"]
)
def test_message_with_unambiguous_end_of_data_is_consumed(content: bytes) -> None:
    wire = content + b".\r\n"
    assert message(wire + b"QUIT\r\n") == Verdict(State.YES, len(wire))


@pytest.mark.parametrize(
    "content", [b"a\n.\n", b"a\n.\r\n", b"a\r\n.\n", b"a\r.\r", b"a\r.\r\n", b".\n", b".\rb"]
)
def test_match_fails_if_lenient_reader_would_end_data_early(content: bytes) -> None:
    assert message(content + b"QUIT\r\n.\r\n").state is State.NO


@pytest.mark.parametrize("came", [b"", b".", b".\r", b"hello\r\n", b"hello\r\n.", b"hello\r\n.\r"])
def test_message_without_end_of_data_is_undecided(came: bytes) -> None:
    assert message(came).state is State.WAIT


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"a"])), st.data())
def test_message_match_is_independent_of_block_boundaries(
    parts: list[bytes], data: st.DataObject
) -> None:
    wire = b"".join(parts) + b"\r\n.\r\n"
    awaited, buffer, rest = MessageAwaited(), bytearray(), wire
    verdict = awaited.look(buffer)
    while rest and verdict.state is State.WAIT:
        count = data.draw(st.integers(1, len(rest)))
        buffer += rest[:count]
        rest = rest[count:]
        verdict = awaited.look(buffer)
    whole = message(wire)
    assert (verdict.state, verdict.used) == (whole.state, whole.used)


def test_first_different_line_is_shown() -> None:
    assert describe(bytearray(b"one\r\ntwo\r\nthree\r\n"), 6) == "two\\r\\n"


def test_empty_input_is_described_as_nothing() -> None:
    assert describe(bytearray()) == "nothing"


@pytest.mark.parametrize("came", [b"250 ok\r\n", b"200\r\n", b"250-a\r\n250 ok\r\n"])
def test_step_forbidding_2yz_fails_after_2yz_reply(came: bytes) -> None:
    assert NoSuccessAwaited().look(bytearray(came)).state is State.NO


@pytest.mark.parametrize("came", [b"451 no\r\n", b"000 what\r\n", b"\r\n", b"451-a\r\n451 b\r\n"])
def test_step_forbidding_2yz_passes_after_other_reply(came: bytes) -> None:
    assert NoSuccessAwaited().look(bytearray(came)) == Verdict(State.YES, len(came))


@pytest.mark.parametrize("came", [b"", b"250", b"451-a\r\n", b"250-a\r\n"])
def test_step_forbidding_2yz_is_undecided_after_incomplete_reply(came: bytes) -> None:
    assert NoSuccessAwaited().look(bytearray(came)).state is State.WAIT


@pytest.mark.parametrize("came", [b".\r\n", b"a\r\n.\r\n", b"a\n.\n", b"a\r.\r\r"])
def test_content_with_end_of_data_is_complete(came: bytes) -> None:
    assert UnfinishedAwaited().look(bytearray(came)).state is State.NO


@pytest.mark.parametrize("came", [b"", b"a\r\n.", b"a\r\n..\r\n", b"QUIT\r\n"])
def test_content_without_end_of_data_is_incomplete(came: bytes) -> None:
    assert UnfinishedAwaited().look(bytearray(came)).state is State.WAIT
