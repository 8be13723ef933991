"""All resources of one run: sockets, directories, the process, the filter and syslog.

Rule: the harness only creates and removes resources. The engine tests the implementation.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from ..format.header import ON_PORT_25
from ..format.nodes import Transcript, separated, walk
from ..format.profiles import POSTPROX, Profile
from ..format.vocabulary import FILTER_VARIABLES
from .connections import Connection, Listener, accepted_pair, connect
from .dialogue import Dialogue
from .filter_stub import FilterStub
from .host import Host, Namespace
from .implementation import Implementation
from .loop import READ, Loop
from .process import Command, Process
from .timeouts import REDUCED_DIVISOR, AdaptiveTimeout

#: Variables that an implementation sets or reads. They are removed from the inherited environment.
_CLEARED = (*FILTER_VARIABLES, "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET")
_TMPFS_SIZE = 65536
#: The interval of connection attempts in seconds. A new listening port causes no event.
_CONNECT_AGAIN = 0.005
_REPEAT = re.compile(r"\{([0-9]+)\*([^{}]*)\}")


def _repeated(text: str) -> str:
    """Replace each `{N*text}` in an environment variable with N copies of the text."""
    return _REPEAT.sub(lambda found: int(found[1]) * found[2], text)


class HarnessError(Exception):
    """An error of the suite itself, which is independent of the implementation."""


@dataclass
class Settings:
    """The command-line settings that apply to all runs."""

    implementation: Implementation
    host: Host
    time_scale: float = 1.0
    slow: bool = False
    #: The time limit for one awaited event, in seconds.
    timeout: float = 10.0
    #: The same limit, reduced for programs with frequent timeouts.
    timeouts: AdaptiveTimeout = field(default_factory=AdaptiveTimeout)
    #: The profile whose requirements are tested.
    profile: Profile = POSTPROX
    #: The violated invariants by name and mode.
    broken: set[tuple[str, str]] = field(default_factory=set)


@dataclass
class Ports:
    """A pool of addresses on which implementations listen. No two runs share an address.

    Each run has its own address in 127.0.0.0/8, so no other run or outgoing connection can occupy
    the port.
    """

    _counter: itertools.count[int] = field(default_factory=itertools.count)

    def next(self) -> tuple[str, int]:
        """Reserve an address and a port for one run."""
        number = os.getpid() * 509 + next(self._counter)
        host = f"127.{1 + number // 62500 % 250}.{1 + number // 250 % 250}.{1 + number % 250}"
        return host, 10025 + number % 7

    def next_bare(self) -> tuple[str, int]:
        """Reserve a port on 127.0.0.1, the default address of --listen."""
        number = os.getpid() * 127 + next(self._counter)
        return "127.0.0.1", 10032 + number % 20000  # below the range of ephemeral ports


_ports = Ports()


class SyslogCapture:
    """The socket behind /dev/log, which records every message."""

    def __init__(self, loop: Loop, path: Path, dialogue: Dialogue) -> None:
        self._loop = loop
        self._path = path
        self._dialogue = dialogue
        self.messages: list[bytes] = []
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(str(path))
        path.chmod(0o666)
        self._sock.setblocking(False)
        loop.watch(self._sock, READ, self.read)

    def read(self, _events: int = READ) -> None:
        """Receive the waiting messages."""
        with contextlib.suppress(BlockingIOError):
            while True:
                message = self._sock.recv(65536).rstrip(b"\n\0")
                self.messages.append(message)
                self._dialogue.event("P< syslog", message.decode("utf-8", "backslashreplace"))

    def close(self) -> None:
        """Close the socket."""
        self._loop.forget(self._sock)
        self._sock.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()


class Harness:
    """One run of a transcript in one mode."""

    def __init__(self, transcript: Transcript, mode: str, settings: Settings) -> None:
        self.transcript = replace(transcript, steps=separated(transcript.steps))
        self.header = transcript.header
        self.mode = mode
        self.settings = settings
        self.loop = Loop()
        self.dialogue = Dialogue()
        self.directory = Path(tempfile.mkdtemp(prefix="postprox-suite-"))
        self.tmp = self.directory / "tmp"
        self.clients: dict[str, Connection] = {}
        self.upstreams: dict[str, Connection] = {}
        # Former connections of upstream actors that have reconnected.
        self.retired: list[Connection] = []
        self.process: Process | None = None
        self.syslog: SyslogCapture | None = None
        self.filter = FilterStub(self.loop, self.directory / "filter", self.dialogue)
        bare = "{listen-port}" in "".join(self.header.arguments)
        self.listen = _ports.next_bare() if bare else _ports.next()
        self.network = settings.host.network if self.header.upstream in ON_PORT_25 else None
        with self.network.entered() if self.network else contextlib.nullcontext():
            self.listener = Listener(self.loop, self.header.upstream, self.directory, self.dialogue)
        self._mounted = False
        #: True if a wait ended because of a reduced time limit.
        self.hasty = False

    @property
    def namespace(self) -> Namespace | None:
        """The private mount namespace, or None if it is not available."""
        return self.settings.host.namespace

    # --- time

    @property
    def speed(self) -> float:
        """The speed of the implementation's clock, relative to real time."""
        clock = self.header.clock
        return clock if clock and self.settings.implementation.clock_env else 1.0

    @property
    def timeout(self) -> float:
        """The time limit for one awaited event in this run, in seconds."""
        whole = self.settings.timeout * self.settings.time_scale
        if self._known_to_fail:
            return whole / REDUCED_DIVISOR + self._real_time
        return self.settings.timeouts.limit(whole) + self._real_time

    @property
    def full_timeout(self) -> float:
        """The time limit, not reduced after earlier timeouts."""
        return self.settings.timeout * self.settings.time_scale + self._real_time

    @property
    def _real_time(self) -> float:
        """The additional time if the implementation lacks the fast clock that a transcript uses."""
        if not self.header.clock or self.speed != 1.0:
            return 0.0
        return self.header.takes or self.settings.timeout * self.header.clock

    @functools.cached_property
    def _known_to_fail(self) -> bool:
        known = self.settings.implementation.divergence(self.transcript.name, self.mode)
        return known is not None

    def wait_until(self, done: Callable[[], bool], extra: float = 0.0, pause: float = 1.0) -> bool:
        """Run the loop until *done* is true. Return False *extra* seconds after the time limit."""
        began = time.monotonic()
        came = self.loop.turn_until(done, self.timeout + extra, pause)
        return self._waited(time.monotonic() - began - extra, came)

    def _wait_for_start(self, done: Callable[[], bool], pause: float = 1.0) -> None:
        """Run the loop until *done* is true, or until the time limit without any reduction.

        A program may start slowly in every run, even if it has a known divergence.
        """
        began = time.monotonic()
        if self.loop.turn_until(done, self.full_timeout, pause):
            self._waited(time.monotonic() - began, came=True)

    def _waited(self, seconds: float, came: bool) -> bool:
        """Adjust the time limits after a wait. *came* is true if the event occurred."""
        timeouts = self.settings.timeouts
        # With a fast clock, the time depends on the clock and not on the program.
        if came and not self.header.clock:
            timeouts.observed(seconds)
        if not came and not self._known_to_fail:
            self.hasty |= timeouts.is_reduced
            timeouts.expired()
        return came

    def seconds(self, written: float) -> float:
        """Convert a time in the transcript to seconds in this run."""
        return written / self.speed

    # --- setup

    def prepare(self) -> None:
        """Create everything except the process."""
        self._prepare_tmp()
        (self.directory / "files").mkdir()
        for name, content in self.header.files.items():
            (self.directory / "files" / name).write_text(content)
        for name, content in self.header.programs.items():
            program = self.directory / "files" / name
            program.write_text(content)
            program.chmod(0o755)
        if self.header.filter is not None:
            steps = walk(self.transcript.steps)
            gates = {str(step.argument) for step in steps if step.verb == "gate"}
            self.filter.prepare(self.header.filter, str(self.tmp), gates)
        if self.namespace is not None and self.header.syslog == "present":
            self.syslog = SyslogCapture(self.loop, self.namespace.log_path, self.dialogue)

    def _prepare_tmp(self) -> None:
        kind = self.header.tmp
        if kind == "file":
            self.tmp.write_bytes(b"")
        elif kind != "missing":
            self.tmp.mkdir()
        if kind in ("readonly", "full"):
            self._mount_tmp("ro" if kind == "readonly" else f"size={_TMPFS_SIZE},mode=1777")

    def _mount_tmp(self, options: str) -> None:
        if self.namespace is None:
            raise HarnessError("tmp requires a private mount namespace, which is not available")
        self.namespace.mount_tmpfs(self.tmp, options)
        self._mounted = True

    @property
    def tmp_seen(self) -> Path:
        """The suite's path to the temporary directory, perhaps mounted only for the process."""
        return self.namespace.inside(self.tmp) if self._mounted and self.namespace else self.tmp

    # --- the implementation

    @functools.cached_property
    def placeholders(self) -> dict[str, str]:
        """Return the value of each of `header.PLACEHOLDERS`."""
        host, port = self.listen
        return {
            "filter": self.filter.command,
            "tmp": str(self.tmp),
            "upstream": self.listener.address,
            "host": self.listener.host,
            "port": str(self.listener.port),
            "listen": f"{host}:{port}",
            "listen-port": str(port),
            "files": str(self.directory / "files"),
        }

    def arguments(self) -> list[str]:
        """Return the implementation's argv for this run."""
        arguments = [self._filled(word) for word in self.header.arguments]
        if self.mode == "listen" and "{listen" not in "".join(self.header.arguments):
            arguments += ["-l", f"{self.listen[0]}:{self.listen[1]}"]
            if self.in_foreground:
                arguments.append("--foreground")
        return [*self.settings.implementation.argv, *arguments]

    @property
    def in_foreground(self) -> bool:
        """Whether the server is started with --foreground."""
        capable = "foreground" in self.settings.implementation.capabilities
        return capable and not self.header.background

    def _filled(self, text: str) -> str:
        for name, value in self.placeholders.items():
            text = text.replace(f"{{{name}}}", value)
        return text

    def _environment(self) -> dict[str, str]:
        implementation = self.settings.implementation
        environment = {name: value for name, value in os.environ.items() if name not in _CLEARED}
        environment.update(implementation.env)
        if implementation.clock_env is not None:
            environment.pop(implementation.clock_env, None)
            if self.header.clock:
                environment[implementation.clock_env] = f"{self.header.clock:g}"
        environment.update(
            {name: _repeated(self._filled(text)) for name, text in self.header.env.items()}
        )
        return environment

    def _start(
        self, stdin: IO[bytes] | int, stdout: IO[bytes] | int, stderr: IO[bytes] | int
    ) -> None:
        command = Command(
            [*self._prefix(), *self.arguments()],
            self._environment(),
            stdin,
            stdout,
            stderr,
            self.header.limits,
            self.header.inherits,
            self.header.listen_fds,
        )
        try:
            self.process = Process(self.loop, command, self.dialogue)
        except OSError as error:
            raise HarnessError(f"cannot be started: {error}") from error

    def _prefix(self) -> list[str]:
        """Return the command that runs the implementation in its namespaces."""
        rooms = [one.option for one in (self.namespace, self.network) if one is not None]
        return ["nsenter", *rooms, "--"] if rooms else []

    def start_session(self) -> None:
        """Start a process on an accepted socket, as spawn(8) does (mode stdio)."""
        client, server = accepted_pair(self.header.buffers, self.timeout)
        with server, (self.directory / "stderr").open("wb") as stderr:
            error = server.fileno() if self.header.fd2 == "socket" else stderr
            self._start(server.fileno(), server.fileno(), error)
        self.clients["C"] = Connection(self.loop, client, self.dialogue, "C")

    def start_command(self) -> None:
        """Start a process whose standard descriptors are not a session."""
        with (
            (self.directory / "stdout").open("wb") as out,
            (self.directory / "stderr").open("wb") as error,
        ):
            if not self.header.listen_fds:
                self._start(subprocess.DEVNULL, out, error)
                return
            with socket.create_server(self.listen) as listener:
                self._start(listener.fileno(), out, error)

    def start_server(self) -> bool:
        """Start the server (mode listen). Return False if the server stays in the foreground.

        Afterwards, the process is the server that the command has left in the background, unless
        the transcript has steps for that.
        """
        self.start_command()
        process = self.process
        assert process is not None
        if self.in_foreground or self.header.background:
            return True
        self._wait_for_start(lambda: not process.alive)
        return process.status == 0 and process.follow_to_background()

    def output(self, name: str) -> bytes:
        """Return everything written to standard output or standard error so far."""
        path = self.directory / name
        return path.read_bytes() if path.exists() else b""

    def connect(self, actor: str) -> bool:
        """Open the connection of *actor* (mode listen). Return False after a timeout."""
        sock: socket.socket | None = None

        def connected() -> bool:
            nonlocal sock
            with contextlib.suppress(OSError):
                sock = connect(self.listen, self.header.buffers, self.timeout)
            return sock is not None or not self._may_bind_later

        if self.clients:
            self.wait_until(connected, pause=_CONNECT_AGAIN)
        else:
            self._wait_for_start(connected, pause=_CONNECT_AGAIN)
        if sock is None:
            return False
        self.dialogue.event(f"{actor}>", "@connect")
        self.clients[actor] = Connection(self.loop, sock, self.dialogue, actor)
        return True

    @property
    def _may_bind_later(self) -> bool:
        """Whether to retry a refused connection. This is pointless after the command's exit."""
        process = self.process
        if process is None or not process.alive:
            return False
        return not (self.header.background and process.in_background)

    @functools.cached_property
    def variables(self) -> dict[str, bytes]:
        """Return the values for `\\{name}` in payloads."""
        return {name: os.fsencode(value) for name, value in self.placeholders.items()}

    # --- teardown

    def kill(self) -> None:
        """Kill the process and its descendants without using the event loop."""
        if self.process is not None:
            self.process.kill_all()

    def close(self) -> None:
        """Stop and remove everything, in any state."""
        if self.process is not None:
            self.process.close()
        for connection in [*self.clients.values(), *self.upstreams.values(), *self.retired]:
            connection.close()
        self.listener.close()
        self.filter.close()
        if self.syslog is not None:
            self.syslog.close()
        if self._mounted and self.namespace is not None:
            self.namespace.unmount(self.tmp)
        self.loop.close()
        shutil.rmtree(self.directory, ignore_errors=True)
