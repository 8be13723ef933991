"""Tests of the DATA decoder and encoder against slow models that follow RFC 5321."""

from __future__ import annotations

from itertools import pairwise
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postprox.core import data
from postprox.core.data import DotUnstuffer, encoded, normalized

pytestmark = pytest.mark.any_account

# Significant octets are more frequent than others.
OCTETS = st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"\0", b"a", b"\xff"])
TEXTS = st.one_of(st.lists(OCTETS).map(b"".join), st.binary())
CUTS = st.lists(st.integers(min_value=0, max_value=60))


def cut(text: bytes, places: list[int]) -> list[bytes]:
    """Split `text` at the positions in `places`. Positions after the end of `text` are ignored."""
    borders = [0, *sorted(places), len(text)]
    return [text[start:end] for start, end in pairwise(borders)]


def decode(*pieces: bytes) -> tuple[bytes, bool, bytes]:
    """Return the decoded content, whether it is complete, and the input after the end of data."""
    decoder = DotUnstuffer()
    content = rest = b""
    for piece in pieces:
        if decoder.complete:
            rest += piece
        else:
            content += decoder.feed(piece)
            rest += decoder.trailing
    return content, decoder.complete, rest


def receiver(wire: bytes) -> tuple[list[bytes], bytes] | None:
    """Parse data as RFC 5321 requires. Return the lines and the input after the end of data.

    A line that consists of a period ends the data (section 4.1.1.4). Only CRLF ends a line
    (section 2.3.8). A leading period is removed from every other line (section 4.5.2).
    The result is None if the end of data is missing.
    """
    lines: list[bytes] = []
    line = bytearray()
    for position, octet in enumerate(wire):
        line.append(octet)
        if line[-2:] != b"\r\n":
            continue
        if line == b".\r\n":
            return lines, wire[position + 1 :]
        lines.append(bytes(line[1:] if line[:1] == b"." else line))
        line.clear()
    return None


def sloppy_end(wire: bytes, line_ends: tuple[bytes, ...]) -> int:
    """Return the position at which a server that accepts these line ends sees the end of data."""
    line = bytearray()
    for position, octet in enumerate(wire):
        line.append(octet)
        ending = next((end for end in line_ends if line.endswith(end)), None)
        if ending is None:
            continue
        if line[: -len(ending)] == b".":
            return position + 1
        line.clear()
    return -1


def send(*blocks: bytes) -> bytes:
    return b"".join(encoded(blocks))


@pytest.mark.parametrize(
    ("wire", "content", "rest"),
    [
        (b".\r\n", b"", b""),
        (b"\r\n.\r\n", b"\n", b""),
        (b"a\r\n.\r\n", b"a\n", b""),
        (b"a\r\n.\r\nQUIT\r\n", b"a\n", b"QUIT\r\n"),
        (b"..\r\n.\r\n", b".\n", b""),
        (b"...\r\n.\r\n", b"..\n", b""),
        (b".a\r\n.\r\n", b"a\n", b""),
        (b"a\r\n..b\r\n.\r\n", b"a\n.b\n", b""),
        (b"a.\r\n.\r\n", b"a.\n", b""),
        (b"a\r\n\r\n\r\n.\r\n", b"a\n\n\n", b""),
        (b"caf\xe9 \0\r\n.\r\n", b"caf\xe9 \0\n", b""),
        (b".\r\n.\r\n", b"", b".\r\n"),
        (b"\r\n.\r\n.\r\n", b"\n", b".\r\n"),
    ],
)
def test_data_is_dot_unstuffed(wire: bytes, content: bytes, rest: bytes) -> None:
    assert decode(wire) == (content, True, rest)


