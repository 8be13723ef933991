"""Session tests as dialogues: who says what, who sees what, and how time passes.

A `Dialogue` stands in for everything round a session: it carries out actions as `connection` does,
on a clock of its own, and insists on what every surrounding relies on: nothing is said to who is
gone, no two filters run, no message outlives its end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from postprox.core import actions
from postprox.core.data import encoded
from postprox.core.session import Session
from postprox.core.verdict import Outcome

MAIL = b"MAIL FROM:<a@example>"
RCPT = b"RCPT TO:<b@example>"


def lines(*texts: bytes) -> bytes:
    return b"".join(text + b"\r\n" for text in texts)


class Dialogue:
    """A session between a client, an upstream, a filter and a spool."""

    def __init__(
        self, *, filtering: bool = True, filter_timeout: float = 30, reject_failures: bool = False
    ) -> None:
        self.now = 1000.0
        self.session = Session(
            filtering=filtering,
            filter_timeout=filter_timeout,
            reject_failures=reject_failures,
            clock=lambda: self.now,
        )
        self.log: list[tuple[int, str]] = []
        #: What the filter was given, each time it ran.
        self.environments: list[dict[bytes, bytes]] = []
        #: What the spool held, each time it was sealed.
        self.messages: list[bytes] = []
        #: The errors that the spool has: when it is made, when it is sealed.
        self.open_error = self.seal_error = ""
        #: What the filter leaves in OUTFILE.
        self.replacement = b""
        #: Whether upstream takes a message as fast as it is sent.
        self.upstream_is_fast = True

        #: Every command that went upstream, as it was sent.
        self.commands: list[bytes] = []
        #: How many messages went upstream whole.
        self.deliveries = 0

        self.to_client = bytearray()
        self.to_upstream = bytearray()
        self.connecting = self.connected = self.filter_runs = self.delivering = False
        self.client_is_hung_up = False
        self.on_its_way = b""
        self.spool: bytearray | None = None
        self._does(self.session.start)

    # What happens.

    def client_sends(self, octets: bytes) -> None:
        assert self.session.wants_client
        assert not self.client_is_hung_up
        self._does(self.session.client_received, octets)

    def client_says(self, *texts: bytes) -> None:
        self.client_sends(lines(*texts))

    def client_ends(self) -> None:
        self.client_sends(b"")

    def upstream_connects(self) -> None:
        assert self.connecting
        self.connecting, self.connected = False, True
        self._does(self.session.upstream_connected)

    def upstream_fails(self, reason: str = "Connection refused") -> None:
        assert self.connecting
        self.connecting = False
        self._does(self.session.upstream_failed, reason)

    def upstream_sends(self, octets: bytes) -> None:
        assert self.connected
        self._does(self.session.upstream_received, octets)

    def upstream_says(self, *texts: bytes) -> None:
        self.upstream_sends(lines(*texts))

    def upstream_ends(self) -> None:
        self.upstream_sends(b"")

    def upstream_takes_a_block(self) -> None:
        assert self.delivering
        self._does(self.session.message_progress)

    def upstream_takes_the_rest(self) -> None:
        assert self.delivering
        self._does(self._message_is_sent)

    def filter_ends(
        self, status: int | None = 0, last_line: bytes = b"", failure: str = ""
    ) -> None:
        assert self.filter_runs
        self.filter_runs = False
        outcome = Outcome(status, last_line, failure, replaced=bool(self.replacement))
        self._does(self.session.filter_finished, outcome)

    def spool_cannot_be_read(self) -> None:
        assert self.delivering
        self.delivering = False
        self._does(self.session.spool_failed, "/spool: Input/output error")

    def seconds_pass(self, seconds: float) -> None:
        """Let time pass; whatever is due on the way happens when it is due."""
        end = self.now + seconds
        while self.session.deadline <= end:
            self.now = max(self.now, self.session.deadline)
            self._does(self.session.timer)
        self.now = end

    def is_told_to_stop(self) -> None:
        self._does(self.session.stop)

    def is_terminated(self) -> None:
        self._does(self.session.terminate, b"421 terminated\r\n")

    # What is to be seen.

    def client_sees(self, *texts: bytes) -> None:
        assert bytes(self.to_client) == lines(*texts)
        self.to_client.clear()

    def upstream_sees(self, *texts: bytes) -> None:
        assert bytes(self.to_upstream) == lines(*texts)
        self.to_upstream.clear()

    def client_sees_reply(self, beginning: bytes) -> None:
        """Check one reply in words of the session's own."""
        seen = bytes(self.to_client)
        assert seen.startswith(beginning)
        assert seen.count(b"\n") == 1
        assert seen.endswith(b"\r\n")
        self.to_client.clear()

    def nothing_is_said(self) -> None:
        self.client_sees()
        self.upstream_sees()

    def filter_is_running(self) -> None:
        assert self.filter_runs

    def filter_is_gone(self) -> None:
        assert not self.filter_runs

    def is_over(self, exit_status: int = 0) -> None:
        """Check that nothing is left and nothing more was said."""
        assert self.client_is_hung_up
        assert not self.connecting
        assert not self.connected
        assert self.session.finished
        assert self.session.deadline == float("inf")
        assert self.session.exit_status == exit_status
        self.nothing_is_said()

    def is_over_after_goodbye(self, exit_status: int = 0) -> None:
        """Check that the session only waits for upstream's answer to QUIT."""
        self.upstream_sees(b"QUIT")
        assert self.client_is_hung_up
        self.upstream_says(b"221 bye")
        self.is_over(exit_status)

    def logged(self, level: int) -> list[str]:
        return [text for at, text in self.log if at == level]

    # How actions are carried out.

    def _does(self, event: Callable[..., None], *arguments: object) -> None:
        event(*arguments)
        while todo := self.session.take_actions():
            for action in todo:
                _PERFORM[type(action)](self, action)
            if self.delivering and self.upstream_is_fast:
                self._message_is_sent()
        if self.client_is_hung_up:
            assert self.spool is None
            assert not self.filter_runs
            assert not self.delivering

    def _to_client(self, action: actions.ToClient) -> None:
        assert not self.client_is_hung_up
        self.to_client += action.data

    def _hang_up(self, _: actions.HangUp) -> None:
        assert not self.client_is_hung_up
        self.client_is_hung_up = True

    def _connect(self, _: actions.Connect) -> None:
        assert not self.connecting
        assert not self.connected
        self.connecting = True

    def _to_upstream(self, action: actions.ToUpstream) -> None:
        assert self.connected
        assert not self.delivering
        self.commands.append(action.data)
        self.to_upstream += action.data

    def _disconnect(self, _: actions.Disconnect) -> None:
        self.connecting = self.connected = self.delivering = False

    def _open_spool(self, _: actions.OpenSpool) -> None:
        assert self.spool is None
        if self.open_error:
            self.session.spool_failed(self.open_error)
        else:
            self.spool = bytearray()
            self.session.spool_opened()

    def _store(self, action: actions.Store) -> None:
        assert self.spool is not None
        self.spool += action.data

    def _seal_spool(self, _: actions.SealSpool) -> None:
        assert self.spool is not None
        if self.seal_error:
            self.session.spool_failed(self.seal_error)
        else:
            self.messages.append(bytes(self.spool))
            self.session.spool_sealed()

    def _run_filter(self, action: actions.RunFilter) -> None:
        assert self.spool is not None
        assert not self.filter_runs
        self.environments.append(action.environment)
        self.filter_runs = True

    def _kill_filter(self, _: actions.KillFilter) -> None:
        assert self.filter_runs
        self.filter_runs = False

    def _deliver(self, _: actions.Deliver) -> None:
        assert self.spool is not None
        self._send_message(bytes(self.spool))

    def _deliver_replacement(self, _: actions.DeliverReplacement) -> None:
        assert self.replacement
        self._send_message(self.replacement)

    def _send_message(self, content: bytes) -> None:
        assert self.connected
        assert not self.filter_runs
        self.on_its_way = b"".join(encoded([content]))
        self.delivering = True

    def _message_is_sent(self) -> None:
        self.to_upstream += self.on_its_way
        self.delivering = False
        self.deliveries += 1
        self.session.message_sent()

    def _discard(self, _: actions.Discard) -> None:
        self.spool = None
        self.filter_runs = self.delivering = False

    def _write_log(self, action: actions.Log) -> None:
        self.log.append((action.level, action.text))


