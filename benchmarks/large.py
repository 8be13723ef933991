"""What does a large message cost?

Rule: the process's own time from the first octet of the content to the reply to its end, next to
`copier.py`, which stores the same octets in a file and sends them on and does nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .clock import Spent, least, spent
from .figures import Bench, Figure
from .peers import Message, Process

COPIER = str(Path(__file__).parent / "copier.py")
#: Megabytes, and the bars without a filter and with one.
CASES = ((50, 0.85, 0.7), (500, 0.68, 0.55))


def copied(command: list[str], message: Message) -> Spent:
    """Return what the copier takes."""
    with Process(command) as process:
        process.client.reply(b"354")
        taken = spent(process.own, lambda: process.client.content(message))
    process.wait()
    return taken


def proxied(command: list[str], message: Message) -> Spent:
    """Return what a proxy takes."""
    with Process(command) as process:
        process.client.hello()
        process.client.begin()
        taken = spent(process.own, lambda: process.client.content(message))
        process.client.quit()
    process.wait()
    return taken


def measure(bench: Bench) -> Iterator[Figure]:
    """Measure it."""
    copier = [bench.python, "-I", COPIER, bench.upstream.bare, str(bench.directory)]
    for megabytes, bar, bar_filtered in CASES:
        for subject in bench.subjects:
            plain, filtered = (
                Figure(label=bench.named(label, subject), at_least=bench.bar(subject, least_ratio))
                for label, least_ratio in (
                    (f"{megabytes} MB: a copier / ours, no filter", bar),
                    (f"{megabytes} MB: the same, with `-c true`", bar_filtered),
                )
            )
            message = Message(bench.part(megabytes * 1_000_000))
            for turn in bench.turns(5):
                copy, one, other = least(
                    2,
                    partial(copied, copier, message),
                    partial(proxied, bench.command(subject), message),
                    partial(proxied, bench.command(subject, "-c", "true"), message),
                )
                if turn:
                    plain.add(copy.over(one))
                    filtered.add(copy.over(other))
            yield plain
            yield filtered