@pytest.mark.parametrize(
    ("wire", "content"),
    [
        (b"a\n.\n", b"a\n.\n"),
        (b"a\n.\r\n", b"a\n.\n"),
        (b"a\r\n.\n", b"a\n\n"),
        (b"a\r.\r", b"a\r.\r"),
        (b"a\r\n.\rX", b"a\n\rX"),
        (b"a\r\n.\r\r\n", b"a\n\r\n"),
        (b"a\n\r.\r\n", b"a\n\r.\n"),
        (b".\n", b"\n"),
        (b".\r", b"\r"),
        (b".\rX", b"\rX"),
        (b"a\r\n.\0\r\n", b"a\n\0\n"),
        (b"a\r\n. \r\n", b"a\n \n"),
        (b"a\r\n\0.\r\n", b"a\n\0.\n"),
        (b"a\0\r\n.\n", b"a\0\n\n"),
    ],
)
def test_only_crlf_dot_crlf_ends_data(wire: bytes, content: bytes) -> None:
    for place in range(len(wire) + 1):
        assert decode(wire[:place], wire[place:], b"z\r\n.\r\n") == (content + b"z\n", True, b"")


def test_possible_end_of_data_is_held_back() -> None:
    decoder = DotUnstuffer()
    assert [decoder.feed(octet) for octet in (b"a", b"\r", b"\n", b".", b"\r", b"b")] == [
        b"a",
        b"",
        b"",
        b"",
        b"",
        b"\n\rb",
    ]


@given(TEXTS, CUTS)
def test_decoder_matches_octet_by_octet_model(wire: bytes, places: list[int]) -> None:
    content, ended, rest = decode(*cut(wire, places))
    expected = receiver(wire)
    if expected is None:
        assert not ended
        assert rest == b""
    else:
        lines, expected_rest = expected
        assert (content, rest) == (b"".join(lines).replace(b"\r\n", b"\n"), expected_rest)


@given(TEXTS, CUTS)
def test_decoding_is_independent_of_block_boundaries(wire: bytes, places: list[int]) -> None:
    assert decode(*cut(wire, places)) == decode(wire)


@given(TEXTS, CUTS)
def test_incomplete_content_is_prefix_of_final_content(wire: bytes, places: list[int]) -> None:
    content, ended, _ = decode(*cut(wire, places))
    finished, _, _ = decode(wire, b"" if ended else b"\r\n.\r\n")
    assert finished.startswith(content)
    assert len(finished) - len(content) <= 4


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        (b"", b".\r\n"),
        (b"\n", b"\r\n.\r\n"),
        (b"a\n", b"a\r\n.\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b".\n", b"..\r\n.\r\n"),
        (b"..a\n.b\n", b"...a\r\n..b\r\n.\r\n"),
        (b"a.b\n", b"a.b\r\n.\r\n"),
        (b"a\r.b\n", b"a\r..b\r\n.\r\n"),
        (b"a\r\n", b"a\r\r\n.\r\n"),
        (b"a\r", b"a\r\r\n.\r\n"),
        (b"\n.\r.\n", b"\r\n..\r..\r\n.\r\n"),
        (b"caf\xe9 \0\n", b"caf\xe9 \0\r\n.\r\n"),
    ],
)
def test_content_is_dot_stuffed(content: bytes, wire: bytes) -> None:
    assert send(content) == wire


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        ((b"a\n", b".b"), b"a\r\n..b\r\n.\r\n"),
        ((b"a\r", b".b"), b"a\r..b\r\n.\r\n"),
        ((b"a\r", b"\n.b"), b"a\r\r\n..b\r\n.\r\n"),
        ((b"a", b".b"), b"a.b\r\n.\r\n"),
        ((b".", b"."), b"...\r\n.\r\n"),
        ((b"", b".", b"", b"\n"), b"..\r\n.\r\n"),
        ((b"\n", b"", b"."), b"\r\n..\r\n.\r\n"),
    ],
)
def test_blocks_are_dot_stuffed(content: tuple[bytes, ...], wire: bytes) -> None:
    assert send(*content) == wire


@given(TEXTS, CUTS)
def test_encoding_is_independent_of_block_boundaries(content: bytes, places: list[int]) -> None:
    assert send(*cut(content, places)) == send(content)


