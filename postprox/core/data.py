"""Converts messages between wire and file format: dot-stuffing, line endings and the end of data.

Rule: only this module distinguishes content from the end of data.

In a file, a message has LF line endings and no stuffed dots. In input from the client, only CRLF
ends a line and only CRLF.CRLF ends the data (data.end). In output to the upstream server, a dot is
doubled after every octet that any server might accept as a line ending (data.no-smuggling).

Searching for a single octet is about ten times as fast as searching for a pair of octets. If a
block has no dots, the search for stuffed dots is therefore skipped. Base64, which makes up most of
a large message, contains no dots.
"""

from .. import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_END = b"\r\n.\r\n"

#: The minimum block size, in octets, at which checking whether all lines have the same length saves
#: time.
_MANY_LINES = 16384

# If a block ends with one of these sequences, the decoder holds the sequence back until the next
# block arrives, because its meaning depends on the next octet.
_AMBIGUOUS = (
    _END[:4],  # CRLF.CR is the end of data if LF follows
    _END[:3],  # the dot after CRLF is stuffed or part of the end of data
    _END[:2],  # CRLF may be followed by a dot
    _END[:1],  # CR is a bare CR unless LF follows
)


class DotUnstuffer:
    """Decodes the client's input after 354, and encodes the content for the upstream server."""

    __slots__ = ("_encoder", "_first", "_pending", "complete", "trailing", "wire")

    def __init__(self) -> None:
        self._pending = _END[:2]  # an initial CRLF, because the data begins at the start of a line
        self._first = True  # true until the initial CRLF has been removed
        self._encoder = DotStuffer()
        #: The encoded form of the content that `feed` last returned. If the message is complete,
        #: the encoded form includes the end of data.
        self.wire: bytes
        #: True if the end of data has been received.
        self.complete = False
        #: The input after the end of data.
        self.trailing = b""

    def feed(self, data: bytes) -> bytes:
        """Decode more input and return the content that later input cannot change.

        The encoded form of this content is in `wire`.
        """
        wire = self._pending + data
        end = wire.find(_END) if b"." in wire else -1
        if end >= 0:
            self.complete = True
            self.trailing = wire[end + len(_END) :]
            content = self._decode(wire[: end + 2])
            self.wire += self._encoder.end()
            return content
        self._pending = next((end for end in _AMBIGUOUS if wire.endswith(end)), b"")
        return self._decode(wire[: len(wire) - len(self._pending)])

    def _decode(self, wire: bytes) -> bytes:
        text = wire.replace(b"\r\n.", b"\r\n") if b"." in wire else wire
        content, only_crlf = _with_lf(text)
        stuffed = len(text) == len(wire) or wire.count(b"\n.") == wire.count(b"\n..")
        if self._first and content:
            self._first = False
            content, wire = content[1:], wire[2:]
        # If all line endings are CRLF and all leading dots are doubled, the encoded form equals the
        # input. Most blocks meet this condition and need not be encoded.
        self.wire = self._encoder.encode(content, wire if only_crlf and stuffed else b"")
        return content


class DotStuffer:
    """Encodes content for the upstream server.

    It converts LF to CRLF, doubles each dot that follows LF or CR, and adds CRLF if the last line
    is unterminated.
    """

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = b"\n"

    def encode(self, block: bytes, known: bytes = b"") -> bytes:
        """Encode the next block of content.

        known: the encoded form of the block, if the caller has it. It is not used if the block
            begins with a dot that must be doubled.
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
        """Return the end of data, preceded by CRLF if the last line is unterminated."""
        return (b"" if self._last == b"\n" else b"\r\n") + b".\r\n"


def _with_lf(text: bytes) -> tuple[bytes, bool]:
    """Replace CRLF with LF. Also return whether every CR and LF was part of a CRLF.

    If no CR or LF is bare, the function searches only for single octets, because this is faster
    than searching for pairs.
    """
    if len(text) > _MANY_LINES and (known := _equal_lines_with_lf(text)):
        return known, True
    lines = text.replace(b"\r", b"")
    if lines.replace(b"\n", b"\r\n") == text:
        return lines, True
    return text.replace(b"\r\n", b"\n"), False


def _equal_lines_with_lf(text: bytes) -> bytes:
    """Replace CRLF with LF if all lines have the same length, as in base64.

    Return b"" if the lengths differ, or if a CR or LF is bare. The function does not search for
    line endings. It treats the text between the first and the last line ending as rows of equal
    length. It checks the columns that must contain CR and LF, and removes the CR column.
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
    """Encode blocks of content for the upstream server, and add the end of data.

    The end of data is appended to the last block, so that both are sent together.
    """
    encoder, wire = DotStuffer(), b""
    for block in filter(None, content):
        if wire:
            yield wire
        wire = encoder.encode(block)
    yield wire + encoder.end()


def _stuffed(block: bytes) -> bytes:
    """Double each dot that follows LF or CR."""
    if b"." in block:
        block = block.replace(b"\n.", b"\n..")
        if b"\r" in block:
            block = block.replace(b"\r.", b"\r..")
    return block


def normalized(text: "Iterable[bytes]") -> "Iterator[bytes]":
    """Convert CRLF line endings to LF in blocks of OUTFILE."""
    pending = b""
    for block in text:
        joined = pending + block
        pending = b"\r" if joined.endswith(b"\r") else b""
        yield _with_lf(joined[: len(joined) - len(pending)])[0]
    yield pending
