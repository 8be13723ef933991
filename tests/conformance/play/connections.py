"""The suite's sockets: client connections that it opens, and upstream connections that it accepts.

Rule: received octets are buffered until a step consumes them. This module does not evaluate them.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections import deque
from pathlib import Path

from ..format.header import ON_PORT_25
from .dialogue import Dialogue
from .loop import READ, WRITE, Loop

_BLOCK = 1 << 18


class Connection:
    """The suite's end of a TCP or Unix-domain connection."""

    def __init__(self, loop: Loop, sock: socket.socket, dialogue: Dialogue, name: str) -> None:
        self._loop = loop
        self._sock = sock
        self._dialogue = dialogue
        self._unsent: deque[memoryview] = deque()
        self.name = name
        self.received = bytearray()
        self.last_sent = 0.0  # the time.monotonic() at which the kernel last accepted octets
        self.ended = False  # received EOF or a reset
        self.closed = False  # closed by the suite
        self.half_closed = False
        self.paused = False  # reading is paused
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            # With Nagle's algorithm disabled, each write of a transcript is sent separately.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop.watch(sock, READ, self._ready)

    @property
    def sock(self) -> socket.socket:
        """The socket itself, for queries to the kernel."""
        return self._sock

    @property
    def sent(self) -> bool:
        """Whether the send buffer is empty."""
        return not self._unsent

    def send(self, octets: bytes) -> None:
        """Immediately send as many octets as the kernel accepts. The event loop sends the rest."""
        if self.closed:
            return
        self._dialogue.said(f"{self.name}>", octets)
        self._unsent.append(memoryview(octets))
        self._push()

    def take(self, count: int) -> None:
        """Remove the first *count* received octets, which a step has consumed."""
        del self.received[:count]

    def pause(self) -> None:
        """Stop reading, so that input remains in the kernel's buffer."""
        self._dialogue.event(f"{self.name}>", "@pause")
        self.paused = True
        self._watch()

    def resume(self) -> None:
        """Resume reading after `pause`."""
        if self.paused and not self.closed:
            self._dialogue.event(f"{self.name}>", "@resume")
            self.paused = False
            self._watch()

    def end_writing(self) -> None:
        """Close the sending direction. The peer reads EOF and can still send."""
        self._dialogue.event(f"{self.name}>", "@eof")
        self.half_closed = True
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close both directions."""
        if not self.closed:
            self._dialogue.event(f"{self.name}>", "@close")
            self._let_go()

    def reset(self) -> None:
        """Close the connection so that the peer reads ECONNRESET."""
        self._dialogue.event(f"{self.name}>", "@reset")
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._let_go()

    def _let_go(self) -> None:
        self._loop.forget(self._sock)
        self._sock.close()
        self.closed = True
        self._unsent.clear()

    def _ready(self, events: int) -> None:
        if events & READ:
            self._pull()
        if events & WRITE and not self.closed:
            self._push()

    def _pull(self) -> None:
        try:
            octets = self._sock.recv(_BLOCK)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        if octets:
            self._dialogue.said(f"{self.name}<", octets)
            self.received += octets
            return
        self.ended = True
        self._dialogue.event(f"{self.name}<", "@eof")
        self._watch()

    def _push(self) -> None:
        try:
            while self._unsent:
                count = self._sock.send(self._unsent[0])
                self.last_sent = time.monotonic()
                rest = self._unsent.popleft()[count:]
                if rest:
                    self._unsent.appendleft(rest)
        except BlockingIOError:
            pass
        except OSError:
            self._unsent.clear()
        self._watch()

    def _watch(self) -> None:
        events = (0 if self.ended or self.paused else READ) | (WRITE if self._unsent else 0)
        if events:
            self._loop.watch(self._sock, events, self._ready)
        else:
            self._loop.forget(self._sock)


class Fragment:
    """A write that must be read before the next one, so that the peer sees two separate reads.

    An implementation may stop reading while it waits for the other peer. The wait therefore has a
    time limit and never fails. If it expires, the peer may read the writes together.
    """

    _TIMEOUT = 0.1

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._deadline = time.monotonic() + self._TIMEOUT

    @property
    def over(self) -> bool:
        """True if the fragment has been read or the time limit has expired."""
        connection = self._connection
        read = connection.sent and not unread(connection.sock)
        return read or connection.ended or time.monotonic() > self._deadline


#: The addresses of special upstream servers. All others listen on 127.0.0.1 and a free port.
_BOUND_TO = {
    "ipv6": ("::1", 0),
    "127.0.0.2": ("127.0.0.2", 0),
    "127.0.0.3": ("127.0.0.3", 0),
    "port-25": ("127.0.0.1", 25),
    "127.0.0.2:25": ("127.0.0.2", 25),
    "127.0.0.3:25": ("127.0.0.3", 25),
}


class Listener:
    """The suite's upstream server. New connections are in `arrived` until a step needs them."""

    def __init__(self, loop: Loop, kind: str, directory: Path, dialogue: Dialogue) -> None:
        self._loop = loop
        self._dialogue = dialogue
        self._count = 0
        self.arrived: deque[Connection] = deque()
        self._fillers: list[socket.socket] = []
        self._path = directory / "upstream.sock"
        self._sock = self._bound(kind)
        self._kind = kind
        if kind == "stalled":
            self._fill_backlog()
        elif kind != "refused":
            self.listen()

    def _bound(self, kind: str) -> socket.socket:
        if kind == "unix":
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.bind(str(self._path))
            return sock
        family = socket.AF_INET6 if kind == "ipv6" else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        if kind in ON_PORT_25:  # connections of an earlier run may be in TIME_WAIT
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(_BOUND_TO.get(kind, ("127.0.0.1", 0)))
        return sock

    @property
    def address(self) -> str:
        """The address in the form that the implementation's command line requires."""
        if self._kind == "unix":
            return f"unix:{self._path}"
        return f"[{self.host}]:{self.port}" if self._kind == "ipv6" else f"{self.host}:{self.port}"

    @property
    def host(self) -> str:
        """The numeric host, or the path of a Unix-domain socket."""
        return str(self._path) if self._kind == "unix" else str(self._sock.getsockname()[0])

    @property
    def port(self) -> int:
        """The port, or 0 if there is none."""
        return 0 if self._kind == "unix" else int(self._sock.getsockname()[1])

    def listen(self) -> None:
        """Accept connections from now on."""
        self._sock.listen(64)
        self._sock.setblocking(False)
        self._loop.watch(self._sock, READ, self._accept)

    def refuse(self) -> None:
        """Refuse connections from now on, but keep the port."""
        self._loop.forget(self._sock)
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _fill_backlog(self) -> None:
        """Fill the backlog of length one, so that connection attempts are not answered."""
        self._sock.listen(0)
        for _ in range(2):
            filler = socket.socket()
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(self._sock.getsockname())
            self._fillers.append(filler)

    def _accept(self, _events: int) -> None:
        try:
            sock, _ = self._sock.accept()
        except OSError:
            return
        self._count += 1
        name = "U" if self._count == 1 else f"U({self._count})"
        self._dialogue.event(f"{name}<", "@connect")
        self.arrived.append(Connection(self._loop, sock, self._dialogue, name))

    def close(self) -> None:
        """Stop listening and close all waiting connections."""
        self._loop.forget(self._sock)
        self._sock.close()
        for filler in self._fillers:
            filler.close()
        while self.arrived:
            self.arrived.popleft().close()


