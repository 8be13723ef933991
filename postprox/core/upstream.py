"""The upstream connection of a session, with its state and the awaited reply.

Rule: at most one reply is awaited at any time (relay.lockstep), and any other reply is
unexpected. This module is sans-I/O: it returns `actions`. `session` interprets the replies.
"""

from .. import TYPE_CHECKING
from . import actions, limits, smtp

if TYPE_CHECKING:
    from collections.abc import Callable

#: The states of the connection.
ABSENT = "absent"  # there is no connection
CONNECTING = "connecting"
READY = "ready"
QUITTING = "leaving"  # the proxy sent QUIT and ignores further replies

#: The names of the replies that a session can await. After a timeout, the log line contains the
#: name of the awaited reply.
NOTHING = "reply"  # no reply is awaited
GREETING = "greeting"  # the greeting of a new connection
EHLO = "reply to HELO or EHLO"  # the proxy repeats this command on a new connection
RSET = "reply to RSET"  # the proxy sends RSET after a refused message
REPLY = "reply to the client's command"  # this name is also used for the reply to an AUTH response
QUIT = "reply to QUIT"  # this reply is relayed to the client
KEEPALIVE = "reply to NOOP"  # this reply is not relayed, because the proxy itself sent NOOP
DATA = "reply to DATA"  # the message is sent only if this reply is 354
FINAL = "final reply"  # the upstream server may already have accepted the message

#: The timeout for each reply, in seconds (relay.idle).
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

#: Replies on which no message depends. Their timeouts are shortened after the client has
#: disconnected.
_TRANSACTION_FREE_REPLIES = (EHLO, RSET, REPLY, KEEPALIVE)


class UpstreamLink:
    """The connection to the upstream server.

    act: called with each action.
    clock: a monotonic clock that returns seconds.
    """

    def __init__(
        self, act: "Callable[[actions.Action], None]", clock: "Callable[[], float]"
    ) -> None:
        self._act = act
        self._clock = clock
        self._replies = smtp.ReplyReader()
        self._client_is_gone = False
        #: The state of the connection, one of this module's constants.
        self.state = ABSENT
        #: The awaited reply, one of this module's constants.
        self.awaited = NOTHING
        #: The time of the last command or reply.
        self.used: float
        #: The time at which the awaited reply or connection times out, or infinity.
        self.deadline = limits.NEVER

    def connect(self) -> None:
        """Request a connection. The caller then calls `connected` or `disconnect`."""
        self.state = CONNECTING
        self.deadline = self._clock() + limits.CONNECT
        self._act(actions.ConnectUpstream())

    def connected(self) -> None:
        """Await the greeting after the connection has been established."""
        self.state = READY
        self._replies = smtp.ReplyReader()
        self.expect(GREETING)

    def ask(self, line: bytes, awaited: str) -> None:
        """Send the command `line` (given without CRLF) and await the reply `awaited`."""
        self._act(actions.SendToUpstream(line + b"\r\n"))
        self.expect(awaited)

    def expect(self, awaited: str) -> None:
        """Await a reply with the timeout from `REPLY_TIMEOUTS`."""
        self.awaited = awaited
        self._extend(REPLY_TIMEOUTS[awaited])
        self._shorten_for_lost_client()

    def client_gone(self) -> None:
        """Shorten the timeout for a reply on which no message depends (relay.idle)."""
        self._client_is_gone = True
        self._shorten_for_lost_client()

    def shorten_deadline(self, limit: float) -> None:
        """Move the deadline to `limit` seconds from now, unless the deadline is already earlier."""
        self.deadline = min(self.deadline, self._clock() + limit)

    def progress(self) -> None:
        """Restart the timeout because the upstream server has accepted a block."""
        self._extend(limits.UPSTREAM_BLOCK)

    @property
    def awaited_description(self) -> str:
        """The name of the awaited connection or reply, for the log."""
        return "connection" if self.state == CONNECTING else self.awaited

    def feed(self, data: bytes) -> None:
        """Buffer input from the upstream server."""
        self._replies.feed(data)

    def next_reply(self) -> tuple[smtp.Reply, str] | None:
        """Return the next complete reply and the name of the awaited reply.

        Return None if no reply is complete.

        Raises:
            smtp.BadReplyError: the input is not an SMTP reply.
        """
        reply = self._replies.next_reply() if self.state == READY else None
        if reply is None:
            return None
        awaited, self.awaited = self.awaited, NOTHING
        self.deadline = limits.NEVER
        self.used = self._clock()
        return reply, awaited

    def leave(self) -> None:
        """Send QUIT and wait for the 221 reply with a short timeout."""
        if self.awaited != QUIT:  # QUIT is not sent again if the client's QUIT was relayed
            self._act(actions.SendToUpstream(b"QUIT\r\n"))
        self.state = QUITTING
        self.awaited = NOTHING
        self._extend(limits.UPSTREAM_GOODBYE)

    def disconnect(self) -> None:
        """Close the connection, or cancel the connection attempt, without QUIT."""
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
