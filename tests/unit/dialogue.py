"""A session whose client, upstream server, filter and spool are controlled by a test.

A `Dialogue` replaces the shell. It performs actions like `connection`, but with a simulated clock,
and it checks the shell's invariants: the session sends no data to a closed connection, it runs at
most one filter at a time, and it discards every message. `Session` itself checks each transition.
If a check fails, the error contains the whole dialogue in the notation of the transcripts. ``C>``
marks input from the client, ``U<`` marks output to the upstream server, and ``P<`` an action.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from postprox.core import actions, limits, log_levels
from postprox.core.data import encoded
from postprox.core.options import Options
from postprox.core.session import Session
from postprox.core.verdict import Outcome

MAIL = b"MAIL FROM:<a@example>"
RCPT = b"RCPT TO:<b@example>"
MESSAGE = (b"Subject: x", b"", b"body", b".")

#: The maximum number of characters of input or output in a history line.
_WIDTH = 200


def lines(*texts: bytes) -> bytes:
    return b"".join(text + b"\r\n" for text in texts)


class UnexpectedError(AssertionError):
    """A session behaved unexpectedly. The message contains the dialogue."""


class RecordingSession(Session):
    """A session that records its state transitions."""

    def __init__(self, options: Options, clock: Callable[[], float]) -> None:
        self.transitions: list[tuple[str, str]] = []
        super().__init__(options, clock)

    def _set_state(self, state: str) -> None:
        before = self._state
        super()._set_state(state)
        self.transitions.append((before, state))


class Dialogue:
    """A session with a client, an upstream server, a filter and a spool."""

    def __init__(
        self,
        *,
        filtering: bool = True,
        filter_timeout: float = 30,
        reject_failures: bool = False,
        strict: bool = False,
    ) -> None:
        self.now = 1000.0
        options = Options()
        options.command = "filter" if filtering else None
        options.timeout = filter_timeout
        options.reject = reject_failures
        options.strict = strict
        options.log_level = log_levels.DEBUG
        self.session = RecordingSession(options, lambda: self.now)
        self.log: list[tuple[int, str]] = []
        #: The `CountMessage` actions.
        self.counted: list[actions.CountMessage] = []
        #: One line for each event and action.
        self.history: list[str] = []
        #: The environment variables of each filter run.
        self.environments: list[dict[bytes, bytes]] = []
        #: The spooled content of each message.
        self.messages: list[bytes] = []
        #: The errors to report if the spool cannot be opened or sealed.
        self.open_error = self.seal_error = ""
        #: The error to report if the filter cannot be started.
        self.start_error = ""
        #: The last standard error line of a filter that is killed.
        self.said = b""
        #: The content of OUTFILE.
        self.replacement = b""
        #: True if the upstream server accepts a message immediately.
        self.upstream_is_fast = True

        #: The commands sent upstream, unchanged.
        self.commands: list[bytes] = []
        #: The number of complete messages sent upstream.
        self.deliveries = 0

        self.to_client = bytearray()
        self.to_upstream = bytearray()
        self.connecting = self.connected = self.filter_runs = self.delivering = False
        self.client_is_hung_up = False
        self.on_its_way = b""
        self.spool: bytearray | None = None
        self.wire = b""
        self._does("P> a client connects", self.session.start)

    # Events

    def client_sends(self, octets: bytes) -> None:
        self._insist(self.session.reads_client, "the session does not read from the client")
        self._insist(not self.client_is_hung_up, "the client connection is closed")
        self._does(f"C> {_said(octets)}", self.session.client_received, octets)

    def client_says(self, *texts: bytes) -> None:
        self.client_sends(lines(*texts))

    def client_ends(self) -> None:
        self.client_sends(b"")

    def upstream_connects(self) -> None:
        self._insist(self.connecting, "no connection attempt is in progress")
        self.connecting, self.connected = False, True
        self._does("U> @connect", self.session.upstream_connected)

    def upstream_fails(self, reason: str = "Connection refused") -> None:
        self._insist(self.connecting, "no connection attempt is in progress")
        self.connecting = False
        self._does(f"U> {reason}", self.session.upstream_failed, reason)

    def upstream_sends(self, octets: bytes) -> None:
        self._insist(self.connected, "the upstream connection is closed")
        self._does(f"U> {_said(octets)}", self.session.upstream_received, octets)

    def upstream_says(self, *texts: bytes) -> None:
        self.upstream_sends(lines(*texts))

    def upstream_ends(self) -> None:
        self.upstream_sends(b"")

    def upstream_takes_a_block(self) -> None:
        self._insist(self.delivering, "no message is being delivered")
        self._does("U> takes a block", self.session.message_progress)

    def upstream_takes_the_rest(self) -> None:
        self._insist(self.delivering, "no message is being delivered")
        self._does("U> takes the rest", self._message_is_sent)

    def filter_ends(
        self, status: int | None = 0, last_stderr_line: bytes = b"", failure: str = ""
    ) -> None:
        self._insist(self.filter_runs, "no filter is running")
        self.filter_runs = False
        outcome = Outcome(status, last_stderr_line, failure, replaced=bool(self.replacement))
        stderr = _shown(last_stderr_line) if last_stderr_line else ""
        ended = f"F> ends: {failure or status} {stderr}".rstrip()
        self._does(ended, self.session.filter_finished, outcome)

    def replacement_changes(self) -> None:
        self._insist(self.delivering, "no message is being delivered")
        self.delivering = False
        failed = self.session.replacement_failed
        self._does("P> OUTFILE changes", failed, "OUTFILE: changed")

    def client_is_reset(self) -> None:
        self._does("C> @reset", self.session.client_lost)

    def spool_cannot_be_read(self) -> None:
        self._insist(self.delivering, "no message is being delivered")
        self.delivering = False
        self._does("P> spool", self.session.spool_failed, "/spool: Input/output error")

    def seconds_pass(self, seconds: float) -> None:
        """Advance the clock and call the timer at each deadline."""
        end = self.now + seconds
        while self.session.deadline <= end:
            passed = max(0.0, self.session.deadline - self.now)
            self.now += passed
            self._does(f"P> {passed:g} s have passed", self.session.timer, self.now)
        self.now = end

    def is_told_to_stop(self) -> None:
        self._does("P> stop", self.session.stop)

    def is_terminated(self, timeout: float = 0) -> None:
        self._does("P> SIGTERM", self.session.terminate, timeout)

    def has_a_fault(self) -> None:
        self._does("P> fault", self.session.crash)

    # Expectations

    def client_sees(self, *texts: bytes) -> None:
        self._sees("the client", self.to_client, lines(*texts))

    def upstream_sees(self, *texts: bytes) -> None:
        self._sees("upstream", self.to_upstream, lines(*texts))

    def client_sees_reply(self, beginning: bytes) -> None:
        """Check that the client received one reply with this beginning."""
        seen = bytes(self.to_client)
        if not (seen.startswith(beginning) and seen.endswith(b"\r\n") and seen.count(b"\n") == 1):
            expected = f"one line that begins with {_shown(beginning)}"
            self._abort(f"the client should see\n  {expected}\nbut saw\n  {_shown(seen)}")
        self.to_client.clear()

    def nothing_is_said(self) -> None:
        self.client_sees()
        self.upstream_sees()

    def filter_is_running(self) -> None:
        self._insist(self.filter_runs, "the filter is not running")

    def filter_is_gone(self) -> None:
        self._insist(not self.filter_runs, "the filter is running")

    def is_over(self, exit_status: int = 0) -> None:
        """Check that both connections are closed without more output."""
        self._insist(self.client_is_hung_up, "the client connection is open")
        self._insist(not self.connecting, "a connection attempt is in progress")
        self._insist(not self.connected, "the upstream connection is open")
        self._insist(self.session.finished, "the session is not finished")
        self._insist(self.session.deadline == limits.NEVER, "the session still has a deadline")
        given = self.session.exit_status
        self._insist(given == exit_status, f"the exit status is {given}, not {exit_status}")
        self.nothing_is_said()

    def is_over_after_goodbye(self, exit_status: int = 0) -> None:
        """Check that the session ends after the upstream server's reply to QUIT."""
        self.upstream_sees(b"QUIT")
        self._insist(self.client_is_hung_up, "the client connection is open")
        self.upstream_says(b"221 bye")
        self.is_over(exit_status)

    def logged(self, level: int) -> list[str]:
        return [text for at, text in self.log if at == level]

    def verdict_lines(self) -> list[str]:
        return [text for text in self.logged(log_levels.INFO) if " reply=" in text]

    # Error messages

    def _sees(self, who: str, seen: bytearray, expected: bytes) -> None:
        if seen != expected:
            self._abort(f"{who} should see\n  {_shown(expected)}\nbut saw\n  {_shown(seen)}")
        seen.clear()

    def _insist(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self._abort(otherwise)

    def _abort(self, text: str) -> NoReturn:
        raise UnexpectedError(f"{text}\n\n{self._told()}")

    def _told(self) -> str:
        return "\n".join(("Dialogue, with the session state at each event:", *self.history))

    # Actions

    def _does(self, what: str, event: Callable[..., None], *arguments: object) -> None:
        """Pass an event to the session and perform its actions."""
        self.history.append(f"  {self.session._state:14} {what}")
        try:
            event(*arguments)
            self._carry_out()
        except UnexpectedError:
            raise
        except Exception as error:
            error.add_note(self._told())
            raise

    def _carry_out(self) -> None:
        while todo := self.session.take_actions():
            for action in todo:
                self._asked(action)
                _PERFORM[type(action)](self, action)
            if self.delivering and self.upstream_is_fast:
                self._message_is_sent()
        if self.client_is_hung_up:
            self._insist(self.spool is None, "the spool outlives the client connection")
            self._insist(not self.filter_runs, "the filter outlives the client connection")
            self._insist(not self.delivering, "the delivery outlives the client connection")

    def _asked(self, action: actions.Action) -> None:
        """Record an action in the history."""
        match action:
            case actions.SendToClient(data=data):
                told = f"C< {_shown(data)}"
            case actions.SendToUpstream(data=data):
                told = f"U< {_shown(data)}"
            case _:
                told = f"P< {_cut(repr(action))}"
        self.history.append(f"{'':16} {told}")

    def _to_client(self, action: actions.SendToClient) -> None:
        self._insist(not self.client_is_hung_up, "data is sent to a closed client connection")
        self.to_client += action.data

    def _close_client(self, _: actions.CloseClient) -> None:
        self._insist(not self.client_is_hung_up, "the client connection is closed twice")
        self.client_is_hung_up = True

    def _connect(self, _: actions.ConnectUpstream) -> None:
        self._insist(not self.connecting, "a connection attempt is already in progress")
        self._insist(not self.connected, "the upstream connection is already open")
        self.connecting = True

    def _to_upstream(self, action: actions.SendToUpstream) -> None:
        self._insist(self.connected, "data is sent to a closed upstream connection")
        self._insist(not self.delivering, "a command is sent during the delivery of a message")
        self.commands.append(action.data)
        self.to_upstream += action.data

    def _disconnect(self, _: actions.CloseUpstream) -> None:
        self.connecting = self.connected = self.delivering = False

    def _open_spool(self, _: actions.OpenSpool) -> None:
        self._insist(self.spool is None, "the spool already exists")
        if self.open_error:
            self.session.spool_failed(self.open_error)
        else:
            self.spool, self.wire = bytearray(), b""
            self.session.spool_opened()

    def _store(self, action: actions.WriteSpool) -> None:
        self._spooled().extend(action.data)
        self.wire += action.wire

    def _seal_spool(self, _: actions.FinishSpool) -> None:
        content = bytes(self._spooled())
        if self.seal_error:
            self.session.spool_failed(self.seal_error)
        else:
            self.messages.append(content)
            self.session.spool_sealed()

    def _run_filter(self, action: actions.RunFilter) -> None:
        self._spooled()
        self._insist(not self.filter_runs, "a filter is already running")
        self.environments.append(action.environment)
        if self.start_error:
            self.session.filter_finished(Outcome(failure=self.start_error, out_of_resources=True))
            return
        self.filter_runs = True
        self.session.filter_started()

    def _kill_filter(self, action: actions.KillFilter) -> None:
        self._insist(self.filter_runs, "no filter is running")
        self.filter_runs = False
        self.session.filter_finished(Outcome(failure=action.reason, last_stderr_line=self.said))

    def _deliver(self, _: actions.Deliver) -> None:
        self._spooled()
        self._send_message(self.wire)

    def _deliver_replacement(self, _: actions.DeliverReplacement) -> None:
        self._insist(bool(self.replacement), "the filter did not write OUTFILE")
        self._send_message(b"".join(encoded([self.replacement])))

    def _send_message(self, wire: bytes) -> None:
        self._insist(self.connected, "a message is sent to a closed upstream connection")
        self._insist(not self.filter_runs, "a message is sent while the filter runs")
        self.on_its_way = wire
        self.delivering = True

    def _message_is_sent(self) -> None:
        self.to_upstream += self.on_its_way
        self.delivering = False
        self.deliveries += 1
        self.history.append(f"{'':16} U< {_shown(self.on_its_way)}")
        self.session.message_sent()

    def _discard(self, _: actions.DiscardMessage) -> None:
        self.spool = None
        self.filter_runs = self.delivering = False

    def _count(self, action: actions.CountMessage) -> None:
        self.counted.append(action)

    def _write_log(self, action: actions.Log | actions.LogSeldom) -> None:
        self.log.append((action.level, action.text))

    def _spooled(self) -> bytearray:
        if self.spool is None:
            self._abort("the spool does not exist")
        return self.spool


def _shown(octets: bytes | bytearray) -> str:
    return _cut(repr(bytes(octets))[2:-1]) if octets else "nothing"


def _said(octets: bytes) -> str:
    return _shown(octets) if octets else "@eof"


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]} ... and {len(text) - _WIDTH} more"


