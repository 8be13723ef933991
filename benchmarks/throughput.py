"""Throughput: a large message through the proxy, next to a program that only copies it.

Rule: `copier.py` stores the whole message in a file and then sends it, in blocks of the proxy's
sizes, to the same mail server; the clock runs from the first octet of the content to the reply.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from postprox.core import limits

from .figures import Bench, Figure, in_turn
from .peers import Message, Process, elapsed

SIZE = 50_000_000
COPIER = str(Path(__file__).parent / "copier.py")


def copied(command: list[str], message: Message) -> float:
    """Return the seconds that the copier takes."""
    with Process(command) as process:
        process.client.reply(b"354")
        began = time.perf_counter()
        process.client.content(message)
        took = elapsed(began)
    process.wait()
    return took


def proxied(command: list[str], message: Message) -> float:
    """Return the seconds that a proxy takes."""
    with Process(command) as process:
        process.client.hello()
        process.client.begin(b"sender@example.com")
        began = time.perf_counter()
        process.client.content(message)
        took = elapsed(began)
        process.client.quit()
    process.wait()
    return took


def measure(bench: Bench) -> Iterator[Figure]:
    """Measure it."""
    size = SIZE // bench.divisor
    attachment, text = Message(size), Message(size, last=b".")
    cases = (
        (Figure("throughput: 50 MB, rate / that of a copier", "x", "≥ 0.5"), attachment, ()),
        (Figure("throughput: the same, with -c true", "x"), attachment, ("-c", "true")),
        (Figure("throughput: the same as text, dots in every line", "x"), text, ()),
    )
    sizes = (str(limits.READ_SIZE), str(limits.COPY_SIZE))
    copier = [bench.python, "-I", COPIER, bench.upstream.bare, *sizes, str(bench.directory)]
    for turn in bench.turns(5):
        for subject in bench.subjects:
            for figure, message, options in cases:
                command = subject.command(bench.upstream.smtp, *bench.spooling, *options)
                copy, proxy = in_turn(
                    3, partial(copied, copier, message), partial(proxied, command, message)
                )
                if turn:
                    figure.add(subject, copy / proxy)
    for figure, _, _ in cases:
        yield figure
