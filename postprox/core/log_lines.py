"""The log line for one message, with ``key=value`` fields (log.verdict).

Rule: the keys and their order are stable. A remote host cannot forge a field. Values are truncated
to limit the line's length and the time to format it.
"""

from .. import TYPE_CHECKING
from . import limits

if TYPE_CHECKING:
    from .envelope import Envelope
    from .message import Message

#: The possible results of a message, as opposed to the filter's verdict on it.
DELIVERED = "delivered"  # the upstream server accepted the message
DISCARDED = "discarded"  # the filter replied 2yz to the client, and nothing was delivered
REFUSED = "refused"  # the client got a 5yz reply
DEFERRED = "deferred"  # the client got a 4yz reply and will try again later
LOST = "lost"  # the client disconnected before a reply was sent
UNKNOWN = "unknown"  # the end of data was sent upstream, but no final reply was received (RFC 1047)

_BARE = bytes(octet for octet in range(0x21, 0x7F) if octet not in b'"\\')


def message_line(
    message: "Message", envelope: "Envelope", own_helo: bytes, reply: bytes, now: float
) -> str:
    """Format the log line for a message.

    reply: the reply to the message, or b"" if the client got no reply.
    """
    verdict = message.verdict
    reply_text = b" ".join(reply.split(b"\r\n")).strip()
    return (
        f"verdict={verdict.action} result={result(message, reply)} "
        f"{envelope_fields(envelope, own_helo)} size={message.size} "
        f"filter={message.filter_seconds:.3f} "
        f"total={now - message.began:.3f} ident={quoted(envelope.queue_id)} "
        f"message-id={quoted(message.message_id)} "
        f"reply={quoted(reply_text, limits.LOGGED_REPLY)} "
        f"said={quoted(verdict.said, limits.LOGGED_REPLY)}"
    )


def failure_line(message: "Message", envelope: "Envelope", own_helo: bytes) -> str:
    """Format the warning about a filter failure."""
    verdict = message.verdict
    fate = "refused with 451" if verdict.reply else "passed unfiltered"
    return (
        f"filter failed: {verdict.reason}; message {fate}: "
        f"{envelope_fields(envelope, own_helo)} said={quoted(verdict.said, limits.LOGGED_REPLY)}"
    )


def result(message: "Message", reply: bytes) -> str:
    """Return the result of a message, which follows from the class of its reply."""
    if message.in_doubt:
        return UNKNOWN
    if not reply:
        return LOST
    if reply[:1] == b"2":
        return DISCARDED if message.verdict.reply else DELIVERED
    return DEFERRED if reply[:1] == b"4" else REFUSED


def envelope_fields(envelope: "Envelope", own_helo: bytes) -> str:
    """Format the fields of the envelope."""
    recipients = b",".join(envelope.recipients)
    return (
        f"client={quoted(envelope.remote_ip)} helo={quoted(envelope.helo(own_helo))} "
        f"from={quoted(envelope.sender or b'')} to={quoted(recipients, limits.LOGGED_TO)} "
        f"nrcpt={envelope.recipient_count}"
    )


def quoted(octets: bytes, limit: int = limits.LOGGED_VALUE) -> str:
    r"""Format the value of a field in at most `limit` characters, plus two quotes.

    A value is written without quotes if it consists of characters from ``!`` to ``~`` other than
    ``"`` and ``\``. Any other value is enclosed in double quotes, with the escapes ``\"``, ``\\``
    and ``\xHH``. Truncation never splits an escape.
    """
    octets = octets[:limit]
    if octets and not octets.translate(None, _BARE):
        return octets.decode("ascii")
    text = ""
    for octet in octets:
        shown = _shown(octet)
        if len(text) + len(shown) > limit:
            break
        text += shown
    return f'"{text}"'


def _shown(octet: int) -> str:
    if octet in b'"\\':
        return f"\\{octet:c}"
    return f"{octet:c}" if 0x20 <= octet < 0x7F else f"\\x{octet:02x}"
