"""What the log says of one message: fields, ``key=value`` (log.verdict).

Rule: the keys and their order are stable; a value that a stranger chose cannot forge a field, and
is cut, so that no line is long and none takes long to make.
"""

from .. import TYPE_CHECKING
from . import limits

if TYPE_CHECKING:
    from .envelope import Envelope
    from .message import Message

#: What became of a message; its `verdict` is the filter's.
DELIVERED = "delivered"  # upstream has taken it
DISCARDED = "discarded"  # the sender was told so, at the filter's wish; upstream has nothing of it
REFUSED = "refused"  # for good: the client was told 5yz
DEFERRED = "deferred"  # the client was told to try again: 4yz
LOST = "lost"  # the client was gone before the filter had decided
UNKNOWN = "unknown"  # upstream has it, and did not say whether it takes it (RFC 1047)

_BARE = bytes(octet for octet in range(0x21, 0x7F) if octet not in b'"\\')


def message_line(
    message: "Message", envelope: "Envelope", own_helo: bytes, reply: bytes, now: float
) -> str:
    """Return the line about a message whose final reply is `reply`, b"" if nobody waited for it."""
    verdict = message.verdict
    said = b" ".join(reply.split(b"\r\n")).strip()
    return (
        f"verdict={verdict.action} result={result(message, reply)} "
        f"{envelope_fields(envelope, own_helo)} size={message.size} "
        f"filter={message.filter_seconds:.3f} "
        f"total={now - message.began:.3f} ident={quoted(envelope.queue_id)} "
        f"message-id={quoted(message.message_id)} reply={quoted(said, limits.LOGGED_REPLY)} "
        f"said={quoted(verdict.said, limits.LOGGED_REPLY)}"
    )


def failure_line(message: "Message", envelope: "Envelope", own_helo: bytes) -> str:
    """Return the warning about a filter that has failed on a message."""
    verdict = message.verdict
    fate = "refused with 451" if verdict.reply else "passed unfiltered"
    return (
        f"filter failed: {verdict.reason}; message {fate}: "
        f"{envelope_fields(envelope, own_helo)} said={quoted(verdict.said, limits.LOGGED_REPLY)}"
    )


def result(message: "Message", reply: bytes) -> str:
    """Return what became of a message, by the class of the reply to its end."""
    if message.in_doubt:
        return UNKNOWN
    if not reply:
        return LOST
    if reply[:1] == b"2":
        return DISCARDED if message.verdict.reply else DELIVERED
    return DEFERRED if reply[:1] == b"4" else REFUSED


def envelope_fields(envelope: "Envelope", own_helo: bytes) -> str:
    """Return the fields that tell whose message it is."""
    recipients = b",".join(envelope.recipients)
    return (
        f"client={quoted(envelope.remote_ip)} helo={quoted(envelope.helo(own_helo))} "
        f"from={quoted(envelope.sender or b'')} to={quoted(recipients, limits.LOGGED_TO)} "
        f"nrcpt={envelope.recipient_count}"
    )


def quoted(octets: bytes, limit: int = limits.LOGGED_VALUE) -> str:
    r"""Return a field's value, in `limit` characters and two quotes at the most.

    It is bare if it consists of ``!`` to ``~`` alone, without ``"`` and ``\``. Otherwise it stands
    in double quotes, with ``\"``, ``\\`` and ``\xHH``; it is never cut in one of them.
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
