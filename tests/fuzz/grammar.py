"""Rules for the grammar that hold for any input.

Rule: each function processes an input and raises an error if the result violates a rule. The tested
functions may raise only their documented errors.
"""

from __future__ import annotations

import re

from postprox.core import data, limits, smtp
from postprox.core.address import UpstreamAddress
from postprox.core.envelope import Envelope, environment_value
from postprox.core.options import UsageError, parse
from postprox.core.verdict import LastLine, rejection
from tests.faults.test_smuggling import assert_not_smuggled
from tests.fuzz.source import Source

END = b"\r\n.\r\n"
_REPLY = re.compile(rb"[2-5][0-9][0-9][ \r\n-]")
_LAST_LINE = re.compile(rb"[0-9]{3} [ -~]*\r\n")


def pieces(source: Source) -> list[bytes]:
    """Split the rest of the input into pieces. The next octet determines their size."""
    size = source.octet() + 1
    rest = source.rest()
    return [rest[at : at + size] for at in range(0, len(rest), size)]


def commands(source: Source) -> None:
    """Check that lines do not depend on block boundaries, with one error for each overlong line."""
    cut = pieces(source)
    assert read_lines(cut) == read_lines([b"".join(cut)])


def read_lines(cut: list[bytes]) -> list[bytes | None]:
    """Return the lines of a text, with None for each overlong line."""
    reader = smtp.CommandReader()
    lines: list[bytes | None] = []
    for piece in cut:
        reader.feed(piece)
        while True:
            try:
                line = reader.next_line()
            except smtp.LineTooLongError:
                lines.append(None)
                continue
            if line is None:
                break
            assert b"\n" not in line
            assert len(line) <= limits.COMMAND_LINE
            assert smtp.announced_octets(line) >= 0
            assert smtp.verb(line) == smtp.verb(line).upper()
            lines.append(line)
    return lines


def replies(source: Source) -> None:
    """Check that the lines of a reply have the same code and do not depend on block boundaries."""
    cut = pieces(source)
    found, whole = read_replies(cut), read_replies([b"".join(cut)])
    assert found == whole
    assert b"".join(cut).startswith(b"".join(found))
    for raw in found:
        lines = raw.splitlines(keepends=True) if b"\r" not in raw else raw.split(b"\n")
        assert raw.endswith(b"\n")
        assert {line[:3] for line in lines if line} == {raw[:3]}
        shown = smtp.without_hidden_keywords(raw)
        assert read_replies([shown]) == [shown]
        offered = {smtp.verb(line[4:].replace(b"=", b" ")) for line in shown.split(b"\n")[1:]}
        assert not offered & smtp.HIDDEN_KEYWORDS


def read_replies(cut: list[bytes]) -> list[bytes]:
    """Return the replies before the first invalid input."""
    reader = smtp.ReplyReader()
    found = []
    try:
        for piece in cut:
            reader.feed(piece)
            while reply := reader.next_reply():
                assert _REPLY.match(reply.raw)
                found.append(reply.raw)
    except smtp.BadReplyError:
        pass
    return found


def message(source: Source) -> None:
    """Check that a message ends at CRLF.CRLF, and that the output has no early end of data."""
    cut = pieces(source)
    wire = b"\r\n" + b"".join(cut)
    end = wire.find(END)
    decoder, content, sent, rest = data.DotUnstuffer(), b"", b"", b""
    for number, piece in enumerate(cut):
        content += decoder.feed(piece)
        sent += decoder.wire
        if decoder.complete:
            rest = decoder.trailing + b"".join(cut[number + 1 :])
            break
    assert decoder.complete == (end >= 0)
    if decoder.complete:
        assert content == at_rest(wire[: end + 2])
        assert rest == wire[end + len(END) :]
        assert sent == b"".join(data.encoded([content]))
        assert_not_smuggled(sent)


def at_rest(wire: bytes) -> bytes:
    """Return the message with LF line endings and without dot stuffing. `wire` begins with CRLF."""
    return re.sub(rb"\r\n\.?", b"\n", wire)[1:]


def outfile(source: Source) -> None:
    """Check that OUTFILE is sent without an early end of data for any block boundaries."""
    cut = pieces(source)
    sent = b"".join(data.encoded(data.normalized(cut)))
    assert sent == b"".join(data.encoded(data.normalized([b"".join(cut)])))
    assert_not_smuggled(sent)


def target(source: Source) -> None:
    """Check that HOST:PORT results in a host and a port, a path, or an error with a remedy."""
    text = source.rest().decode("utf-8", "surrogateescape")
    try:
        found = UpstreamAddress(text)
    except ValueError as error:
        _assert_one_line(str(error))
        return
    assert bool(found.path) != bool(found.host)
    assert 0 < found.port < 65536


def command_line(source: Source) -> None:
    """Check that a command line results in options or a one-line error."""
    given = source.rest().decode("utf-8", "surrogateescape").split("\0")
    try:
        options = parse(given)
    except UsageError as error:
        _assert_one_line(str(error))
        return
    if not options.information:
        assert options.target.host or options.target.path
        assert options.timeout > 0
        assert options.max_sessions > 0


def _assert_one_line(error: str) -> None:
    assert len(error.splitlines()) == 1


def envelope(source: Source) -> None:
    """Check that none of the filter's variables is too long or contains a control character."""
    kept = Envelope()
    while source.more:
        add = source.one_of((kept.add_sender, kept.add_recipient, kept.add_xforward))
        add(source.octets().replace(b"\n", b""))
    helo = smtp.hello_name(source.octets())
    for name, value in kept.environment(helo).items():
        assert b"\0" not in value
        assert name == b"RECIPIENTS" or len(value) <= limits.ENVIRONMENT_VALUE
        assert name == b"RECIPIENTS" or environment_value(value) == value


def last_line(source: Source) -> None:
    """Check that block boundaries do not affect the last line, and that a rejection is one line."""
    cut = pieces(source)
    found = LastLine()
    for piece in cut:
        found.feed(piece)
    lines = [line[: limits.FILTER_LINE] for line in b"".join(cut).split(b"\n")]
    saying = [line for line in lines if line.strip()]
    assert found.value.strip() == (saying[-1].strip() if saying else b"")
    reply = rejection(found.value)
    assert _LAST_LINE.fullmatch(reply)
    assert len(reply) <= limits.REPLY_LINE


TARGETS = (commands, replies, message, outfile, target, command_line, envelope, last_line)


def holds(source: Source) -> None:
    """Select one of the functions above and run it with the rest of the input."""
    source.one_of(TARGETS)(source)
