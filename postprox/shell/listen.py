"""The `--listen` server (requirements listen.background to listen.stop).

Rule: this module accepts clients and stops the server. Each session is a `Connection`, like a
session on standard input. A server may import `os`, but not `socket`
or `pathlib`, because importing each of them takes longer than importing this module.

Logs: the session limit, the open file limit, and errors of accept(2) and of new sessions.
"""

import errno
import os
import resource
import sys
import time

from .. import TYPE_CHECKING
from ..core import limits, log_levels
from ..core.counters import Counters
from ..core.options import STDERR as STANDARD_ERROR
from . import log, newfile, stale_files
from .connection import Connection
from .loop import EPOLL, READABLE, STOPPING, Loop, ignore
from .metrics import Metrics
from .sd_notify import ServiceNotifier
from .stream import Stream
from .system import STDERR, STDIN, STDOUT, accept, environ, signal, socket

if TYPE_CHECKING:
    from typing import Self

    from ..core.options import Options

_FIRST_PASSED = 3  # sd_listen_fds(3)
#: The maximum number of digits in LISTEN_FDS. No process can have 10^9 descriptors.
_LONGEST_COUNT = 9
#: The offset of tcpi_unacked in struct tcp_info. For a listening socket, tcpi_unacked contains the
#: length of the backlog.
_TCP_INFO_UNACKED = 24


def serve(options: "Options") -> int:
    """Serve clients until SIGTERM and return the exit status.

    If the server runs in the background, the parent process returns 0 after the port is bound.
    """
    cannot = "start"
    with _PidFile(options.pid_file) as pid_file:
        try:
            if _logs_to_stderr(options):
                from .stderr import StandardError

                log.destination = StandardError()
            server = Server(options)  # SIGTERM is now handled, even before the port is bound
            cannot = f"listen on {':'.join(map(str, options.listen or ()))}"
            listeners = _passed_listeners() or _bind(*(options.listen or ("", 0)))
            cannot = f"write {options.pid_file}"
            pid_file.write(os.getpid())
            cannot = f"write {options.metrics}"
            server.begin_metrics(listeners)
            cannot = "go into the background"
            if not options.foreground:
                null = os.open(os.devnull, os.O_RDWR)  # an error here can still be reported
                if child := os.fork():
                    cannot = f"write {options.pid_file}"
                    pid_file.leave_to(child)
                    return 0
                server.go_into_background(null)
        except OSError as error:
            print(f"postprox: cannot {cannot}: {error.strerror}", file=sys.stderr)
            return 1
        stale_files.remove_stale_files(options.directory)
        server.accept_from(listeners)
        server.run()
    log.destination.flush_and_close()
    return 0


def _logs_to_stderr(options: "Options") -> bool:
    """Return whether the log goes to standard error (log.stderr)."""
    if options.log:
        return options.log == STANDARD_ERROR
    return options.foreground and not log.syslog.is_there


