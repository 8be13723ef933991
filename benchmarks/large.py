"""Measures the cost of a large message.

Rule: the processor time of the whole process, as returned by wait(2), is compared with that of
`copier.py`, which only stores the same octets in a file and sends them on. The time for the message
alone, from the first octet of its content to the final reply, has no limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .clock import Spent, spent
from .figures import Bench, Figure
from .peers import Message, Process

COPIER = str(Path(__file__).parent / "copier.py")
#: The sizes in megabytes, with the limits without and with a filter.
CASES = ((50, 0.85, 0.7), (500, 0.68, 0.55))


@dataclass(frozen=True)
class Passed:
    """The times of the process from start to exit, and of the message alone."""

    whole: Spent
    message: Spent


def copied(command: list[str], message: Message) -> Passed:
    """Return the times of the copier."""
    with Process(command) as process:
        process.client.expect(b"354")
        alone = spent(process.own, lambda: process.client.content(message))
    return Passed(process.wait(), alone)


def proxied(command: list[str], message: Message) -> Passed:
    """Return the times of a proxy."""
    with Process(command) as process:
        process.client.hello()
        process.client.begin()
        alone = spent(process.own, lambda: process.client.content(message))
        process.client.quit()
    return Passed(process.wait(), alone)


def measure(bench: Bench) -> Iterator[Figure]:
    """Run the benchmark."""
    copier = [bench.python, "-I", COPIER, bench.upstream.bare, str(bench.directory)]
    for megabytes, *bars in CASES:
        message = Message(bench.part(megabytes * 1_000_000))
        for subject in bench.subjects:
            cases = [
                (Figure(label=bench.named(label, subject), at_least=bench.bar(subject, bar)), more)
                for label, bar, more in (
                    (f"{megabytes} MB: a copier / ours, no filter", bars[0], ()),
                    (f"{megabytes} MB: a copier / ours, with `-c true`", bars[1], ("-c", "true")),
                )
            ]
            alone = [Figure(label=f"{case.label}, the message alone") for case, _ in cases]
            for turn in bench.turns(7):
                copy = copied(copier, message)
                for (figure, options), of_message in zip(cases, alone, strict=True):
                    ours = proxied(bench.command(subject, *options), message)
                    if turn:
                        figure.add(copy.whole.over(ours.whole))
                        of_message.add(copy.message.over(ours.message))
            yield from (figure for figure, _ in cases)
            yield from alone
