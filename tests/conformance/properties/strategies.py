"""Strategies for random sessions, which generate inputs and the positions at which to split them.

Rule: all input is legal for a client or server, and the specification defines its result. Octets
that programs have misinterpreted in the past are generated more often.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from hypothesis import strategies as st

from .content import legal_body
from .plan import GO_ON, OK, Answer, Command, Item, Message, Plan, Verdict

_BODY_PIECES = st.sampled_from(
    [
        b"a",
        b"\r\n",
        b"\n",
        b"\r",
        b".",
        b"\0",
        b"\xe9\xff",
        b"\r\n.",
        b"\n.\n",
        b"\n.\r\n",
        b"\r\n.\n",
        b"\r.\r",
        b"\r\n.\r",
        b".\r\r\n",
        b"..\r\n",
        b"Subject: x\r\n\r\n",
        b"\r\nMAIL FROM:<smuggled@example>\r\nRCPT TO:<victim@example>\r\nDATA\r\n",
        b"QUIT\r\n",
        b"x" * 1200,
        b"y" * 70_000 + b"\r\n",
    ]
)
BODIES = st.lists(_BODY_PIECES, max_size=8).map(b"".join).map(legal_body)

_OUTFILE_PIECES = st.sampled_from(
    [b"b", b"\n", b"\r\n", b".", b"\n.\n", b"\0", b"\xff", b"\r.", b"X-Spam: no\n\n", b"z" * 600]
)
#: The text does not end with CR, because the specification does not define whether this CR is part
#: of the added line end.
OUTFILES = st.lists(_OUTFILE_PIECES, max_size=6).map(b"".join).map(lambda text: text.rstrip(b"\r"))

_PREFIXES = st.sampled_from(
    [b"", b"550 ", b"550 5.7.1 ", b"550-", b"5501 ", b"55 ", b"550\t", b" 550 ", b"999 ", b"250 "]
)
_TEXTS = st.sampled_from([b"no", b"no", b"", b" ", b"no\r", b"\xe9\x07 no", b"\0", b"n" * 700])
_LINES = st.tuples(_PREFIXES, _TEXTS).map(b"".join)
WORDS = st.tuples(
    st.lists(_LINES, max_size=3).map(b"\n".join), st.sampled_from([b"", b"\n", b"\n \n"])
).map(b"".join)

VERDICTS = st.builds(
    Verdict, status=st.sampled_from([0, 0, 0, 0, 1, 1, 2, 255]), outfile=OUTFILES, words=WORDS
)


def _mostly(usual: Answer, *others: Answer) -> st.SearchStrategy[Answer]:
    """Generate *usual* often enough for a session to make progress."""
    return st.sampled_from([usual] * 4 * len(others) + [*others])


_ANSWERS = _mostly(OK, Answer(250, True), Answer(450), Answer(550, True))
_JOINED = st.booleans()

#: An address as in the command, and as the filter receives it.
_ADDRESSES = (
    (b"<a@example>", b"a@example"),
    (b"<b.c+d@example>", b"b.c+d@example"),
    (b'<"a>b"@example>', b'"a>b"@example'),
    (b"<" + b"l" * 98 + b"@example>", b"l" * 98 + b"@example"),
    (b"<c\x01\x7fd@example>", b"c\x01\x7fd@example"),
    (b"<" + "é".encode() * 60 + b"@example>", "é".encode() * 60 + b"@example"),
)
_ATTRIBUTES = (
    (b"ADDR=192.0.2.7", (b"ADDR", b"192.0.2.7")),
    (b"addr=IPv6:2001:db8::7", (b"ADDR", b"2001:db8::7")),
    (b"ADDR=[UNAVAILABLE]", (b"ADDR", b"")),
    (b"HELO=mail.example", (b"HELO", b"mail.example")),
    (b"helo=a+2Bb", (b"HELO", b"a+b")),
    (b"NAME=mail.example", (b"NAME", b"mail.example")),
    (b"PROTO=ESMTP", (b"PROTO", b"ESMTP")),
)


@st.composite
def mail_commands(draw: st.DrawFn) -> Command:
    """Generate MAIL with the replies for its transaction."""
    written, address = draw(st.sampled_from([*_ADDRESSES, (b"<>", b"<>")]))
    parameters = draw(st.sampled_from([b"", b" SIZE=1000", b" BODY=8BITMIME"]))
    return Command(
        draw(st.sampled_from([b"MAIL FROM:", b"mail from: "])) + written + parameters,
        draw(_JOINED),
        draw(_ANSWERS),
        address=address,
        data_answer=draw(_mostly(GO_ON, Answer(451), Answer(554, True))),
        final_answer=draw(_mostly(OK, Answer(250, True), Answer(452), Answer(550, True))),
    )


@st.composite
def recipients(draw: st.DrawFn) -> Command:
    """Generate RCPT."""
    written, address = draw(st.sampled_from(_ADDRESSES))
    name = draw(st.sampled_from([b"RCPT TO:", b"rcpt to: "]))
    return Command(name + written, draw(_JOINED), draw(_ANSWERS), address=address)


@st.composite
def xforwards(
    draw: st.DrawFn, attributes: tuple[tuple[bytes, tuple[bytes, bytes]], ...]
) -> Command:
    """Generate XFORWARD with some of *attributes*."""
    chosen = draw(st.lists(st.sampled_from(attributes), min_size=1, max_size=3))
    line = b" ".join([b"XFORWARD", *(written for written, _ in chosen)])
    answer = draw(_mostly(OK, Answer(501)))
    return Command(line, draw(_JOINED), answer, attributes=tuple(meant for _, meant in chosen))


def _commands(*lines: bytes) -> st.SearchStrategy[Command]:
    return st.builds(Command, st.sampled_from(lines), _JOINED)


MESSAGES = st.builds(Message, BODIES, VERDICTS, _JOINED)


def _sessions(
    hellos: st.SearchStrategy[Command], forwards: st.SearchStrategy[Command], most: int
) -> st.SearchStrategy[tuple[Item, ...]]:
    """Generate a greeting, transactions with commands between them, and optionally QUIT."""
    strays = st.one_of(_commands(b"NOOP", b"RSET", b"NOOP  x "), recipients(), hellos, MESSAGES)
    begun = st.tuples(
        st.lists(forwards, max_size=2),
        mail_commands().map(lambda mail: [mail]),
        st.lists(recipients(), min_size=1, max_size=3),
    ).map(_joined)
    whole = st.tuples(begun, MESSAGES.map(lambda message: [message])).map(_joined)
    stray = strays.map(lambda item: [item])
    part = st.sampled_from([whole, whole, whole, whole, begun, stray]).flatmap(lambda kind: kind)
    return st.tuples(
        hellos.map(lambda hello: [hello]),
        st.lists(part, min_size=1, max_size=most).map(_joined),
        st.lists(_commands(b"QUIT"), max_size=1),
    ).map(lambda parts: tuple(_joined(parts)))


def _joined(parts: Iterable[Sequence[Item]]) -> list[Item]:
    return [item for part in parts for item in part]


_CUTS = st.lists(
    st.lists(st.one_of(st.integers(1, 8), st.integers(-6, -1)), max_size=3).map(tuple), max_size=8
).map(tuple)
_KEYWORDS = st.lists(
    st.sampled_from(
        [b"PIPELINING", b"XFORWARD NAME ADDR HELO", b"SIZE 1000000", b"STARTTLS", b"CHUNKING"]
    ),
    unique=True,
).map(tuple)


def plans() -> st.SearchStrategy[Plan]:
    """Generate one session in mode stdio."""
    hellos = _commands(b"EHLO client.example", b"ehlo other.example", b"HELO client.example")
    return st.builds(
        Plan,
        _sessions(hellos, xforwards(_ATTRIBUTES), 8),
        half_closes=st.booleans(),
        cuts=_CUTS,
        keywords=_KEYWORDS,
        filtering=st.sampled_from([True, True, True, False]),
        rejects_failures=st.booleans(),
    )


@st.composite
def concurrent_sessions(draw: st.DrawFn) -> dict[bytes, Plan]:
    """Generate a few clients of one server. Their HELO identifies them to upstream and filters."""
    arguments = draw(st.booleans()), draw(st.booleans())
    crowd = {}
    for number in range(draw(st.integers(2, 4))):
        name = b"c%d.example" % (number + 1)
        hellos = _commands(b"EHLO " + name, b"HELO " + name)
        address = tuple(one for one in _ATTRIBUTES if one[1][0] != b"HELO")
        plan = draw(
            st.builds(
                Plan, _sessions(hellos, xforwards(address), 4), st.booleans(), _CUTS, _KEYWORDS
            )
        )
        crowd[name] = replace(plan, filtering=arguments[0], rejects_failures=arguments[1])
    return crowd
