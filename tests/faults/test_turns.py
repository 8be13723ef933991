"""One turn of a listening proxy's loop does little, whatever a client does: this is what makes the
others wait no longer. Octets and calls are counted, for they are the same on every machine;
`python3 -m tests.faults.probe` measures the time.
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

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is needed")

#: Octets in a turn: what is read of messages, stored as EMAIL and, twice as long at the worst, as
#: it goes upstream; and as much again for whoever comes or goes meanwhile.
_OCTETS = 5 * limits.READ_PER_ITERATION

#: Calls in a turn: two for each command of one client, nine for each of ninety that come, or some
#: twenty for each that leaves in a message.
_CALLS = 24 * 90

_CALL = re.compile(r"^(\w+)\(.* = (-?[0-9]+)", re.MULTILINE)
_MOVES = ("read", "write", "writev", "pread64", "sendto", "recvfrom")


def turns(trace: str) -> Iterator[tuple[int, int]]:
    """Return what each turn of the loop did: calls, and octets moved."""
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
    with server.client() as first:  # when it is answered, the server has started
        await asyncio.to_thread(first.recv, 1)
    strace = Strace(trace, "-e", "trace=all", "-s", "0")
    await strace.attach(server.process.pid)
    await asyncio.to_thread(ATTACKS[name], server.address, 4)
    await strace.detach()