class _PidFile:
    """The file specified by `--pid-file`, if any.

    The process whose ID is in the file removes the file.

    Before fork(2), the file is written with the parent's ID, because an error after fork(2) could
    no longer be reported. The descriptor stays open so that no other file gets the same inode.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> "Self":
        return self

    def write(self, pid: int) -> None:
        """Write `pid`.

        Raises:
            OSError: the file cannot be written.
        """
        if self._path:
            newfile.remove_stale(self._path)
            self._descriptor = newfile.replace(self._path, b"%d\n" % pid)

    def leave_to(self, child: int) -> None:
        """Write the process ID of `child` to the file.

        The child process removes the file when it exits.

        Raises:
            OSError: the file cannot be written. Before it raises the error, the method sends
            SIGTERM to the child.
        """
        if not self._path:
            return
        try:
            newfile.write(self._descriptor, line := b"%d\n" % child)
            os.ftruncate(self._descriptor, len(line))
        except OSError:
            os.kill(child, signal.SIGTERM)
            raise
        os.close(self._descriptor)
        self._descriptor = -1

    def __exit__(self, *_: object) -> None:
        if not self._path or self._descriptor < 0:
            return
        try:
            # Another server may have replaced the file.
            if os.path.samestat(os.fstat(self._descriptor), os.lstat(self._path)):
                os.unlink(self._path)
        except OSError:
            pass  # the file no longer exists, or the directory is not writable
        os.close(self._descriptor)


class Server:
    """All sessions of the process, and its listening sockets."""

    def __init__(self, options: "Options") -> None:
        self._options = options
        self._start_time = round(time.time(), 3)  # in seconds since the Unix epoch
        self._listeners: list[socket.socket] = []
        self._connections: set[Connection] = set()
        self._capacity = _sessions_allowed(options.max_sessions)
        self._stop_by = limits.NEVER
        self._pause_end = limits.NEVER
        self._warned: dict[str, float] = {}  # the time when each line was last logged
        self._loop = Loop(options.clock_speed, EPOLL)
        self._loop.add(self)
        log.syslog.attach(self._loop.clock, self._loop.note_deadline)
        self._loop.add(log.syslog)
        self._counters = Counters()
        self._notifier = ServiceNotifier(
            self._loop, self._status_text, lambda: bool(self._connections)
        )
        self._metrics = Metrics(self._loop, options.metrics, self._prometheus_text)
        self._loop.on_signals(STOPPING - {signal.SIGHUP}, self._stop)
        # A server has no configuration to reload (files.term-15, files.term-22).
        self._loop.on_signal(signal.SIGHUP, ignore)

    def go_into_background(self, null: int) -> None:
        """Detach from the terminal, and redirect the standard streams to `null`.

        null: a descriptor of /dev/null. This method closes the descriptor.
        """
        os.setsid()
        for descriptor in (STDIN, STDOUT, STDERR):
            os.dup2(null, descriptor)
        os.close(null)

    def begin_metrics(self, listeners: list[socket.socket]) -> None:
        """Start writing the `--metrics` file, if specified.

        Raises:
            OSError: the file cannot be written.
        """
        self._listeners = listeners
        if self._options.metrics:
            self._metrics.begin()

    def accept_from(self, listeners: list[socket.socket]) -> None:
        """Accept clients on `listeners`."""
        if self._capacity < self._options.max_sessions:
            log.write(
                log_levels.WARNING,
                f"limit on open files allows {self._capacity} sessions, fewer than --max-sessions "
                f"{self._options.max_sessions}",
            )
        self._listeners = listeners
        self._watch_listeners()
        self._notifier.ready()

    def run(self) -> None:
        """Serve clients until the server is stopped and all sessions have ended."""
        while self._listeners or self._connections:
            self._loop.run_once()
        if self._options.metrics:
            self._metrics.write()
        self._notifier.close()

    @property
    def deadline(self) -> float:
        """The end of the pause before the next accept(2), or the end of the grace period."""
        return min(self._stop_by, self._pause_end)

    def timer(self) -> None:
        """Handle a deadline that has passed."""
        now = self._loop.now
        if now >= self._stop_by:
            self._stop_by = limits.NEVER
            self._terminate(0)
        if now >= self._pause_end:
            self._pause_end = limits.NEVER
            self._watch_listeners()

    @property
    def _at_capacity(self) -> bool:
        """Whether the session limit has been reached.

        Sessions whose client has disconnected do not count (relay.idle).
        """
        if len(self._connections) < self._capacity:
            return False
        gone = sum(connection.session.client_gone for connection in self._connections)
        return len(self._connections) - min(gone, self._capacity) >= self._capacity

    def _watch_listeners(self) -> None:
        accepting = self._pause_end == limits.NEVER
        try:
            for listener in self._listeners:
                self._loop.watch(listener.fileno(), READABLE if accepting else 0, self._accept)
        except (OSError, MemoryError) as error:
            self._warn(log_levels.ERROR, f"cannot wait for clients: {_reason(error)}")
            self._pause_accepting()

    def _accept(self) -> None:
        for listener in self._listeners:
            if self._at_capacity:
                break
            try:
                client = accept(listener)
            except (BlockingIOError, ConnectionAbortedError):
                continue
            except (OSError, MemoryError) as error:
                self._warn(log_levels.ERROR, f"cannot accept a client: {_reason(error)}")
                self._pause_accepting()
                continue
            try:
                self._begin(client)
            except (OSError, MemoryError) as error:
                client.close()
                self._warn(log_levels.ERROR, f"cannot serve a client: {_reason(error)}")
                self._pause_accepting()
        if self._at_capacity:
            self._warn(
                log_levels.WARNING,
                f"session limit reached ({self._capacity}), further clients wait",
            )
            self._pause_accepting()
        self._watch_listeners()

    def _begin(self, client: socket.socket) -> None:
        stream = Stream(client.fileno(), client.fileno())
        connection = Connection(
            self._loop, self._options, stream, self._session_ended, self._counters
        )
        connection.log_seldom = self._warn
        client.detach()
        self._connections.add(connection)
        self._notifier.session_changed()
        connection.start()

    def _pause_accepting(self) -> None:
        self._pause_end = self._loop.clock() + limits.ACCEPT_PAUSE
        self._loop.note_deadline(self._pause_end)

    def _warn(self, level: int, text: str) -> None:
        """Log a line unless the same line was already logged in the last minute."""
        now = self._loop.clock()
        if now >= self._warned.get(text, -limits.NEVER) + limits.FULL_WARNING:
            self._warned[text] = now
            log.write(level, text)

    def _session_ended(self, connection: Connection) -> None:
        """Remove the session and accept a waiting client."""
        self._connections.discard(connection)
        self._notifier.session_changed()
        self._pause_end = limits.NEVER
        self._watch_listeners()

    def _status_text(self) -> str:
        """Return the status text for the service manager."""
        words = f"sessions: {len(self._connections)}, filters: {self._filters}"
        return f"{words}; {self._counters.summary}" if self._counters.summary else words

    @property
    def _filters(self) -> int:
        return sum(connection.filtering for connection in self._connections)

    def _prometheus_text(self) -> str:
        """Return the contents of the `--metrics` file."""
        return self._counters.prometheus_text(
            {
                "start_time_seconds": (
                    *("gauge", "Start time of the server since the Unix epoch in seconds."),
                    self._start_time,
                ),
                "sessions": ("gauge", "Current sessions.", len(self._connections)),
                "sessions_max": ("gauge", "Maximum number of concurrent sessions.", self._capacity),
                "waiting": (
                    *("gauge", "Clients in the listen backlog."),
                    sum(map(_waiting, self._listeners)),
                ),
                "filters": ("gauge", "Running filters.", self._filters),
                "log_dropped_total": (
                    *("counter", "Dropped log lines."),
                    log.destination.dropped,
                ),
            }
        )

    def _stop(self) -> None:
        """Stop the server after a grace period. A second signal shortens the grace period."""
        if not self._listeners:
            self._terminate(limits.STOP_FINAL_AGAIN)
            return
        self._stop_by = self._loop.clock() + limits.STOP_GRACE
        self._loop.note_deadline(self._stop_by)
        for listener in self._listeners:
            self._loop.watch(listener.fileno(), 0, self._accept)
            listener.close()
        self._listeners = []
        self._notifier.stopping()
        for connection in list(self._connections):
            connection.stop()

    def _terminate(self, timeout: float) -> None:
        for connection in list(self._connections):
            connection.terminate(timeout)


def _bind(host: str, port: int) -> list[socket.socket]:
    listeners = []
    name = host.encode("utf-8", "surrogateescape")  # a str would be encoded with IDNA
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
    """Return the sockets that the service manager passed to this process (sd_listen_fds(3)).

    Raises:
        OSError: the variables are invalid, or a descriptor is not a listening socket.
    """
    wanted, count = (environ.pop(name, b"") for name in (b"LISTEN_PID", b"LISTEN_FDS"))
    environ.pop(b"LISTEN_FDNAMES", None)
    if wanted != b"%d" % os.getpid() or not count:
        return []
    if not count.isdigit() or len(count) > _LONGEST_COUNT:
        raise OSError(errno.EINVAL, "LISTEN_FDS must be the number of passed sockets")
    return [_passed(descriptor) for descriptor in range(_FIRST_PASSED, _FIRST_PASSED + int(count))]


def _passed(descriptor: int) -> socket.socket:
    """Return the listening socket with this descriptor.

    Raises:
        OSError: the descriptor is not a listening socket.
    """
    try:
        os.set_inheritable(descriptor, False)
        listener = socket.socket(fileno=descriptor)
    except OSError as error:
        text = f"descriptor {descriptor} of LISTEN_FDS: {error.strerror}"
        raise OSError(error.errno, text) from None
    if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.close()
        raise OSError(
            errno.EINVAL, f"descriptor {descriptor} of LISTEN_FDS is not a listening socket"
        )
    listener.setblocking(False)
    return listener


def _reason(error: OSError | MemoryError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "no memory"


def _waiting(listener: socket.socket) -> int:
    """Return the length of the backlog of `listener`, or 0 if the length is unknown (tcp(7))."""
    try:
        info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_UNACKED + 4)
    except OSError:
        return 0
    return int.from_bytes(info[_TCP_INFO_UNACKED:], sys.byteorder)


def _sessions_allowed(wanted: int) -> int:
    """Raise the limit on open files for `wanted` sessions. Return the resulting session limit.

    Without free descriptors, a session could not run its filter.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = limits.OWN_DESCRIPTORS + wanted * limits.SESSION_DESCRIPTORS
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(1, min(wanted, (allowed - limits.OWN_DESCRIPTORS) // limits.SESSION_DESCRIPTORS))
