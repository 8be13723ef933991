"""Tests that one iteration of a listening proxy's loop does little work, whatever a client does.

Other clients therefore do not wait long. The tests count octets and calls, which are the same on
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
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is needed"),
]

#: The maximum number of octets per iteration. Message data is read, stored in EMAIL, and stored in
#: the spool with up to twice the size. The rest is for clients that connect or disconnect
#: meanwhile.
_OCTETS = 5 * limits.READ_PER_ITERATION

#: The maximum number of calls per iteration: two per command of one client, nine for each of ninety
#: new clients, or about twenty for each client that disconnects within a message.
_CALLS = 24 * 90

_CALL = re.compile(r"^(\w+)\(.* = (-?[0-9]+)", re.MULTILINE)
_MOVES = ("read", "write", "writev", "pread64", "sendto", "recvfrom")


def turns(trace: str) -> Iterator[tuple[int, int]]:
    """Return the number of calls and of transferred octets in each iteration of the loop."""
    calls = octets = 0
    for name, result in _CALL.findall(trace):
        if name == "epoll_wait":
            yield calls, octets
            calls = octets = 0
        else:
            calls += 1
            octets += max(0, int(result)) if name in _MOVES else 0


@pytest.mark.parametrize("name", ATTACKS)
def test_loop_iteration_has_bounded_duration(
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
    with server.client() as first:  # once the client gets a reply, the server is running
        await asyncio.to_thread(first.recv, 1)
    strace = Strace(trace, "-e", "trace=all", "-s", "0")
    await strace.attach(server.process.pid)
    await asyncio.to_thread(ATTACKS[name], server.address, 4)
    await strace.detach()