_PERFORM: dict[type[actions.Action], Callable[[Dialogue, Any], None]] = {
    actions.SendToClient: Dialogue._to_client,
    actions.CloseClient: Dialogue._close_client,
    actions.ConnectUpstream: Dialogue._connect,
    actions.SendToUpstream: Dialogue._to_upstream,
    actions.CloseUpstream: Dialogue._disconnect,
    actions.OpenSpool: Dialogue._open_spool,
    actions.WriteSpool: Dialogue._store,
    actions.FinishSpool: Dialogue._seal_spool,
    actions.RunFilter: Dialogue._run_filter,
    actions.KillFilter: Dialogue._kill_filter,
    actions.Deliver: Dialogue._deliver,
    actions.DeliverReplacement: Dialogue._deliver_replacement,
    actions.DiscardMessage: Dialogue._discard,
    actions.CountMessage: Dialogue._count,
    actions.Log: Dialogue._write_log,
    actions.LogSeldom: Dialogue._write_log,
}

# Dialogues in a certain state


def awaiting_greeting(**options: Any) -> Dialogue:
    """Return a dialogue that awaits the greeting of the upstream server."""
    dialogue = Dialogue(**options)
    dialogue.upstream_connects()
    return dialogue


def connected(**options: Any) -> Dialogue:
    """Return a dialogue in which the greeting was relayed."""
    dialogue = awaiting_greeting(**options)
    dialogue.upstream_says(b"220 up ESMTP")
    dialogue.client_sees(b"220 up ESMTP")
    return dialogue


