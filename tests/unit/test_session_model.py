"""Tests that compare a session with a simple model for random input.

The model ignores octets, descriptors and time. Its client can send pipelined commands, its upstream
server accepts or refuses them, and its filter returns a verdict. The session must send the same
data to the client and to the upstream server as the model. For the proxy's own replies, the tests
compare only the codes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.unit.dialogue import Dialogue

HELLO = (b"EHLO one", b"HELO two")
COMMANDS = (
    *HELLO,
    b"MAIL FROM:<a@example>",
    b"MAIL FROM:<>",
    b"RCPT TO:<b@example>",
    b"RCPT TO:<c@example>",
    b"XFORWARD ADDR=192.0.2.1",
    b"RSET",
    b"NOOP",
    b"VRFY x",
    b"STARTTLS",
    b"BDAT 0 LAST",
    b"DATA now",
)
OWN = {b"STARTTLS": b"502 ", b"BDAT": b"502 "}
MESSAGES = ((b"text",), (b"Subject: x", b"", b"..dots", b"..", b"QUIT"), ())
REPLIES = (*[b"250 fine"] * 6, b"450 not now", b"550 never")


@dataclass
class Model:
    """The state of a session, and the expected observations of its peers.

    state: "client" while the session awaits a command, "message" while it awaits the content of a
        message, and "over" at the end. The other states name an awaited event: "connection",
        "greeting", "hello", "reset", "reply", "filter", "data" or "final".
    """

    filtering: bool
    rejecting: bool
    state: str = "connection"
    client: list[bytes] = field(default_factory=list)
    upstream: list[bytes] = field(default_factory=list)
    environments: list[tuple[bytes, bytes]] = field(default_factory=list)
    ahead: list[bytes] = field(default_factory=list)  # commands that were not yet processed
    line: bytes = b""  # the current command
    hello: bytes = b""
    sender: bytes | None = None
    recipients: list[bytes] = field(default_factory=list)
    greeted: bool = False
    connected: bool = True  # True during a connection attempt
    stale: bool = False  # True if the upstream server requires RSET before the next transaction
    body: tuple[bytes, ...] = ()

    @property
    def verb(self) -> bytes:
        return self.line.split()[0]

    def says(self, line: bytes) -> None:
        self.ahead.append(line)
        self.goes_on()

    def goes_on(self) -> None:
        while self.state == "client" and self.ahead:
            self.line = self.ahead.pop(0)
            self._command()

    def _command(self) -> None:
        if self.verb in OWN:
            self.client.append(OWN[self.verb])
        elif self.verb == b"DATA":
            self._data()
        elif not self.connected and self.verb in (b"RSET", b"NOOP"):
            self.client.append(b"250 ")
        elif not self.connected and self.verb == b"QUIT":
            self.client.append(b"221 ")
            self.state = "over"
        elif not self.connected:
            self.connected, self.state = True, "connection"
        elif self.stale and self.line not in (b"RSET", b"QUIT", *HELLO):
            self.upstream.append(b"RSET")
            self.state = "reset"
        else:
            self._relay()

    def _relay(self) -> None:
        self.upstream.append(self.line)
        self.state = "reply"

    def _data(self) -> None:
        if self.line != b"DATA":
            self.client.append(b"501 ")
        elif self.sender is None:
            self.client.append(b"503 ")
        elif not self.recipients:
            self.client.append(b"554 ")
        else:
            self.client.append(b"354 ")
            self.state = "message"
            self.body, self.ahead = tuple(self.ahead), []  # These lines are content.

    def connects(self) -> None:
        self.state = "greeting"

    def answers(self, reply: bytes) -> None:
        """Process the upstream server's reply to the current command."""
        awaited, positive = self.state, reply[:1] == b"2"
        self.state = "client"
        if awaited == "greeting" and not self.greeted:
            self.greeted = True
            self.client.append(reply)
        elif awaited == "greeting" and self.hello and self.line not in HELLO:
            self.upstream.append(self.hello)
            self.state = "hello"
        elif awaited in ("greeting", "hello", "reset"):
            self.stale = self.stale and awaited != "reset"
            self._relay()
        elif awaited == "data" and reply[:3] == b"354":
            self.upstream += [*self.body, b"."]
            self.state = "final"
        else:
            self._answered(awaited, reply, positive=positive)
        self.goes_on()

    def _answered(self, awaited: str, reply: bytes, *, positive: bool) -> None:
        self.client.append(reply)
        if awaited in ("data", "final"):
            self.stale = awaited == "data"
            self._forget()
        elif self.verb == b"QUIT":
            self.state = "over"
        elif positive:
            self._accepted()

    def _accepted(self) -> None:
        address = self.line[self.line.find(b"<") + 1 : -1]
        if self.verb == b"MAIL":
            self.sender = address or b"<>"
        elif self.verb == b"RCPT":
            self.recipients.append(address)
        elif self.line in HELLO or self.verb == b"RSET":
            self.hello = self.line if self.line in HELLO else self.hello
            self._forget()
            self.stale = False

    def _forget(self) -> None:
        self.sender, self.recipients = None, []

    def sends(self, body: tuple[bytes, ...]) -> None:
        self.body += body
        if self.filtering:
            self.environments.append((self.sender or b"", b"\n".join(self.recipients)))
            self.state = "filter"
        else:
            self._delivers()

    def _delivers(self) -> None:
        self.upstream.append(b"DATA")
        self.state = "data"

    def filters(self, status: int, said: bytes, replacement: bytes) -> None:
        if status == 1:
            self._refuses(said)
        elif status and self.rejecting:
            self._refuses(b"451 ")
        else:
            self.body = (replacement,) if replacement and not status else self.body
            self._delivers()

    def _refuses(self, reply: bytes) -> None:
        self.client.append(reply)
        self.upstream.append(b"QUIT")
        self.connected = False
        self._forget()
        self.state = "client"
        self.goes_on()


