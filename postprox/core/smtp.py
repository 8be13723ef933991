"""The wire grammar of SMTP: octets in, command lines and replies out.

Rule: no policy and no I/O here; what a line means for the session is decided in `session`.
"""

from . import limits

#: The words of an EHLO reply that offer a way for content to pass round the filter (relay.ehlo).
HIDDEN_KEYWORDS = frozenset((b"STARTTLS", b"CHUNKING", b"BINARYMIME", b"BURL", b"XCLIENT"))


#: As a number: an octet is looked for five times as fast as octets.
_NUL = 0


class LineTooLongError(Exception):
    """A command line over `limits.COMMAND_LINE`; the reader drops the rest of it."""


class BadReplyError(Exception):
    """Upstream sent something that is no SMTP reply (RFC 5321 section 4.2)."""


class CommandReader:
    """The client's octets, held until the session asks for the next line.

    It also drops what the session does not want to see: the rest of a line that is too long,
    and announced octets (BDAT).
    """

    __slots__ = ("_buffer", "_drop_octets", "_dropping_line")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._drop_octets = 0
        self._dropping_line = False

    def feed(self, data: bytes) -> None:
        """Add what the client sent."""
        self._buffer += data
        self._drop()

    def drop(self, octets: int) -> None:
        """Drop the next `octets` octets, held already or still to come."""
        self._drop_octets = octets
        self._drop()

    def take_buffered(self) -> bytes:
        """Hand over everything held, as it came: it belongs to a message."""
        held = bytes(self._buffer)
        self._buffer.clear()
        return held

    @property
    def is_full(self) -> bool:
        """Whether no more should be read from the client for now."""
        return len(self._buffer) > limits.INPUT_BUFFER

    @property
    def has_line(self) -> bool:
        """Whether a complete line is held."""
        return b"\n" in self._buffer

    @property
    def has_buffered_quit(self) -> bool:
        """Whether one of the complete lines held is QUIT, and not BDAT's content.

        Only lines with one of these words in them are looked at, and not very many of those:
        others wait meanwhile, and what is held may be nothing but line ends.
        """
        held = bytes(self._buffer).upper()
        begin = 0
        for _ in range(limits.LINES_WITH_QUIT):
            found = [at for word in (b"QUIT", b"BDAT") if (at := held.find(word, begin)) >= 0]
            end = held.find(b"\n", min(found)) if found else -1
            if end < 0:
                return False
            line = held[held.rfind(b"\n", begin, end) + 1 or begin : end]
            if verb(line) == b"QUIT":
                return True
            begin = end + 1 + (announced_octets(line) if verb(line) == b"BDAT" else 0)
        return False

    def next_line(self) -> bytes | None:
        """Return the next complete line without its line end (LF or CRLF), None if there is none.

        Raises:
            LineTooLongError: once for every line over the bound.
        """
        end = self._buffer.find(b"\n")
        if end > limits.COMMAND_LINE or (end < 0 and len(self._buffer) > limits.COMMAND_LINE):
            self._dropping_line = True
            self._drop()
            raise LineTooLongError
        if end < 0:
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line.removesuffix(b"\r")

    def _drop(self) -> None:
        if self._drop_octets:
            dropped = min(self._drop_octets, len(self._buffer))
            del self._buffer[:dropped]
            self._drop_octets -= dropped
        elif self._dropping_line:
            end = self._buffer.find(b"\n")
            self._dropping_line = end < 0
            del self._buffer[: end + 1 if end >= 0 else len(self._buffer)]


class Reply:
    """One complete reply of upstream: its code, and its octets as they came."""

    __slots__ = ("code", "raw")

    def __init__(self, code: int, raw: bytes) -> None:
        self.code = code
        self.raw = raw

    @property
    def positive(self) -> bool:
        """Whether this is a 2yz reply (RFC 5321 section 4.2.1)."""
        return 200 <= self.code < 300

    @property
    def negative(self) -> bool:
        """Whether this is a 4yz or 5yz reply (RFC 5321 section 4.2.1)."""
        return self.code >= 400


class ReplyReader:
    """Upstream's octets, cut into replies."""

    __slots__ = ("_buffer", "_code", "_line")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._line = 0  # where the line under way starts
        self._code = b""

    def feed(self, data: bytes) -> None:
        """Add what upstream sent."""
        self._buffer += data

    def next_reply(self) -> Reply | None:
        """Return the next complete reply, None while there is none.

        Raises:
            BadReplyError: for a line that is no reply line or has a NUL in it, for differing
                codes in one reply, and for a reply over `limits.REPLY`.
        """
        while (end := self._buffer.find(b"\n", self._line)) >= 0:
            line = bytes(self._buffer[self._line : end + 1])
            self._check(line)
            self._line = end + 1
            if line[3:4] != b"-":
                return self._complete()
            self._code = line[:3]
        if len(self._buffer) > limits.REPLY:
            raise BadReplyError("a reply without end")
        return None

    def _check(self, line: bytes) -> None:
        code = line[:3]
        well_formed = code.isdigit() and code[0] in b"2345" and line[3] in b" -\r\n"
        if not well_formed or _NUL in line:
            raise BadReplyError(f"no SMTP reply: {line[:80]!r}")
        if self._code not in (b"", code):
            raise BadReplyError(f"differing codes in one reply: {line[:80]!r}")
        if self._line + len(line) > limits.REPLY:
            raise BadReplyError("a reply without end")

    def _complete(self) -> Reply:
        raw = bytes(self._buffer[: self._line])
        del self._buffer[: self._line]
        self._line = 0
        self._code = b""
        return Reply(int(raw[:3]), raw)


def verb(line: bytes | bytearray) -> bytes:
    """Return the first word of a command line in upper case, b"" if there is none.

    White space before it does not count: MTAs skip it (data.recognised).
    """
    words = line.split(None, 1)
    return bytes(words[0]).upper() if words else b""


def hello_name(line: bytes) -> bytes:
    """Return the argument of a HELO or EHLO command."""
    words = line.split(None, 1)
    return words[1].rstrip() if len(words) > 1 else b""


def announced_octets(line: bytes) -> int:
    """Return how many octets a BDAT command announces (RFC 3030), 0 if it is malformed."""
    words = line.split()
    return int(words[1][:18]) if len(words) > 1 and words[1].isdigit() else 0


def without_hidden_keywords(raw: bytes) -> bytes:
    """Return an EHLO reply without the keywords of `HIDDEN_KEYWORDS` (relay.ehlo)."""
    lines = raw.split(b"\n")[:-1]
    kept = lines[:1] + [line for line in lines[1:] if _keyword(line) not in HIDDEN_KEYWORDS]
    if len(kept) == len(lines):
        return raw
    if kept[-1][3:4] == b"-":
        kept[-1] = raw[:3] + b" " + kept[-1][4:]
    return b"\n".join(kept) + b"\n"


def _keyword(line: bytes) -> bytes:
    return verb(line[4:].replace(b"=", b" "))
