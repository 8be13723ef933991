"""Tests of invariants of a session for random input in random blocks and order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle

from hypothesis import given
from hypothesis import strategies as st

from postprox.core import limits
from tests.unit.dialogue import Dialogue, lines

MARK = b"MARK"

COMMANDS = st.sampled_from(
    [
        b"EHLO client.example\r\n",
        b"HELO client.example\n",
        b"MAIL FROM:<a@example>\r\n",
        b"RCPT TO:<b@example>\r\n",
        b"RCPT TO:<c@example>\r\n",
        b"XFORWARD ADDR=192.0.2.1 HELO=x\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"AUTH LOGIN\r\n",
        b"DATA\r\n",
        b"DATA x\r\n",
        b"STARTTLS\r\n",
        b"BDAT 7\r\nDATA\r\n\r",
        b"VR\0FY\r\n",
        b"VRFY\rx\r\n",
        b"x" * 17_000 + b"\r\n",
        b"QUIT\r\n",
    ]
)
MESSAGES = st.sampled_from(
    [
        b".\r\n",
        b"Subject: x\r\n\r\nbody\r\n.\r\n",
        b"..dot\r\n.\n.\r\r\n.\rx\r\n\n.\n\r.\r\n.\r\n",
        b"QUIT\r\nDATA\r\n.\r\nQUIT\r\n.\r\n",
        b"\xff\0\r\n.\r\n",
    ]
)
TRANSACTION = b"MAIL FROM:<a@example>\r\nRCPT TO:<b@example>\r\nDATA\r\n"
SEGMENTS = st.one_of(COMMANDS, MESSAGES, MESSAGES.map(lambda message: TRANSACTION + message))
REPLIES = st.sampled_from(
    [
        b"250 ok\r\n",
        b"250 ok\r\n",
        b"250-up\r\n250-STARTTLS\r\n250 SIZE\r\n",
        b"354 go on\r\n",
        b"354-go\n354 on\n",
        b"334 VXNlcg==\r\n",
        b"450 later\r\n",
        b"550-no\r\n550 never\r\n",
        b"421 closing\r\n",
        b"nonsense\r\n",
    ]
)
OUTCOMES = st.sampled_from([(0, b""), (0, b""), (1, b"550 no"), (1, b""), (2, b""), (None, b"")])


@dataclass
class Script:
    """The input from the client, the upstream server and the filter."""

    client: bytes
    replies: list[bytes]
    outcomes: list[tuple[int | None, bytes]]
    filtering: bool

    def begin(self, sizes: list[int], order: list[int]) -> Performance:
        return Performance(
            Dialogue(filtering=self.filtering),
            self.client,
            cycle(self.replies),
            cycle(self.outcomes),
            cycle(sizes),
            cycle(order),
        )


@dataclass
class Performance:
    """A session that receives a script's input in the given block sizes and order."""

    dialogue: Dialogue
    unsaid: bytes
    replies: Iterator[bytes]
    outcomes: Iterator[tuple[int | None, bytes]]
    sizes: Iterator[int]
    order: Iterator[int]
    answered: int = 0
    from_upstream: bytes = b""

    def goes_on(self) -> None:
        """Pass input to the session until no more input is possible."""
        while possible := list(self._possible()):
            possible[next(self.order) % len(possible)]()
            self._upstream_answers()

    def result(self) -> tuple[object, ...]:
        dialogue = self.dialogue
        return (
            bytes(dialogue.to_client),
            bytes(dialogue.to_upstream),
            dialogue.messages,
            dialogue.environments,
            dialogue.client_is_hung_up,
            dialogue.session.exit_status,
        )

    def _possible(self) -> Iterator[Callable[[], None]]:
        dialogue = self.dialogue
        if dialogue.connecting:
            yield self._connect
        if dialogue.connected and self.from_upstream:
            yield self._upstream
        if dialogue.filter_runs:
            yield self._filter
        if self.unsaid and dialogue.session.reads_client and not dialogue.client_is_hung_up:
            yield self._client

    def _connect(self) -> None:
        self.from_upstream = b"220 up\r\n"
        self.dialogue.upstream_connects()

    def _upstream(self) -> None:
        size = next(self.sizes)
        said, self.from_upstream = self.from_upstream[:size], self.from_upstream[size:]
        self.dialogue.upstream_sends(said)

    def _filter(self) -> None:
        self.dialogue.filter_ends(*next(self.outcomes))

    def _client(self) -> None:
        size = next(self.sizes) + len(self.unsaid) // 20  # A long line is split into few blocks.
        said, self.unsaid = self.unsaid[:size], self.unsaid[size:]
        self.dialogue.client_sends(said)

    def _upstream_answers(self) -> None:
        """Add a reply to each new command and message."""
        if not self.dialogue.connected:
            self.from_upstream = b""
        asked = len(self.dialogue.commands) + self.dialogue.deliveries
        for _ in range(asked - self.answered):
            self.from_upstream += next(self.replies)
        self.answered = asked


def scripts() -> st.SearchStrategy[Script]:
    return st.builds(
        Script,
        client=st.lists(SEGMENTS, max_size=8).map(b"".join),
        replies=st.lists(REPLIES, min_size=1, max_size=12),
        outcomes=st.lists(OUTCOMES, min_size=1, max_size=3),
        filtering=st.booleans(),
    )


SIZES = st.lists(st.sampled_from([1, 1, 2, 3, 5, 17, 1000, 65536]), min_size=1, max_size=20)
ORDERS = st.lists(st.integers(0, 3), min_size=1, max_size=20)


