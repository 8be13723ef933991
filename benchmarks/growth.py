"""Measures how the cost of a message grows with its size, its recipients and the active sessions.

Rule: the processor time of a listening proxy for a message is measured. If doubling the size more
than doubles the cost, the slope is greater than 1.
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
#: The descriptors of an active session without a filter: client, upstream, the file of the message.
DESCRIPTORS = 4
#: The approximate total number of octets, commands or sessions at each point.
ENOUGH = 400


def of_size(listener: Listener, size: int, enough: int) -> Spent:
    """Return the time for a message of this size."""
    return mean(listener, max(1, min(enough // 8, 10_000_000 // size)), Message(size), 1)


def to_recipients(listener: Listener, recipients: int, enough: int) -> Spent:
    """Return the time for a message to this number of recipients."""
    return mean(listener, max(1, enough // recipients), MESSAGE, recipients)


def mean(listener: Listener, times: int, message: Message, recipients: int) -> Spent:
    """Return the mean time for a message."""
    client = connected(listener.address)

    def send() -> None:
        for _ in range(times):
            client.send(message, recipients)

    taken = spent(listener.own, send)
    client.quit()
    return taken.times(1 / times)


def of_sessions(listener: Listener, sessions: int, enough: int) -> Spent:
    """Return the time for a message while this number of sessions send messages in step."""
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
    """Send a message from each client. Each command is sent by all before all replies are read."""
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
    """Run the benchmark."""
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
