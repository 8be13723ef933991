"""One message, from the 354 to the answer to its end, as far as the session needs to know it.

Rule: the octets pass through here (`data` decodes them) and are kept nowhere; the lines that the
log has about a message are made here.
"""

from .. import TYPE_CHECKING
from . import verdict as verdicts
from .data import DataDecoder

if TYPE_CHECKING:
    from .envelope import Envelope


class Message:
    """What is known of the message under way."""

    __slots__ = ("_began", "_decoder", "size", "verdict")

    def __init__(self, began: float) -> None:
        self._began = began
        self._decoder = DataDecoder()
        #: Octets at rest, with LF line ends.
        self.size = 0
        #: What is done with it; it stays the same without a filter.
        self.verdict = verdicts.Verdict(verdicts.ACCEPT)

    def decode(self, data: bytes) -> bytes:
        """Take octets of the client, return the content that is certain by now."""
        content = self._decoder.feed(data)
        self.size += len(content)
        return content

    @property
    def ended(self) -> bool:
        """Whether its end was seen."""
        return self._decoder.ended

    @property
    def rest(self) -> bytes:
        """What the client sent behind its end."""
        return self._decoder.rest

    def failure_line(self, envelope: "Envelope", own_helo: bytes) -> str:
        """Return the warning about a filter that failed on it."""
        fate = "refused with 451" if self.verdict.reply else "passed unfiltered"
        return f"filter failed: {self.verdict.reason}; message {fate}: {_about(envelope, own_helo)}"

    def lost_line(self, envelope: "Envelope", own_helo: bytes) -> str:
        """Return the line about a client that was gone before the filter had decided."""
        return f"lost: {_about(envelope, own_helo)} size={self.size}: the client is gone"

    def verdict_line(self, envelope: "Envelope", own_helo: bytes, reply: bytes, now: float) -> str:
        """Return the line about the message, once its final reply is known (log.verdict)."""
        return (
            f"{self.verdict.action}: {_about(envelope, own_helo)} size={self.size} "
            f"seconds={now - self._began:.3f} reply={_text(reply.rstrip())}"
        )


def _about(envelope: "Envelope", own_helo: bytes) -> str:
    recipients = ",".join(f"<{_text(recipient)}>" for recipient in envelope.recipients)
    more = envelope.recipient_count - len(envelope.recipients)
    sender = (envelope.sender or b"").removeprefix(b"<").removesuffix(b">")
    return (
        f"client={_text(envelope.remote_ip) or 'unknown'} helo={_text(envelope.helo(own_helo))} "
        f"from=<{_text(sender)}> to={recipients}{f',and {more} more' if more else ''}"
    )


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
