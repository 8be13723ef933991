"""The client, the upstream server and the process of a measured proxy.

Rule: the client behaves like Postfix, without pipelining, and waits for every reply. Everything
that hangs ends with an error after `LIMIT` seconds.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.support.peers import Peer, connected_pair
from tests.support.proxies import activated

from . import clock
from .clock import Spent

HERE = Path(__file__).parent
LIMIT = 60.0
#: The size of the blocks of a large message, which is what a kernel buffer accepts at once.
BLOCK = 262144


class BrokenDialogueError(Exception):
    """A correct proxy would not send this reply, so the figures would be meaningless."""


class NotHereError(Exception):
    """A benchmark cannot be run on this machine. The error message has the reason."""


@dataclass(frozen=True)
class Upstream:
    """The ports of a running `upstream.py`."""

    smtp: str
    bare: str


@contextmanager
def upstream() -> Iterator[Upstream]:
    """Run a mail server that replies immediately."""
    ours, theirs = socket.socketpair()
    with ours, ours.makefile("r") as said:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(HERE / "upstream.py")],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
            )
        smtp, bare = said.readline().split()
        yield Upstream(f"127.0.0.1:{smtp}", f"127.0.0.1:{bare}")
    process.wait(LIMIT)


class Client(Peer):
    """An SMTP client on a connected socket."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection, LIMIT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def expect(self, code: bytes) -> None:
        """Wait for a reply with this code."""
        reply = self.reply()
        if reply[:3] != code:
            raise BrokenDialogueError(f"{reply!r} instead of {code!r}")

    def command(self, line: bytes, code: bytes = b"250") -> None:
        """Send a command and wait for its reply."""
        self.says(line)
        self.expect(code)

    def hello(self) -> None:
        """Read the greeting and send EHLO."""
        self.expect(b"220")
        self.command(b"EHLO client.test")

    def begin(self, sender: bytes = b"sender@example.com", recipients: int = 1) -> None:
        """Send the commands up to DATA and await 354."""
        self.command(b"XFORWARD NAME=there.test ADDR=192.0.2.1 HELO=there.test")
        self.command(b"MAIL FROM:<%s>" % sender)
        for number in range(recipients):
            self.command(b"RCPT TO:<recipient-%d@example.com>" % number)
        self.command(b"DATA", b"354")

    def content(self, message: Message) -> None:
        """Send a message and the end of data, and wait for the reply."""
        self.pour(message)
        self.expect(b"250")

    def pour(self, message: Message) -> None:
        """Send a message and the end of data without waiting."""
        for block in message.wire():
            self.sends(block)

    def send(self, message: Message, recipients: int = 1) -> None:
        """Send one message in a complete transaction."""
        self.begin(recipients=recipients)
        self.content(message)

    def quit(self) -> None:
        """End the session with QUIT."""
        self.command(b"QUIT", b"221")
        self.leaves()

    def undisturbed(self) -> bool:
        """Return whether the connection is open and has no unread input."""
        return not _readable(self.socket.fileno(), 0)


@dataclass(frozen=True)
class Message:
    """A message of about `size` octets in lines of 76, which looks like a base64 attachment.

    last: the last octet of each line. With a dot, the message looks like text.
    """

    size: int
    last: bytes = b"x"

    def wire(self) -> Iterator[bytes]:
        """Yield the message as sent on the wire, with the end of data in the last block."""
        line = b"x" * 73 + self.last + b"\r\n"
        block = line * (BLOCK // len(line))
        blocks, rest = divmod(self.size, len(block))
        for _ in range(blocks):
            yield block
        yield line * max(1, rest // len(line)) + b".\r\n"


class Process:
    """A program whose descriptors 0 and 1 are a TCP socket, as with spawn(8).

    As a context manager, it kills the program if the dialogue fails.
    """

    def __init__(self, command: list[str]) -> None:
        self.socket, theirs = connected_pair()
        with theirs:
            both = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), wanted) for wanted in (0, 1)]
            self._began = time.perf_counter()
            self.pid = os.posix_spawn(command[0], command, os.environ, file_actions=both)
        self.client = Client(self.socket)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, broken: type[BaseException] | None, *_: object) -> None:
        if broken is not None:
            self.socket.close()
            _kill(self.pid)

    def own(self) -> float:
        """Return the processor time of the process so far in seconds, without its children."""
        return clock.own(self.pid)

    def peak_memory(self) -> float:
        """Return the peak resident memory so far, in MB.

        wait4(2) is not used, because its value for a child includes the memory of the parent at the
        fork.
        """
        return _memory(self.pid, "VmHWM") / 1024

    def wait(self) -> Spent:
        """Wait for the process to exit. Return its times, including those of its children."""
        self.socket.close()
        return _ended(self.pid, self._began)


