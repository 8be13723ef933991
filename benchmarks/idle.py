"""Measures the cost of idle sessions.

Rule: a listening proxy with idle sessions, which have sent EHLO, is compared with one that has
none. The cost of a message, the cost of opening and closing another session, and the memory are
measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from .clock import Spent, least, spent
from .figures import Bench, Figure, Measured, Series
from .listening import per_message
from .peers import Listener, NotHereError, connected, listening

SESSIONS = (0, 100, 1000, 5000)
MESSAGES = 20
OPENED = 20
#: The descriptors of an idle session: client, upstream and a spare one.
DESCRIPTORS = 3
#: The limits for a message with this number of idle sessions, relative to one without any.
BARS = {100: 1.2, 1000: 1.5}


def opened(listener: Listener, sessions: int) -> Spent:
    """Return the time to open and close a session."""

    def open_and_end() -> None:
        for _ in range(sessions):
            connected(listener.address).quit()

    return spent(listener.own, open_and_end).times(1 / sessions)


@contextmanager
def beside(command: list[str], sessions: int) -> Iterator[tuple[Listener, float]]:
    """Provide a proxy with idle sessions, and their memory in KB."""
    with listening(command) as proxy:
        per_message(proxy, 2)  # modules loaded for the first message are not part of a session
        before = proxy.memory()
        clients = [connected(proxy.address) for _ in range(sessions)]
        yield proxy, proxy.memory() - before
        if not all(client.undisturbed() for client in clients):
            raise NotHereError(
                "idle sessions have timed out, because the measurement took too long"
            )
        for client in clients:
            client.leaves()


def measure(bench: Bench) -> Iterator[Measured]:
    """Run the benchmark."""
    counts = bench.places(SESSIONS)
    most = counts[-1]
    message = Series("idle", "a message beside idle sessions", "idle sessions").at(counts)
    opening = Series("opening", "opening and ending a session", "open sessions").at(counts)
    command = bench.crowded(most, DESCRIPTORS)
    with ExitStack() as stack:
        filled = [stack.enter_context(beside(command, count)) for count in counts]
        for turn in bench.turns(7):
            for (proxy, _), sent, begun in zip(filled, message.points, opening.points, strict=True):
                one, session = least(
                    3,
                    partial(per_message, proxy, bench.part(MESSAGES, 2)),
                    partial(opened, proxy, bench.part(OPENED, 2)),
                )
                if turn:
                    sent.add(one.times(1000))
                    begun.add(session.times(1000))
    none = message.points[0]
    for point in message.points[1:]:
        label = f"listening, per message beside {point.at} idle sessions / beside none"
        figure = Figure(label=label, at_most=BARS.get(point.at))
        yield figure.compare(point.rounds(), none.rounds())
    figure = Figure(label=f"opening a session, {most} open / none", at_most=1.5)
    yield figure.compare(opening.points[-1].rounds(), opening.points[0].rounds())
    _, held = filled[-1]
    yield Figure([held / most], label="memory per idle session", unit="KB", at_most=3)
    yield message
    yield opening
