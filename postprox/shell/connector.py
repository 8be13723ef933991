"""The connection attempt to the upstream server.

Rule: the connector tries all addresses of the host in turn. No attempt blocks the loop, and a
single timeout applies to all attempts together (cli.host, relay.idle).
"""

from .. import TYPE_CHECKING
from ..core import limits
from .loop import READABLE, WRITABLE
from .system import close, posix, socket

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.address import UpstreamAddress
    from .loop import Loop

    #: An address family and an address, as returned by getaddrinfo(3).
    Address = tuple[int, socket._Address]


class Connector:
    """An attempt to connect to `target`, trying one address after another.

    connected: called with the descriptor of the non-blocking socket.
    failed: called with the reason after all addresses have failed.
    """

    def __init__(
        self,
        loop: "Loop",
        target: "UpstreamAddress",
        connected: "Callable[[int], None]",
        failed: "Callable[[str], None]",
    ) -> None:
        self._loop = loop
        self._connected = connected
        self._failed = failed
        self._target = target
        self._addresses: list[Address] = []
        self._socket: socket.socket | None = None
        self._resolver: Resolver | None = None
        self._last_error = "no address found"
        self._end = loop.clock() + limits.CONNECT
        #: The time at which the connector gives up on the current address.
        self.deadline = limits.NEVER

    def start(self) -> None:
        """Try the first address, or resolve the name first."""
        target = self._target
        if target.path:
            self._try_all([(socket.AF_UNIX, target.path)])
            return
        try:
            self._try_all(resolve(target, socket.AI_NUMERICHOST))
        except socket.gaierror:
            try:
                self._resolver = Resolver(self._loop, target, self._resolved)
            except OSError as error:
                self._failed(f"{target.text}: {error.strerror}")

    def timer(self) -> None:
        """Give up on the current address and try the next one."""
        self._abandon("connection timed out")
        self._try_next()

    def cancel(self) -> None:
        """Stop without calling `connected` or `failed`."""
        if self._resolver is not None:
            self._resolver.cancel()
        self._abandon("")

    def _resolved(self, found: "list[Address] | OSError") -> None:
        self._resolver = None
        if isinstance(found, OSError):
            self._failed(f"{self._target.text}: {found.strerror}")
        else:
            self._try_all(found)

    def _try_all(self, addresses: "list[Address]") -> None:
        self._addresses = addresses
        self._try_next()

    def _try_next(self) -> None:
        while self._addresses:
            share = (self._end - self._loop.clock()) / len(self._addresses)
            family, address = self._addresses.pop(0)
            try:
                peer = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            except OSError as missing:  # the kernel does not support this address family
                self._last_error = str(missing.strerror)
                continue
            try:
                peer.connect(address)
            except OSError as error:
                if not _in_progress(error, family):
                    peer.close()
                    self._last_error = error.strerror or str(error)
                    continue
            self._socket = peer
            self.deadline = self._loop.clock() + share
            self._loop.note_deadline(self.deadline)
            self._loop.watch(peer.fileno(), WRITABLE, self._finish)
            return
        self._failed(f"{self._target.text}: {self._last_error}")

    def _finish(self) -> None:
        peer = self._socket
        if peer is None:
            return
        error = peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._abandon(posix.strerror(error))
            self._try_next()
            return
        self._loop.watch(peer.fileno(), 0, self._finish)
        self.deadline = limits.NEVER
        self._socket = None
        self._connected(peer.detach())

    def _abandon(self, reason: str) -> None:
        self._last_error = reason
        self.deadline = limits.NEVER
        if self._socket is not None:
            self._loop.watch(self._socket.fileno(), 0, self._finish)
            self._socket.close()
            self._socket = None


def _in_progress(error: OSError, family: int) -> bool:
    """Return whether connect(2) is in progress. EAGAIN on a Unix socket means a full backlog."""
    return isinstance(error, BlockingIOError) and family != socket.AF_UNIX


def resolve(target: "UpstreamAddress", flags: int) -> "list[Address]":
    """Return the addresses of `target`.

    Raises:
        socket.gaierror: there is no address, or `target` is not numeric (with AI_NUMERICHOST).
    """
    host = target.host.encode("utf-8", "surrogateescape")
    found = socket.getaddrinfo(host, target.port, 0, socket.SOCK_STREAM, 0, flags)
    return [(family, address) for family, _, _, _, address in found]


class Resolver:
    """Name resolution in a thread, because getaddrinfo(3) blocks.

    When the resolution is complete, the loop calls `done`.

    Raises:
        OSError: there is no free descriptor, or no thread can be started.
    """

    def __init__(
        self,
        loop: "Loop",
        target: "UpstreamAddress",
        done: "Callable[[list[Address] | OSError], None]",
    ) -> None:
        import _thread

        self._loop = loop
        self._done = done
        self._found: list[Address] | OSError = []
        self._reader, writer = posix.pipe()
        try:
            loop.watch(self._reader, READABLE, self._ready)
            _thread.start_new_thread(self._ask, (target, writer))
        except (OSError, RuntimeError) as error:
            self.cancel()
            close(writer)
            raise OSError(0, f"cannot start a thread for name resolution: {error}") from None

    def cancel(self) -> None:
        """Ignore the result."""
        self._loop.watch(self._reader, 0, self._ready)
        close(self._reader)

    def _ask(self, target: "UpstreamAddress", writer: int) -> None:
        try:
            self._found = resolve(target, 0)
        except OSError as error:
            self._found = error
        finally:
            close(writer)  # the loop then calls `_ready`

    def _ready(self) -> None:
        self.cancel()
        self._done(self._found)
