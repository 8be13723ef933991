"""The rules for every session. Each rule is a function that returns the violations in a run.

Rule: each rule is a pure function that checks one subject, so that each violation has a name.
`INVARIANTS` maps each rule to its requirements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..format.payload import visible
from . import content
from .model import ExpectedOutcome, fates
from .plan import Command, Message
from .run import Run, code

#: Extensions that would let content bypass the filter (relay.ehlo).
HIDDEN = (b"STARTTLS", b"CHUNKING", b"BINARYMIME", b"BURL", b"XCLIENT")
#: Commands that an implementation may send upstream on its own.
_OWN_COMMANDS = (b"DATA", b"RSET", b"NOOP", b"QUIT")
_RELAYED = (b"HELO", b"EHLO", b"MAIL", b"RCPT", b"XFORWARD")
_ENVELOPE = (b"MAIL", b"RCPT", b"XFORWARD")

Invariant = Callable[[Run], Iterator[str]]


def replies_one_for_one(run: Run) -> Iterator[str]:
    """Check that each command gets one reply, and that DATA gets two after 354."""
    if run.trouble:
        yield run.trouble
    if run.extra:
        yield f"replies without a command: {visible(run.extra)}"
    for exchange in run.exchanges:
        codes = exchange.codes
        goes_on = isinstance(exchange.item, Message) and codes[:1] == [354]
        if not run.trouble and len(codes) != 1 + goes_on:
            yield f"{_name(exchange.item)}: {len(codes)} replies"
        if 354 in codes[1:] or (codes[:1] == [354] and not goes_on):
            yield f"{_name(exchange.item)}: 354 without a message"


def replies_in_order(run: Run) -> Iterator[str]:
    """Check that each reply is upstream's reply to the same command."""
    for name in _ENVELOPE:
        given = [asked.reply for asked in run.asked if asked.verb == name]
        for (command, exchange), reply in zip(run.commands(name), given, strict=False):
            if exchange.replies and exchange.replies[0] != reply:
                yield _differs(f"the reply to {visible(command.line)}", reply, exchange.replies[0])
    for name, wanted in ((b"RSET", 250), (b"NOOP", 250), (b"QUIT", 221)):
        for _, exchange in run.commands(name):
            if exchange.replies and exchange.codes != [wanted]:
                yield f"the replies to {name.decode()} are {exchange.codes}"


def greetings_relayed(run: Run) -> Iterator[str]:
    """Check that the client gets upstream's greeting and EHLO reply, without hidden extensions."""
    given = {asked.line: asked.reply for asked in run.asked}
    for command, exchange in run.commands(b"EHLO", b"HELO"):
        if not exchange.replies or command.line not in given:
            continue
        wanted = _without_hidden(given[command.line])
        if exchange.replies[0] != wanted:
            yield _differs(f"the reply to {visible(command.line)}", wanted, exchange.replies[0])
    if run.greeting and code(run.greeting) != 220:
        yield f"the greeting is {visible(run.greeting)}"


def _without_hidden(reply: bytes) -> bytes:
    first, *words = [line[4:] for line in reply.splitlines()]
    kept = [first, *(word for word in words if word.split(b" ")[0].upper() not in HIDDEN)]
    return b"".join(b"250-%s\r\n" % line for line in kept[:-1]) + b"250 %s\r\n" % kept[-1]


def commands_relayed(run: Run) -> Iterator[str]:
    """Check that upstream gets all commands of the client, unchanged and in order."""
    sent = [command.line for command, exchange in run.commands(*_ENVELOPE) if exchange.replies]
    got = [asked.line for asked in run.asked if asked.verb in _ENVELOPE]
    if got[: len(sent)] != sent:
        yield f"the client sent {_lines(sent)}, but upstream got {_lines(got)}"


def no_command_of_its_own(run: Run) -> Iterator[str]:
    """Check that upstream gets only commands that the client sent."""
    sent = {item.line for item in run.plan.items if isinstance(item, Command)}
    for asked in run.asked:
        if asked.line not in sent and asked.line.upper() not in _OWN_COMMANDS:
            yield f"upstream got a command that no client sent: {visible(asked.line)}"
    for visit in run.visits:
        if visit.rest and not run.trouble:
            yield f"upstream got input that is not a command: {visible(visit.rest[:200])}"


