"""Rules for a session that hold for any sequence of client, upstream and filter events.

Rule: `Ledger` checks the guarantees (docs/reliability.md) after every event. No message bypasses
its filter, the session never awaits two replies from upstream, and the client receives upstream's
reply to a message. `Dialogue` checks the interface to the shell.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from postprox.core import actions, limits, upstream
from tests.fuzz.source import Source
from tests.unit.dialogue import Dialogue

COMMANDS = (
    b"EHLO client.example\r\n",
    b"MAIL FROM:<a@example>\r\n",
    b"RCPT TO:<b@example>\r\n",
    b"DATA\r\n",
    b"MAIL FROM:<a@example>\r\nRCPT TO:<b@example>\r\nDATA\r\n",
    b"text\r\n.\r\n",
    b".\r\n",
    b"\r\n.\n",
    b"RSET\r\n",
    b"QUIT\r\n",
    b"NOOP\r\n",
    b"AUTH LOGIN\r\n",
    b"XFORWARD ADDR=192.0.2.1 HELO=x\r\n",
    b"BDAT 7 LAST\r\n",
    b"STARTTLS\r\n",
    b"x" * limits.READ_SIZE,
)
REPLIES = (
    b"250 ok\r\n",
    b"354 go on\r\n",
    b"220 up\r\n",
    b"250-up\r\n250-STARTTLS\r\n250 SIZE\r\n",
    b"334 VXNlcg==\r\n",
    b"450 later\r\n",
    b"550-no\r\n550 never\r\n",
    b"421 closing\r\n",
    b"221 bye\r\n",
    b"nonsense\r\n",
    b"25",
    b"250-",
)
SAID = (b"", b"550 no", b"250 discarded", b"no", b"\xff\0", b"354 what")
SECONDS = (0.0, 0.5, 5.0, 29.0, 31.0, 61.0, 299.0, 601.0)
ERRORS = ("", "", "", "disk full")

#: A complete reply. Its lines have the same code, and only the last line has no hyphen.
_REPLY = re.compile(
    rb"(?:([2-5][0-9]{2})-[^\n]*\n(?:\1-[^\n]*\n)*)?(?(1)\1|[2-5][0-9]{2})(?:[ \r][^\n]*)?\n"
)


class Ledger(Dialogue):
    """A dialogue that records its messages."""

    def __init__(self, *, filtering: bool, reject: bool, strict: bool) -> None:
        self.may_pass = not filtering
        self._filtering = filtering
        self._reject = reject or strict
        self._strict = strict
        self._said = b""  # an incomplete reply from upstream
        self._sent = False  # the whole message was sent, but upstream has not replied
        super().__init__(filtering=filtering, reject_failures=self._reject, strict=strict)
        self._insist_on_lock_step()

    def _insist_on_lock_step(self) -> None:
        connection = self.session._upstream
        expect = connection.expect

        def only_one(awaited: str) -> None:
            self._insist(
                connection.awaited == upstream.NOTHING, f"two replies are awaited: {awaited}"
            )
            expect(awaited)

        connection.expect = only_one  # type: ignore[method-assign]

    def filter_ends(
        self, status: int | None = 0, last_line: bytes = b"", failure: str = ""
    ) -> None:
        failed = status not in (0, 1) or (status == 1 and self._strict and not _code(last_line))
        self.may_pass = status == 0 or (failed and not self._reject)
        super().filter_ends(status, last_line, failure)

    def upstream_sends(self, octets: bytes) -> None:
        self._said += octets
        answer = _REPLY.match(self._said)
        awaited = self._sent
        before = len(self.to_client)
        super().upstream_sends(octets)
        told = bytes(self.to_client[before:])
        if awaited and answer:
            self._insist(
                answer[0][:1] == b"3" or told.startswith(answer[0]),
                "the client received a different reply than upstream sent",
            )
            self._sent = False
        while answer := _REPLY.match(self._said):
            self._said = self._said[answer.end() :]

    def looks(self) -> None:
        """Check the rules that must hold after every event."""
        if self._sent and self.session._state != "delivering":
            self._sent = False
            last = bytes(self.to_client).splitlines()[-1:]
            told = not self.client_is_hung_up or (last and last[0][:1] == b"2")
            self._insist(not told, "the client received a reply before upstream's final reply")
        held = len(self.session._commands._buffer)
        self._insist(held <= limits.INPUT_BUFFER + limits.READ_SIZE, f"{held} octets are buffered")

    def _send_message(self, wire: bytes) -> None:
        self._insist(self.may_pass, "a message bypasses the filter")
        self.may_pass = not self._filtering
        super()._send_message(wire)

    def _message_is_sent(self) -> None:
        self._sent = True
        super()._message_is_sent()

    def _disconnect(self, action: actions.CloseUpstream) -> None:
        self._said = b""
        super()._disconnect(action)


def _code(line: bytes) -> bool:
    return bool(re.match(rb"[245][0-9][0-9] ", line))


def _client_says(ledger: Ledger, source: Source) -> None:
    _client_sends(ledger, source.one_of(COMMANDS))


def _client_says_half(ledger: Ledger, source: Source) -> None:
    _client_sends(ledger, source.one_of(COMMANDS)[:-1])


def _client_sends_octets(ledger: Ledger, source: Source) -> None:
    _client_sends(ledger, source.octets() or b"\n")


def _client_ends(ledger: Ledger, _: Source) -> None:
    _client_sends(ledger, b"")


def _client_sends(ledger: Ledger, octets: bytes) -> None:
    if ledger.session.reads_client and not ledger.client_is_hung_up:
        ledger.client_sends(octets)


def _client_is_reset(ledger: Ledger, _: Source) -> None:
    if not ledger.client_is_hung_up:
        ledger.client_is_reset()


def _upstream_connects(ledger: Ledger, _: Source) -> None:
    if ledger.connecting:
        ledger.upstream_connects()


def _upstream_fails(ledger: Ledger, _: Source) -> None:
    if ledger.connecting:
        ledger.upstream_fails()


def _upstream_says(ledger: Ledger, source: Source) -> None:
    _upstream_sends(ledger, source.one_of(REPLIES))


def _upstream_sends_octets(ledger: Ledger, source: Source) -> None:
    _upstream_sends(ledger, source.octets() or b"\n")


def _upstream_ends(ledger: Ledger, _: Source) -> None:
    _upstream_sends(ledger, b"")


def _upstream_sends(ledger: Ledger, octets: bytes) -> None:
    if ledger.connected:
        ledger.upstream_sends(octets)


def _upstream_takes(ledger: Ledger, source: Source) -> None:
    what = source.octet() % 3
    if not ledger.delivering:
        return
    if what == 0:
        ledger.upstream_takes_the_rest()
    elif what == 1:
        ledger.upstream_takes_a_block()
    else:
        ledger.spool_cannot_be_read()


def _filter_ends(ledger: Ledger, source: Source) -> None:
    status, said = source.octet() % 4, source.one_of(SAID)
    if ledger.filter_runs:
        ledger.filter_ends(status, said)


def _filter_rejects(ledger: Ledger, source: Source) -> None:
    said = source.octets()
    if ledger.filter_runs:
        ledger.filter_ends(1, said)


def _filter_is_killed(ledger: Ledger, _: Source) -> None:
    if ledger.filter_runs:
        ledger.filter_ends(None, b"", "killed by signal 9")


def _time_passes(ledger: Ledger, source: Source) -> None:
    ledger.seconds_pass(source.one_of(SECONDS))


def _told_to_stop(ledger: Ledger, source: Source) -> None:
    patience = source.one_of((-1, 0, 10))
    if patience < 0:
        ledger.is_told_to_stop()
    else:
        ledger.is_terminated(patience)


#: The possible events. An event that cannot occur in the current state is ignored.
EVENTS: tuple[Callable[[Ledger, Source], None], ...] = (
    _client_says,
    _upstream_says,
    _filter_ends,
    _upstream_connects,
    _upstream_takes,
    _client_sends_octets,
    _client_says_half,
    _client_ends,
    _client_is_reset,
    _upstream_sends_octets,
    _upstream_ends,
    _upstream_fails,
    _filter_rejects,
    _filter_is_killed,
    _time_passes,
    _told_to_stop,
)

#: An input for a session with a message that the filter accepts. The first octet of each pair
#: selects the event.
CONNECTED = bytes((3, 1, 2))
EHLO = bytes((0, 0, 1, 0))
TRANSACTION = bytes((0, 4, 1, 0, 1, 0))
MESSAGE = bytes((0, 5, 2, 0, 0, 1, 1, 4, 0, 1, 0))
WHOLE = CONNECTED + EHLO + (TRANSACTION + MESSAGE) * 2


def holds(source: Source) -> None:
    """Run a session with the input's events. Check the rules and the end of the session."""
    ledger = played(source)
    assert ledger.session.finished
    assert ledger.spool is None


def played(source: Source, *, ends: bool = True) -> Ledger:
    """Run a session with the input's events. With `ends`, let all time limits expire afterwards."""
    flags = source.octet()
    ledger = Ledger(filtering=bool(flags & 1), reject=bool(flags & 2), strict=bool(flags & 4))
    ledger.upstream_is_fast = bool(flags & 8)
    ledger.replacement = b"replaced\n" if flags & 16 else b""
    ledger.open_error = source.one_of(ERRORS)
    ledger.seal_error = source.one_of(ERRORS)
    ledger.start_error = source.one_of(ERRORS)
    while source.more:
        source.one_of(EVENTS)(ledger, source)
        ledger.looks()
    if ends:
        ledger.seconds_pass(10_000)
        ledger.looks()
    return ledger