_PERFORM: dict[type[actions.Action], Callable[[Dialogue, Any], None]] = {
    actions.ToClient: Dialogue._to_client,
    actions.HangUp: Dialogue._hang_up,
    actions.Connect: Dialogue._connect,
    actions.ToUpstream: Dialogue._to_upstream,
    actions.Disconnect: Dialogue._disconnect,
    actions.OpenSpool: Dialogue._open_spool,
    actions.Store: Dialogue._store,
    actions.SealSpool: Dialogue._seal_spool,
    actions.RunFilter: Dialogue._run_filter,
    actions.KillFilter: Dialogue._kill_filter,
    actions.Deliver: Dialogue._deliver,
    actions.DeliverReplacement: Dialogue._deliver_replacement,
    actions.Discard: Dialogue._discard,
    actions.Log: Dialogue._write_log,
}

# Dialogues that have come so far already.


def connected(**options: Any) -> Dialogue:
    """Upstream has greeted the client."""
    dialogue = Dialogue(**options)
    dialogue.upstream_connects()
    dialogue.upstream_says(b"220 up ESMTP")
    dialogue.client_sees(b"220 up ESMTP")
    return dialogue


def relayed(dialogue: Dialogue, command: bytes, reply: bytes = b"250 ok") -> None:
    """Let a command go upstream and its reply come back."""
    dialogue.client_says(command)
    dialogue.upstream_sees(command)
    dialogue.upstream_says(reply)
    dialogue.client_sees(reply)