def relayed(dialogue: Dialogue, command: bytes, reply: bytes = b"250 ok") -> None:
    """Relay a command and its reply."""
    dialogue.client_says(command)
    dialogue.upstream_sees(command)
    dialogue.upstream_says(reply)
    dialogue.client_sees(reply)


def greeted(**options: Any) -> Dialogue:
    """Return a dialogue in which EHLO was accepted."""
    dialogue = connected(**options)
    relayed(dialogue, b"EHLO client.example", b"250 up")
    return dialogue


def in_transaction(**options: Any) -> Dialogue:
    """Return a dialogue in which a sender and a recipient were accepted."""
    dialogue = greeted(**options)
    begin_transaction(dialogue)
    return dialogue


def in_auth() -> Dialogue:
    """Return a dialogue in which the client must respond to a 334 reply."""
    dialogue = greeted()
    relayed(dialogue, b"AUTH LOGIN", b"334 VXNlcm5hbWU6")
    return dialogue


def awaiting_reply(command: bytes = MAIL) -> Dialogue:
    """Return a dialogue that awaits the reply to `command`."""
    dialogue = greeted()
    dialogue.client_says(command)
    dialogue.upstream_sees(command)
    return dialogue


def begin_transaction(dialogue: Dialogue) -> None:
    relayed(dialogue, MAIL)
    relayed(dialogue, RCPT)


