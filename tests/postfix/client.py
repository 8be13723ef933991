"""The tests' client of Postfix: its messages, its address, and sessions of raw octets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from tests.support.client import HELO, Reply, Session, connect
from tests.support.peers import Peer, connected

from .instance import Address
from .proxies import Box


def message(subject: str, body: str = "Hello,\n.\n..two dots\nbye") -> bytes:
    """A message with CRLF line ends; every header is there, so that no server adds one."""
    text = (
        "From: Alice <alice@mail.test>\n"
        "To: Bob <bob@mail.test>\n"
        f"Subject: {subject}\n"
        "Date: Sun, 22 Nov 2026 12:00:00 +0000\n"
        "Message-Id: <1@mail.test>\n"
        f"\n{body}\n"
    )
    return text.replace("\n", "\r\n").encode()


def unix(content: bytes) -> bytes:
    """The content with LF line ends, as it lies in a mailbox."""
    return content.replace(b"\r\n", b"\n")


@contextlib.contextmanager
def connect_from(server: Address, address: str, helo: str = HELO) -> Iterator[Session]:
    """Begin a session that Postfix takes for one from the address."""
    with connect(server) as session:
        assert session.command(f"XCLIENT ADDR={address}")[0] == 220
        session.run(session.smtp.ehlo(hostname=helo))
        yield session


def submit(server: Address, sender: str, recipients: Sequence[str], content: bytes) -> Reply:
    """Send one message in a session of its own."""
    with connect(server) as session:
        return session.transact(sender, recipients, content)


def begin_envelope(server: Address, box: Box) -> Peer:
    """Begin a raw session, up to an accepted recipient."""
    peer = connected(server, 60)
    peer.sees_reply(b"220 ")
    for command in (f"EHLO {HELO}", f"MAIL FROM:<{box.sender}>", f"RCPT TO:<{box.address}>"):
        peer.asks(command.encode(), b"250")
    return peer


def begin_data(server: Address, box: Box) -> Peer:
    """Begin a raw session, up to the 354."""
    peer = begin_envelope(server, box)
    peer.asks(b"DATA", b"354 ")
    return peer