def greeted(**options: Any) -> Dialogue:
    """The client has said EHLO."""
    dialogue = connected(**options)
    relayed(dialogue, b"EHLO client.example", b"250 up")
    return dialogue


def in_transaction(**options: Any) -> Dialogue:
    """A sender and a recipient are accepted."""
    dialogue = greeted(**options)
    relayed(dialogue, MAIL)
    relayed(dialogue, RCPT)
    return dialogue


def begin_data(dialogue: Dialogue) -> None:
    dialogue.client_says(b"DATA")
    dialogue.client_sees_reply(b"354 ")


def in_data(**options: Any) -> Dialogue:
    """The client has its 354."""
    dialogue = in_transaction(**options)
    begin_data(dialogue)
    return dialogue


def in_filter(**options: Any) -> Dialogue:
    """The filter runs."""
    dialogue = in_data(**options)
    dialogue.client_says(b"Subject: x", b"", b"body", b".")
    dialogue.nothing_is_said()
    dialogue.filter_is_running()
    return dialogue


def in_delivery(**options: Any) -> Dialogue:
    """The filter has let the message pass, and upstream is asked to take it."""
    dialogue = in_filter(**options)
    dialogue.filter_ends(0)
    dialogue.upstream_sees(b"DATA")
    return dialogue


def sending(**options: Any) -> Dialogue:
    """Upstream takes the message slowly."""
    dialogue = in_delivery(**options)
    dialogue.upstream_is_fast = False
    dialogue.upstream_says(b"354 go on")
    dialogue.to_upstream.clear()
    return dialogue


def sent(**options: Any) -> Dialogue:
    """Upstream has the message, and owes its reply."""
    dialogue = in_delivery(**options)
    dialogue.upstream_says(b"354 go on")
    dialogue.upstream_sees(b"Subject: x", b"", b"body", b".")
    return dialogue


def rejected(**options: Any) -> Dialogue:
    """The filter has rejected a message, and upstream's connection has ended."""
    dialogue = in_filter(**options)
    dialogue.filter_ends(1, b"spam")
    dialogue.client_sees(b"554 spam")
    dialogue.upstream_sees(b"QUIT")
    dialogue.upstream_says(b"221 bye")
    assert not dialogue.connected
    return dialogue
