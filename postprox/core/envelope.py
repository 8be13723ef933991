"""The envelope of one transaction. The filter's environment is built from the envelope.

Rule: an envelope is discarded at the end of its transaction (filter.env-reset). The values in an
envelope come from a remote host and cannot be trusted.
"""

from . import limits

_QUOTE, _BACKSLASH = b'"\\'
_CONTROLS = bytes((*range(32), 127))
_ATTRIBUTES = (b"ADDR", b"HELO", b"NAME", b"IDENT")
_UNKNOWN = (b"[UNAVAILABLE]", b"[TEMPUNAVAIL]")
_HEX = b"0123456789ABCDEFabcdef"


class Envelope:
    """One transaction's accepted sender, accepted recipients and XFORWARD attributes."""

    __slots__ = ("_all_recipients", "_xforward", "recipient_count", "recipients", "sender")

    def __init__(self) -> None:
        #: The accepted sender, or None before MAIL is accepted.
        self.sender: bytes | None = None
        #: The first accepted recipients, up to `limits.LOGGED_RECIPIENTS`.
        self.recipients: list[bytes] = []
        #: The total number of accepted recipients.
        self.recipient_count = 0
        #: One address per line, at most `limits.RECIPIENTS` octets in total.
        self._all_recipients = bytearray()
        self._xforward: dict[bytes, bytes] = {}

    def add_sender(self, line: bytes) -> None:
        """Record the address of an accepted MAIL command."""
        self.sender = _address(line, b"FROM")

    def add_recipient(self, line: bytes) -> None:
        """Record the address of an accepted RCPT command."""
        recipient = _address(line, b"TO")
        self.recipient_count += 1
        if len(self.recipients) < limits.LOGGED_RECIPIENTS:
            self.recipients.append(recipient)
        shown = recipient.translate(None, _CONTROLS) + b"\n"
        if len(self._all_recipients) + len(shown) <= limits.RECIPIENTS:
            self._all_recipients += shown

    def add_xforward(self, line: bytes) -> None:
        """Record the attributes of an accepted XFORWARD command (Postfix's XFORWARD_README)."""
        for word in line.split():
            name, _, value = word.partition(b"=")
            if name.upper() in _ATTRIBUTES:
                self._xforward[name.upper()] = _attribute(value)

    @property
    def remote_ip(self) -> bytes:
        """Return the IP address of the sending server, or b"" if unknown (filter.env-remoteip)."""
        address = self._xforward.get(b"ADDR", b"")
        return address[5:] if address[:5].upper() == b"IPV6:" else address

    def helo(self, own: bytes) -> bytes:
        """Return the HELO name of the sending server (filter.env-helo).

        own: the client's own HELO name, which is used if XFORWARD HELO is missing.
        """
        return self._xforward.get(b"HELO", own)

    @property
    def queue_id(self) -> bytes:
        """Return the queue ID of the sending server (XFORWARD's IDENT), or b"" if unknown."""
        return self._xforward.get(b"IDENT", b"")

    def environment(self, own_helo: bytes) -> dict[bytes, bytes]:
        """Return the variables for the filter (filter.env, filter.env-more)."""
        return {
            b"SENDER": environment_value(self.sender or b""),
            b"RECIPIENT": environment_value(self.recipients[0] if self.recipients else b""),
            b"REMOTEIP": environment_value(self.remote_ip),
            b"HELO": environment_value(self.helo(own_helo)),
            b"RECIPIENTS": bytes(self._all_recipients[:-1]),
            b"RECIPIENTCOUNT": b"%d" % self.recipient_count,
            b"QUEUE_ID": environment_value(self.queue_id),
            b"CLIENT_NAME": environment_value(self._xforward.get(b"NAME", b"")),
        }


def environment_value(value: bytes) -> bytes:
    """Remove control characters from `value` and truncate it to 99 octets (filter.env-99).

    The value is never truncated within a UTF-8 character.
    """
    value = value.translate(None, _CONTROLS)
    end = limits.ENVIRONMENT_VALUE
    if len(value) <= end:
        return value
    lead = end
    while lead > end - 3 and value[lead] & 0xC0 == 0x80:
        lead -= 1
    return value[: lead if value[lead] >= 0xC0 else end]


def _address(line: bytes, keyword: bytes) -> bytes:
    """Return the address in ``MAIL FROM:…`` or ``RCPT TO:…``, or b"" if there is none.

    The syntax is defined in RFC 5321 section 4.1.2. Like most MTAs, the parser also accepts missing
    angle brackets, and spaces around the colon.
    """
    words = line.split(None, 1)
    argument = words[1] if len(words) > 1 else b""
    if argument[: len(keyword)].upper() != keyword:
        return b""
    path = argument[len(keyword) :].lstrip()
    if path[:1] != b":":
        return b""
    path = path[1:].lstrip()
    if path[:1] == b"<":
        address = path[1 : _unquoted(path, b">")]
        return _without_route(address) or b"<>"
    return path[: _unquoted(path, b" \t")]


def _unquoted(text: bytes, wanted: bytes) -> int:
    """Return the position of the first unquoted octet that is in `wanted`, or else len(text)."""
    if _QUOTE not in text and _BACKSLASH not in text:
        return min((at for at in map(text.find, wanted) if at >= 0), default=len(text))
    quoted = escaped = False
    for position, octet in enumerate(text):
        if escaped:
            escaped = False
        elif octet == _BACKSLASH:
            escaped = True
        elif octet == _QUOTE:
            quoted = not quoted
        elif octet in wanted and not quoted:
            return position
    return len(text)


def _without_route(address: bytes) -> bytes:
    """Remove a source route such as ``@one,@two:``, which RFC 5321 section 4.1.2 says to ignore."""
    route, colon, mailbox = address.partition(b":")
    return mailbox if colon and route[:1] == b"@" else address


def _attribute(value: bytes) -> bytes:
    """Return the value of an XFORWARD attribute, or b"" if it is marked as unavailable."""
    return b"" if value.upper() in _UNKNOWN else decode_xtext(value)


def decode_xtext(value: bytes) -> bytes:
    """Decode sequences such as ``+41`` (RFC 3461 section 4).

    Malformed sequences are left unchanged.
    """
    first, *others = value.split(b"+")
    decoded = bytearray(first)
    for other in others:
        digits = other[:2]
        if len(digits) == 2 and digits[0] in _HEX and digits[1] in _HEX:
            decoded.append(int(digits, 16))
            decoded += other[2:]
        else:
            decoded += b"+" + other
    return bytes(decoded)
