"""Helpers for the adapter kit's tests: a relay program, its adapter and a running adapter."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conformance.paths import ADAPTER_LAUNCHER, ROOT
from tests.conformance.play.procfs import is_alive

#: A program that relays octets between its clients and its upstream server. With a third argument
#: it forks and continues in the background.
RELAY = """\
import os, socket, sys, threading

def relay(source, target, whole):
    while octets := source.recv(65536):
        target.sendall(octets)
    target.shutdown(socket.SHUT_WR)
    if whole:
        source.close()
        target.shutdown(socket.SHUT_RDWR)

def address(text):
    host, _, port = text.rpartition(":")
    return host, int(port)

server = socket.create_server(address(sys.argv[1]))
if sys.argv[3:] and os.fork():
    os._exit(0)
while True:
    client, _ = server.accept()
    upstream = socket.create_connection(address(sys.argv[2]))
    threading.Thread(target=relay, args=(client, upstream, False), daemon=True).start()
    threading.Thread(target=relay, args=(upstream, client, True), daemon=True).start()
"""

#: A program that sends its own replies to the client and then sends the message with smtplib.
FORWARDER = """\
import smtplib, socketserver, sys

def address(text):
    host, _, port = text.rpartition(":")
    return host, int(port)

class Session(socketserver.StreamRequestHandler):
    def reply(self, text):
        self.wfile.write(text.encode() + b"\\r\\n")

    def handle(self):
        self.reply("220 forwarder")
        sender, recipients = "", []
        while line := self.rfile.readline().decode().strip():
            verb, _, rest = line.partition(" ")
            path = rest.partition("<")[2].partition(">")[0]
            if verb == "MAIL":
                sender, recipients = path, []
            if verb == "RCPT":
                if path.startswith("refused"):
                    self.reply("550 no")
                    continue
                recipients.append(path)
            if verb == "DATA":
                self.reply("354 send")
                self.reply(self.forward(sender, recipients))
            else:
                self.reply("221 bye" if verb == "QUIT" else "250 fine")

    def forward(self, sender, recipients):
        lines = []
        while (line := self.rfile.readline()) != b".\\r\\n":
            lines.append(line)
        text = b"Received: by forwarder\\r\\n" + b"".join(lines)
        try:
            with smtplib.SMTP(*address(sys.argv[2])) as upstream:
                upstream.sendmail({sender}, recipients, text)
        except smtplib.SMTPResponseException as error:
            return f"{{error.smtp_code}} upstream refused"
        return "250 forwarded"

class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True

Server(address(sys.argv[1]), Session).serve_forever()
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
    """Write the relay's adapter and implementation file. Return the path of the latter."""
    further = ", 'detach'" if detaches else ""
    text = ADAPTER.format(relay=relay, passage=passage, further=further, detaches=detaches)
    (directory / "relay.py").write_text(text)
    description = directory / "relay.toml"
    description.write_text(IMPLEMENTATION)
    return description


@dataclass
class Done:
    """The results of a finished run of the suite."""

    status: int
    text: str
    records: list[dict[str, Any]]
    html: str
    markdown: str

    def result(self, name: str) -> dict[str, Any]:
        """Return the result with this name."""
        (found,) = (one for one in self.records if one.get("transcript") == name)
        return found


def run(directory: Path, *names: str) -> Done:
    """Run the suite with the relay's adapter in *directory*."""
    command = [sys.executable, "-m", "tests.conformance", "run", f"{directory}/relay.toml"]
    outputs = {"results": "r.jsonl", "html": "r.html", "markdown": "r.md", "junit": "r.xml"}
    for option, name in outputs.items():
        command += [f"--{option}", f"{directory}/{name}"]
    command += ["--modes", "listen", *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    read = {name: directory / name for name in outputs.values()}
    texts = {name: path.read_text() if path.exists() else "" for name, path in read.items()}
    records = [json.loads(line) for line in texts["r.jsonl"].splitlines()]
    return Done(done.returncode, done.stdout + done.stderr, records, texts["r.html"], texts["r.md"])


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Return whether *condition* becomes true within *seconds*."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def processes_with(text: str) -> set[int]:
    """Return the other running processes whose command line contains *text*."""
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
    #: Whether the upstream server refuses connections at the start.
    refuses: bool = False
    upstream: socket.socket = field(init=False)
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.upstream = socket.socket()
        self.upstream.bind(("127.0.0.1", 0))
        self.upstream.settimeout(20)
        if not self.refuses:
            self.upstream.listen()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = free.getsockname()
        spool = self.directory / "spool"
        spool.mkdir(exist_ok=True)
        words = ["-d", str(spool), *self.words, "-l", "{}:{}".format(*self.address)]
        words.append("{}:{}".format(*self.upstream.getsockname()))
        argv = [sys.executable, "-S", str(ADAPTER_LAUNCHER), str(self.directory / "relay.py")]
        self.process = subprocess.Popen([*argv, *words])

    def connect(self) -> socket.socket:
        """Connect as a client as soon as the relay accepts connections."""
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
        """The adapter's temporary files."""
        return list(self.directory.glob("adapter-*"))

    @property
    def processes(self) -> set[int]:
        """The running processes of the adapter and its program."""
        return processes_with(str(self.directory))

    def close(self) -> None:
        """Close the upstream server and kill the adapter."""
        self.upstream.close()
        for pid in self.processes:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def adapted(directory: Path, *words: str, refuses: bool = False) -> Iterator[Adapted]:
    """Run the adapter in *directory*."""
    running = Adapted(directory, words or ("--foreground",), refuses)
    try:
        yield running
    finally:
        running.close()
