"""The parser of SMTP command lines and replies.

Rule: this module contains no policy and performs no I/O. `session` interprets each line.
"""

from . import limits

#: The EHLO keywords that are not relayed: extensions that would bypass the filter, and PRDR, which
#: lets a server send several replies to one message (relay.ehlo).
HIDDEN_KEYWORDS = frozenset((b"STARTTLS", b"CHUNKING", b"BINARYMIME", b"BURL", b"XCLIENT", b"PRDR"))

#: Searching a line for an integer is five times as fast as searching it for a bytes object.
_NUL = 0


class LineTooLongError(Exception):
    """A command line is longer than `limits.COMMAND_LINE`.

    The reader drops the rest of the line.
    """


class BadReplyError(Exception):
    """Input from the upstream server is not an SMTP reply (RFC 5321 section 4.2)."""


class CommandReader:
    """Buffers input from the client and returns it line by line.

    The reader drops the rest of an overlong line, and the octets announced by BDAT.
    """

    __slots__ = ("_buffer", "_drop_octets", "_dropping_line")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._drop_octets = 0
        self._dropping_line = False

    def feed(self, data: bytes) -> None:
        """Buffer input from the client."""
        self._buffer += data
        self._drop()

    def drop(self, octets: int) -> None:
        """Drop the next `octets` octets, including those that have not been received yet."""
        self._drop_octets = octets
        self._drop()

    def take_buffered(self) -> bytes:
        """Remove and return the whole buffer unchanged, as the beginning of a message."""
        buffered = bytes(self._buffer)
        self._buffer.clear()
        return buffered

    @property
    def is_full(self) -> bool:
        """Whether the buffer is full and no more input should be read."""
        return len(self._buffer) > limits.INPUT_BUFFER

    @property
    def has_line(self) -> bool:
        """Whether the buffer contains a complete line."""
        return b"\n" in self._buffer

    @property
    def has_buffered_quit(self) -> bool:
        """Whether the buffer contains a complete QUIT line that is not BDAT content.

        Other sessions wait during the search, so it must be fast even if the buffer consists only
        of empty lines. The search therefore examines only lines that contain QUIT or BDAT, and at
        most `limits.LINES_WITH_QUIT` of them.
        """
        buffered = bytes(self._buffer).upper()
        begin = 0
        for _ in range(limits.LINES_WITH_QUIT):
            found = [at for word in (b"QUIT", b"BDAT") if (at := buffered.find(word, begin)) >= 0]
            end = buffered.find(b"\n", min(found)) if found else -1
            if end < 0:
                return False
            line = buffered[buffered.rfind(b"\n", begin, end) + 1 or begin : end]
            if verb(line) == b"QUIT":
                return True
            begin = end + 1 + (announced_octets(line) if verb(line) == b"BDAT" else 0)
        return False

    def next_line(self) -> bytes | None:
        """Return the next complete line without its line ending (LF or CRLF), or else None.

        Raises:
            LineTooLongError: the line exceeds the limit. The error is raised once for each overlong
                line.
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
    """The code and the original octets of a complete reply."""

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
    """Buffers input from the upstream server and returns it reply by reply."""

    __slots__ = ("_buffer", "_code", "_line")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._line = 0  # the offset of the current line
        self._code = b""

    def feed(self, data: bytes) -> None:
        """Buffer input from the upstream server."""
        self._buffer += data

    def next_reply(self) -> Reply | None:
        """Return the next complete reply, or None if no reply is complete.

        Raises:
            BadReplyError: a line is not a reply line or contains NUL, the codes of the lines
                differ, or the reply exceeds `limits.REPLY`.
        """
        while (end := self._buffer.find(b"\n", self._line)) >= 0:
            line = bytes(self._buffer[self._line : end + 1])
            self._check(line)
            self._line = end + 1
            if line[3:4] != b"-":
                return self._complete()
            self._code = line[:3]
        if len(self._buffer) > limits.REPLY:
            raise BadReplyError(f"reply longer than {limits.REPLY} octets")
        return None

    def _check(self, line: bytes) -> None:
        code = line[:3]
        well_formed = code.isdigit() and code[0] in b"2345" and line[3] in b" -\r\n"
        if not well_formed or _NUL in line:
            raise BadReplyError(f"not an SMTP reply: {line[:80]!r}")
        if self._code not in (b"", code):
            raise BadReplyError(f"different codes in one reply: {line[:80]!r}")
        if self._line + len(line) > limits.REPLY:
            raise BadReplyError(f"reply longer than {limits.REPLY} octets")

    def _complete(self) -> Reply:
        raw = bytes(self._buffer[: self._line])
        del self._buffer[: self._line]
        self._line = 0
        self._code = b""
        return Reply(int(raw[:3]), raw)


def verb(line: bytes | bytearray) -> bytes:
    """Return the first word of a command line in upper case, or b"" for a blank line.

    Leading whitespace is skipped, as in other MTAs (data.recognised).
    """
    words = line.split(None, 1)
    return bytes(words[0]).upper() if words else b""


def hello_name(line: bytes) -> bytes:
    """Return the argument of a HELO or EHLO command."""
    words = line.split(None, 1)
    return words[1].rstrip() if len(words) > 1 else b""


def announced_octets(line: bytes) -> int:
    """Return the number of octets that BDAT announces (RFC 3030), or 0 for a malformed command."""
    words = line.split()
    return int(words[1][:18]) if len(words) > 1 and words[1].isdigit() else 0


def without_hidden_keywords(raw: bytes) -> bytes:
    """Remove `HIDDEN_KEYWORDS` from an EHLO reply (relay.ehlo)."""
    lines = raw.split(b"\n")[:-1]
    kept = lines[:1] + [line for line in lines[1:] if _keyword(line) not in HIDDEN_KEYWORDS]
    if len(kept) == len(lines):
        return raw
    if kept[-1][3:4] == b"-":
        kept[-1] = raw[:3] + b" " + kept[-1][4:]
    return b"\n".join(kept) + b"\n"


def _keyword(line: bytes) -> bytes:
    return verb(line[4:].replace(b"=", b" "))
