"""A relay for tests of the adapter kit, its adapter, and a process of that adapter."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.conformance.paths import ADAPTER_LAUNCHER
from tests.conformance.play.procfs import is_alive

#: A program that relays octets between its entrance and its upstream server. With a third argument
#: it first leaves a child process in the background and returns.
RELAY = """\
import os, socket, sys, threading

def relay(source, target):
    while octets := source.recv(65536):
        target.sendall(octets)
    target.shutdown(socket.SHUT_WR)

def address(text):
    host, _, port = text.rpartition(":")
    return host, int(port)

server = socket.create_server(address(sys.argv[1]))
if sys.argv[3:] and os.fork():
    os._exit(0)
while True:
    client, _ = server.accept()
    upstream = socket.create_connection(address(sys.argv[2]))
    threading.Thread(target=relay, args=(client, upstream), daemon=True).start()
    threading.Thread(target=relay, args=(upstream, client), daemon=True).start()
"""

ADAPTER = """\
import sys
from postprox_conformance.adapters import *

def program(place):
    words = [str(place.entrance), str(place.upstream)]
    script = place.write("relay.py", {relay!r})
    return Program([sys.executable, "-S", script, *words {further}], detaches={detaches})

ADAPTER = Adapter(program, {passage})
"""

IMPLEMENTATION = """\
name = "relay"
version = "1"
adapter = "relay.py"
capabilities = ["listen", "foreground"]
"""


def write_adapter(
    directory: Path, passage: str = "Early()", *, relay: str = RELAY, detaches: bool = False
) -> Path:
    """Write the adapter of the relay and its description. Return the description."""
    further = ", 'detach'" if detaches else ""
    text = ADAPTER.format(relay=relay, passage=passage, further=further, detaches=detaches)
    (directory / "relay.py").write_text(text)
    description = directory / "relay.toml"
    description.write_text(IMPLEMENTATION)
    return description


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Return whether *condition* becomes true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def processes_with(text: str) -> set[int]:
    """Return the living processes whose command line contains *text*, except this one."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            pid = int(path.parent.name)
            if text.encode() in path.read_bytes() and is_alive(pid) and pid != os.getpid():
                found.add(pid)
    return found


@dataclass
class Adapted:
    """A process of the adapter in *directory*, as the suite starts it."""

    directory: Path
    words: tuple[str, ...] = ("--foreground",)
    upstream: socket.socket = field(init=False)
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.upstream = socket.create_server(("127.0.0.1", 0))
        self.upstream.settimeout(20)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = free.getsockname()
        spool = self.directory / "spool"
        spool.mkdir(exist_ok=True)
        words = ["-d", str(spool), *self.words, "-l", "{}:{}".format(*self.address)]
        words.append("{}:{}".format(*self.upstream.getsockname()))
        argv = [sys.executable, "-S", str(ADAPTER_LAUNCHER), str(self.directory / "relay.py")]
        self.process = subprocess.Popen([*argv, *words])

    def connect(self) -> socket.socket:
        """Return a connection as a client, once the passage accepts it."""
        client: list[socket.socket] = []

        def connected() -> bool:
            with contextlib.suppress(OSError):
                client.append(socket.create_connection(self.address))
            return bool(client)

        assert wait_for(connected)
        client[0].settimeout(20)
        return client[0]

    def accept(self) -> socket.socket:
        """Return the next connection to the upstream server."""
        accepted, _ = self.upstream.accept()
        accepted.settimeout(20)
        return accepted

    @property
    def files(self) -> list[Path]:
        """The files of the adapter."""
        return list(self.directory.glob("adapter-*"))

    @property
    def processes(self) -> set[int]:
        """The living processes of the adapter and its program."""
        return processes_with(str(self.directory))

    def close(self) -> None:
        """End everything."""
        self.upstream.close()
        for pid in self.processes:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def adapted(directory: Path, *words: str) -> Iterator[Adapted]:
    """Run the adapter in *directory*."""
    running = Adapted(directory, words or ("--foreground",))
    try:
        yield running
    finally:
        running.close()