@pytest.mark.parametrize("octet", range(256))
def test_dot_after_possible_line_end_is_doubled(octet: int) -> None:
    before = b"a" + bytes([octet])
    dot = b".." if before[1:] in b"\r\n" else b"."
    assert send(before, b".") == before.replace(b"\n", b"\r\n") + dot + b"\r\n.\r\n"


@given(TEXTS, CUTS)
def test_wire_form_equals_encoded_content(message: bytes, places: list[int]) -> None:
    decoder, content, wire = DotUnstuffer(), b"", b""
    for piece in cut(message + b"\r\n.\r\n", places):
        if not decoder.complete:
            content += decoder.feed(piece)
            wire += decoder.wire
    assert wire == send(content)


@pytest.mark.parametrize(
    ("block", "follows"),
    [
        (b"a\n", b".b"),
        (b"a\r\n", b"\n.b"),
        (b"a\r", b".b"),
        (b"a\n.b\r\n", b"c"),
        (b".a\r\n.b\r\n", b"c"),
        (b"a\r\n..b", b"c"),
        (b"a\r.b", b"c"),
    ],
)
def test_wire_form_is_correct_across_block_boundaries(block: bytes, follows: bytes) -> None:
    decoder = DotUnstuffer()
    content = decoder.feed(block)
    wire = decoder.wire
    content += decoder.feed(follows + b"\r\n.\r\n")
    assert wire + decoder.wire == send(content)


@pytest.mark.parametrize(
    "block", [b"a", b"a b c", b"a\r\nb", b"a.b\r\nc.", b"a\r\n..b", b"a\r\n..b\r\n\r\n..c"]
)
def test_unchanged_wire_block_is_not_copied(block: bytes) -> None:
    decoder = DotUnstuffer()
    decoder.feed(b"x")
    decoder.feed(block)
    assert decoder.wire is block


def test_end_of_data_is_sent_with_last_block() -> None:
    assert list(encoded([b"a\n", b"b\n"])) == [b"a\r\n", b"b\r\n.\r\n"]


@given(TEXTS)
def test_upstream_receives_content_that_client_sent(message: bytes) -> None:
    """Bare LF becomes CRLF, and a dot after a bare CR is doubled. Other octets are unchanged."""
    content, ended, _ = decode(message, b"\r\n.\r\n")
    assert ended
    read = receiver(send(content))
    assert read is not None
    lines, rest = read
    sent = receiver(message + b"\r\n.\r\n")
    assert sent is not None
    assert rest == b""
    assert b"".join(lines) == as_received_upstream(b"".join(sent[0]))


def as_received_upstream(message: bytes) -> bytes:
    """Convert bare LF to CRLF and double each dot after a bare CR."""
    changed = bytearray()
    before = 0
    for octet in message:
        if octet == ord("\n") and before != ord("\r"):
            changed += b"\r\n"
        elif octet == ord(".") and before == ord("\r"):
            changed += b".."
        else:
            changed.append(octet)
        before = octet
    return bytes(changed)


LINE_ENDS = [
    (b"\r\n",),
    (b"\n",),
    (b"\r",),
    (b"\r\n", b"\n"),
    (b"\r\n", b"\r"),
    (b"\r", b"\n"),
    (b"\r\n", b"\n", b"\r"),
    (b"\r\r\n", b"\r\n"),
]


@pytest.mark.parametrize("line_ends", LINE_ENDS)
@given(content=TEXTS)
def test_lenient_server_does_not_see_early_end_of_data(
    line_ends: tuple[bytes, ...], content: bytes
) -> None:
    wire = send(content)
    # A lenient server may find the end of data at the final CR. The remaining LF is not a command.
    assert sloppy_end(wire, line_ends) in (-1, len(wire), len(wire) - 1)


