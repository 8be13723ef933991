"""Measures the parts of each figure that has a limit.

Rule: each part is a piece of the program, or the minimum that any program must do in its place, and
is measured separately. There is no sampling and no instruction counting, so no tools are required
and results are comparable between machines.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

from postprox.core import options
from postprox.core.data import DotUnstuffer
from postprox.core.session import Session
from postprox.core.verdict import Outcome
from postprox.shell.spool import Spool

from . import large, startup
from .clock import Spent, least, spent
from .figures import Bench, Comparison, Way
from .listening import MESSAGES, per_message
from .peers import BLOCK, Message, listening, relay, run

HERE = Path(__file__).parent
MESSAGE = b"".join(Message(4096).wire())
#: The size of the large message in octets.
LARGE = 50_000_000
#: The steps whose end `steps.py` reports.
STEPS = (
    "the interpreter, until the first statement",
    "reading the byte code that every session needs",
    "executing it",
    "reading and executing what comes with a message",
)
#: The upstream server's replies to a command and to DATA.
OK, GO_ON = b"250 2.0.0 Ok\r\n", b"354 go on\r\n"
COMMANDS = (
    b"XFORWARD NAME=there.test ADDR=192.0.2.1 HELO=there.test\r\n",
    b"MAIL FROM:<sender@example.com>\r\n",
    b"RCPT TO:<recipient-0@example.com>\r\n",
)


def steps(bench: Bench) -> list[Spent]:
    """Return the time of each of `STEPS`."""
    library = str(bench.directory / "lib/postprox")
    began = time.monotonic()
    said = subprocess.run(
        [bench.python, "-ISB", HERE / "steps.py", library],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    marks = [Spent(0.0, began), *(Spent(*map(float, line.split())) for line in said.splitlines())]
    return [
        Spent(one.processor - last.processor, one.wall - last.wall) for last, one in pairwise(marks)
    ]


def shell(times: int) -> Spent:
    """Return the time of the filter alone."""
    runs = [run(["/bin/sh", "-c", "true"]) for _ in range(times)]
    return Spent(*(sum(each) / times for each in zip(*runs, strict=True)))


def of_each(times: int, work: Callable[[], object]) -> Spent:
    """Return the mean time that this process takes for some work."""

    def repeat() -> None:
        for _ in range(times):
            work()

    return spent(time.process_time, repeat).times(1 / times)


def start_and_await() -> None:
    """Start the filter's shell and wait for it, without doing anything else."""
    os.waitpid(os.posix_spawn("/bin/sh", ("sh", "-c", "true"), os.environ), 0)


def files(directory: Path) -> None:
    """Create the files of a message, link them to names, read them and remove them."""
    spool = Spool(str(directory), filtering=True)
    spool.store(MESSAGE, MESSAGE)
    spool.check()
    spool.create_filter_files()
    spool.open_outfile()
    spool.remove_filter_files()
    for _ in spool.original_blocks():
        pass
    spool.remove()


def begun() -> Session:
    """Return a session after EHLO that has no connection."""
    session = Session(options.parse(["127.0.0.1:25", "-c", "true"]), time.monotonic)
    session.start()
    session.upstream_connected()
    session.upstream_received(b"220 upstream.test ESMTP\r\n")
    session.client_received(b"EHLO client.test\r\n")
    session.upstream_received(OK)
    return session


def decided(session: Session) -> None:
    """Let a session make all decisions about a message, without performing its actions."""
    for command in COMMANDS:
        session.client_received(command)
        session.upstream_received(OK)
    session.client_received(b"DATA\r\n")
    session.spool_opened()
    session.client_received(MESSAGE)
    session.spool_sealed()
    session.filter_started()
    session.filter_finished(Outcome(0))
    session.upstream_received(GO_ON)
    session.message_sent()
    session.upstream_received(OK)
    session.take_actions()


def in_turn(directory: Path, session: Session) -> None:
    """Do all three in turn. The filter evicts the data of the others from the processor caches."""
    start_and_await()
    files(directory)
    decided(session)


