"""What is true of the grammar, whatever octets it is given.

Rule: each function takes an input and raises if something that holds for all inputs does not hold
for this one. Nothing but the errors that a function's documentation names may come out of it.
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
    """Cut what is left of the input into pieces, about as large as its next octet says."""
    size = source.octet() + 1
    rest = source.rest()
    return [rest[at : at + size] for at in range(0, len(rest), size)]


def commands(source: Source) -> None:
    """Lines are those between line ends, however they are cut; what is too long is told once."""
    cut = pieces(source)
    assert read_lines(cut) == read_lines([b"".join(cut)])


def read_lines(cut: list[bytes]) -> list[bytes | None]:
    """Return the lines of a text, None for each that is too long."""
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
    """Replies are lines of one code; together they are what came, however it is cut."""
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
    """Return the replies up to the first thing that is none."""
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
    """A message is what stands before CRLF.CRLF, and none goes upstream that ends early."""
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
    """Return a message as it is stored: LF line ends, no stuffed dots. `wire` begins with CRLF."""
    return re.sub(rb"\r\n\.?", b"\n", wire)[1:]


def outfile(source: Source) -> None:
    """What a filter wrote is sent the same however it is read, and shows no early end."""
    cut = pieces(source)
    sent = b"".join(data.encoded(data.normalized(cut)))
    assert sent == b"".join(data.encoded(data.normalized([b"".join(cut)])))
    assert_not_smuggled(sent)


def target(source: Source) -> None:
    """HOST:PORT is a host and a port, a path, or an error that says what would be right."""
    text = source.rest().decode("utf-8", "surrogateescape")
    try:
        found = UpstreamAddress(text)
    except ValueError as error:
        _assert_one_line(str(error))
        return
    assert bool(found.path) != bool(found.host)
    assert 0 < found.port < 65536


def command_line(source: Source) -> None:
    """A command line is options, or one line that says what is wrong."""
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
    """No variable of the filter's is too long, or holds a control character."""
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
    """A filter's last line is found however it is cut, and a rejection is one reply line."""
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
    """Try one function of the grammar with what is left of the input."""
    source.one_of(TARGETS)(source)
