"""The ledger, which records the client's reply, the delivery and the filter runs of each message.

Rule: only this module decides whether the guarantees (docs/reliability.md) hold.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.faults import filters
from tests.faults.filters import KINDS

KEPT, VIOLATED, IN_DOUBT = "kept", "violated", "in doubt"

#: Moments at which a client can disconnect before its filter exits (data.client-lost).
BEFORE_THE_VERDICT = ("ended", "filtering")


@dataclass
class Delivery:
    """The part of a message that upstream received, with dot stuffing and without the end of data.

    whole: True if upstream has read the whole message and the end of data.
    answer: upstream's reply, even if it is early, or b"" if there was no valid reply.
    """

    content: bytes = b""
    whole: bool = False
    answer: bytes = b""


@dataclass
class Message:
    """All observations of one message.

    kind: the name of the filter.
    content: the octets that the client sent, without the end of data.
    ended: True if the client has sent the end of data.
    told: the reply to the message, or b"".
    left_at: the moment at which the client disconnected, or "" if it stayed.
    seen: the contents of EMAIL in each run of the filter.
    """

    token: str
    kind: str
    content: bytes
    ended: bool = False
    told: bytes = b""
    left_at: str = ""
    seen: list[bytes] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)

    @property
    def address(self) -> bytes:
        """The sender's address, which identifies the message for the filter and upstream."""
        return f"{self.kind}.{self.token}@faults.example".encode()


@dataclass(frozen=True)
class Judgement:
    outcome: str
    reason: str = ""


def judge(message: Message, *, rejecting: bool, hurried: bool = False) -> Judgement:
    """Check one message.

    rejecting: True if the proxy runs with -r.
    hurried: True if the time limit is so short that a filter may not have read EMAIL.
    """
    fate = fate_of(message.kind, rejecting=rejecting)
    passed_by = not hurried and _passed_by(message)
    wrong = _wrong_delivery(message, fate) or passed_by or _wrong_answer(message, fate)
    if wrong:
        return Judgement(VIOLATED, wrong)
    doubt = _doubt(message)
    return Judgement(IN_DOUBT, doubt) if doubt else Judgement(KEPT)


def fate_of(kind: str, *, rejecting: bool) -> str:
    """Return the outcome of a message for a kind of filter. It is never `filters.FAIL`."""
    fate = KINDS[kind].fate
    if fate == filters.FAIL:
        return filters.REFUSE if rejecting else filters.ORIGINAL
    return fate


def _wrong_delivery(message: Message, fate: str) -> str:
    """Return the violation that the delivery represents, or ""."""
    return _wrong_content(message, fate) or _wrong_reason(message)


def _wrong_content(message: Message, fate: str) -> str:
    contents = [delivery.content for delivery in message.deliveries if delivery.content]
    if contents and fate not in (filters.ORIGINAL, filters.REPLACE):
        return "upstream has content that the filter refused"
    expected = message.content if fate == filters.ORIGINAL else replacement(message.kind)
    if any(delivery.content != expected for delivery in _whole(message)):
        return "delivered with truncated or changed content"
    if not all((expected + b".\r\n").startswith(content) for content in contents):
        return "upstream received different content"
    return ""


def _wrong_reason(message: Message) -> str:
    """Return the reason why the delivered message must not be delivered, or ""."""
    whole = _whole(message)
    if not whole:
        return ""
    if not message.ended:
        return "delivered although the client did not send the end of data"
    if len([delivery for delivery in whole if delivery.answer[:1] == b"2"]) > 1:
        return "delivered twice"
    if message.left_at in BEFORE_THE_VERDICT and not message.told:
        return "delivered although the client disconnected before the verdict"
    return ""


def _whole(message: Message) -> list[Delivery]:
    return [delivery for delivery in message.deliveries if delivery.whole]


def _passed_by(message: Message) -> str:
    lines = b"\n" + message.content.replace(b"\r\n", b"\n")
    unseen = _whole(message) and message.seen != [lines.replace(b"\n..", b"\n.")[1:]]
    return "bypassed the filter" if unseen else ""


def _wrong_answer(message: Message, fate: str) -> str:
    """Return the violation that the client's reply represents, or ""."""
    answers = [delivery.answer for delivery in _whole(message)]
    if len(message.seen) > 1:
        return "filtered more than once"
    if not message.told:
        silent = message.ended and not message.left_at
        return "the client got no reply" if silent else ""
    if message.told[:1] == b"2":
        if fate != filters.DISCARD and not any(answer[:1] == b"2" for answer in answers):
            return "lost: the client got 2yz, but upstream has not accepted the message"
    elif any(answer[:1] == b"2" for answer in answers):
        return "duplicate: the client got 4yz or 5yz, but upstream has accepted the message"
    return ""


def _doubt(message: Message) -> str:
    """Return the reason why the client cannot know the outcome (RFC 1047), or ""."""
    whole = _whole(message)
    if message.told[:1] == b"2" or not whole:
        return ""
    if any(not delivery.answer for delivery in whole):
        return "upstream has the message but sent no final reply"
    if not message.told and any(delivery.answer[:1] == b"2" for delivery in whole):
        return "upstream has the message but the client had disconnected"
    return ""


def replacement(kind: str) -> bytes:
    """Return a replacing filter's output with dot stuffing and without the end of data."""
    return filters.LONG_REPLACEMENT if kind == "replaces-long" else filters.REPLACEMENT
