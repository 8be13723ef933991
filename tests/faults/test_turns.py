"""Tests that a client cannot cause much work in one iteration of a listening proxy's loop.

Other clients therefore wait only briefly. The tests count octets and calls, which are the same on
every machine. `python3 -m tests.faults.probe` measures the time.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from postprox.core import limits
from tests.faults.attacks import ATTACKS, FILTER
from tests.faults.proxies import Place, Server
from tests.faults.traced import Strace
from tests.support.answering import Answering

pytestmark = [
    pytest.mark.any_account,
    pytest.mark.skipif(shutil.which("strace") is None, reason="requires strace"),
]

#: The maximum number of octets per iteration. Message data is read once, written to EMAIL once, and
#: written to the spool with up to twice its size. The rest is for clients that come and go.
_OCTETS = 5 * limits.READ_PER_ITERATION

#: The maximum number of calls per iteration. A command causes two calls, a new client nine, and a
#: client that disconnects during a message about twenty. There are up to ninety clients.
_CALLS = 24 * 90

_CALL = re.compile(r"^(\w+)\(.* = (-?[0-9]+)", re.MULTILINE)
_MOVES = ("read", "write", "writev", "pread64", "sendto", "recvfrom")


def turns(trace: str) -> Iterator[tuple[int, int]]:
    """Yield the number of calls and the number of transferred octets for each loop iteration."""
    calls = octets = 0
    for name, result in _CALL.findall(trace):
        if name == "epoll_wait":
            yield calls, octets
            calls = octets = 0
        else:
            calls += 1
            octets += max(0, int(result)) if name in _MOVES else 0


@pytest.mark.parametrize("name", ATTACKS)
def test_work_per_event_loop_iteration_is_limited(
    name: str, tmp_path: Path, answering: Answering
) -> None:
    place = Place(tmp_path / "proxy")
    arguments = [answering.address, "-v", "-r", "-d", str(place.spool), "-c", FILTER]
    server = Server(arguments, place.environment(1), place.stderr)
    trace = tmp_path / "trace"
    try:
        asyncio.run(_attacked(name, server, trace))
    finally:
        server.process.end()
    calls, octets = zip(*turns(trace.read_text()), strict=True)
    assert sum(calls) > 0
    assert max(octets) <= _OCTETS
    assert max(calls) <= _CALLS


async def _attacked(name: str, server: Server, trace: Path) -> None:
    with server.client() as first:  # after the first reply, the server is ready
        await asyncio.to_thread(first.recv, 1)
    strace = Strace(trace, "-e", "trace=all", "-s", "0")
    await strace.attach(server.process.pid)
    await asyncio.to_thread(ATTACKS[name], server.address, 4)
    await strace.detach()
