"""The rules for random sessions: a correct run satisfies all rules, each faulty run violates one.

The runs are constructed by hand, so the results depend neither on an implementation nor on chance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given

from tests.conformance.format.reader import parse_transcript
from tests.conformance.format.writer import write_transcript
from tests.conformance.play.filter_stub import FilterRun
from tests.conformance.properties import content
from tests.conformance.properties.compare import ASPECTS, differences
from tests.conformance.properties.model import fates
from tests.conformance.properties.plan import (
    Answer,
    Command,
    Item,
    Message,
    Plan,
    Verdict,
    may_be_followed,
    pieces,
)
from tests.conformance.properties.rules import INVARIANTS, broken
from tests.conformance.properties.run import Exchange, NoReplyError, Run, Utterance, next_reply
from tests.conformance.properties.script import as_transcript, written
from tests.conformance.properties.strategies import BODIES, plans
from tests.conformance.properties.upstream import Asked, Delivery, Ledger, Server, UpstreamSession

pytestmark = pytest.mark.any_account

HELLO = Command(b"EHLO c")
FORWARD = Command(b"XFORWARD ADDR=192.0.2.1", attributes=((b"ADDR", b"192.0.2.1"),))
MAIL = Command(b"MAIL FROM:<a@x>", address=b"a@x")
REFUSED = Command(b"RCPT TO:<r@x>", address=b"r@x", answer=Answer(550))
RCPT = Command(b"RCPT TO:<b@x>", address=b"b@x")
QUIT = Command(b"QUIT")
BODY = b"..dot\r\nx\n.\ry\r.z\r\n"
EMAIL = b".dot\nx\n.\ry\r.z\n"
WIRE = b"..dot\r\nx\r\n..\ry\r..z\r\n"


def filter_run(sender: bytes, email: bytes, remote_ip: bytes) -> FilterRun:
    environment = {"SENDER": sender, "RECIPIENT": b"b@x", "REMOTEIP": remote_ip, "HELO": b"c"}
    return FilterRun(1, 1, environment, email, 0o600, b"")


def right_run() -> Run:
    """Return a run in which the first message is accepted and the second is rejected."""
    passed, rejected = Message(BODY), Message(b"bad\r\n", Verdict(1, b"", b"no\n"))
    first = (HELLO, FORWARD, MAIL, REFUSED, RCPT, passed)
    items: tuple[Item, ...] = (*first, MAIL, RCPT, rejected, QUIT)
    replies = [
        [b"250 up\r\n"],
        [b"250 XFORWARD 1\r\n"],
        [b"250 MAIL 1\r\n"],
        [b"550 RCPT 1\r\n"],
        [b"250 RCPT 2\r\n"],
        [b"354 go on\r\n", b"250 message 1\r\n"],
        [b"250 MAIL 2\r\n"],
        [b"250 RCPT 3\r\n"],
        [b"354 go on\r\n", b"554 no\r\n"],
        [b"221 bye\r\n"],
    ]
    asked = [
        Asked(b"EHLO c", b"250-up\r\n250 CHUNKING\r\n"),
        Asked(FORWARD.line, b"250 XFORWARD 1\r\n"),
        Asked(MAIL.line, b"250 MAIL 1\r\n"),
        Asked(REFUSED.line, b"550 RCPT 1\r\n"),
        Asked(RCPT.line, b"250 RCPT 2\r\n"),
        Asked(b"DATA", b"354 DATA 1\r\n"),
        Asked(MAIL.line, b"250 MAIL 2\r\n"),
        Asked(RCPT.line, b"250 RCPT 3\r\n"),
        Asked(b"QUIT", b"221 QUIT 1\r\n"),
    ]
    delivery = Delivery(MAIL.line, (RCPT.line,), WIRE, b"250 message 1\r\n")
    return Run(
        Plan(items),
        b"220 up\r\n",
        [Exchange(item, reply) for item, reply in zip(items, replies, strict=True)],
        visits=[UpstreamSession(asked, [delivery])],
        filter_runs=[filter_run(b"a@x", EMAIL, b"192.0.2.1"), filter_run(b"a@x", b"bad\n", b"")],
        status=0,
    )


def test_correct_run_satisfies_every_invariant() -> None:
    assert broken(right_run()) == []


Spoil = Callable[[Run], object]


def asked(run: Run, number: int) -> Asked:
    return run.visits[0].asked[number]


def replies(run: Run, number: int) -> list[bytes]:
    return run.exchanges[number].replies


def reply(number: int, *octets: bytes) -> Spoil:
    return lambda run: replies(run, number).__setitem__(slice(None), octets)


def wire(octets: bytes) -> Spoil:
    return lambda run: setattr(run.deliveries[0], "wire", octets)


def variable(number: int, name: str, value: bytes) -> Spoil:
    return lambda run: run.filter_runs[number].environment.update({name: value})


def insert(number: int, line: bytes) -> Spoil:
    return lambda run: run.visits[0].asked.insert(number, Asked(line, b"250 ok\r\n"))


WRONG: list[tuple[str, str, Spoil]] = [
    ("replies_one_for_one", "a reply is missing", lambda run: replies(run, 2).clear()),
    ("replies_one_for_one", "an additional reply", reply(2, b"250 MAIL 1\r\n", b"250 ok\r\n")),
    (
        "replies_one_for_one",
        "a reply without a command",
        lambda run: setattr(run, "extra", b"250 x\r\n"),
    ),
    ("replies_one_for_one", "silence", lambda run: setattr(run, "trouble", "silence for 10 s")),
    ("replies_one_for_one", "354 to MAIL", reply(2, b"354 go on\r\n")),
    ("replies_in_order", "another command's reply", reply(4, b"250 MAIL 1\r\n")),
    ("replies_in_order", "a refusal becomes an acceptance", reply(3, b"250 RCPT 1\r\n")),
    ("replies_in_order", "250 reply to QUIT", reply(9, b"250 bye\r\n")),
    ("greetings_relayed", "an EHLO keyword is removed", reply(0, b"250-up\r\n250 CHUNKING\r\n")),
    ("greetings_relayed", "a hyphen in the last line", reply(0, b"250-up\r\n")),
    (
        "greetings_relayed",
        "a different greeting",
        lambda run: setattr(run, "greeting", b"421 x\r\n"),
    ),
    ("commands_relayed", "RCPT is omitted", lambda run: run.visits[0].asked.pop(4)),
    (
        "commands_relayed",
        "a parameter is omitted",
        lambda run: setattr(asked(run, 2), "line", b"MAIL FROM:<A@x>"),
    ),
    ("commands_relayed", "RCPT is sent twice", insert(5, RCPT.line)),
    ("no_command_of_its_own", "a line of content", insert(6, b"RCPT TO:<victim@x>")),
    ("no_command_of_its_own", "half a line", lambda run: setattr(run.visits[0], "rest", b"x")),
    (
        "hello_replayed",
        "a new connection without EHLO",
        lambda run: run.visits.append(UpstreamSession([Asked(MAIL.line, b"250 ok\r\n")])),
    ),
    ("data_permitted", "DATA is refused", reply(5, b"503 no\r\n")),
    ("data_permitted", "DATA without a recipient", reply(4, b"450 x\r\n")),
    ("content_faithful", "an octet is lost", wire(WIRE.replace(b"y", b""))),
    ("content_faithful", "a dot is lost", wire(WIRE.replace(b"..dot", b".dot"))),
    ("content_faithful", "a bare LF is not converted", wire(WIRE.replace(b"x\r\n", b"x\n"))),
    ("delivered_once", "not delivered", lambda run: run.visits[0].deliveries.clear()),
    (
        "delivered_once",
        "delivered twice",
        lambda run: run.visits[0].deliveries.append(run.deliveries[0]),
    ),
    (
        "delivered_once",
        "delivered to a refused recipient",
        lambda run: setattr(run.deliveries[0], "recipients", (REFUSED.line, RCPT.line)),
    ),
    ("nothing_of_the_rejected", "DATA for the rejected message", insert(8, b"DATA")),
    (
        "final_replies",
        "a different reply than upstream's",
        reply(5, b"354 go on\r\n", b"250 ok\r\n"),
    ),
    ("final_replies", "a different rejection text", reply(8, b"354 go on\r\n", b"554 never\r\n")),
    ("final_replies", "a rejected message is accepted", reply(8, b"354 go on\r\n", b"250 ok\r\n")),
    (
        "final_replies",
        "250 without delivery",
        lambda run: run.visits[0].deliveries.clear(),
    ),
    ("upstream_left_with_quit", "no QUIT", lambda run: run.visits[0].asked.pop()),
    ("nothing_smuggled", "CR dot CR", wire(b"x\r.\ry\r\n")),
    ("nothing_smuggled", "LF dot LF", wire(b"x\n.\ny\r\n")),
    ("nothing_smuggled", "CRLF dot LF", wire(b"x\r\n.\ny\r\n")),
    ("nothing_smuggled", "CRLF dot CR", wire(b"x\r\n.\ry\r\n")),
    ("filter_run_once", "not run", lambda run: run.filter_runs.pop()),
    (
        "filter_run_once",
        "run twice",
        lambda run: run.filter_runs.append(run.filter_runs[1]),
    ),
    (
        "filter_sees_the_message",
        "CRLF in EMAIL",
        lambda run: setattr(run.filter_runs[1], "email", b"bad\r\n"),
    ),
    (
        "filter_sees_the_message",
        "no OUTFILE",
        lambda run: setattr(run.filter_runs[0], "outfile", None),
    ),
    ("filter_sees_the_envelope", "the refused recipient", variable(0, "RECIPIENT", b"r@x")),
    (
        "filter_sees_the_envelope",
        "the last message's client",
        variable(1, "REMOTEIP", b"192.0.2.1"),
    ),
    (
        "filter_sees_the_envelope",
        "HELO is not set",
        lambda run: run.filter_runs[0].environment.pop("HELO"),
    ),
    ("nothing_left", "a file", lambda run: run.leftovers.append("left: postprox-1.email")),
    ("nothing_left", "exit status 1", lambda run: setattr(run, "status", 1)),
    ("nothing_left", "output on standard error", lambda run: setattr(run, "stderr", b"warning")),
]


@pytest.mark.parametrize(("name", "how", "spoil"), WRONG, ids=[f"{n}-{how}" for n, how, _ in WRONG])
def test_faulty_run_violates_expected_invariant(name: str, how: str, spoil: Spoil) -> None:
    run = right_run()
    spoil(run)
    assert name in {wrong.partition(":")[0] for wrong in broken(run)}


def test_each_invariant_is_violated_by_at_least_one_faulty_run() -> None:
    assert {name for name, _, _ in WRONG} == {one.__name__ for one in INVARIANTS}


# --- the fate of a message ------------------------------------------------------------------------


def fate_of(verdict: Verdict, *, rejects_failures: bool = False) -> bytes | None:
    run = right_run()
    run.plan = replace(run.plan, rejects_failures=rejects_failures)
    run.exchanges[5].item = Message(BODY, verdict)
    return fates(run)[0].passed


@pytest.mark.parametrize(
    ("verdict", "passed"),
    [
        (Verdict(0), b".dot\r\nx\r\n.\ry\r..z\r\n"),
        (Verdict(0, b"", b"words"), b".dot\r\nx\r\n.\ry\r..z\r\n"),
        (Verdict(0, b"new"), b"new\r\n"),
        (Verdict(1, b"new"), None),
        (Verdict(2, b"new"), b".dot\r\nx\r\n.\ry\r..z\r\n"),
    ],
)
def test_verdict_determines_delivered_content(verdict: Verdict, passed: bytes | None) -> None:
    assert fate_of(verdict) == passed


def test_filter_failure_with_reject_option_prevents_delivery() -> None:
    assert fate_of(Verdict(2), rejects_failures=True) is None


def test_rset_ends_transaction() -> None:
    run = right_run()
    run.exchanges.insert(5, Exchange(Command(b"RSET"), [b"250 ok\r\n"]))
    assert [fate.permitted for fate in fates(run)] == [False, True]


def test_xforward_values_are_undefined_after_refused_xforward() -> None:
    run = right_run()
    run.exchanges.insert(2, Exchange(FORWARD, [b"501 no\r\n"]))
    assert set(fates(run)[0].environment) == {"SENDER", "RECIPIENT"}


# --- content --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (b"", None),
        (b" \n\n", None),
        (b"no", b"554 no"),
        (b"first\nlast\n\n", b"554 last"),
        (b"550 no\r\n", b"550 no"),
        (b"550-no\n", b"554 550-no"),
        (b"5501 no\n", b"554 5501 no"),
        (b"550\tno\n", b"554 550?no"),
        (b"999 no\n", b"999 no"),
        (b"550 \xe9\0\n", b"550 ??"),
        (b"550 " + b"n" * 600, b"550 " + b"n" * 506),
    ],
)
def test_rejection_reply_is_one_line(words: bytes, line: bytes | None) -> None:
    assert content.rejection(words) == (None if line is None else line + b"\r\n")


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        (b"a\0\x01\x7fb", b"ab"),
        (b"n" * 120, b"n" * 99),
        ("é".encode() * 60, "é".encode() * 49),
    ],
)
def test_environment_variable_is_sanitized(value: bytes, seen: bytes) -> None:
    assert content.variable(value) == seen


@pytest.mark.parametrize(
    ("wire", "ends"),
    [
        (b"x\r\n..\r\n", []),
        (b"x\r\n.", ["CRLF", "LF", "CR", "any"]),
        (b"x\n.\ny\r\n", ["LF", "any"]),
        (b"x\r.\ry\r\n", ["CR", "any"]),
        (b"x\n.\ry\r\n", ["any"]),
    ],
)
def test_early_end_of_data_is_detected(wire: bytes, ends: list[str]) -> None:
    assert content.early_ends(wire) == ends


def test_legal_body_has_no_early_end_of_data() -> None:
    assert content.legal_body(b".\r\nx\r\n.\r\n.\r\ny") == b"..\r\nx\r\n..\r\n..\r\ny\r\n"


@given(body=BODIES)
def test_generated_body_has_one_end_of_data(body: bytes) -> None:
    wire = b"\r\n" + body + b".\r\n"
    assert wire.find(b"\r\n.\r\n") == len(wire) - 5


# --- plans ----------------------------------------------------------------------------------------


@given(plan=plans())
def test_generated_session_is_legal(plan: Plan) -> None:
    lines = [item.line for item in plan.items if isinstance(item, Command)]
    assert not any(b"\r" in line or b"\n" in line or b"\0" in line for line in lines)
    assert b"QUIT" not in [item.verb for item in plan.items[:-1]]


def test_pipelining_group_follows_rfc_2920() -> None:
    verbs = (b"MAIL", b"RCPT", b"RSET", b"XFORWARD", b"EHLO", b"NOOP", b"DATA", b"QUIT")
    assert [may_be_followed(verb) for verb in verbs] == [True] * 4 + [False] * 4


@pytest.mark.parametrize(
    ("cuts", "cut"),
    [
        ((), [b"abcdef"]),
        ((2,), [b"ab", b"cdef"]),
        ((-1, 2, 2), [b"ab", b"cde", b"f"]),
        ((0, 6, 7, -6, -9), [b"abcdef"]),
    ],
)
def test_octets_are_split_at_planned_positions(cuts: tuple[int, ...], cut: list[bytes]) -> None:
    assert pieces(b"abcdef", cuts) == cut


def test_shell_script_is_written_for_verdict() -> None:
    verdict = Verdict(1, b"a'\n", b"no%\0")
    assert verdict.script == (
        "printf '%b' 'a\\0047\\0012' >\"$OUTFILE\"\nprintf '%b' 'no\\0045\\0000' >&2\nexit 1\n"
    )


# --- the server -----------------------------------------------------------------------------------


def answers(server: Server, octets: bytes) -> list[bytes]:
    return [answer for _, answer in server.feed(octets)]


def served(*items: Command) -> tuple[Server, Ledger]:
    book = Ledger(Plan(items))
    return Server({b"": book}), book


def test_server_sends_planned_replies() -> None:
    server, _ = served(MAIL, REFUSED, RCPT)
    said = b"MAIL FROM:<a@x>\r\nRCPT TO:<r@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n"
    assert answers(server, said) == [
        b"250 MAIL 1\r\n",
        b"550 RCPT 1\r\n",
        b"250 RCPT 2\r\n",
        b"354 DATA 1\r\n",
    ]


def test_server_requires_correct_command_order() -> None:
    server, _ = served(MAIL, MAIL)
    said = b"RCPT TO:<b@x>\r\nMAIL FROM:<a@x>\r\nMAIL FROM:<a@x>\r\nDATA\r\n"
    assert [answer[:3] for answer in answers(server, said)] == [b"503", b"250", b"503", b"503"]


def test_server_reads_complete_message() -> None:
    server, book = served(MAIL, RCPT)
    body = b"x\n.\n\r\n.\ry\r\n..\r\n"
    for octet in b"MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n" + body + b".\r\nQUIT\r\n":
        server.feed(bytes([octet]))
    assert book.visits[0].deliveries == [
        Delivery(MAIL.line, (RCPT.line,), body, b"250 message 1\r\n")
    ]
    assert server.closes


def test_server_accepts_empty_message() -> None:
    server, book = served(MAIL, RCPT)
    server.feed(b"MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n.\r\n")
    assert book.visits[0].deliveries[0].wire == b""


def test_helo_name_identifies_session() -> None:
    books = {b"one": Ledger(Plan(())), b"two": Ledger(Plan(()))}
    Server(books).feed(b"EHLO two\r\n")
    assert [len(book.visits) for book in books.values()] == [0, 1]


# --- replies --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "taken"),
    [
        (b"250 ok\r\n250 no\r\n", b"250 ok\r\n"),
        (b"250-a\r\n250 b\r\n", b"250-a\r\n250 b\r\n"),
        (b"250-a\r\n", None),
        (b"250 ok", None),
    ],
)
def test_reply_is_read_completely(octets: bytes, taken: bytes | None) -> None:
    assert next_reply(octets) == taken


@pytest.mark.parametrize("octets", [b"hello\r\n", b"250-a\r\n550 b\r\n", b"2500\r\n", b"\r\n"])
def test_invalid_reply_raises_error(octets: bytes) -> None:
    with pytest.raises(NoReplyError):
        next_reply(octets)


# --- comparison and transcript --------------------------------------------------------------------


def test_equal_runs_have_no_differences() -> None:
    assert [differences(aspect, right_run(), right_run()) for aspect in ASPECTS] == [[]] * len(
        ASPECTS
    )


@pytest.mark.parametrize(
    ("aspect", "spoil", "line"),
    [
        ("end", lambda run: setattr(run, "trouble", "gone"), "the session: ends normally | the "),
        ("replies", reply(3, b"250 ok\r\n"), "RCPT TO:<r@x>: 550 | RCPT TO:<r@x>: 250"),
        ("deliveries", lambda run: run.visits[0].deliveries.clear(), "upstream gets: MAIL FROM:<a"),
        (
            "email",
            lambda run: setattr(run.filter_runs[1], "email", b""),
            "EMAIL: bad\\n | EMAIL: ",
        ),
        ("filters", lambda run: run.filter_runs.pop(), "the filter runs | nothing"),
        ("sender", variable(0, "SENDER", b"x"), "SENDER=a@x | SENDER=x"),
    ],
)
def test_run_difference_is_reported_only_for_its_aspect(
    aspect: str, spoil: Spoil, line: str
) -> None:
    other = right_run()
    spoil(other)
    found = {name: differences(name, right_run(), other) for name in ASPECTS}
    assert [name for name in ASPECTS if found[name]] == [aspect]
    assert found[aspect][0].startswith(line)


def test_permitted_alternative_replies_count_as_equal() -> None:
    def refused(code: int) -> Run:
        message = Message(b"x\r\n")
        return Run(Plan((message,)), exchanges=[Exchange(message, [b"%d no\r\n" % code])])

    assert differences("replies", refused(503), refused(554)) == []
    assert differences("replies", refused(503), refused(501)) != []


def test_aborted_session_differs_from_complete_session_only_at_the_end() -> None:
    other = right_run()
    other.trouble = "silence"
    del other.exchanges[5:], other.visits[:], other.filter_runs[:]
    found = {name for name in ASPECTS if differences(name, right_run(), other)}
    assert found == {"end"}


def told_run() -> Run:
    """Return a run in which two upstream connections overlap, with a log of the dialogue."""
    run = right_run()
    run.said = [
        Utterance("U<", event="@connect", connection=1),
        Utterance("U>", b"220 up\r\n", connection=1),
        Utterance("C<", b"220 up\r\n"),
        Utterance("C>", b"EHLO c\r\nx" + b"y" * 60),
        Utterance("C>", b"\0\r\n"),
        Utterance("F<", event="run", filter_run=run.filter_runs[0]),
        Utterance("C<", b"354 in words of its own\r\n"),
        Utterance("U<", event="@connect", connection=2),
        Utterance("U<", b"QUIT\r\n", connection=1),
        Utterance("U<", b"NOOP\r\n", connection=2),
    ]
    return run


STEPS = r"""# found
U> 220 up
C< 220 up
C> EHLO c
C+ x\{60*y}\
C> \0
F< run
F< env SENDER=a@x
F< env RECIPIENT=b@x
F< env REMOTEIP=192.0.2.1
F< env HELO=c
F< email .dot\nx\n.\ry\r.z\n
C? 354
U< QUIT
U< @connect
U< NOOP
P< exit 0
"""


def test_run_is_written_as_transcript() -> None:
    assert written(told_run(), "A title", ["found"]).rpartition("+++\n")[2] == STEPS


def test_transcript_of_run_round_trips() -> None:
    transcript = as_transcript(told_run(), "A title")
    assert parse_transcript(write_transcript(transcript), transcript.name) == transcript


def test_script_selects_verdict_by_run_number() -> None:
    script = as_transcript(told_run(), "A title").header.filter
    assert script is not None
    assert "1)\nexit 0\n;;\n2)\nprintf" in script