def hello_replayed(run: Run) -> Iterator[str]:
    """Check that the proxy sends the same HELO or EHLO on each upstream connection."""
    if not run.exchanges or run.exchanges[0].item.verb not in (b"EHLO", b"HELO"):
        return
    for visit in run.visits[1:]:
        begins_with = visit.asked[0].verb if visit.asked else b"QUIT"
        if begins_with not in (b"EHLO", b"HELO", b"QUIT"):
            yield f"a new connection begins with {visible(begins_with)}"


def data_permitted(run: Run) -> Iterator[str]:
    """Check that DATA gets 354 if and only if a sender and a recipient were accepted."""
    for fate in fates(run):
        codes = fate.exchange.codes[:1]
        if fate.permitted and codes not in ([354], []):
            yield f"the reply to DATA is {codes[0]} although a recipient was accepted"
        if not fate.permitted and codes not in ([503], [554], []):
            yield f"the reply to DATA is {codes[0]} although no recipient was accepted"


def content_faithful(run: Run) -> Iterator[str]:
    """Check that upstream gets the message or its replacement."""
    for fate, delivery in zip(_to_deliver(run), run.deliveries, strict=False):
        got = content.unstuffed(delivery.wire)
        assert fate.passed is not None
        if got != fate.passed:
            yield _differs("the message at the upstream server", fate.passed, got)


def delivered_once(run: Run) -> Iterator[str]:
    """Check that each accepted message is delivered exactly once."""
    wanted = [(fate.mail.line, fate.recipients) for fate in _to_deliver(run) if fate.mail]
    got = [(delivery.mail, delivery.recipients) for delivery in run.deliveries]
    if got != wanted:
        yield f"upstream must get {_envelopes(wanted)}, but got {_envelopes(got)}"


def nothing_of_the_rejected(run: Run) -> Iterator[str]:
    """Check that upstream only gets DATA for messages that pass the filter."""
    wanted = sum(fate.passed is not None for fate in _complete(run))
    got = sum(asked.verb == b"DATA" for asked in run.asked)
    if got > wanted:
        problem = f"{wanted} messages passed the filter"
        yield f"{problem}, but the upstream server received DATA {got} times"


def final_replies(run: Run) -> Iterator[str]:
    """Check that each final reply comes from the specified source."""
    deliveries = iter(run.deliveries)
    refusals = iter(
        asked.reply for asked in run.asked if asked.verb == b"DATA" and code(asked.reply) != 354
    )
    for fate in _complete(run):
        got = fate.exchange.replies[1]
        if fate.passed is None:
            yield from _own_reply(fate, got)
            continue
        delivery = next(deliveries, None) if fate.delivered else None
        wanted = delivery.reply if delivery else None if fate.delivered else next(refusals, None)
        if wanted is not None and got != wanted:
            yield _differs("the reply to a message", wanted, got)
        if wanted is None and code(got) < 400:
            yield f"the reply is {visible(got)} although upstream did not get the message"


def _own_reply(fate: ExpectedOutcome, got: bytes) -> Iterator[str]:
    wanted = content.rejection(fate.message.verdict.words) if fate.rejected else None
    if wanted is not None and got != wanted:
        yield _differs("the reply to a rejected message", wanted, got)
    if fate.rejected and wanted is None and code(got) != 554:
        yield (
            "the reply to a message that the filter rejected without a reply text is "
            f"{visible(got)}"
        )
    if fate.failed and code(got) != 451:
        yield f"the reply after a filter failure is {visible(got)} despite -r"


def upstream_left_with_quit(run: Run) -> Iterator[str]:
    """Check that upstream gets QUIT after a rejection and at the end."""
    rejections = sum(fate.rejected for fate in _complete(run))
    ended = [visit.asked[-1:] != [] and visit.asked[-1].verb == b"QUIT" for visit in run.visits]
    if run.trouble:
        return
    if sum(ended) < rejections:
        yield f"{rejections} messages were rejected, but upstream got QUIT {sum(ended)} times"
    if not all(ended[-1:]):
        yield "the last upstream connection does not end with QUIT"


def nothing_smuggled(run: Run) -> Iterator[str]:
    """Check that the data has no early end with any line end that some servers accept."""
    for delivery in run.deliveries:
        for name in content.early_ends(delivery.wire):
            yield (
                f"with {name} as the line ending, the data ends early in "
                f"{visible(delivery.wire[:400])}"
            )


def filter_run_once(run: Run) -> Iterator[str]:
    """Check that the filter runs exactly once for every message."""
    wanted = len(_complete(run)) if run.plan.filtering else 0
    if not run.trouble and len(run.filter_runs) != wanted:
        yield f"the filter ran {len(run.filter_runs)} times for {wanted} messages"


