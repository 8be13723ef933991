"""Latency: what a small message takes through a proxy of its own, filter included.

Rule: from before the start of the process until after its end, less the time of a session that
only says QUIT and the time of `sh -c true`: what is left is what the proxy makes a message wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

from .figures import Bench, Figure, in_turn
from .peers import Message, Process, elapsed, run
from .startup import quit_only

MESSAGE = Message(4096)


def one_message(command: list[str]) -> None:
    """Pass one small message through a process of its own."""
    with Process(command) as process:
        process.client.hello()
        process.client.send(MESSAGE)
        process.client.quit()
    process.wait()


def seconds(what: Callable[[], object]) -> float:
    """Return how long something takes."""
    began = time.perf_counter()
    what()
    return elapsed(began)


def measure(bench: Bench) -> Iterator[Figure]:
    """Measure it."""
    beyond = Figure("latency: 4 KB with -c true, beyond start-up and sh -c true", "ms", "≤ 4")
    ratio = Figure("latency: the same, all / (start-up + sh -c true)", "x")
    for turn in bench.turns(12):
        for subject in bench.subjects:
            command = subject.command(bench.upstream.smtp, *bench.spooling, "-c", "true")
            message, start, shell = in_turn(
                5,
                partial(seconds, partial(one_message, command)),
                partial(seconds, partial(quit_only, command)),
                partial(seconds, partial(run, ["/bin/sh", "-c", "true"])),
            )
            if turn:
                beyond.add(subject, 1000 * (message - start - shell))
                ratio.add(subject, message / (start + shell))
    yield beyond
    yield ratio
