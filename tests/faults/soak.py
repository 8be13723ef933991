"""python3 -m tests.faults.soak: send 100 000 messages, by default, through one listening proxy.

Rule: the resources of a long-running server do not grow with the number of messages. The test
measures descriptors and memory after a warm-up and at the end, and checks that no child process or
file is left. The messages have different verdicts, and some clients disconnect early.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from tests.support.answering import Answering
from tests.support.peers import connected
from tests.support.proxies import Serving

#: The sender's name selects the filter's verdict.
FILTER = """case $SENDER in
pass*) exit 0 ;;
change*) cp "$EMAIL" "$OUTFILE"; exit 0 ;;
reject*) echo 550 5.7.1 no >&2; exit 1 ;;
fail*) exit 2 ;;
late*) sleep 60 ;;
esac"""

#: The reply for each verdict. Timeouts are rare because they are slow.
EXPECTED = {"pass": "250", "change": "250", "reject": "550", "fail": "451", "late": "451"}
WEIGHTS = [60, 10, 10, 9, 1]
#: On average, one of this many clients disconnects in the middle of its message.
ABORTS = 10

#: The number of concurrent clients, and of messages before the first measurement.
CLIENTS = 8
WARM_UP = 1000
#: The permitted memory growth in kilobytes, which allows for memory that the allocator retains.
MEMORY = 2048

TIMEOUT = 60.0


def one(address: tuple[str, int], kind: str, *, leaves: bool) -> str:
    """Send one message, or only a part if `leaves` is set. Return the reply code."""
    with connected(address, TIMEOUT) as client:
        client.reply()
        sender = f"MAIL FROM:<{kind}@example>".encode()
        for command in (b"EHLO soak", sender, b"RCPT TO:<b@example>", b"DATA"):
            client.request(command)
        client.sends(b"Subject: soak\r\n\r\n" + b"text\r\n" * 200)
        if leaves:
            return "left"
        reply = client.request(b".")
        client.request(b"QUIT")
        return reply[:3].decode()


def send(address: tuple[str, int], count: int, seed: int) -> Counter[str]:
    """Send `count` messages from `CLIENTS` concurrent clients. Return unexpected replies."""
    wrong: Counter[str] = Counter()

    def client(number: int) -> None:
        chance = random.Random(seed * CLIENTS + number)  # noqa: S311 - reproducible
        for _ in range(count // CLIENTS):
            (kind,) = chance.choices(list(EXPECTED), WEIGHTS)
            leaves = chance.randrange(ABORTS) == 0
            reply = one(address, kind, leaves=leaves)
            if not leaves and reply != EXPECTED[kind]:
                wrong[f"{kind}: {reply}"] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


def held(pid: int) -> tuple[int, int, int]:
    """Return a process's number of descriptors, memory in kilobytes and number of children."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    memory = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return len(os.listdir(f"/proc/{pid}/fd")), memory, len(children)  # noqa: PTH208


def settled(pid: int) -> tuple[int, int, int]:
    """Wait until the last sessions and filters have ended. Return the server's resources."""
    end = time.monotonic() + TIMEOUT
    before = held(pid)
    while time.monotonic() < end:
        time.sleep(
            3
        )  # exceeds the proxy's timeout for upstream's 221, which its fast clock shortens
        now = held(pid)
        if now == before and not now[2]:
            return now
        before = now
    return before


def main() -> int:
    """Run the test. Return exit status 0 if all replies are correct and no resource has leaked."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.faults.soak", description=__doc__)
    parser.add_argument("messages", nargs="?", type=int, default=100_000)
    wanted = parser.parse_args()
    upstream = Answering()
    with tempfile.TemporaryDirectory(prefix="postprox-soak-") as directory:
        arguments = ["-r", "-t", "5", "-d", directory, "-c", FILTER, upstream.address]
        server = Serving(*arguments, variables={"POSTPROX_CLOCK_SPEED": "5"})
        try:
            wrong = send(server.address, WARM_UP, 0)
            before = settled(server.process.pid)
            began = time.monotonic()
            wrong += send(server.address, wanted.messages, 1)
            took = time.monotonic() - began
            after = settled(server.process.pid)
            left = os.listdir(directory)  # noqa: PTH208
            server.stop()
            status = server.exit_status()
        finally:
            server.closes()
            upstream.close()
    print(f"{wanted.messages} messages in {took:.0f} s; unexpected: {dict(wrong) or 'nothing'}")
    print(f"descriptors, KB, children: {before} before, {after} after; files left: {len(left)}")
    grown = after[0] > before[0] or after[1] > before[1] + MEMORY or after[2]
    return int(bool(wrong or grown or left or status))


if __name__ == "__main__":
    sys.exit(main())
