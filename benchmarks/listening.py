"""Measures the cost of a message in a listening proxy.

Rule: the processor time of the proxy for one message of a longer session is measured and compared
with that of the filter, which is not included.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from .clock import Spent, least, spent
from .figures import Bench, Figure
from .peers import Listener, Message, connected, listening, run

MESSAGES = 50
MESSAGE = Message(4096)


def per_message(listener: Listener, messages: int) -> Spent:
    """Return the mean time for one of many messages in a session."""
    client = connected(listener.address)

    def send() -> None:
        for _ in range(messages):
            client.send(MESSAGE)

    taken = spent(listener.own, send)
    client.quit()
    return taken.times(1 / messages)


def shell(times: int) -> Spent:
    """Return the time of the filter alone."""
    runs = [run(["/bin/sh", "-c", "true"]) for _ in range(times)]
    return Spent(*(sum(each) / times for each in zip(*runs, strict=True)))


def measure(bench: Bench) -> Iterator[Figure]:
    """Run the benchmark."""
    own = Figure(label="listening, own time with `-c true` / that of `sh -c true`", at_most=0.75)
    filtering = Figure(label="listening, a 4 KB message with `-c true`", unit="ms")
    passing = Figure(label="listening, a 4 KB message without a filter", unit="ms")
    messages = bench.part(MESSAGES, 2)
    with (
        listening(bench.command(bench.postprox)) as without,
        listening(bench.command(bench.postprox, "-c", "true")) as filtered,
    ):
        for turn in bench.turns(12):
            with_filter, of_filter, no_filter = least(
                3,
                partial(per_message, filtered, messages),
                partial(shell, messages),
                partial(per_message, without, messages),
            )
            if turn:
                own.add(with_filter.over(of_filter))
                filtering.add(with_filter.times(1000))
                passing.add(no_filter.times(1000))
    yield own
    yield filtering
    yield passing
