"""Start-up: what a session that only says QUIT costs, next to an interpreter that does nothing.

Rule: processor time as wait(2) accounts it, the same interpreter on both sides.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from .figures import Bench, Figure, in_turn
from .peers import Process, run


def quit_only(command: list[str]) -> float:
    """Return the processor seconds of a session that says QUIT after the greeting."""
    with Process(command) as process:
        process.client.reply(b"220")
        process.client.quit()
    return process.wait()


def measure(bench: Bench) -> Iterator[Figure]:
    """Measure it."""
    figure = Figure("start-up: CPU of a QUIT-only session / python3 -I -S -c pass", "x", "≤ 1.3")
    for turn in bench.turns(20):
        for subject in bench.subjects:
            session, bare = in_turn(
                3,
                partial(quit_only, subject.command(bench.upstream.smtp)),
                partial(run, [bench.python, "-I", "-S", "-c", "pass"]),
            )
            if turn:
                figure.add(subject, session / bare)
    yield figure
