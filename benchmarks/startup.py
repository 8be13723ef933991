"""Measures the cost of a process for each session, as started by spawn(8).

Rule: a complete session, from the start of its process to its exit and with its filter, is measured
with wait(2) and compared with the same interpreter doing nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from .clock import Spent, least
from .figures import Bench, Figure
from .peers import Message, Process, run

MESSAGE = Message(4096)


def quit_only(command: list[str]) -> Spent:
    """Return the time of a session that sends QUIT after the greeting."""
    with Process(command) as process:
        process.client.expect(b"220")
        process.client.quit()
    return process.wait()


def one_message(command: list[str]) -> Spent:
    """Return the time of a session with one small message."""
    with Process(command) as process:
        process.client.hello()
        process.client.send(MESSAGE)
        process.client.quit()
    return process.wait()


def measure(bench: Bench) -> Iterator[Figure]:
    """Run the benchmark."""
    bare = [bench.python, "-I", "-S", "-c", "pass"]
    for subject in bench.subjects:
        idle = Figure(
            label=bench.named("session with QUIT only / `python3 -I -S -c pass`", subject),
            at_most=bench.bar(subject, 1.2),
        )
        busy = Figure(
            label=bench.named("4 KB session with `-c true` / `python3 -I -S -c pass`", subject),
            at_most=bench.bar(subject, 1.45),
        )
        for turn in bench.turns(20):
            session, message, interpreter = least(
                5,
                partial(quit_only, bench.command(subject)),
                partial(one_message, bench.command(subject, "-c", "true")),
                partial(run, bare),
            )
            if turn:
                idle.add(session.over(interpreter))
                busy.add(message.over(interpreter))
        yield idle
        yield busy