@given(scripts(), SIZES, ORDERS)
def test_result_is_independent_of_event_order_and_block_boundaries(
    script: Script, sizes: list[int], order: list[int]
) -> None:
    whole = script.begin([1 << 30], [0])
    whole.goes_on()
    pieces = script.begin(sizes, order)
    pieces.goes_on()
    assert pieces.result() == whole.result()


BODIES = st.lists(
    st.sampled_from(
        [
            b"\r\n",
            b"\n",
            b"\r",
            b".",
            b"\r\n.",
            b"\n.\n",
            b"\r.\r",
            b"\0",
            b"QUIT " + MARK,
            b"DATA " + MARK,
            b"RCPT TO:<" + MARK + b"@example>",
            b"x" * 17_000 + MARK,
        ]
    )
).map(b"".join)


@given(
    turns=st.lists(
        st.one_of(COMMANDS.map(lambda line: (line, b"")), BODIES.map(lambda b: (b"", b)))
    ),
    script=scripts(),
    sizes=SIZES,
)
def test_message_line_is_never_relayed_as_command(
    turns: list[tuple[bytes, bytes]], script: Script, sizes: list[int]
) -> None:
    script.client = b""
    performance = script.begin([max(sizes)], [0])
    for command, body in turns:
        performance.unsaid = command or TRANSACTION
        performance.goes_on()
        if bytes(performance.dialogue.to_client).rpartition(b"\n")[0][-200:].find(b"354 End") >= 0:
            message = (b"\r\n" + body).replace(b"\r\n.", b"\r\n..")[2:]
            performance.unsaid = message + b"\r\n.\r\n"
            performance.goes_on()
            performance.dialogue.to_client.clear()
    assert not any(MARK in command for command in performance.dialogue.commands)


OCTETS = st.one_of(
    SEGMENTS,
    REPLIES,
    st.binary(max_size=30),
    st.sampled_from(
        [b"\r\n", b"\n", b".\r\n", b"\r\n.\r\n", b"250", b"250-", b"x" * 65536, b"\n" * 65536]
    ),
)
SECONDS = st.sampled_from([0.0, 1.0, 5.0, 30.0, 60.0, 120.0, 299.0, 300.0, 600.0])


@st.composite
def events(draw: st.DrawFn, dialogue: Dialogue) -> Callable[[], None]:
    """Draw a possible event."""
    possible: list[Callable[[], None]] = [
        lambda: dialogue.seconds_pass(draw(SECONDS)),
        lambda: dialogue.session.timer(dialogue.now),
    ]
    if dialogue.session.reads_client and not dialogue.client_is_hung_up:
        possible += [lambda: dialogue.client_sends(draw(OCTETS) or b"\n")] * 6
        possible += [dialogue.client_ends]
    if dialogue.connecting:
        possible += [dialogue.upstream_connects] * 6 + [dialogue.upstream_fails]
    if dialogue.connected:
        possible += [lambda: dialogue.upstream_sends(draw(REPLIES))] * 6
        possible += [lambda: dialogue.upstream_sends(draw(OCTETS)), dialogue.upstream_ends]
    if dialogue.filter_runs:
        possible += [lambda: dialogue.filter_ends(*draw(OUTCOMES))] * 6
    if dialogue.delivering:
        possible += [dialogue.upstream_takes_a_block, dialogue.upstream_takes_the_rest] * 3
        possible += [dialogue.spool_cannot_be_read]
    if draw(st.integers(0, 30)) == 30:
        possible = [dialogue.is_told_to_stop, dialogue.is_terminated]
    return draw(st.sampled_from(possible))


@given(data=st.data(), filtering=st.booleans(), reject=st.booleans(), fast=st.booleans())
def test_random_events_do_not_violate_invariants(
    data: st.DataObject, filtering: bool, reject: bool, fast: bool
) -> None:
    dialogue = Dialogue(filtering=filtering, reject_failures=reject)
    dialogue.upstream_is_fast = fast
    dialogue.open_error = data.draw(st.sampled_from(["", "", "", "no directory"]))
    dialogue.seal_error = data.draw(st.sampled_from(["", "", "", "disk full"]))
    for _ in range(data.draw(st.integers(0, 40))):
        data.draw(events(dialogue))()
        assert_little_is_held(dialogue)
    assert_silence_ends(dialogue)


def assert_little_is_held(dialogue: Dialogue) -> None:
    session = dialogue.session
    assert len(session._commands._buffer) <= limits.INPUT_BUFFER + limits.READ_SIZE
    assert len(session._upstream._replies._buffer) <= limits.REPLY + limits.READ_SIZE
    assert len(session._line) <= limits.COMMAND_LINE
    assert not session._actions


def assert_silence_ends(dialogue: Dialogue) -> None:
    """Check that the session ends if it receives no more input."""
    dialogue.seconds_pass(10_000)
    assert dialogue.session.finished
    assert dialogue.spool is None


@given(scripts(), SIZES, ORDERS)
def test_session_ends_after_input_stops(script: Script, sizes: list[int], order: list[int]) -> None:
    performance = script.begin(sizes, order)
    performance.goes_on()
    assert_silence_ends(performance.dialogue)


@given(scripts(), SIZES, ORDERS)
def test_every_reply_to_client_is_complete(
    script: Script, sizes: list[int], order: list[int]
) -> None:
    performance = script.begin(sizes, order)
    performance.goes_on()
    seen = bytes(performance.dialogue.to_client)
    assert all(line[:3].isdigit() for line in seen.splitlines())
    assert not seen or seen.endswith(b"\n")


def test_dialogue_records_relayed_command_that_contains_marker() -> None:
    dialogue = Dialogue()
    dialogue.client_sends(lines(b"NOOP " + MARK))
    dialogue.upstream_connects()
    dialogue.upstream_says(b"220 up")
    assert dialogue.commands == [b"NOOP " + MARK + b"\r\n"]
