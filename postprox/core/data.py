"""The message on the wire and at rest: dot-stuffing, line ends, the end of data.

Rule: what is content and what is the end of data is decided here and nowhere else.

At rest a message has LF line ends and no stuffed dots. On the wire from the client only CRLF ends
a line, and only CRLF.CRLF ends the data (data.end). On the wire to upstream a dot is doubled
after anything that some server takes for a line end (data.no-smuggling).

Single octets are found and replaced some ten times as fast as pairs. So a block without a dot is
not searched for what a dot may mean: base64, which large messages are made of, has none.
"""

from .. import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_END = b"\r\n.\r\n"

#: A text so long is worth a look at whether all its lines are of one length.
_MANY_LINES = 16384

# What the octets at the end of a block can be the beginning of. The decoder's whole state is
# which of these it holds back; the empty one is the middle of a line.
_HELD_BACK = (
    _END[:4],  # CRLF.CR: the next octet decides whether this ends the data
    _END[:3],  # CRLF.: a stuffed dot, or the end of data
    _END[:2],  # CRLF: at the start of a line
    _END[:1],  # CR: a line end, or a bare CR
)


class DotUnstuffer:
    """The client's octets after the 354, to content at rest, and to what goes upstream."""

    __slots__ = ("_encoder", "_first", "_held", "complete", "trailing", "wire")

    def __init__(self) -> None:
        self._held = _END[:2]  # the data begins at the start of a line ...
        self._first = True  # ... whose CRLF is not part of it
        self._encoder = DotStuffer()
        #: What goes upstream for the content that `feed` has returned, with the end of data.
        self.wire: bytes
        #: Whether the end of data was seen.
        self.complete = False
        #: What the client sent behind the end of data.
        self.trailing = b""

    def feed(self, data: bytes) -> bytes:
        """Take the next octets of the client, return the content that is certain by now."""
        wire = self._held + data
        end = wire.find(_END) if b"." in wire else -1
        if end >= 0:
            self.complete = True
            self.trailing = wire[end + len(_END) :]
            content = self._decode(wire[: end + 2])
            self.wire += self._encoder.end()
            return content
        self._held = next((held for held in _HELD_BACK if wire.endswith(held)), b"")
        return self._decode(wire[: len(wire) - len(self._held)])

    def _decode(self, wire: bytes) -> bytes:
        text = wire.replace(b"\r\n.", b"\r\n") if b"." in wire else wire
        content, only_crlf = _with_lf(text)
        stuffed = len(text) == len(wire) or wire.count(b"\n.") == wire.count(b"\n..")
        if self._first and content:
            self._first = False
            content, wire = content[1:], wire[2:]
        # Where all line ends are CRLF, and each line that begins with a dot begins with two,
        # encoding would give the same again: most blocks need no second look.
        self.wire = self._encoder.encode(content, wire if only_crlf and stuffed else b"")
        return content


class DotStuffer:
    """Content at rest, to what goes upstream.

    LF becomes CRLF, dots are doubled after LF and CR, a missing last line end is supplied.
    """

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = b"\n"

    def encode(self, block: bytes, known: bytes = b"") -> bytes:
        """Return what goes upstream for the next block of content.

        known: the same, if that is known; unless a dot at its beginning has to be doubled for
            what the block before it ended with.
        """
        if not block:
            return b""
        doubled = block[:1] == b"." and self._last in b"\r\n"
        self._last = block[-1:]
        if known and not doubled:
            return known
        wire = _stuffed(block).replace(b"\n", b"\r\n")
        return b"." + wire if doubled else wire

    def end(self) -> bytes:
        """Return the end of data, after the line end that is missing."""
        return (b"" if self._last == b"\n" else b"\r\n") + b".\r\n"


def _with_lf(text: bytes) -> tuple[bytes, bool]:
    """Return `text` with LF for CRLF, and whether there was no CR and no LF but in CRLF.

    Twice over single octets, and over pairs only where CR or LF stand alone.
    """
    if len(text) > _MANY_LINES and (known := _equal_lines_with_lf(text)):
        return known, True
    lines = text.replace(b"\r", b"")
    if lines.replace(b"\n", b"\r\n") == text:
        return lines, True
    return text.replace(b"\r\n", b"\n"), False


def _equal_lines_with_lf(text: bytes) -> bytes:
    """Return `text` with LF for CRLF if all its lines are of one length, as those of base64 are.

    It is b"" if they are not, or if CR or LF stand alone. What lies between the first line end and
    the last is looked at by columns: each is checked, or removed, without a search for line ends.
    """
    begin = text.find(b"\n") + 1
    length = text.find(b"\n", begin) + 1 - begin
    if length < len(b"\r\n"):
        return b""
    count = (len(text) - begin) // length
    end = begin + count * length
    lines = bytearray(memoryview(text)[begin:end])
    cr, lf = slice(length - 2, None, length), slice(length - 1, None, length)
    if lines[cr] != b"\r" * count or lines[lf] != b"\n" * count:
        return b""
    del lines[cr]
    before, first_is_known = _with_lf(text[:begin])
    after, last_is_known = _with_lf(text[end:])
    content = b"".join((before, lines, after))
    del lines[length - 2 :: length - 1]
    alone = b"\r" in lines or b"\n" in lines or not (first_is_known and last_is_known)
    return b"" if alone else content


def encoded(content: "Iterable[bytes]") -> "Iterator[bytes]":
    """Turn blocks of content at rest into what goes upstream, with the end of data.

    The end of data comes in the same block as the last content, so that it is sent with it.
    """
    encoder, wire = DotStuffer(), b""
    for block in filter(None, content):
        if wire:
            yield wire
        wire = encoder.encode(block)
    yield wire + encoder.end()


def _stuffed(block: bytes) -> bytes:
    """Double the dots after LF and CR."""
    if b"." in block:
        block = block.replace(b"\n.", b"\n..")
        if b"\r" in block:
            block = block.replace(b"\r.", b"\r..")
    return block


def normalized(text: "Iterable[bytes]") -> "Iterator[bytes]":
    """Turn blocks of a text with LF or CRLF line ends (OUTFILE) into content at rest."""
    held = b""
    for block in text:
        known = held + block
        held = b"\r" if known.endswith(b"\r") else b""
        yield _with_lf(known[: len(known) - len(held)])[0]
    yield held
