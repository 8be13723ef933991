"""The listening server: `--listen` (listen.background to listen.stop).

Rule: it accepts clients and ends; each session is a `Connection`, as on standard input. It starts
once, not once for every mail, so it may import `os` and `socket`.
"""

import os
import resource
import socket
import sys

from .. import TYPE_CHECKING
from ..core import levels, limits
from . import log
from .connection import Connection
from .loop import READABLE, Loop
from .stream import Stream
from .system import STDERR, STDIN, STDOUT, environ, signal, silence

if TYPE_CHECKING:
    from ..core.options import Options

#: Descriptors that one session may need: client, upstream, spool, EMAIL, OUTFILE, standard
#: error (two ends), name service.
_DESCRIPTORS_EACH = 8
_FIRST_PASSED = 3  # sd_listen_fds(3)


def serve(options: "Options") -> int:
    """Serve clients until told to stop; in the background, return 0 once the port is bound."""
    server = Server(options)  # who sees the port bound may send SIGTERM at once
    try:
        listeners = _passed_listeners() or _bind(*(options.listen or ("", 0)))
    except OSError as error:
        where = ":".join(map(str, options.listen or ()))
        print(f"postprox: cannot listen on {where}: {error.strerror}", file=sys.stderr)
        return 1
    if not options.foreground:
        if os.fork():
            return 0
        os.setsid()
        for descriptor in (STDIN, STDOUT, STDERR):
            silence(descriptor)
    _allow_descriptors(options.max_sessions)
    server.accept_from(listeners)
    server.run()
    return 0


class Server:
    """All sessions of the process, and the sockets that new ones come from."""

    def __init__(self, options: "Options") -> None:
        self._options = options
        self._listeners: list[socket.socket] = []
        self._connections: set[Connection] = set()
        self._loop = Loop(options.clock_speed)
        self._loop.add(self)
        self._stop_by = limits.NEVER
        self._pause_end = 0.0
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self._loop.on_signal(number, self._stop)

    def accept_from(self, listeners: list[socket.socket]) -> None:
        """Let clients come from `listeners`."""
        self._listeners = listeners
        self._watch_listeners()

    def run(self) -> None:
        """Serve until stopped and every session has ended."""
        while self._listeners or self._connections:
            self._loop.run_once()

    @property
    def deadline(self) -> float:
        """When clients are accepted again, or the grace period of sessions under way is over."""
        return min(self._stop_by, self._pause_end or limits.NEVER)

    def timer(self) -> None:
        """See `deadline`."""
        now = self._loop.clock()
        if now >= self._stop_by:
            for connection in list(self._connections):
                connection.terminate()
        if now >= self._pause_end:
            self._pause_end = 0.0
            self._watch_listeners()

    def _watch_listeners(self) -> None:
        room = len(self._connections) < self._options.max_sessions and not self._pause_end
        for listener in self._listeners:
            self._loop.watch(listener.fileno(), READABLE if room else 0, self._accept)

    def _accept(self) -> None:
        for listener in self._listeners:
            if len(self._connections) >= self._options.max_sessions:
                break
            try:
                client, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                continue
            except OSError as error:
                log.write(levels.ERROR, f"cannot accept a client: {error.strerror}")
                self._pause_end = self._loop.clock() + limits.ACCEPT_PAUSE
                continue
            descriptor = client.detach()
            stream = Stream(descriptor, descriptor)
            connection = Connection(self._loop, self._options, stream, self._ended)
            self._connections.add(connection)
            connection.start()
        self._watch_listeners()

    def _ended(self, connection: Connection) -> None:
        self._connections.remove(connection)
        self._watch_listeners()

    def _stop(self) -> None:
        """Stop in good order; told so twice, at once."""
        if self._stop_by != limits.NEVER:
            self._stop_by = self._loop.clock()
            return
        self._stop_by = self._loop.clock() + limits.STOP_GRACE
        for listener in self._listeners:
            self._loop.watch(listener.fileno(), 0, self._accept)
            listener.close()
        self._listeners = []
        for connection in list(self._connections):
            connection.stop()


def _bind(host: str, port: int) -> list[socket.socket]:
    listeners = []
    name = host.encode("utf-8", "surrogateescape")  # as it is: a str would have to be a fine name
    for family, kind, protocol, _, address in socket.getaddrinfo(
        name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(socket.SOMAXCONN)
        listener.setblocking(False)
        listeners.append(listener)
    return listeners


def _passed_listeners() -> list[socket.socket]:
    """Return the sockets that a service manager has opened for this process (sd_listen_fds(3))."""
    wanted, count = (environ.pop(name, b"") for name in (b"LISTEN_PID", b"LISTEN_FDS"))
    environ.pop(b"LISTEN_FDNAMES", None)
    if wanted != b"%d" % os.getpid() or not count.isdigit():
        return []
    listeners = []
    for descriptor in range(_FIRST_PASSED, _FIRST_PASSED + int(count)):
        os.set_inheritable(descriptor, False)
        listener = socket.socket(fileno=descriptor)
        listener.setblocking(False)
        listeners.append(listener)
    return listeners


def _allow_descriptors(sessions: int) -> None:
    """Raise the limit of open files if so many sessions need it, as far as allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 32 + sessions * _DESCRIPTORS_EACH
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
