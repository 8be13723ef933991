"""Non-blocking reads and buffered writes on a connection.

Rule: a stream handles all errors of its connection. After an error, a stream accepts no more data,
because the message would be incomplete. Data that the peer sent before the error can still be read.
"""

from ..core import limits
from .system import close, posix, socket


class Stream:
    """A connection to a peer. The descriptors for reading and writing may be the same."""

    __slots__ = ("failed", "open", "reader", "unsent", "writer")

    def __init__(self, reader: int, writer: int) -> None:
        self.reader = reader
        self.writer = writer
        self.open = True
        #: True if a read or a write has failed.
        self.failed = False
        #: The octets that the kernel has not accepted yet.
        self.unsent = bytearray()
        for descriptor in {reader, writer}:
            posix.set_blocking(descriptor, False)
        never_delay(writer)

    def has_sent_all(self) -> bool:
        """Return whether the kernel has accepted all octets. After an error, return False."""
        return not self.unsent and not self.failed

    def read(self, size: int = limits.READ_SIZE) -> bytes | None:
        """Return received octets, b"" at the end of the stream, or None if no data is available."""
        try:
            return posix.read(self.reader, size)
        except BlockingIOError:
            return b"" if self.failed else None
        except OSError:
            self._fail()
            return b""

    def write(self, data: bytes) -> None:
        """Send or buffer `data`. After an error, drop the data."""
        if self.failed:
            return
        if not self.unsent:
            data = self._sent(data)
        self.unsent += data

    def flush(self) -> None:
        """Send as much of the buffer as the kernel accepts."""
        if self.unsent:
            self.unsent = bytearray(self._sent(bytes(self.unsent)))

    def _sent(self, data: bytes) -> bytes:
        """Send as much of `data` as the kernel accepts, and return the rest."""
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
        self.unsent.clear()

    def finish(self) -> None:
        """Shut down the sending direction, so that the peer sees the end of the stream."""
        try:
            peer = _as_socket(self.writer)
        except OSError:  # the writer is a pipe, whose reader sees end-of-file after close(2)
            return
        try:
            peer.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the peer has disconnected
        finally:
            peer.detach()

    def close(self) -> None:
        """Close the connection and drop the buffer."""
        if self.open:
            self.open = False
            for descriptor in {self.reader, self.writer}:
                close(descriptor)


def never_delay(descriptor: int) -> None:
    """Disable Nagle's algorithm, which delays each message by 40 ms on a TCP connection."""
    try:
        peer = _as_socket(descriptor)
    except OSError:
        return
    try:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        pass  # not TCP
    finally:
        peer.detach()


def _as_socket(descriptor: int) -> socket.socket:
    """Return a socket object that is used only for options and shutdown(2).

    If the family, type and protocol were not given, the object would make a system call for each.

    Raises:
        OSError: the descriptor is not a socket.
    """
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, descriptor)
