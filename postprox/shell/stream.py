"""A connection's octets: non-blocking reads, and writes that wait for room.

Rule: errors of a connection end here. A stream that has failed is dead: nothing is written to it
any more, or a message would have a hole; what its peer had sent before is still read.
"""

from ..core import limits
from .system import close, posix, socket


class Stream:
    """Two descriptors, or twice the same, that are a connection to a peer."""

    __slots__ = ("_unsent", "failed", "open", "reader", "writer")

    def __init__(self, reader: int, writer: int) -> None:
        self.reader = reader
        self.writer = writer
        self.open = True
        #: Whether a read or a write has failed.
        self.failed = False
        self._unsent = bytearray()
        for descriptor in {reader, writer}:
            posix.set_blocking(descriptor, False)
        never_delay(writer)

    @property
    def unsent(self) -> int:
        """How many octets wait for room."""
        return len(self._unsent)

    def has_sent_all(self) -> bool:
        """Whether the kernel has accepted all that was written: what was dropped is not sent."""
        return not self._unsent and not self.failed

    def read(self, size: int = limits.READ_SIZE) -> bytes | None:
        """Return what the peer sent, b"" at its end, None if there is nothing yet."""
        try:
            return posix.read(self.reader, size)
        except BlockingIOError:
            return b"" if self.failed else None
        except OSError:
            self._fail()
            return b""

    def write(self, data: bytes) -> None:
        """Send `data`, now or when there is room; a stream that has failed drops it."""
        if self.failed:
            return
        if not self._unsent:
            data = self._sent(data)
        self._unsent += data

    def flush(self) -> None:
        """Send what waits, as far as there is room."""
        if self._unsent:
            self._unsent = bytearray(self._sent(bytes(self._unsent)))

    def _sent(self, data: bytes) -> bytes:
        """Send of `data` what there is room for, and return the rest."""
        try:
            while data:
                data = data[posix.write(self.writer, data) :]
        except BlockingIOError:
            return data
        except OSError:
            self._fail()
            return b""
        return b""

    def _fail(self) -> None:
        self.failed = True
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
                close(descriptor)


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
