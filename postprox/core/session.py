"""One SMTP session, from the greeting of the upstream server to the last reply.

Rule: this module makes every protocol decision. It is sans-I/O: it receives octets and events and
returns `actions`. The caller supplies the clock.

A session is always in one of the `states`. It awaits at most one reply from the upstream server,
and `upstream` records which reply it awaits. Additional input from the client is buffered until the
current command has been answered. Replies are therefore always in order, and each belongs to a
known command (relay.lockstep).

Logs: errors of the upstream server, the spool, the filter and the client, and one line per message.
At debug level, the session also logs every command and reply.
"""

from .. import TYPE_CHECKING
from . import actions, limits, log_levels, replies, smtp, upstream
from .states import (
    AUTH_RESPONSE,
    AWAITING_REPLY,
    CLOSED,
    COMMAND,
    CONNECTING,
    DELIVERING,
    FILTERING,
    OPENING_SPOOL,
    RECEIVING,
    TRANSITIONS,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from .envelope import Envelope
    from .message import Message
    from .options import Options
    from .verdict import Outcome

_CLIENT_STATES = (COMMAND, AUTH_RESPONSE, RECEIVING)
_MESSAGE_STATES = (RECEIVING, FILTERING, DELIVERING)

#: Searching a line for an integer is five times as fast as searching it for a bytes object.
_NUL, _CR = b"\0\r"

#: Commands that would bypass the filter, or change the client's identity as seen by the upstream
#: server.
_REFUSED = (b"STARTTLS", b"BDAT", b"BURL", b"XCLIENT", b"XEXCH50")

#: Commands that the log may quote, and b"" for no command. Any other line may contain a password.
#: Examples are a misspelt AUTH, and an AUTH response that the client sent before it read the
#: rejection.
_LOGGABLE = frozenset(
    (
        *(b"", b"EHLO", b"HELO", b"MAIL", b"RCPT", b"DATA", b"RSET", b"NOOP", b"QUIT"),
        *(b"VRFY", b"EXPN", b"ETRN", b"HELP", b"XFORWARD", b"LHLO", *_REFUSED),
    )
)


class Session:
    """The session with one client.

    options: the values of the command-line options.
    clock: a monotonic clock that returns seconds.
    """

    def __init__(self, options: "Options", clock: "Callable[[], float]") -> None:
        self._options = options
        self._clock = clock

        self._actions: list[actions.Action] = []
        self._state = CONNECTING
        self._turn_began: float  # the time of the last transition to one of `_CLIENT_STATES`
        self._commands = smtp.CommandReader()
        self._upstream = upstream.UpstreamLink(self._act, clock)
        self._greeted = False  # true if the upstream server's greeting was sent to the client
        self._line = b""  # the current command
        self._verb = b""  # its first word in upper case
        self._hello = b""  # the accepted HELO or EHLO command
        self._authenticated = False
        self._client_eof = False
        self._stopping = False
        self._rset_pending = False  # true if the last transaction is still open upstream
        self._sent_421: bool  # true if the last reply to the client was 421
        self._current_envelope: Envelope | None = None
        self._current_message: Message | None = None

        #: The time of the client's last input, or of the last transition to one of
        #: `_CLIENT_STATES`.
        self._client_heard: float
        self._client_deadline = limits.NEVER
        self._filter_deadline = limits.NEVER
        self._keepalive_due = limits.NEVER
        self._resume_due = limits.NEVER  # the time at which to continue with buffered commands
        #: The exit status: 0, or 1 after an error (cli.exit).
        self.exit_status = 0
        #: True if the proxy ended the session before QUIT. The client may still be sending.
        self.ended_early = False

    # The interface for the package `shell`.

    def take_actions(self) -> list[actions.Action]:
        """Remove and return the pending actions."""
        taken, self._actions = self._actions, []
        return taken

    @property
    def reads_client(self) -> bool:
        """Whether the shell should read from the client."""
        return not (self._client_eof or self._state == CLOSED or self._commands.is_full)

    @property
    def client_gone(self) -> bool:
        """Whether the client has disconnected and its commands and messages have been handled."""
        idle = self._current_message is None and not self._commands.has_line
        return self._client_eof and idle

    @property
    def receiving(self) -> bool:
        """Whether input from the client belongs to a message."""
        return self._state == RECEIVING

    @property
    def client_closed(self) -> bool:
        """Whether the session has closed the client's connection."""
        return self._state == CLOSED

    @property
    def finished(self) -> bool:
        """Whether both connections are closed."""
        return self._state == CLOSED and self._upstream.state == upstream.ABSENT

    @property
    def deadline(self) -> float:
        """The time on the session's clock at which `timer` must be called, or infinity."""
        return min(
            self._client_deadline,
            self._upstream.deadline,
            self._filter_deadline,
            self._keepalive_due,
            self._resume_due,
        )

    # Events.

    def start(self) -> None:
        """Start the session with a connected client."""
        self._upstream.connect()

    def client_received(self, data: bytes) -> None:
        """Process input from the client, or EOF (b"")."""
        if self._state == CLOSED:
            return
        self._client_heard = self._clock()
        if not data:
            self._client_eof = True
            self._upstream.client_gone()
        elif self._state == RECEIVING:
            self._receive(data)
        else:
            self._commands.feed(data)
        self._abandon_if_client_lost()
        self._advance()

    def client_lost(self) -> None:
        """End the session after the client's connection has failed, and ignore the buffered input.

        If the end of data was sent upstream, the session still awaits the final reply, so that the
        log line contains the message's result.
        """
        self._client_eof = True
        self._commands.take_buffered()
        if self._state in _MESSAGE_STATES:
            self._abandon_if_client_lost()
        elif self._state != CLOSED:
            self._close_upstream()
            self._close_client()

    def upstream_connected(self) -> None:
        """Await the greeting after `actions.ConnectUpstream` has succeeded."""
        self._upstream.connected()

    def upstream_failed(self, reason: str) -> None:
        """End the session after `actions.ConnectUpstream` has failed."""
        self._log(log_levels.ERROR, "cannot reach upstream: %s", reason)
        self._abort(replies.UPSTREAM_UNREACHABLE)

    def upstream_received(self, data: bytes) -> None:
        """Process input from the upstream server, or EOF (b"")."""
        if self._upstream.state == upstream.QUITTING:
            self._upstream.disconnect()
        elif not data:
            self._lose_upstream()
        else:
            self._upstream.feed(data)
            self._read_replies()
        self._advance()

    def spool_opened(self) -> None:
        """Send 354 after `actions.OpenSpool`."""
        self._answer(replies.SEND_MESSAGE, RECEIVING)
        self._keepalive_due = self._upstream.used + limits.KEEPALIVE
        self._receive(self._commands.take_buffered())
        if self._state == RECEIVING:  # after the end of data, `spool_sealed` makes this check
            self._abandon_if_client_lost()

    def spool_sealed(self) -> None:
        """After `actions.FinishSpool`, run the filter or, without a filter, deliver the message."""
        self._abandon_if_client_lost()
        if self._state == CLOSED:
            return
        if self._options.command is not None:
            self._act(actions.RunFilter(self._envelope.environment(self._helo_name)))
        else:
            self._deliver()

    def spool_failed(self, reason: str) -> None:
        """Refuse the message with 452 because the spool cannot be used (data.spool-error)."""
        if self._current_message is None:
            return  # the message has already been answered
        self._log(log_levels.ERROR, "cannot spool the message: %s", reason)
        if self._state == OPENING_SPOOL:  # the transaction continues
            self._answer(replies.SPOOL_ERROR)
            self._log_verdict(replies.SPOOL_ERROR)
            self._discard()
        else:
            self._close_upstream()
            self._end_message(replies.SPOOL_ERROR)
        self._advance()

    def filter_started(self) -> None:
        """Start the filter's timeout (filter.timeout)."""
        self._message.filter_began = self._clock()
        self._filter_deadline = self._message.filter_began + self._options.timeout

    def filter_finished(self, outcome: "Outcome") -> None:
        """Refuse or deliver the message, depending on the filter's outcome."""
        if self._filter_deadline != limits.NEVER:
            self._message.filter_seconds = self._clock() - self._message.filter_began
            self._filter_deadline = limits.NEVER
        verdict = self._message.judge(
            outcome, reject_failures=self._options.reject, strict=self._options.strict
        )
        if verdict.reply:
            self._close_upstream()
            self._end_message(verdict.reply)
        else:
            self._log_failure()
            self._deliver()
        self._advance()

    def replacement_failed(self, reason: str) -> None:
        """Refuse the message because OUTFILE changed or cannot be read (filter.outfile-stable)."""
        from .verdict import FAIL, Verdict

        said = self._message.verdict.said
        verdict = self._message.verdict = Verdict(FAIL, replies.FILTER_FAILED, reason, said=said)
        self._upstream.disconnect()
        self._end_message(verdict.reply)
        self._advance()

    def message_progress(self) -> None:
        """Restart the timeout after the upstream server has accepted a block of the message."""
        self._upstream.progress()

    def message_sent(self) -> None:
        """Await the final reply after the end of data was sent upstream."""
        self._message.in_doubt = True
        self._upstream.expect(upstream.FINAL)

    def timer(self, now: float) -> None:
        """Process a deadline that has expired.

        now: the time that deadlines are compared with, which may be earlier than the current time.
        """
        if now >= self._upstream.deadline:
            self._upstream_silent()
        elif now >= self._client_deadline:
            self._client_late(now)
        elif now >= self._filter_deadline:
            self._filter_late()
        elif now >= self._keepalive_due:
            self._keepalive_due = limits.NEVER
            self._upstream.ask(b"NOOP", upstream.KEEPALIVE)
        self._advance()

    def stop(self) -> None:
        """End the session as soon as no message is in progress (listen.stop)."""
        self._stopping = True
        self._advance()

    def terminate(self, timeout: float) -> None:
        """End the session at once, with 421 if the client awaits a reply (files.term).

        timeout: the number of seconds to wait for the final reply, if the session awaits it.
        """
        if self._upstream.awaited == upstream.FINAL and timeout:
            self._stopping = True
            self._upstream.shorten_deadline(timeout)
            return
        self._abort(b"" if self._state in (COMMAND, AUTH_RESPONSE) else replies.SHUTTING_DOWN)
        self._upstream.disconnect()

    def crash(self) -> None:
        """End the session with 421 after an internal error.

        The client gets 421 in every state, because the error may have occurred before a command was
        parsed.
        """
        self._abort(replies.INTERNAL_ERROR)
        self._upstream.disconnect()

    # Client commands.

    def _advance(self) -> None:
        """Handle buffered commands while the state permits it.

        If there are many commands, `timer` handles the rest later, so that other sessions can run
        in between.
        """
        self._resume_due = limits.NEVER
        for _ in range(limits.COMMANDS_AT_ONCE):
            if self._state not in (COMMAND, AUTH_RESPONSE):
                return
            if self._stopping:
                self._abort(replies.SHUTTING_DOWN)
                self.exit_status = 0
            elif not self._handle_next():
                return
        self._resume_due = self._clock()

    def _handle_next(self) -> bool:
        """Handle the next line, or EOF if no line is left. Return True if a line was handled."""
        try:
            line = self._commands.next_line()
        except smtp.LineTooLongError:
            self._refuse_line(replies.LINE_TOO_LONG)
            return True
        if line is not None:
            self._handle(line)
        elif self._client_eof:
            self._close_upstream()
            self._close_client()
        return line is not None

    def _handle(self, line: bytes) -> None:
        """Handle a command or a response to 334."""
        if _NUL in line or _CR in line:
            self._refuse_line(replies.BAD_CHARACTER)
        elif self._state == AUTH_RESPONSE:
            self._relay(line)
        else:
            self._line = line
            self._verb = smtp.verb(line)
            self._handle_command(self._verb)

    def _handle_command(self, verb: bytes) -> None:
        self._log_dialogue("client", self._line, b"AUTH" if verb == b"AUTH" else b"(unknown)")
        if verb == b"DATA":
            self._begin_message()
        elif verb == b"LHLO":
            self._refuse_lmtp()
        elif verb in _REFUSED:
            if verb == b"BDAT":
                self._commands.drop(smtp.announced_octets(self._line))
            self._answer(replies.NOT_OFFERED)
        elif self._upstream.state != upstream.READY:
            self._handle_without_upstream(verb)
        elif self._rset_pending and verb not in (b"RSET", b"QUIT", b"HELO", b"EHLO"):
            self._set_state(AWAITING_REPLY)
            self._upstream.ask(b"RSET", upstream.RSET)
        else:
            self._relay(self._line)

    def _refuse_lmtp(self) -> None:
        """End the session of an LMTP client with 421 (relay.refused).

        An LMTP client expects one reply per recipient. After a 421 reply, the client defers its
        messages, but a 500 or 502 reply would bounce them.
        """
        line = "the client speaks LMTP: the transport must be smtp(8), not lmtp(8)"
        self._act(actions.LogSeldom(log_levels.WARNING, line))
        self._abort(replies.NOT_LMTP)

    def _handle_without_upstream(self, verb: bytes) -> None:
        """Handle a command while there is no upstream connection (filter.reject-session)."""
        if verb == b"QUIT":
            self._answer(replies.BYE)
            self._close_client()
        elif verb in (b"RSET", b"NOOP"):
            self._answer(replies.OK)
        elif self._authenticated:
            self._abort(replies.AUTHENTICATE_AGAIN)
        else:
            self._upstream.disconnect()
            self._connect()

    def _refuse_line(self, reply: bytes) -> None:
        """Reject an invalid line, and cancel AUTH if it is in progress (RFC 4954 section 4)."""
        if self._state == AUTH_RESPONSE:
            self._relay(b"*")
        else:
            self._answer(reply)

    def _relay(self, line: bytes) -> None:
        self._set_state(AWAITING_REPLY)
        quitting = self._verb == b"QUIT"
        self._upstream.ask(line, upstream.QUIT if quitting else upstream.REPLY)

    # The connection to the upstream server, and its replies.

    def _connect(self) -> None:
        self._set_state(CONNECTING)
        self._upstream.connect()

    def _read_replies(self) -> None:
        try:
            while received := self._upstream.next_reply():
                self._on_any_reply(*received)
        except smtp.BadReplyError as error:
            self._log(log_levels.ERROR, "upstream does not speak SMTP: %s", error)
            self._fail_upstream(replies.UPSTREAM_GARBLED, replies.MESSAGE_UNANSWERED)

    def _on_any_reply(self, reply: smtp.Reply, awaited: str) -> None:
        self._log_dialogue("upstream", reply.raw, reply.raw[:3])
        if reply.code == 354 and awaited not in (upstream.DATA, upstream.NOTHING):
            self._log(log_levels.ERROR, "upstream sent an unexpected 354 reply")
            self._fail_upstream(replies.UPSTREAM_GARBLED, replies.MESSAGE_UNANSWERED)
            return
        if reply.code == 334 and awaited == upstream.GREETING:
            self._fail_unasked_challenge()
            return
        match awaited:
            case upstream.GREETING:
                self._on_greeting(reply)
            case upstream.EHLO:
                self._on_replayed_hello(reply)
            case upstream.RSET:
                self._on_own_reset(reply)
            case upstream.REPLY | upstream.QUIT:
                self._on_reply(reply)
            case upstream.KEEPALIVE:
                self._on_keepalive(reply)
            case upstream.DATA:
                self._on_data_reply(reply)
            case upstream.FINAL:
                self._on_final_reply(reply)
            case _:
                self._on_stray_reply(reply)

    def _on_greeting(self, reply: smtp.Reply) -> None:
        if not self._greeted:
            self._greeted = True
            self._answer(reply.raw)
        elif not reply.positive:
            self._abort(replies.UPSTREAM_UNREACHABLE)
        elif self._hello and self._verb not in (b"HELO", b"EHLO"):
            self._upstream.ask(self._hello, upstream.EHLO)
        else:
            self._relay(self._line)

    def _on_replayed_hello(self, reply: smtp.Reply) -> None:
        if reply.positive:
            self._relay(self._line)
        else:
            self._abort(replies.UPSTREAM_UNREACHABLE)

    def _on_own_reset(self, reply: smtp.Reply) -> None:
        """Relay the pending command after the reply to the proxy's own RSET."""
        if reply.positive:
            self._rset_pending = False
            self._relay(self._line)
        else:
            self._abort(replies.UPSTREAM_GARBLED)

    def _on_reply(self, reply: smtp.Reply) -> None:
        """Relay the upstream server's reply to a command or to an AUTH response."""
        verb = self._verb
        if reply.code == 334 and verb == b"AUTH":
            self._answer(reply.raw, AUTH_RESPONSE)
            return
        if reply.code == 334:
            self._fail_unasked_challenge()
            return
        if reply.positive:
            self._accepted(verb)
        if verb == b"EHLO" and reply.positive:
            self._answer(smtp.without_hidden_keywords(reply.raw))
        else:
            self._answer(reply.raw)
        if verb == b"QUIT":
            self._upstream.disconnect()
            self._close_client()

    def _fail_unasked_challenge(self) -> None:
        self._log(log_levels.ERROR, "upstream sent an unexpected 334 reply")
        self._upstream.disconnect()
        self._abort(replies.UPSTREAM_GARBLED)

    def _accepted(self, verb: bytes) -> None:
        """Record the effect of the current command after the upstream server has accepted it."""
        if verb == b"MAIL":
            self._envelope.add_sender(self._line)
        elif verb == b"RCPT":
            self._envelope.add_recipient(self._line)
        elif verb == b"XFORWARD":
            self._envelope.add_xforward(self._line)
        elif verb == b"AUTH":
            self._authenticated = True
        elif verb == b"RSET":
            self._forget_transaction()
        elif verb in (b"HELO", b"EHLO"):
            self._hello = self._line
            self._forget_transaction()

    def _on_stray_reply(self, reply: smtp.Reply) -> None:
        """Handle an unexpected reply, such as 421 or an early refusal of the message."""
        if self._state == DELIVERING and reply.negative:
            self._log(log_levels.WARNING, "upstream refused the message before the end of data")
            self._upstream.disconnect()
            self._end_message(reply.raw)
        elif reply.code != 421:
            self._log(log_levels.ERROR, "upstream sent an unexpected reply: %r", reply.raw[:80])
            self._fail_upstream(replies.UPSTREAM_GARBLED, replies.MESSAGE_UNANSWERED)
        elif self._state == COMMAND:
            self._upstream.disconnect()
            self._abort(reply.raw)
        else:
            self._lose_upstream()

    def _lose_upstream(self) -> None:
        """End the session after EOF or 421 from the upstream server (data.upstream-lost)."""
        if self._upstream.awaited == upstream.QUIT:
            self._upstream.disconnect()
            self._answer(replies.BYE)
            self._close_client()
            return
        self._log(log_levels.ERROR, "upstream closed the connection")
        known = self._state == COMMAND and self._sent_421
        self._fail_upstream(b"" if known else replies.UPSTREAM_LOST, replies.MESSAGE_LOST)

    def _upstream_silent(self) -> None:
        """End the session after the upstream server has timed out (relay.idle)."""
        if self._upstream.state == upstream.QUITTING:
            self._upstream.disconnect()
            return
        if self._upstream.awaited == upstream.QUIT:
            self._lose_upstream()
            return
        self._log(
            log_levels.ERROR, "upstream does not answer: no %s", self._upstream.awaited_description
        )
        if self._stopping:
            self._fail_upstream(replies.SHUTTING_DOWN, replies.SHUTTING_DOWN)
        elif self._upstream.state == upstream.CONNECTING:
            self._abort(replies.UPSTREAM_UNREACHABLE)
        else:
            self._fail_upstream(replies.UPSTREAM_SILENT, replies.MESSAGE_LOST)

    # The message.

    def _begin_message(self) -> None:
        """Open a spool for DATA if a recipient was accepted, or else refuse DATA."""
        envelope = self._current_envelope
        if self._line.strip().upper() != b"DATA":
            self._answer(replies.DATA_ARGUMENT)
        elif envelope is None or envelope.sender is None:
            self._answer(replies.NEED_MAIL)
        elif not envelope.recipient_count:
            self._answer(replies.NEED_RECIPIENT)
        else:
            from .message import Message

            self._current_message = Message(self._clock())
            self._set_state(OPENING_SPOOL)
            self._act(actions.OpenSpool())

    def _receive(self, data: bytes) -> None:
        """Append a block of the message to the spool, and finish the spool at the end of data."""
        content = self._message.decode(data)
        if self._message.wire:
            self._act(actions.WriteSpool(content, self._message.wire))
        if self._message.complete:
            self._set_state(FILTERING)
            self._commands.feed(self._message.trailing)
            self._act(actions.FinishSpool())
        else:
            allowed = limits.MESSAGE_TIME + self._message.received / limits.MESSAGE_RATE
            self._client_deadline = min(
                self._client_heard + limits.CLIENT_IDLE, self._turn_began + allowed
            )

    def _abandon_if_client_lost(self) -> None:
        """Abort the message if its client has disconnected (data.client-lost).

        The message is not aborted if the client sent QUIT before EOF, or if the end of data was
        sent upstream.
        """
        if not self._client_eof or self._state not in _MESSAGE_STATES:
            return
        if not self._commands.has_buffered_quit and self._upstream.awaited != upstream.FINAL:
            self._log_verdict(b"")
            self._discard()
            self._close_upstream()
            self._close_client()

    def _client_late(self, now: float) -> None:
        """End the session of a client that is idle or exceeds the time limit for its input."""
        if now >= self._client_heard + limits.CLIENT_IDLE:
            self._log(log_levels.WARNING, "the client is silent")
            self._abort(replies.CLIENT_IDLE)
        else:
            self._log(log_levels.WARNING, "the client is too slow")
            self._abort(replies.CLIENT_SLOW)

    def _filter_late(self) -> None:
        """Kill the filter after its timeout (filter.timeout)."""
        self._message.filter_seconds = self._clock() - self._message.filter_began
        self._filter_deadline = limits.NEVER
        self._act(actions.KillFilter(f"timed out after {self._options.timeout:g} s"))

    def _deliver(self) -> None:
        """Send DATA upstream. If a NOOP is pending, wait for the reply to NOOP first."""
        self._set_state(DELIVERING)
        self._keepalive_due = limits.NEVER
        if self._upstream.awaited == upstream.NOTHING:  # otherwise `_on_keepalive` sends DATA
            self._send_data()

    def _send_data(self) -> None:
        self._upstream.ask(b"DATA", upstream.DATA)

    def _on_keepalive(self, reply: smtp.Reply) -> None:
        if reply.code == 421 or not (reply.positive or reply.negative):
            self._lose_upstream()
        elif self._state == DELIVERING:
            self._send_data()
        else:
            self._keepalive_due = self._upstream.used + limits.KEEPALIVE

    def _on_data_reply(self, reply: smtp.Reply) -> None:
        if reply.code == 354:
            self.message_progress()
            self._send_message()
        else:
            self._end_message(reply.raw if reply.negative else replies.MESSAGE_UNANSWERED)
            self._rset_pending = True

    def _send_message(self) -> None:
        rewritten = self._message.verdict.rewrites
        self._act(actions.DeliverReplacement() if rewritten else actions.Deliver())

    def _on_final_reply(self, reply: smtp.Reply) -> None:
        if reply.positive or reply.negative:
            self._message.in_doubt = False
            self._end_message(reply.raw)
        else:
            self._abort(replies.MESSAGE_UNANSWERED)

    def _end_message(self, reply: bytes) -> None:
        """Send `reply` for the message, log the message and discard it, in this order."""
        self._answer(reply)
        if self._message.verdict.reply:
            self._log_failure()
        self._log_verdict(reply)
        self._discard()
        self._current_envelope = None

    # Helpers.

    @property
    def _envelope(self) -> "Envelope":
        if self._current_envelope is None:
            from .envelope import Envelope

            self._current_envelope = Envelope()
        return self._current_envelope

    @property
    def _message(self) -> "Message":
        if self._current_message is None:
            raise AssertionError("no message is in progress")
        return self._current_message

    @property
    def _helo_name(self) -> bytes:
        return smtp.hello_name(self._hello)

    def _forget_transaction(self) -> None:
        self._current_envelope = None
        self._rset_pending = False

    def _set_state(self, state: str) -> None:
        """Enter `state`.

        Raises:
            AssertionError: `TRANSITIONS` does not contain the transition. The session then ends
                with 421.
        """
        if state not in TRANSITIONS[self._state]:
            raise AssertionError(f"no transition from {self._state} to {state}")
        self._state = state
        if state in _CLIENT_STATES:
            self._turn_began = self._client_heard = self._clock()
            self._client_deadline = self._turn_began + limits.CLIENT_IDLE
        else:
            self._client_deadline = limits.NEVER

    def _answer(self, reply: bytes, state: str = COMMAND) -> None:
        """Send `reply` to the client and enter `state`."""
        self._set_state(state)  # first, so that no reply is sent if the transition is invalid
        self._sent_421 = reply[:3] == b"421"
        last = self._actions[-1] if self._actions else None
        if isinstance(last, actions.SendToClient):  # consecutive replies are sent in one write
            self._actions[-1] = actions.SendToClient(last.data + reply)
        else:
            self._act(actions.SendToClient(reply))

    def _abort(self, reply: bytes) -> None:
        """Send `reply` to the client unless `reply` is empty, and end the session with an error."""
        if self._state == CLOSED:
            return
        if reply:
            self._act(actions.SendToClient(reply))
        if self._current_message is not None:
            self._log_verdict(reply)
        self.exit_status = 1
        self.ended_early = True
        self._discard()
        self._close_upstream()
        self._close_client()

    def _log_failure(self) -> None:
        """Log a warning if the filter failed, or if its reply code is not 2yz, 4yz or 5yz."""
        verdict = self._message.verdict
        if verdict.reason:
            from . import log_lines

            line = log_lines.failure_line(self._message, self._envelope, self._helo_name)
            self._log(log_levels.WARNING, "%s", line)
        elif verdict.reply and verdict.reply[:1] not in (b"2", b"4", b"5"):
            line = "the filter's reply code is not 2yz, 4yz or 5yz: %r"
            self._log(log_levels.WARNING, line, verdict.reply)

    def _log_verdict(self, reply: bytes) -> None:
        """Log and count the message.

        reply: the reply to the message, or b"" if the client got no reply.
        """
        counting = self._options.listen is not None
        logging = self._options.log_level >= log_levels.INFO
        if not (counting or logging):
            return
        from .log_lines import message_line, result

        message = self._message
        if counting:
            outcome = message.verdict.action, result(message, reply)
            counted = actions.CountMessage(*outcome, message.size, message.filter_seconds)
            self._act(counted)
        if logging:
            line = message_line(message, self._envelope, self._helo_name, reply, self._clock())
            self._log(log_levels.INFO, "%s", line)

    def _fail_upstream(self, reply: bytes, message_reply: bytes) -> None:
        """End the session after a failure of the upstream server.

        message_reply: replaces `reply` if a message is being delivered.
        """
        delivering = self._state == DELIVERING
        self._upstream.disconnect()
        self._abort(message_reply if delivering else reply)

    def _close_upstream(self) -> None:
        """Close the upstream connection. Send QUIT first if the server expects a command."""
        if self._upstream.state == upstream.READY and self._state not in (
            CONNECTING,
            AUTH_RESPONSE,
            DELIVERING,
        ):
            self._upstream.leave()
        else:
            self._upstream.disconnect()

    def _close_client(self) -> None:
        self._act(actions.CloseClient())
        self._set_state(CLOSED)

    def _discard(self) -> None:
        """Discard the current message, if any, along with its files, filter and deadlines."""
        if self._current_message is not None:
            self._act(actions.DiscardMessage())
        self._current_message = None
        self._filter_deadline = limits.NEVER
        self._keepalive_due = limits.NEVER

    def _act(self, action: actions.Action) -> None:
        self._actions.append(action)

    def _log_dialogue(self, peer: str, text: bytes, redacted: bytes) -> None:
        """Log a command or a reply at debug level.

        redacted: the text to log instead if the current command may contain a password. A reply may
        quote the password.
        """
        if self._options.log_level >= log_levels.DEBUG:
            shown = text if self._verb in _LOGGABLE else redacted
            self._log(log_levels.DEBUG, "%s: %r", peer, shown)

    def _log(self, level: int, text: str, *values: object) -> None:
        """Log a line at `level`. The line is formatted only if the level is enabled."""
        if level <= self._options.log_level:
            self._act(actions.Log(level, text % values))
