"""The session's side of upstream's connection: what state it is in, and which reply is awaited.

Rule: at most one reply is awaited at any time (relay.lockstep); whatever else upstream says was
not asked for. No I/O: `actions` go out. What replies mean is decided in `session`.
"""

from . import actions, limits, smtp
from .system import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Handler = Callable[[smtp.Reply], None]

ABSENT = "absent"  # there is no connection
CONNECTING = "connecting"
READY = "ready"
LEAVING = "leaving"  # QUIT was sent; nothing more that upstream says counts

_NEVER = float("inf")


class Link:
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
        #: One of this module's words.
        self.state = ABSENT
        #: Who handles the next reply, None if none is awaited.
        self.handler: Handler | None = None
        #: When something was last said on the connection.
        self.used = 0.0
        #: When upstream has been silent for too long; infinity if it owes nothing.
        self.deadline = _NEVER

    def connect(self) -> None:
        """Ask for a connection; a `connected` or a `disconnect` follows."""
        self.state = CONNECTING
        self.deadline = self._clock() + limits.CONNECT
        self._act(actions.Connect())

    def connected(self, handler: "Handler") -> None:
        """Take the connection asked for; `handler` gets the greeting."""
        self.state = READY
        self._replies = smtp.ReplyReader()
        self.expect(handler, limits.UPSTREAM_REPLY)

    def ask(self, line: bytes, handler: "Handler", limit: float = limits.UPSTREAM_REPLY) -> None:
        """Send a command line (without its line end); `handler` gets the reply to it."""
        self._act(actions.ToUpstream(line + b"\r\n"))
        self.expect(handler, limit)

    def expect(self, handler: "Handler", limit: float) -> None:
        """Let `handler` get the next reply, which is due within `limit` seconds."""
        self.handler = handler
        self.extend(limit)

    def extend(self, limit: float) -> None:
        """Let upstream have `limit` seconds from now."""
        self.used = self._clock()
        self.deadline = self.used + limit

    def feed(self, data: bytes) -> None:
        """Add what upstream sent."""
        self._replies.feed(data)

    def next_reply(self) -> "tuple[smtp.Reply, Handler | None] | None":
        """Return the next reply and who handles it, None if none is complete.

        Raises:
            smtp.BadReplyError: upstream sent something else.
        """
        reply = self._replies.next_reply() if self.state == READY else None
        if reply is None:
            return None
        handler, self.handler = self.handler, None
        self.deadline = _NEVER
        self.used = self._clock()
        return reply, handler

    def leave(self) -> None:
        """End the connection with QUIT; upstream is given a moment for its 221."""
        self._act(actions.ToUpstream(b"QUIT\r\n"))
        self.state = LEAVING
        self.handler = None
        self.extend(limits.UPSTREAM_GOODBYE)

    def disconnect(self) -> None:
        """End the connection, or the attempt at one, without a word."""
        if self.state != ABSENT:
            self._act(actions.Disconnect())
        self.state = ABSENT
        self.handler = None
        self.deadline = _NEVER
