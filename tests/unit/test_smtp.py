"""Tests of the parsers for commands and replies, and of the filtered EHLO reply."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postprox.core import limits
from postprox.core.smtp import (
    HIDDEN_KEYWORDS,
    BadReplyError,
    CommandReader,
    LineTooLongError,
    Reply,
    ReplyReader,
    announced_octets,
    verb,
    without_hidden_keywords,
)

TOO_LONG = b"(too long)"


def lines_of(reader: CommandReader) -> list[bytes]:
    lines: list[bytes] = []
    while True:
        try:
            line = reader.next_line()
        except LineTooLongError:
            line = TOO_LONG
        if line is None:
            return lines
        lines.append(line)


def read_lines(*pieces: bytes) -> list[bytes]:
    reader = CommandReader()
    lines = []
    for piece in pieces:
        reader.feed(piece)
        lines += lines_of(reader)
    return lines


@pytest.mark.parametrize(
    ("octets", "lines"),
    [
        (b"", []),
        (b"NOOP", []),
        (b"NOOP\r", []),
        (b"NOOP\r\n", [b"NOOP"]),
        (b"NOOP\n", [b"NOOP"]),
        (b"NOOP\r\r\n", [b"NOOP\r"]),
        (b"\r\n", [b""]),
        (b"\n\n", [b"", b""]),
        (b"A\r\nB\nC", [b"A", b"B"]),
        (b"A\rB\r\n", [b"A\rB"]),
        (b"A\0B\r\n", [b"A\0B"]),
        (b" caf\xe9 \r\n", [b" caf\xe9 "]),
    ],
)
def test_command_line_ends_at_lf(octets: bytes, lines: list[bytes]) -> None:
    assert read_lines(octets) == lines


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_line_of_maximum_size_is_accepted(end: bytes) -> None:
    line = b"x" * (limits.COMMAND_LINE - len(end) + 1)
    assert read_lines(line + end) == [line]


def test_lines_of_12288_octets_are_accepted() -> None:
    assert limits.COMMAND_LINE >= 12288 + 2


def test_line_over_limit_is_reported_only_once() -> None:
    long = b"x" * (limits.COMMAND_LINE + 1)
    assert read_lines(long, long, long + b"\r\nNOOP\r\n") == [TOO_LONG, b"NOOP"]


def test_buffered_line_over_limit_is_reported_only_once() -> None:
    assert read_lines(b"x" * 50_000 + b"\nNOOP\r\n") == [TOO_LONG, b"NOOP"]


def test_newline_after_long_line_may_be_received_separately() -> None:
    reader = CommandReader()
    reader.feed(b"x" * (limits.COMMAND_LINE + 1))
    with pytest.raises(LineTooLongError):
        reader.next_line()
    reader.feed(b"\nNOOP\n")
    assert reader.next_line() == b"NOOP"
    reader.feed(b"RSET\n")
    assert reader.next_line() == b"RSET"


def test_rest_of_long_line_is_discarded() -> None:
    reader = CommandReader()
    reader.feed(b"x" * (limits.COMMAND_LINE + 1))
    lines_of(reader)
    for _ in range(10):
        reader.feed(b"x" * 65536)
    assert not reader.is_full
    assert reader.take_buffered() == b""


@given(st.lists(st.sampled_from([b"A", b"\r", b"\n", b"\r\n", b"QUIT", b"x" * 9000])), st.data())
def test_lines_are_independent_of_block_boundaries(parts: list[bytes], data: st.DataObject) -> None:
    octets = b"".join(parts)
    place = data.draw(st.integers(0, len(octets)))
    assert read_lines(octets[:place], octets[place:]) == read_lines(octets)


def test_buffered_chunk_is_discarded() -> None:
    reader = CommandReader()
    reader.feed(b"QUIT\r\nXNOOP\r\n")
    reader.drop(7)
    assert lines_of(reader) == [b"NOOP"]


def test_chunk_received_in_parts_is_discarded() -> None:
    reader = CommandReader()
    reader.feed(b"QU")
    reader.drop(8)
    reader.feed(b"IT\r\n")
    assert lines_of(reader) == []
    reader.feed(b"\r\nNOOP\r\n")
    assert lines_of(reader) == [b"NOOP"]


def test_discarded_octets_are_not_buffered() -> None:
    reader = CommandReader()
    reader.drop(10**18)
    reader.feed(b"x" * 65536)
    assert reader.take_buffered() == b""


def test_empty_chunk_discards_nothing() -> None:
    reader = CommandReader()
    reader.drop(0)
    reader.feed(b"NOOP\r\n")
    assert lines_of(reader) == [b"NOOP"]


def test_buffered_input_is_returned_unchanged() -> None:
    reader = CommandReader()
    reader.feed(b"DATA\r\n.x\r\n\0\n")
    reader.next_line()
    assert reader.take_buffered() == b".x\r\n\0\n"
    assert lines_of(reader) == []


def test_reader_is_full_if_input_exceeds_limit() -> None:
    reader = CommandReader()
    reader.feed(b"x" * limits.INPUT_BUFFER)
    assert not reader.is_full
    reader.feed(b"x")
    assert reader.is_full


def test_input_buffer_is_larger_than_longest_command_line() -> None:
    assert limits.INPUT_BUFFER > limits.COMMAND_LINE


@pytest.mark.parametrize(
    ("octets", "holds"),
    [
        (b"", False),
        (b"QUIT\r\n", True),
        (b"quit\n", True),
        (b" QUIT now\r\n", True),
        (b"QUIT", False),
        (b"QUIT\r", False),
        (b"QUITE\r\n", False),
        (b"NOOP\r\nQUIT\r\n", True),
        (b"NOOP QUIT\r\n", False),
        (b"NOOP\r\nQUIT", False),
        (b"\nQUIT\r\n", True),
        (b"\nQUIT", False),
        (b"NOOP 6\r\nQUIT\r\n", True),
        (b"BDAT 6\r\nQUIT\r\n", False),
        (b"BDAT 6 LAST\r\nQUIT\r\nQUIT\r\n", True),
        (b" bdat 4\nQUITQUIT\n", True),
        (b"BDAT 4\r\nxxxxBDAT 6\r\nQUIT\r\n", False),
        (b"BDAT\r\nQUIT\r\n", True),
        (b"BDATA 6\r\nQUIT\r\n", True),
        (b"QUIT\r\nNOOP\r\n", True),
        (b"BDAT\r\n9 x\r\nQUIT\r\n", True),
        (b"NOOP\r\nNOOP\r\nQUIT\r\n", True),
        (b"NOOP\r\n" * 20 + b"QUIT\r\n", True),
    ],
)
def test_buffered_quit_is_found(octets: bytes, holds: bool) -> None:
    reader = CommandReader()
    reader.feed(octets)
    assert reader.has_buffered_quit is holds


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (b"", b""),
        (b"   ", b""),
        (b"DATA", b"DATA"),
        (b"dAtA ", b"DATA"),
        (b" DATA", b"DATA"),
        (b"\tDATA\t", b"DATA"),
        (b"DATA x", b"DATA"),
        (b"DATA\tx", b"DATA"),
        (b"DATA\x0bx", b"DATA"),
        (b"DATAx", b"DATAX"),
        (b"MAIL FROM:<a@b>", b"MAIL"),
        (b"mail\tFROM:<a@b>", b"MAIL"),
        (b"caf\xe9 x", b"CAF\xe9"),
    ],
)
def test_verb_is_parsed(line: bytes, word: bytes) -> None:
    assert verb(line) == word


@pytest.mark.parametrize(
    ("line", "octets"),
    [
        (b"BDAT 86 LAST", 86),
        (b"bdat  0 LAST", 0),
        (b"BDAT 1000000000000", 10**12),
        (b"BDAT", 0),
        (b"BDAT LAST", 0),
        (b"BDAT -5", 0),
        (b"BDAT 0x10", 0),
        (b"BDAT 5.0", 0),
        (b"BDAT " + b"9" * 10_000, 10**18 - 1),
        ("BDAT \u0665".encode(), 0),
    ],
)
def test_bdat_size_is_parsed(line: bytes, octets: int) -> None:
    assert announced_octets(line) == octets


def read_replies(*pieces: bytes) -> list[tuple[int, bytes]]:
    reader = ReplyReader()
    replies = []
    for piece in pieces:
        reader.feed(piece)
        while reply := reader.next_reply():
            replies.append((reply.code, reply.raw))
    return replies


@pytest.mark.parametrize(
    ("octets", "codes"),
    [
        (b"", []),
        (b"250", []),
        (b"250 ok\r", []),
        (b"250 ok\r\n", [250]),
        (b"250 ok\n", [250]),
        (b"250\r\n", [250]),
        (b"250\n", [250]),
        (b"250 \r\n", [250]),
        (b"250-a\r\n", []),
        (b"250-a\r\n250-b\r\n", []),
        (b"250-a\r\n250 b\r\n", [250]),
        (b"250-\r\n250\r\n", [250]),
        (b"250 a\r\n354 b\r\n", [250, 354]),
        (b"250-a\r\n250 b\r\n550 c\r\n", [250, 550]),
        (b"599 caf\xe9 \x01\r\n", [599]),
    ],
)
def test_replies_are_parsed(octets: bytes, codes: list[int]) -> None:
    assert [code for code, _ in read_replies(octets)] == codes


@pytest.mark.parametrize(
    "octets",
    [
        b"250-a\r\n250-b\r\n250 c\r\n",
        b"250-a\n250 b\n",
        b"250 " + b"x" * 2000 + b"\r\n",
        b"250 caf\xe9 \x01\r\n",
    ],
)
def test_reply_octets_are_preserved(octets: bytes) -> None:
    assert read_replies(octets) == [(250, octets)]


@pytest.mark.parametrize(
    "octets",
    [
        b"\n",
        b"\r\n",
        b"ok\r\n",
        b"25\r\n",
        b"2500 x\r\n",
        b"250x\r\n",
        b"250\tx\r\n",
        b"250_x\r\n",
        b"250Xx\r\n",
        b" 250 x\r\n",
        b"-250 x\r\n",
        b"2.0 x\r\n",
        b"050 x\r\n",
        b"150 x\r\n",
        b"650 x\r\n",
        b"999 x\r\n",
        "٢٥٠ x\r\n".encode(),
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\x16\x03\x01\0\n",
        b"\0\0\0\n",
        b"250-a\r\n251 b\r\n",
        b"250-a\r\n550 b\r\n",
        b"250-a\r\nb\r\n",
        b"250-a\r\n\r\n",
        b"250 a\0b\r\n",
        b"250-a\0b\r\n250 ok\r\n",
        b"250 \0\n",
    ],
)
def test_invalid_reply_raises_error(octets: bytes) -> None:
    with pytest.raises(BadReplyError):
        read_replies(octets)


def test_error_contains_invalid_reply_line() -> None:
    with pytest.raises(BadReplyError) as raised:
        read_replies(b"hello\r\nworld\r\n")
    assert str(raised.value) == "not an SMTP reply: b'hello\\r\\n'"


def test_octets_after_reply_do_not_count_towards_reply_size() -> None:
    assert len(read_replies(b"250 ok\r\n" * limits.REPLY)) == limits.REPLY


def test_reply_of_maximum_size_is_accepted() -> None:
    line = b"250-" + b"x" * 58 + b"\r\n"
    raw = line * (limits.REPLY // len(line) - 1) + b"250 " + b"x" * 58 + b"\r\n"
    assert len(raw) == limits.REPLY
    assert read_replies(raw) == [(250, raw)]
    assert read_replies(raw[:-1], raw[-1:]) == [(250, raw)]


@pytest.mark.parametrize(
    "octets",
    [
        b"250 " + b"x" * limits.REPLY,
        b"250 " + b"x" * limits.REPLY + b"\r\n",
        b"x" * (limits.REPLY + 1),
        b"250-\r\n" * (limits.REPLY // 6 + 1),
        b"250-\r\n" * (limits.REPLY // 6) + b"250 ok\r\n",
    ],
)
@pytest.mark.parametrize("size", [1 << 20, 60_000])
def test_oversized_reply_raises_error(octets: bytes, size: int) -> None:
    pieces = [octets[start : start + size] for start in range(0, len(octets), size)]
    with pytest.raises(BadReplyError, match="longer than 65536 octets"):
        read_replies(*pieces)


PARTS = st.sampled_from([b"250", b"354", b" ", b"-", b"\r\n", b"\n", b"ok", b"250 ok\r\n"])


@given(st.lists(PARTS), st.lists(st.integers(0, 40)))
def test_replies_are_independent_of_block_boundaries(parts: list[bytes], places: list[int]) -> None:
    octets = b"".join(parts)
    borders = [0, *sorted(min(place, len(octets)) for place in places), len(octets)]
    pieces = [octets[borders[i] : borders[i + 1]] for i in range(len(borders) - 1)]
    assert replies_before_an_error(*pieces) == replies_before_an_error(octets)


def replies_before_an_error(*pieces: bytes) -> tuple[list[bytes], bool]:
    reader = ReplyReader()
    replies: list[bytes] = []
    try:
        for piece in pieces:
            reader.feed(piece)
            while reply := reader.next_reply():
                replies.append(reply.raw)
    except BadReplyError:
        return replies, True
    return replies, False


@pytest.mark.parametrize(
    ("code", "positive", "negative"),
    [
        (199, False, False),
        (200, True, False),
        (221, True, False),
        (299, True, False),
        (334, False, False),
        (354, False, False),
        (399, False, False),
        (400, False, True),
        (421, False, True),
        (550, False, True),
    ],
)
def test_reply_code_is_classified(code: int, positive: bool, negative: bool) -> None:
    reply = Reply(code, b"")
    assert (reply.positive, reply.negative) == (positive, negative)


@pytest.mark.parametrize(
    ("received", "relayed"),
    [
        (b"250 up\r\n", b"250 up\r\n"),
        (b"250-up\r\n250 SIZE 1\r\n", b"250-up\r\n250 SIZE 1\r\n"),
        (b"250-up\r\n250 STARTTLS\r\n", b"250 up\r\n"),
        (b"250-up\r\n250-STARTTLS\r\n250 SIZE 1\r\n", b"250-up\r\n250 SIZE 1\r\n"),
        (b"250-up\r\n250-SIZE 1\r\n250 CHUNKING\r\n", b"250-up\r\n250 SIZE 1\r\n"),
        (b"250-up\r\n250-STARTTLS\r\n250-CHUNKING\r\n250 BURL\r\n", b"250 up\r\n"),
        (b"250-up\r\n250-starttls\r\n250 X\r\n", b"250-up\r\n250 X\r\n"),
        (b"250-up\r\n250-XCLIENT NAME ADDR\r\n250 X\r\n", b"250-up\r\n250 X\r\n"),
        (b"250-up\r\n250-BURL imap\r\n250 X\r\n", b"250-up\r\n250 X\r\n"),
        (b"250-up\r\n250-BURL=imap\r\n250 X\r\n", b"250-up\r\n250 X\r\n"),
        (b"250-up\r\n250- STARTTLS\r\n250 X\r\n", b"250-up\r\n250 X\r\n"),
        (b"250-up\r\n250-BINARYMIME\r\n250 X\r\n", b"250-up\r\n250 X\r\n"),
        (b"250-up\r\n250-PRDR\r\n250 X\r\n", b"250-up\r\n250 X\r\n"),
        (b"250-up\r\n250-STARTTLSX\r\n250 X\r\n", b"250-up\r\n250-STARTTLSX\r\n250 X\r\n"),
        (b"250-up\r\n250-X STARTTLS\r\n250 Y\r\n", b"250-up\r\n250-X STARTTLS\r\n250 Y\r\n"),
        (b"250-STARTTLS\r\n250 X\r\n", b"250-STARTTLS\r\n250 X\r\n"),
        (b"250-\r\n250 STARTTLS\r\n", b"250 \r\n"),
        (b"250-up\n250-STARTTLS\n250 X\n", b"250-up\n250 X\n"),
        (b"250-up\r\n250-\r\n250 CHUNKING\r\n", b"250-up\r\n250 \r\n"),
        (b"250-up\r\n250-X\r\n250\r\n", b"250-up\r\n250-X\r\n250\r\n"),
        (b"250-up\r\n250-STARTTLS\r\n250\r\n", b"250-up\r\n250\r\n"),
    ],
)
def test_ehlo_keywords_that_would_bypass_filter_are_removed(
    received: bytes, relayed: bytes
) -> None:
    assert without_hidden_keywords(received) == relayed


KEYWORDS = st.sampled_from([b"SIZE 1000", b"8BITMIME", b"AUTH PLAIN", *sorted(HIDDEN_KEYWORDS)])


@given(st.lists(KEYWORDS))
def test_filtered_ehlo_reply_is_well_formed(keywords: list[bytes]) -> None:
    lines = [b"up.example", *keywords]
    raw = b"".join(b"250-%b\r\n" % line for line in lines[:-1]) + b"250 %b\r\n" % lines[-1]
    kept = without_hidden_keywords(raw)
    assert [code for code, _ in read_replies(kept)] == [250]
    shown = [line[4:] for line in kept.splitlines()]
    assert shown == [line for line in lines if line not in HIDDEN_KEYWORDS]


def test_search_for_quit_examines_limited_number_of_lines() -> None:
    reader = CommandReader()
    reader.feed(b"BDAT 0\r\n" * limits.LINES_WITH_QUIT + b"QUIT\r\n")
    assert reader.has_buffered_quit is False
    reader.next_line()
    assert reader.has_buffered_quit is True