def _memory(pid: int, what: str) -> int:
    """Return a value of /proc/PID/status (proc(5)) in KB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition(f"{what}:")[2].split()[0])


def _readable(descriptor: int, seconds: float) -> bool:
    """Wait for input with poll(2), because select(2) does not support descriptors above 1023."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(1000 * seconds))


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _ended(pid: int, began: float) -> Spent:
    descriptor = os.pidfd_open(pid)
    ended = _readable(descriptor, LIMIT)
    os.close(descriptor)
    wall = time.perf_counter() - began
    if not ended:
        _kill(pid)
        raise BrokenDialogueError(f"a process did not end within {LIMIT:g} s")
    _, status, used = os.wait4(pid, 0)
    if status:
        raise BrokenDialogueError(f"a process ended with wait status {status}")
    return Spent(used.ru_utime + used.ru_stime, wall)


def run(command: list[str]) -> Spent:
    """Run a command and return the times that it took."""
    began = time.perf_counter()
    return _ended(os.posix_spawn(command[0], command, os.environ), began)


@dataclass(frozen=True)
class Listener:
    """A listening proxy."""

    pid: int
    address: tuple[str, int]

    def own(self) -> float:
        """Return the processor time of the process so far in seconds, without its filters."""
        return clock.own(self.pid)

    def family(self) -> float:
        """Return the processor time of the process and its filters so far in seconds."""
        return clock.family(self.pid)

    def memory(self) -> int:
        """Return the resident memory in KB."""
        return _memory(self.pid, "VmRSS")


@contextmanager
def listening(command: list[str], host: str = "127.0.0.1") -> Iterator[Listener]:
    """Run a proxy in listen mode. At the end, stop it immediately."""
    with socket.create_server((host, 0), backlog=512) as listener:
        address = listener.getsockname()
        started = activated(*command, "--listen", str(address[1]), "--foreground")
        passed = [(os.POSIX_SPAWN_DUP2, listener.fileno(), 0)]
        pid = os.posix_spawn(started[0], started, os.environ, file_actions=passed)
    try:
        yield Listener(pid, address)
    finally:
        stop(pid)


@contextmanager
def relay(python: str, upstream: Upstream) -> Iterator[Listener]:
    """Run the relay that only copies octets."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    command = [python, "-IS", str(HERE / "relay.py"), upstream.smtp, f"{address[0]}:{address[1]}"]
    with subprocess.Popen(command) as process:
        try:
            _await(address)
            yield Listener(process.pid, address)
        finally:
            process.terminate()


def _await(address: tuple[str, int]) -> None:
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        try:
            socket.create_connection(address, timeout=LIMIT).close()
        except ConnectionRefusedError:
            time.sleep(0.01)
        else:
            return
    raise BrokenDialogueError("the relay does not listen")


def stop(pid: int) -> None:
    """Terminate a child process with its filters, and kill it only if it hangs."""
    descriptor = os.pidfd_open(pid)
    os.kill(pid, signal.SIGTERM)
    if not _readable(descriptor, LIMIT):
        os.kill(pid, signal.SIGKILL)
    os.close(descriptor)
    os.waitpid(pid, 0)


def connected(address: tuple[str, int]) -> Client:
    """Return a client that has connected to `address` and sent EHLO."""
    client = Client(socket.create_connection(address, timeout=LIMIT))
    client.hello()
    return client


def needs_descriptors(wanted: int) -> None:
    """Raise the limit of open files for this process and its future children."""
    _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed < wanted:
        raise NotHereError(f"requires {wanted} open files, but `ulimit -Hn` is {allowed}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, allowed))
