"""Sessions: one listening proxy, many clients at once.

Rule: the same clients send the same messages straight to the mail server and through the proxy;
and, through the proxy, with and without a client among them whose filter is slow.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from .figures import Bench, Figure
from .peers import Message, connected, elapsed, listening

CLIENTS = 20
MESSAGES = 20
MESSAGE = Message(4096)
#: Slow for one sender; for the others as quick as a shell gets.
FILTER = 'test "$SENDER" != slow@example.com || exec sleep 0.5'

Address = tuple[str, int]


def latencies(address: Address, messages: int) -> list[float]:
    """Send so many messages one after the other; return the seconds that each took."""
    client = connected(address)
    taken = []
    for _ in range(messages):
        began = time.perf_counter()
        client.send(MESSAGE)
        taken.append(elapsed(began))
    client.quit()
    return taken


def slow(address: Address) -> None:
    """Send the message that the filter takes its time for."""
    client = connected(address)
    client.send(MESSAGE, b"slow@example.com")
    client.quit()


def rate(address: Address, messages: int) -> float:
    """Return how many messages pass in a second with all clients at work."""
    began = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as executor:
        clients = [executor.submit(latencies, address, messages) for _ in range(CLIENTS)]
        sent = sum(len(client.result()) for client in clients)
    return sent / elapsed(began)


def measure(bench: Bench) -> Iterator[Figure]:
    """Measure it."""
    host, port = bench.upstream.smtp.split(":")
    direct = (host, int(port))
    messages = max(2, MESSAGES // bench.divisor)
    throughput = Figure(
        f"sessions: {CLIENTS} at once with -l, messages/s / those without a proxy", "x"
    )
    absolute = Figure("sessions: the same, messages/s", "/s")
    others = Figure("sessions: latency beside a filter that sleeps / without that", "x")
    subject = bench.subjects[0]
    command = subject.command(bench.upstream.smtp, *bench.spooling)
    with listening(command) as proxy, listening([*command, "-c", FILTER]) as filtering:
        for turn in bench.turns(7):
            through = rate(proxy, messages)
            ratio = through / rate(direct, messages)
            alone = median(latencies(filtering, messages))
            with ThreadPoolExecutor(1) as executor:
                waiting = executor.submit(slow, filtering)
                beside = median(latencies(filtering, messages))
                waiting.result()
            if turn:
                throughput.add(subject, ratio)
                absolute.add(subject, through)
                others.add(subject, beside / alone)
    yield throughput
    yield absolute
    yield others
