"""Memory: the most that the proxy's process holds while a very large message passes.

Rule: the peak of its resident set, code of the interpreter included, read before it says goodbye.
"""

from __future__ import annotations

from collections.abc import Iterator

from .figures import Bench, Figure
from .peers import Message, Process

SIZE = 1_000_000_000


def peak(command: list[str], *messages: Message) -> float:
    """Return the peak of a session with these messages, in MB."""
    with Process(command) as process:
        process.client.hello()
        for message in messages:
            process.client.send(message)
        memory = process.peak_memory()
        process.client.quit()
    process.wait()
    return memory


def measure(bench: Bench) -> Iterator[Figure]:
    """Measure it."""
    absolute = Figure("memory: peak with a message of 1 GB and -c true", "MB", "≤ 24")
    ratio = Figure("memory: the same / a session without a message", "x")
    message = Message(SIZE // bench.divisor)
    for subject in bench.subjects:
        command = subject.command(bench.upstream.smtp, *bench.spooling, "-c", "true")
        idle, busy = peak(command), peak(command, message)
        absolute.add(subject, busy)
        ratio.add(subject, busy / idle)
    yield absolute
    yield ratio
