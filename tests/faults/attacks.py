"""Attacks by which one client may try to delay the other clients of a listening proxy.

Rule: an attack only runs one or more sessions. Other modules measure its effect. `probe` measures
another client's delay, and `test_turns` counts the work of one loop iteration. The sender's name
selects the filter's action.
"""

from __future__ import annotations

import fcntl
import struct
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from tests.support.peers import Peer, connected

TIMEOUT = 60.0

#: The filter of all attacks.
FILTER = """case $SENDER in
sleep*) exec sleep 60 ;;
refuse*) echo '550 5.7.1 no' >&2; exit 1 ;;
talk*) head -c 2000000 /dev/zero >&2; exit 2 ;;
folder*) rm "$OUTFILE"; mkdir "$OUTFILE"
    n=0; while [ $n -lt 900 ]; do : > "$OUTFILE/$n"; n=$((n + 1)); done; exit 2 ;;
esac"""

Attack = Callable[[tuple[str, int], int], None]


def _greeted(address: tuple[str, int]) -> Peer:
    client = connected(address, TIMEOUT)
    client.reply()
    return client


def _begin(client: Peer, sender: bytes, recipients: tuple[bytes, ...] = (b"b",)) -> None:
    """Send all commands up to and including DATA."""
    client.request(b"MAIL FROM:<" + sender + b"@example>")
    for recipient in recipients:
        client.request(b"RCPT TO:<" + recipient + b"@example>")
    client.request(b"DATA")


def _send(
    client: Peer, sender: bytes, content: bytes, times: int, recipients: tuple[bytes, ...]
) -> None:
    """Send a message with repeated content."""
    _begin(client, sender, recipients)
    for _ in range(times):
        client.sends(content)
    client.request(b"\r\n.")


def _unsent(client: Peer) -> bool:
    """Return whether the server's kernel has not yet received all of the client's octets."""
    queued = fcntl.ioctl(client.socket, termios.TIOCOUTQ, bytes(4))
    return struct.unpack("i", queued) != (0,)


def _await_close(client: Peer) -> None:
    """Wait until the server also closes the connection."""
    while client.socket.recv(65536):
        pass


def _message(sender: bytes, line: bytes) -> Attack:
    """Send a message of this many megabytes that repeats a single line."""

    def attack(address: tuple[str, int], megabytes: int) -> None:
        content = line * ((1 << 20) // len(line))
        with _greeted(address) as client:
            client.request(b"HELO attacker")
            _send(client, sender, content, megabytes, (b"b",))

    return attack


def _many_refused(address: tuple[str, int], megabytes: int) -> None:
    """Send commands that the proxy itself refuses. Send them as fast as possible."""
    with _greeted(address) as client:
        for _ in range(megabytes):
            client.sends(b"STARTTLS\r\n" * 2000)
            for _ in range(2000):
                client.reply()


def _endless_line(address: tuple[str, int], megabytes: int) -> None:
    with _greeted(address) as client:
        for _ in range(megabytes):
            client.sends(b"x" * (1 << 20))
        client.request(b"")


def _long_recipients(address: tuple[str, int], megabytes: int) -> None:
    """Send twenty recipients of maximum length, all of which appear in the log line."""
    recipients = tuple(b'"' + b"\x01" * 16000 + b'%d"' % number for number in range(20))
    with _greeted(address) as client:
        client.request(b"HELO attacker")
        for _ in range(megabytes):
            _send(client, b"refuse", b"x\r\n", 1, recipients)


def _crowd(address: tuple[str, int], megabytes: int) -> None:
    """Connect and disconnect ninety clients."""
    for _ in range(megabytes):
        with ExitStack() as crowd:
            clients = [crowd.enter_context(connected(address, TIMEOUT)) for _ in range(90)]
            for client in clients:
                client.reply()


#: The number of megabytes that corresponds to one round of an attack by many clients.
_ROUND = 100


def _rounds(megabytes: int) -> range:
    return range(max(1, megabytes // _ROUND))


@contextmanager
def _crowd_of(size: int, address: tuple[str, int]) -> Iterator[list[Peer]]:
    with ExitStack() as crowd:
        clients = [crowd.enter_context(_greeted(address)) for _ in range(size)]
        for client in clients:
            client.request(b"HELO attacker")
        yield clients


def _at_once(clients: list[Peer], does: Callable[[Peer], None]) -> None:
    """Call the function for all clients in parallel, and wait until all calls have finished."""
    threads = [threading.Thread(target=does, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _held_lines(address: tuple[str, int], megabytes: int) -> None:
    """Disconnect twenty clients, each with a sleeping filter and a full command buffer."""
    for _ in _rounds(megabytes):
        with _crowd_of(20, address) as clients, _greeted(address) as other:
            for client in clients:
                _begin(client, b"sleep")
                client.sends(b"x\r\n.\r\n" + b"\n" * 65000)
            while any(_unsent(client) for client in clients):
                other.request(b"STARTTLS")
            for _ in range(50):  # loop iterations that read the commands
                other.request(b"STARTTLS")
            for client in clients:
                client.ends()
            for client in clients:
                _await_close(client)


def _ninety_messages(line: bytes) -> Attack:
    """Send one megabyte of an incomplete message from each of ninety clients, and disconnect."""
    content = line * ((1 << 20) // len(line))

    def send(client: Peer) -> None:
        client.sends(content)
        client.ends()
        _await_close(client)

    def attack(address: tuple[str, int], megabytes: int) -> None:
        for _ in _rounds(megabytes):
            with _crowd_of(90, address) as clients:
                for client in clients:
                    _begin(client, b"pass")
                _at_once(clients, send)

    return attack


def _ninety_refused(address: tuple[str, int], megabytes: int) -> None:
    """Send thousands of commands from ninety clients at once, and then read the replies."""

    def send(client: Peer) -> None:
        client.sends(b"STARTTLS\r\n" * 4000)
        client.ends()
        _await_close(client)

    for _ in _rounds(megabytes):
        with _crowd_of(90, address) as clients:
            _at_once(clients, send)


#: Each attack takes the server's address and its size in megabytes or rounds.
ATTACKS: dict[str, Attack] = {
    "a large message": _message(b"pass", b"x" * 70 + b"\r\n"),
    "a large message, refused and removed": _message(b"refuse", b"x" * 70 + b"\r\n"),
    "a message of empty lines": _message(b"pass", b"\n"),
    "a message of dots": _message(b"pass", b"..\r\n"),
    "a message of bare CRs": _message(b"pass", b"\r"),
    "a filter with 2 MB of standard error": _message(b"talk", b"x\r\n"),
    "a filter that leaves a full directory": _message(b"folder", b"x\r\n"),
    "one client with many commands": _many_refused,
    "an endless command line": _endless_line,
    "twenty long recipient addresses": _long_recipients,
    "ninety simultaneous clients": _crowd,
    "twenty clients with buffered commands": _held_lines,
    "ninety messages of empty lines": _ninety_messages(b"\n"),
    "ninety messages of text": _ninety_messages(b"x" * 70 + b"\r\n"),
    "ninety clients with many commands": _ninety_refused,
}
