"""python3 -m tests.faults.probe: measure whether a client can delay other clients.

Rule: while one server is attacked, another client sends it a command every 2 ms to which the proxy
itself replies. A client of a second server, which is not attacked, does the same. The second
client's delay is due to the machine, and the first client's additional delay is limited.
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

#: The interval between commands, and the permitted additional delay, in seconds.
_INTERVAL, _LIMIT = 0.002, 0.1

#: The size of each attack, in megabytes for a large message.
_AMOUNT = 200


def ask(address: tuple[str, int], over: Event, waits: SimpleQueue[float]) -> None:
    """Send commands until the attack is over. Put the longest reply delay into the queue."""
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
    """Attack one server. Return the longest delays of its client and the other server's client."""
    context = multiprocessing.get_context("spawn")
    over = context.Event()
    queues: list[Any] = [context.SimpleQueue() for _ in (attacked, other)]
    probes = [
        context.Process(target=ask, args=(server.address, over, queue))
        for server, queue in zip((attacked, other), queues, strict=True)
    ]
    for probe in probes:
        probe.start()
    time.sleep(1)  # wait until the clients send commands
    try:
        ATTACKS[name](attacked.address, _AMOUNT)
    finally:
        over.set()
    first, second = (queue.get() for queue in queues)
    for probe in probes:
        probe.join()
    return first, second


def main() -> int:
    """Run every attack. Return exit status 0 if no delay was too long."""
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