class SessionBesideItsModel(RuleBasedStateMachine):
    """A state machine that performs the possible events in random order."""

    @initialize(filtering=st.sampled_from((True, True, False)), rejecting=st.booleans())
    def begins(self, filtering: bool, rejecting: bool) -> None:
        self.dialogue = Dialogue(filtering=filtering, reject_failures=rejecting)
        self.model = Model(filtering, rejecting)

    @precondition(lambda self: self.model.state not in ("message", "over"))
    @precondition(lambda self: len(self.model.ahead) < 2)
    @rule(line=st.sampled_from(COMMANDS))
    def client_says(self, line: bytes) -> None:
        self._says(line)

    @precondition(lambda self: self.model.state in ("client", "connection"))
    @rule(hello=st.sampled_from((b"NOOP", *HELLO)))
    def client_begins_a_transaction(self, hello: bytes) -> None:
        """Send pipelined commands in one write (RFC 2920)."""
        self._says(hello, b"MAIL FROM:<a@example>", b"RCPT TO:<b@example>", b"DATA")

    @precondition(lambda self: len(self.model.client) > 12)
    @precondition(lambda self: self.model.state == "client")
    @rule()
    def client_quits(self) -> None:
        self._says(b"QUIT")

    def _says(self, *lines: bytes) -> None:
        self.dialogue.client_says(*lines)
        for line in lines:
            self.model.says(line)

    @precondition(lambda self: self.model.state == "message")
    @rule(body=st.sampled_from(MESSAGES), behind=st.sampled_from(((), (b"NOOP",), (b"QUIT",))))
    def client_sends_a_message(self, body: tuple[bytes, ...], behind: tuple[bytes, ...]) -> None:
        self.dialogue.client_says(*body, b".", *behind)
        self.model.sends(body)
        for line in behind:
            self.model.says(line)

    @precondition(lambda self: self.model.state == "connection")
    @rule()
    def upstream_connects(self) -> None:
        self.dialogue.upstream_connects()
        self.model.connects()

    @precondition(lambda self: self.model.state in ("greeting", "hello", "reset"))
    @rule()
    def upstream_is_ready(self) -> None:
        self._answers(b"220 up")

    @precondition(lambda self: self.model.state in ("reply", "data", "final"))
    @rule(reply=st.sampled_from(REPLIES))
    def upstream_answers(self, reply: bytes) -> None:
        while True:  # A pipelined transaction is one step with the same reply to each command.
            awaited = self.model.state
            self._answers(b"354 go on" if awaited == "data" and reply[:1] == b"2" else reply)
            if awaited != "reply" or self.model.state != "reply":
                break

    def _answers(self, reply: bytes) -> None:
        self.dialogue.upstream_says(reply)
        self.model.answers(reply)

    @precondition(lambda self: self.model.state == "filter")
    @rule(replacement=st.sampled_from((b"", b"replaced")))
    def filter_accepts(self, replacement: bytes) -> None:
        self._filters(0, b"", replacement)

    @precondition(lambda self: self.model.state == "filter")
    @rule(said=st.sampled_from((b"550 no", b"450 later", b"250 discarded")))
    def filter_rejects(self, said: bytes) -> None:
        self._filters(1, said, b"")

    @precondition(lambda self: self.model.state == "filter")
    @rule()
    def filter_fails(self) -> None:
        self._filters(2, b"", b"")

    def _filters(self, status: int, said: bytes, replacement: bytes) -> None:
        self.dialogue.replacement = replacement + b"\n" if replacement else b""
        self.dialogue.filter_ends(status, said)
        self.model.filters(status, said, replacement)
        if not self.model.connected and self.dialogue.connected:
            self.dialogue.upstream_says(b"221 bye")

    @precondition(lambda self: self.model.state == "over")
    @rule()
    def time_passes(self) -> None:
        """Check that the session ends even without a reply to QUIT."""
        self.dialogue.seconds_pass(10)
        assert self.dialogue.session.finished

    @invariant()
    def both_do_the_same(self) -> None:
        seen, expected = bytes(self.dialogue.to_client).split(b"\r\n")[:-1], self.model.client
        told = [
            line[:4] if len(said) == 4 else line for line, said in zip(seen, expected, strict=True)
        ]
        assert told == expected
        assert bytes(self.dialogue.to_upstream).split(b"\r\n")[:-1] == self.model.upstream
        given = [(each[b"SENDER"], each[b"RECIPIENTS"]) for each in self.dialogue.environments]
        assert given == self.model.environments
        assert self.dialogue.client_is_hung_up == (self.model.state == "over")


TestSessionBesideItsModel = SessionBesideItsModel.TestCase
TestSessionBesideItsModel.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None
)
