"""How does the cost of a message grow: with its size, its recipients, and the sessions at work?

Rule: the listening process's own time for a message; a doubling that costs more than twice as much
shows as a slope above 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .clock import Spent, spent
from .figures import Bench, Series
from .peers import Client, Listener, Message, connected, listening

SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
RECIPIENTS = (1, 10, 100, 1_000, 10_000)
SESSIONS = (1, 10, 100, 1_000)
MESSAGE = Message(4096)
#: A session's at work without a filter: client, upstream, the message's file.
DESCRIPTORS = 4
#: A point takes so many messages that their octets, commands or sessions come to about this.
ENOUGH = 400


def of_size(listener: Listener, size: int, enough: int) -> Spent:
    """Return what a message of so many octets takes."""
    return mean(listener, max(1, min(enough // 8, 10_000_000 // size)), Message(size), 1)


def to_recipients(listener: Listener, recipients: int, enough: int) -> Spent:
    """Return what a message to so many recipients takes."""
    return mean(listener, max(1, enough // recipients), MESSAGE, recipients)


def mean(listener: Listener, times: int, message: Message, recipients: int) -> Spent:
    """Return what a message takes, of so many."""
    client = connected(listener.address)

    def send() -> None:
        for _ in range(times):
            client.send(message, recipients)

    taken = spent(listener.own, send)
    client.quit()
    return taken.times(1 / times)


def of_sessions(listener: Listener, sessions: int, enough: int) -> Spent:
    """Return what a message takes while so many sessions each send one, all in step."""
    clients = [connected(listener.address) for _ in range(sessions)]
    times = max(1, enough // sessions)

    def send() -> None:
        for _ in range(times):
            in_step(clients)

    taken = spent(listener.own, send)
    for client in clients:
        client.quit()
    return taken.times(1 / times / sessions)


def in_step(clients: list[Client]) -> None:
    """Send a message from each: a command of all, then the replies of all."""
    for line, code in (
        (b"MAIL FROM:<sender@example.com>", b"250"),
        (b"RCPT TO:<recipient@example.com>", b"250"),
        (b"DATA", b"354"),
    ):
        for client in clients:
            client.says(line)
        for client in clients:
            client.expect(code)
    for client in clients:
        client.pour(MESSAGE)
    for client in clients:
        client.expect(b"250")


Measure = Callable[[Listener, int, int], Spent]
CASES: tuple[tuple[Series, tuple[int, ...], Measure], ...] = (
    (Series("size", "a message by its size", "octets"), SIZES, of_size),
    (Series("recipients", "a message by its recipients", "recipients"), RECIPIENTS, to_recipients),
    (Series("sessions", "a message by the sessions at work", "sessions"), SESSIONS, of_sessions),
)


def measure(bench: Bench) -> Iterator[Series]:
    """Measure it."""
    command = bench.crowded(max(SESSIONS), DESCRIPTORS)
    with listening(command) as listener:
        for series, places, of in CASES:
            grown = Series(series.name, series.label, series.of).at(bench.places(places))
            for turn in bench.turns(5):
                for point in grown.points:
                    taken = of(listener, point.at, bench.part(ENOUGH))
                    if turn:
                        point.add(taken.times(1000))
            yield grown