def begin_data(dialogue: Dialogue) -> None:
    dialogue.client_says(b"DATA")
    dialogue.client_sees_reply(b"354 ")


def send_message(dialogue: Dialogue) -> None:
    begin_data(dialogue)
    dialogue.client_says(*MESSAGE)


def accept_message(dialogue: Dialogue, reply: bytes = b"250 queued") -> None:
    """Accept the message in the filter and in the upstream server."""
    dialogue.filter_ends(0)
    dialogue.upstream_says(b"354 go on")
    dialogue.upstream_says(reply)


def in_data(**options: Any) -> Dialogue:
    """Return a dialogue in which the client received the 354 reply."""
    dialogue = in_transaction(**options)
    begin_data(dialogue)
    return dialogue


def time_passes_in_data(dialogue: Dialogue, seconds: float) -> None:
    """Advance the clock while the client is idle, and answer the proxy's NOOP commands."""
    end = dialogue.now + seconds
    while dialogue.now < end and not dialogue.client_is_hung_up:
        dialogue.seconds_pass(min(60, end - dialogue.now))
        if dialogue.to_upstream == b"NOOP\r\n":
            dialogue.upstream_sees(b"NOOP")
            dialogue.upstream_says(b"250 ok")


def in_filter(**options: Any) -> Dialogue:
    """Return a dialogue with a running filter."""
    dialogue = in_data(**options)
    dialogue.client_says(*MESSAGE)
    dialogue.nothing_is_said()
    dialogue.filter_is_running()
    return dialogue