def filter_sees_the_message(run: Run) -> Iterator[str]:
    """Check that EMAIL contains the message, and that OUTFILE exists and is empty."""
    for fate, filter_run in zip(_complete(run), run.filter_runs, strict=False):
        wanted = content.in_email(fate.message.body)
        if filter_run.email != wanted:
            yield _differs("EMAIL", wanted, filter_run.email or b"")
        if filter_run.outfile != b"":
            yield f"OUTFILE is {filter_run.outfile!r} when the filter starts"


def filter_sees_the_envelope(run: Run) -> Iterator[str]:
    """Check that SENDER, RECIPIENT, REMOTEIP and HELO belong to this transaction."""
    for fate, filter_run in zip(_complete(run), run.filter_runs, strict=False):
        for name, wanted in fate.environment.items():
            got = filter_run.environment.get(name)
            if got != wanted:
                yield f"{name} is {_shown(got)}, not {_shown(wanted)}"


def nothing_left(run: Run) -> Iterator[str]:
    """Check that the run leaves no file, process or output, and that the exit status is 0."""
    yield from run.leftovers
    if not run.trouble and run.status != 0:
        yield f"exit status {run.status}"
    if run.stderr:
        yield f"on standard error: {visible(run.stderr[:400])}"


#: Each rule with its requirements. A violation counts against the first requirement.
INVARIANTS: dict[Invariant, tuple[str, ...]] = {
    replies_one_for_one: ("relay.order-2", "data.held-2"),
    replies_in_order: ("relay.order-1", "relay.replies-2"),
    greetings_relayed: ("relay.ehlo-1", "relay.ehlo-7", "relay.replies-1"),
    commands_relayed: ("relay.commands-1",),
    no_command_of_its_own: ("relay.commands-4", "data.no-smuggling-1"),
    hello_replayed: ("filter.reject-session-6",),
    data_permitted: ("data.needs-recipient-3", "data.needs-recipient-6"),
    content_faithful: ("data.faithful-1", "filter.outfile-5"),
    delivered_once: ("filter.accept-2", "filter.reject-3", "data.held-5"),
    nothing_of_the_rejected: ("filter.reject-3", "data.upstream-refuses-1"),
    final_replies: (
        "data.final-reply-1",
        "filter.reject-2",
        "filter.failure-6",
        "data.upstream-refuses-3",
    ),
    upstream_left_with_quit: ("filter.reject-4", "relay.eof-1"),
    nothing_smuggled: ("data.no-smuggling-2", "data.no-smuggling-1", "data.no-smuggling-3"),
    filter_run_once: ("filter.run-1", "filter.run-2"),
    filter_sees_the_message: ("filter.email-1", "filter.outfile-2"),
    filter_sees_the_envelope: ("filter.env-1", "filter.env-2"),
    nothing_left: ("files.gone-1", "cli.exit-1", "cli.stderr-silent-1"),
}
#: The requirements of each rule by its name.
REQUIRES = {rule.__name__: requires for rule, requires in INVARIANTS.items()}


def broken(run: Run) -> list[str]:
    """Return all violations in *run*, each with the name of its rule."""
    return [f"{one.__name__}: {wrong}" for one in INVARIANTS for wrong in one(run)]


# --- helpers that evaluate a run
# ----------------------------------------------------------------------


def _complete(run: Run) -> list[ExpectedOutcome]:
    """Yield the messages that were sent and got a reply."""
    return [fate for fate in fates(run) if len(fate.exchange.replies) == 2]


def _to_deliver(run: Run) -> list[ExpectedOutcome]:
    return [fate for fate in _complete(run) if fate.delivered]


def _name(item: Command | Message) -> str:
    return visible(item.line) if isinstance(item, Command) else "DATA"


def _lines(lines: list[bytes]) -> str:
    return " / ".join(map(visible, lines)) or "nothing"


def _envelopes(envelopes: list[tuple[bytes, tuple[bytes, ...]]]) -> str:
    return "; ".join(_lines([mail, *recipients]) for mail, recipients in envelopes) or "nothing"


def _shown(value: bytes | None) -> str:
    return "not set" if value is None else f"'{visible(value)}'"


def _differs(what: str, wanted: bytes, got: bytes) -> str:
    same = next(
        (
            place
            for place, (one, other) in enumerate(zip(wanted, got, strict=False))
            if one != other
        ),
        min(len(wanted), len(got)),
    )
    start = max(0, same - 20)
    return (
        f"{what} differs at octet {same}: expected '{visible(wanted[start : same + 60])}', "
        f"got '{visible(got[start : same + 60])}'"
    )
