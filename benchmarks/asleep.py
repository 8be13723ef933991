"""Measures the cost of slow filters.

Rule: the processor time of a listening proxy for a message with `-c true` is measured while the
filters of other clients sleep, and compared with the time while one filter sleeps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

from .clock import least
from .figures import Bench, Figure, Measured, Series
from .listening import MESSAGE, per_message
from .peers import Listener, connected, listening

FILTERS = (1, 500, 2000)
MESSAGES = 30
SLEEPER = b"slow@example.com"
#: The descriptors of a session with a sleeping filter: client, upstream, message files, standard
#: error.
DESCRIPTORS = 8
FILTER = f'test "$SENDER" != {SLEEPER.decode()} || exec sleep 300'


def asleep(stack: ExitStack, command: list[str], filters: int) -> Listener:
    """Provide a proxy with sleeping filters, whose clients disconnect at the end."""
    proxy = stack.enter_context(listening(command))
    for _ in range(filters):
        client = connected(proxy.address)
        stack.callback(client.leaves)
        client.begin(SLEEPER)
        client.pour(MESSAGE)
    return proxy


def measure(bench: Bench) -> Iterator[Measured]:
    """Run the benchmark."""
    counts = bench.places(FILTERS)
    series = Series("asleep", "a message beside filters that sleep", "filters asleep").at(counts)
    command = bench.crowded(counts[-1], DESCRIPTORS, "-t", "300", "-c", FILTER)
    with ExitStack() as stack:
        proxies = [asleep(stack, command, count) for count in counts]
        for turn in bench.turns(7):
            for proxy, point in zip(proxies, series.points, strict=True):
                (one,) = least(3, partial(per_message, proxy, bench.part(MESSAGES, 2)))
                if turn:
                    point.add(one.times(1000))
    first, last = series.points[0], series.points[-1]
    label = f"{last.at} filters asleep, per message / 1"
    yield Figure(label=label, at_most=2.5).compare(last.rounds(), first.rounds())
    yield series
