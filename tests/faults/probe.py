"""python3 -m tests.faults.probe: nobody waits for what another client does.

Rule: while one server is attacked, a client of it asks something every 2 ms that the proxy answers
by itself, and so does a client of a second server that nobody attacks. How long the second one
waits is what the machine costs; what the first one waits beyond that is bounded.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from tests.faults.attacks import ATTACKS, FILTER, TIMEOUT
from tests.faults.proxies import Place, Server
from tests.support.answering import Answering
from tests.support.peers import connected

#: Seconds between two questions, and how long an answer may take beyond what the machine costs.
_INTERVAL, _LIMIT = 0.002, 0.1

#: How much of each attack: a large message is so many megabytes.
_AMOUNT = 200


def ask(address: tuple[str, int], over: Event, waits: SimpleQueue[float]) -> None:
    """Ask again and again until it is over; say how long the longest answer took."""
    longest = 0.0
    with connected(address, TIMEOUT) as client:
        client.reply()
        while not over.is_set():
            began = time.monotonic()
            client.request(b"STARTTLS")
            took = time.monotonic() - began
            longest = max(longest, took)
            time.sleep(max(0.0, _INTERVAL - took))
    waits.put(longest)


def waited(name: str, attacked: Server, other: Server) -> tuple[float, float]:
    """Attack one server; return the longest wait of its client, and of the other's."""
    context = multiprocessing.get_context("spawn")
    over = context.Event()
    queues: list[Any] = [context.SimpleQueue() for _ in (attacked, other)]
    probes = [
        context.Process(target=ask, args=(server.address, over, queue))
        for server, queue in zip((attacked, other), queues, strict=True)
    ]
    for probe in probes:
        probe.start()
    time.sleep(1)  # until they ask
    try:
        ATTACKS[name](attacked.address, _AMOUNT)
    finally:
        over.set()
    first, second = (queue.get() for queue in queues)
    for probe in probes:
        probe.join()
    return first, second


def main() -> int:
    """Try every attack, or 0 if nobody waited too long."""
    upstream = Answering()
    passed = True
    with tempfile.TemporaryDirectory(prefix="probe-") as directory:
        servers = []
        for name in ("attacked", "other"):
            place = Place(Path(directory) / name)
            arguments = [upstream.address, "-v", "-r", "-d", str(place.spool), "-c", FILTER]
            servers.append(Server(arguments, place.environment(1), place.stderr))
        for name in ATTACKS:
            longest, control = waited(name, servers[0], servers[1])
            kept = longest <= _LIMIT + control
            passed &= kept
            print(
                f"{name:40}{1000 * longest:7.1f} ms; without an attack {1000 * control:5.1f} ms"
                f"{'' if kept else '  TOO LONG'}",
                flush=True,
            )
        for server in servers:
            server.process.end()
    upstream.close()
    return not passed


if __name__ == "__main__":
    sys.exit(main())