@given(TEXTS)
def test_decoding_reverses_encoding(message: bytes) -> None:
    once, _, _ = decode(message, b"\r\n.\r\n")
    wire = send(once)
    again, ended, rest = decode(wire)
    assert ended
    assert rest == b""
    if b"\r." not in once:
        assert again == once


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ((), b""),
        ((b"",), b""),
        ((b"a\nb\n",), b"a\nb\n"),
        ((b"a\r\nb\r\n",), b"a\nb\n"),
        ((b"a\r\nb\nc",), b"a\nb\nc"),
        ((b"a\r", b"\nb"), b"a\nb"),
        ((b"a\r", b"b"), b"a\rb"),
        ((b"a\r",), b"a\r"),
        ((b"a\r\r\n",), b"a\r\n"),
        ((b"a\r", b"\r", b"\n"), b"a\r\n"),
    ],
)
def test_outfile_line_endings_are_normalized(text: tuple[bytes, ...], content: bytes) -> None:
    assert b"".join(normalized(text)) == content


@given(TEXTS, CUTS)
def test_outfile_decoding_is_independent_of_block_boundaries(
    text: bytes, places: list[int]
) -> None:
    assert b"".join(normalized(cut(text, places))) == text.replace(b"\r\n", b"\n")


def passed(wire: bytes) -> tuple[bytes, bytes]:
    """Return the decoded content and the wire form of the second block of a message."""
    decoder = DotUnstuffer()
    decoder.feed(b"in the middle of a line")
    return decoder.feed(wire), decoder.wire


#: Lines of equal length, such as base64 text.
EQUAL_LINES = st.builds(
    lambda length, end, count: bytearray((b"a" * length + end) * count),
    st.integers(0, 8),
    st.sampled_from([b"\r\n", b"\r\n", b"\n"]),
    st.integers(3, 9),
)


@settings(max_examples=1000)
@given(
    st.sampled_from([b"", b"a", b"a\n", b"a\r\n"]),
    EQUAL_LINES,
    st.sampled_from([b"", b"a", b"\r", b"a\rb"]),
    st.integers(0, 60),
    st.sampled_from(b"aa\r\n."),
)
def test_decoder_for_equal_lines_matches_general_decoder(
    before: bytes, lines: bytearray, after: bytes, place: int, changed: int
) -> None:
    lines[place % len(lines)] = changed
    wire = before + lines + after + b"\r\n.\r\n"
    as_all_others = passed(wire)
    with mock.patch.object(data, "_MANY_LINES", 0):
        assert passed(wire) == as_all_others


@pytest.mark.parametrize("before", [b"", b"begin", b"begin\r\n", b"of another length\r\n"])
@pytest.mark.parametrize("rest", [0, 1])
@pytest.mark.parametrize("length", [0, 1, 2, 10])
def test_crlf_in_equal_length_lines_becomes_lf(before: bytes, rest: int, length: int) -> None:
    text = before + (b"X" * length + b"\r\n") * 5 + b"X" * rest * (length + 1)
    assert data._equal_lines_with_lf(text) == text.replace(b"\r\n", b"\n")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"X",
        b"XX\r\n",
        b"XX\nXX\nXX\n",
        b"XX\r\nXXX\r\nXX\r\nXX\r\n",
        b"XX\r\nX\rX\r\nXXX\r\n",
        b"XX\r\nX\nX\r\nXXX\r\n",
        b"ab\r\nabcd\r\na\ncd\r\n",
        b"X\nX\r\nXX\r\nXX\r\n",
        b"XX\r\nXX\r\nXX\r\nX\n",
        b"XX\r\nXX\r\nXX\r\nX\r",
        b"XX\r\nXX\r\nXX\rX",
        b"XX\r\nXXXXX\r\nXX\nXX\r\nXXXXX\r\n",
        b"XX\r\nXXXXX\r\nXX\rXX\r\nXXXXX\r\n",
    ],
)
def test_fast_decoder_rejects_unequal_lines_and_bare_cr_or_lf(text: bytes) -> None:
    assert data._equal_lines_with_lf(text) == b""


def test_large_block_of_equal_length_lines_is_not_copied() -> None:
    decoder = DotUnstuffer()
    decoder.feed(b"x")
    block = b"a" * 76 + (b"\r\n" + b"a" * 76) * 1000
    assert decoder.feed(block) == block.replace(b"\r\n", b"\n")
    assert decoder.wire is block
