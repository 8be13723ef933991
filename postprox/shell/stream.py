"""A connection's octets: non-blocking reads, and writes that wait for room.

Rule: errors of a connection end here; to the others it has simply ended.
"""

from ..core import limits
from .system import posix, socket


class Stream:
    """Two descriptors, or twice the same, that are a connection to a peer."""

    __slots__ = ("_unsent", "open", "reader", "writer")

    def __init__(self, reader: int, writer: int) -> None:
        self.reader = reader
        self.writer = writer
        self.open = True
        self._unsent = bytearray()
        for descriptor in {reader, writer}:
            posix.set_blocking(descriptor, False)
        never_delay(writer)

    @property
    def unsent(self) -> int:
        """How many octets wait for room."""
        return len(self._unsent)

    def read(self) -> bytes | None:
        """Return what the peer sent, b"" at its end, None if there is nothing yet."""
        try:
            return posix.read(self.reader, limits.READ_SIZE)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def write(self, data: bytes) -> None:
        """Send `data`, now or when there is room; a peer that is gone loses it."""
        self._unsent += data
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as there is room."""
        try:
            while self._unsent:
                del self._unsent[: posix.write(self.writer, self._unsent)]
        except BlockingIOError:
            return
        except OSError:
            self._unsent.clear()

    def finish(self) -> None:
        """Tell the peer that nothing more will come, and still listen to it."""
        try:
            peer = socket.socket(fileno=self.writer)
        except OSError:  # a pipe: its end shows when it is closed
            return
        try:
            peer.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it is gone already
        finally:
            peer.detach()

    def close(self) -> None:
        """Close the connection; what is unsent is lost."""
        if self.open:
            self.open = False
            for descriptor in {self.reader, self.writer}:
                posix.close(descriptor)


def never_delay(descriptor: int) -> None:
    """Switch Nagle's algorithm off, where there is one: it costs 40 ms a message."""
    try:
        peer = socket.socket(fileno=descriptor)
    except OSError:
        return
    try:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        pass  # not TCP
    finally:
        peer.detach()
