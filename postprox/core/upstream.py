"""The session's side of upstream's connection: what state it is in, and which reply is awaited.

Rule: at most one reply is awaited at any time (relay.lockstep); whatever else upstream says was
not asked for. No I/O: `actions` go out. What replies mean is decided in `session`.
"""

from .. import TYPE_CHECKING
from . import actions, limits, smtp

if TYPE_CHECKING:
    from collections.abc import Callable

#: What state the connection is in.
ABSENT = "absent"  # there is no connection
CONNECTING = "connecting"
READY = "ready"
QUITTING = "leaving"  # QUIT was sent; nothing more that upstream says counts

#: Which reply of upstream is awaited; the log says so when it does not come.
NOTHING = "reply"  # none is
GREETING = "greeting"  # of a new connection
EHLO = "reply to HELO or EHLO"  # replayed on a connection that is not the client's first
RSET = "reply to RSET"  # of our own: the transaction of a message that upstream did not take
REPLY = "reply to the client's command"  # or to its answer in AUTH; relayed
QUIT = "reply to QUIT"  # of the client's; relayed
KEEPALIVE = "reply to NOOP"  # of our own; swallowed
DATA = "reply to DATA"  # of our own; the message is sent after a 354 only
FINAL = "final reply"  # to the message's end: once it is awaited, upstream may have the message

#: How long each is awaited, in seconds (relay.idle).
REPLY_TIMEOUTS = {
    GREETING: limits.UPSTREAM_REPLY,
    EHLO: limits.UPSTREAM_REPLY,
    RSET: limits.UPSTREAM_REPLY,
    REPLY: limits.UPSTREAM_REPLY,
    QUIT: limits.UPSTREAM_GOODBYE,
    KEEPALIVE: limits.UPSTREAM_REPLY,
    DATA: limits.UPSTREAM_DATA,
    FINAL: limits.UPSTREAM_FINAL,
}


#: What decides about no message, and is not awaited for long once the client is gone.
_TRANSACTION_FREE_REPLIES = (EHLO, RSET, REPLY, KEEPALIVE)


class UpstreamLink:
    """Upstream's connection.

    act: takes the actions that follow.
    clock: returns the present time in seconds.
    """

    def __init__(
        self, act: "Callable[[actions.Action], None]", clock: "Callable[[], float]"
    ) -> None:
        self._act = act
        self._clock = clock
        self._replies = smtp.ReplyReader()
        self._client_is_gone = False
        #: One of this module's words for it.
        self.state = ABSENT
        #: Which reply is awaited: one of this module's words for it.
        self.awaited = NOTHING
        #: When something was last said on the connection.
        self.used: float
        #: When upstream has been silent for too long; infinity if it owes nothing.
        self.deadline = limits.NEVER

    def connect(self) -> None:
        """Ask for a connection; a `connected` or a `disconnect` follows."""
        self.state = CONNECTING
        self.deadline = self._clock() + limits.CONNECT
        self._act(actions.ConnectUpstream())

    def connected(self) -> None:
        """Take the connection asked for, and await its greeting."""
        self.state = READY
        self._replies = smtp.ReplyReader()
        self.expect(GREETING)

    def ask(self, line: bytes, awaited: str) -> None:
        """Send a command line (without its line end), the reply to which is `awaited`."""
        self._act(actions.SendToUpstream(line + b"\r\n"))
        self.expect(awaited)

    def expect(self, awaited: str) -> None:
        """Await a reply, for as long as `REPLY_TIMEOUTS` says."""
        self.awaited = awaited
        self._extend(REPLY_TIMEOUTS[awaited])
        self._shorten_for_lost_client()

    def client_gone(self) -> None:
        """Await no ordinary reply for long from now on: the client is gone (relay.idle)."""
        self._client_is_gone = True
        self._shorten_for_lost_client()

    def shorten_deadline(self, limit: float) -> None:
        """Let upstream have `limit` seconds from now, or less if it had less."""
        self.deadline = min(self.deadline, self._clock() + limit)

    def progress(self) -> None:
        """Note that upstream took a block of the message, and let it have time for another."""
        self._extend(limits.UPSTREAM_BLOCK)

    @property
    def awaited_description(self) -> str:
        """What upstream owes when its deadline has passed, in words."""
        return "connection" if self.state == CONNECTING else self.awaited

    def feed(self, data: bytes) -> None:
        """Add what upstream sent."""
        self._replies.feed(data)

    def next_reply(self) -> tuple[smtp.Reply, str] | None:
        """Return the next reply and which was awaited, None if none is complete.

        Raises:
            smtp.BadReplyError: upstream sent something else.
        """
        reply = self._replies.next_reply() if self.state == READY else None
        if reply is None:
            return None
        awaited, self.awaited = self.awaited, NOTHING
        self.deadline = limits.NEVER
        self.used = self._clock()
        return reply, awaited

    def leave(self) -> None:
        """End the connection with QUIT; upstream is given a moment for its 221."""
        if self.awaited != QUIT:  # otherwise the client's own is under way
            self._act(actions.SendToUpstream(b"QUIT\r\n"))
        self.state = QUITTING
        self.awaited = NOTHING
        self._extend(limits.UPSTREAM_GOODBYE)

    def disconnect(self) -> None:
        """End the connection, or the attempt at one, without a word."""
        if self.state != ABSENT:
            self._act(actions.CloseUpstream())
        self.state = ABSENT
        self.awaited = NOTHING
        self.deadline = limits.NEVER

    def _shorten_for_lost_client(self) -> None:
        if self._client_is_gone and self.awaited in _TRANSACTION_FREE_REPLIES:
            self.shorten_deadline(limits.REPLY_AFTER_CLIENT_EOF)

    def _extend(self, limit: float) -> None:
        self.used = self._clock()
        self.deadline = self.used + limit
