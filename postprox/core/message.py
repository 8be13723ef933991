"""One message in progress, from the 354 reply to the final reply.

Rule: the module `data`, not this module, decodes the octets. This module stores only the beginning
of the header, for the Message-ID.
"""

from . import limits
from . import verdict as verdicts
from .data import DotUnstuffer


class Message:
    """The state of the message in progress.

    began: the time of the DATA command in seconds, on the session's clock.
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
        #: The number of octets received from the client.
        self.received = 0
        #: The size of the content in octets, with LF line endings.
        self.size = 0
        #: The time at which the filter was started, in seconds on the session's clock.
        self.filter_began: float
        #: The run time of the filter in seconds, or 0 if it was not started.
        self.filter_seconds = 0.0
        #: The verdict of the filter.
        self.verdict = verdicts.Verdict(verdicts.NONE)
        #: True if the end of data was sent upstream but the final reply is pending (RFC 1047).
        self.in_doubt = False

    def decode(self, data: bytes) -> bytes:
        """Decode more input and return the content that later input cannot change."""
        content = self._decoder.feed(data)
        self.received += len(data)
        if self.size < limits.HEADER:
            self._header += content[: limits.HEADER - self.size]
        self.size += len(content)
        return content

    def judge(
        self, outcome: verdicts.Outcome, *, reject_failures: bool, strict: bool
    ) -> verdicts.Verdict:
        """Derive the verdict from the filter's outcome, store it and return it."""
        self.verdict = verdicts.judge(outcome, reject_failures=reject_failures, strict=strict)
        return self.verdict

    @property
    def wire(self) -> bytes:
        """The content that `decode` last returned, encoded for the upstream server."""
        return self._decoder.wire

    @property
    def complete(self) -> bool:
        """Whether the end of data has been received."""
        return self._decoder.complete

    @property
    def trailing(self) -> bytes:
        """The client's input after the end of data."""
        return self._decoder.trailing

    @property
    def message_id(self) -> bytes:
        """The value of the Message-ID field, or b"" if the header has none."""
        header = self._header.partition(b"\n\n")[0]
        for line in header.split(b"\n"):
            name, _, text = line.partition(b":")
            if name.strip().lower() == b"message-id":
                return text.strip()
        return b""
