"""One message, from the 354 to the answer to its end, as far as the session needs to know it.

Rule: the octets pass through here (`data` decodes them); nothing of them is kept but the header's
Message-ID.
"""

from . import limits
from . import verdict as verdicts
from .data import DotUnstuffer


class Message:
    """What is known of the message under way.

    began: when the client was told 354, in seconds on the session's clock.
    """

    __slots__ = (
        "_decoder",
        "_header",
        "began",
        "filter_began",
        "filter_seconds",
        "in_doubt",
        "received",
        "size",
        "verdict",
    )

    def __init__(self, began: float) -> None:
        self.began = began
        self._decoder = DotUnstuffer()
        self._header = b""
        #: Octets that the client has sent.
        self.received = 0
        #: Octets at rest, with LF line ends.
        self.size = 0
        #: When the filter was started, and how long it ran; 0 if it never was.
        self.filter_began: float
        self.filter_seconds = 0.0
        #: The filter's verdict on it.
        self.verdict = verdicts.Verdict(verdicts.NONE)
        #: Whether upstream has all of it and has not said whether it takes it (RFC 1047).
        self.in_doubt = False

    def decode(self, data: bytes) -> bytes:
        """Take octets of the client, return the content that is certain by now."""
        content = self._decoder.feed(data)
        self.received += len(data)
        if self.size < limits.HEADER:
            self._header += content[: limits.HEADER - self.size]
        self.size += len(content)
        return content

    def judge(
        self, outcome: verdicts.Outcome, *, reject_failures: bool, strict: bool
    ) -> verdicts.Verdict:
        """Take the verdict that follows from the filter's end, and return it."""
        self.verdict = verdicts.judge(outcome, reject_failures=reject_failures, strict=strict)
        return self.verdict

    @property
    def wire(self) -> bytes:
        """What goes upstream for the content that `decode` has returned last."""
        return self._decoder.wire

    @property
    def complete(self) -> bool:
        """Whether its end was seen."""
        return self._decoder.complete

    @property
    def trailing(self) -> bytes:
        """What the client sent behind its end."""
        return self._decoder.trailing

    @property
    def message_id(self) -> bytes:
        """What its Message-ID field says, b"" if its header has none."""
        header = self._header.partition(b"\n\n")[0]
        for line in header.split(b"\n"):
            name, _, text = line.partition(b":")
            if name.strip().lower() == b"message-id":
                return text.strip()
        return b""