def decoded(size: int) -> None:
    """Find the end of a large message and convert its line ends."""
    decoder = DotUnstuffer()
    block = b"x" * 74 + b"\r\n"
    block *= BLOCK // len(block)
    for _ in range(size // len(block) + 1):
        decoder.feed(block)


def measure(bench: Bench) -> Iterator[Comparison]:
    """Run the benchmark."""
    yield of_start(bench)
    yield of_message(bench)
    yield of_large(bench)


def of_start(bench: Bench) -> Comparison:
    """Measure the parts of a session in its own process."""
    names = (
        "`python3 -I -S -c pass`",
        *STEPS,
        "`sh -c true`",
        "a session with QUIT only",
        "a session with a message",
        "a session with a message and `-c true`",
    )
    whole = (
        partial(run, ["/bin/sh", "-c", "true"]),
        partial(startup.quit_only, bench.command(bench.postprox)),
        partial(startup.one_message, bench.command(bench.postprox)),
        partial(startup.one_message, bench.command(bench.postprox, "-c", "true")),
    )
    bare = partial(run, [bench.python, "-I", "-S", "-c", "pass"])
    parts = Comparison("profile-spawned", "a process of its own, step by step", ways=_ways(names))
    for turn in bench.turns(10):
        (first,) = least(5, bare)
        inside = [steps(bench) for _ in range(5)]
        each = [
            Spent(min(one.processor for one in step), min(one.wall for one in step))
            for step in zip(*inside, strict=True)
        ]
        if turn:
            _add(parts, [first, *each, *least(5, *whole)])
    return parts


def of_message(bench: Bench) -> Comparison:
    """Measure the parts of a message in a listening proxy."""
    names = (
        "`sh -c true`",
        "a relay that only copies",
        "starting `sh -c true` and awaiting it, alone",
        "the files of a message, alone",
        "the decisions about a message, alone",
        "these three in turn",
        "a message without a filter",
        "a message with `-c true`",
    )
    times = bench.part(MESSAGES, 2)
    session = begun()
    parts = Comparison("profile-listening", "listening, step by step", ways=_ways(names))
    with (
        relay(bench.python, bench.upstream) as copying,
        listening(bench.command(bench.postprox)) as without,
        listening(bench.command(bench.postprox, "-c", "true")) as filtered,
    ):
        for turn in bench.turns(10):
            each = least(
                3,
                partial(shell, times),
                partial(per_message, copying, times),
                partial(of_each, times, start_and_await),
                partial(of_each, times, partial(files, bench.directory)),
                partial(of_each, times, partial(decided, session)),
                partial(of_each, times, partial(in_turn, bench.directory, session)),
                partial(per_message, without, times),
                partial(per_message, filtered, times),
            )
            if turn:
                _add(parts, each)
    return parts


def of_large(bench: Bench) -> Comparison:
    """Measure the parts of a large message."""
    names = (
        "a copier",
        "the line ends and the end of data, alone",
        "no filter",
        "with `-c true`",
    )
    size = bench.part(LARGE)
    message = Message(size)
    copier = [bench.python, "-I", large.COPIER, bench.upstream.bare, str(bench.directory)]
    parts = Comparison("profile-large", f"{size // 1_000_000} MB, step by step", ways=_ways(names))
    for turn in bench.turns(7):
        each = [
            large.copied(copier, message).message,
            of_each(1, partial(decoded, size)),
            large.proxied(bench.command(bench.postprox), message).message,
            large.proxied(bench.command(bench.postprox, "-c", "true"), message).message,
        ]
        if turn:
            _add(parts, each)
    return parts


def _ways(names: tuple[str, ...]) -> list[Way]:
    return [Way(name=name) for name in names]


def _add(parts: Comparison, taken: list[Spent]) -> None:
    for way, each in zip(parts.ways, taken, strict=True):
        way.add(each.times(1000))