def in_delivery(**options: Any) -> Dialogue:
    """Return a dialogue in which the filter accepted the message and the proxy sent DATA."""
    dialogue = in_filter(**options)
    dialogue.filter_ends(0)
    dialogue.upstream_sees(b"DATA")
    return dialogue


def sending(**options: Any) -> Dialogue:
    """Return a dialogue in which the upstream server reads the message slowly."""
    dialogue = in_delivery(**options)
    dialogue.upstream_is_fast = False
    dialogue.upstream_says(b"354 go on")
    dialogue.to_upstream.clear()
    return dialogue


def sent(**options: Any) -> Dialogue:
    """Return a dialogue that awaits the final reply to the message."""
    dialogue = in_delivery(**options)
    dialogue.upstream_says(b"354 go on")
    dialogue.upstream_sees(*MESSAGE)
    return dialogue


def rejected(**options: Any) -> Dialogue:
    """Return a dialogue with a rejected message and a closed upstream connection."""
    dialogue = in_filter(**options)
    dialogue.filter_ends(1, b"spam")
    dialogue.client_sees(b"554 spam")
    dialogue.upstream_sees(b"QUIT")
    dialogue.upstream_says(b"221 bye")
    assert not dialogue.connected
    return dialogue


def reconnecting(**options: Any) -> Dialogue:
    """Return a dialogue in which a command after a rejection opened a second connection."""
    dialogue = rejected(**options)
    dialogue.client_says(MAIL)
    dialogue.upstream_connects()
    return dialogue


def replaying() -> Dialogue:
    """Return a dialogue in which the proxy repeated EHLO on the second connection."""
    dialogue = reconnecting()
    dialogue.upstream_says(b"220 up again")
    dialogue.upstream_sees(b"EHLO client.example")
    return dialogue


def resetting() -> Dialogue:
    """Return a dialogue in which the proxy sent RSET after DATA was refused."""
    dialogue = in_delivery()
    dialogue.upstream_says(b"451 later")
    dialogue.client_sees(b"451 later")
    dialogue.client_says(MAIL)
    dialogue.upstream_sees(b"RSET")
    return dialogue