#: The client's socket options for each value of the header key `buffers`. The segment size
#: determines the size of the peer's send buffer.
_OPTIONS = {
    "default": (),
    "small": (
        (socket.SOL_SOCKET, socket.SO_RCVBUF, 4096),
        (socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536),
    ),
}


#: The timeout for connecting to this machine, in seconds.
_CONNECT = 1.0


def connect(address: tuple[str, int], buffers: str, timeout: float) -> socket.socket:
    """Return a client connection to *address*."""
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(socket.socket())
        for option in _OPTIONS[buffers]:
            client.setsockopt(*option)
        # The timeout of an observation may be 0. With this timeout, connect(2) would not wait.
        client.settimeout(max(timeout, _CONNECT))
        client.connect(address)
        stack.pop_all()
    return client


def accepted_pair(buffers: str, timeout: float) -> tuple[socket.socket, socket.socket]:
    """Return both ends of a loopback connection: the client's end and the accepted end."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        client = connect(listener.getsockname(), buffers, timeout)
        server, _ = listener.accept()
    return client, server


# --- the number of unread octets at the peer, from the kernel (sock_diag(7)) -----------------

_SOCK_DIAG_BY_FAMILY = 20
_NETLINK_SOCK_DIAG = 4
_REQUEST = 1
_ALL_STATES = 0xFFFFFFFF
_NO_COOKIE = b"\xff" * 8
_RQUEUE_AT = 16 + 4 + 48 + 4


def unread(sock: socket.socket) -> int | None:
    """Return the number of octets that the peer of *sock* has not read yet, or None if unknown."""
    if sock.family != socket.AF_INET:
        return None
    try:
        here, there = sock.getsockname(), sock.getpeername()
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
            netlink.settimeout(0.1)
            netlink.send(_diag_request(there, here))
            answer = netlink.recv(4096)
    except OSError:
        return None
    (kind,) = struct.unpack_from("=H", answer, 4)
    if kind != _SOCK_DIAG_BY_FAMILY:
        return None
    return int(struct.unpack_from("=I", answer, _RQUEUE_AT)[0])


def _diag_request(local: tuple[str, int], remote: tuple[str, int]) -> bytes:
    """Return a netlink request for the socket from *local* to *remote* (inet_diag_req_v2)."""
    socket_id = (
        struct.pack("!HH", local[1], remote[1])
        + socket.inet_aton(local[0]).ljust(16, b"\0")
        + socket.inet_aton(remote[0]).ljust(16, b"\0")
        + struct.pack("=I", 0)
        + _NO_COOKIE
    )
    body = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, _ALL_STATES) + socket_id
    return struct.pack("=IHHII", 16 + len(body), _SOCK_DIAG_BY_FAMILY, _REQUEST, 1, 0) + body
