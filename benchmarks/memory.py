"""Measures the memory for a very large message.

Rule: the peak resident memory of the process, including the interpreter's code, is read before
QUIT.
"""

from __future__ import annotations

from collections.abc import Iterator

from .figures import Bench, Figure
from .peers import Message, Process

SIZE = 1_000_000_000


def peak(command: list[str], *messages: Message) -> float:
    """Return the peak memory of a session with these messages, in MB."""
    with Process(command) as process:
        process.client.hello()
        for message in messages:
            process.client.send(message)
        memory = process.peak_memory()
        process.client.quit()
    process.wait()
    return memory


def measure(bench: Bench) -> Iterator[Figure]:
    """Run the benchmark."""
    for subject in bench.subjects:
        command = bench.command(subject, "-c", "true")
        idle, busy = peak(command), peak(command, Message(bench.part(SIZE)))
        label = bench.named("peak memory with a message of 1 GB and `-c true`", subject)
        yield Figure([busy], label=label, unit="MB", at_most=bench.bar(subject, 12))
        label = bench.named("peak memory with this message / without a message", subject)
        yield Figure([busy / idle], label=label)
