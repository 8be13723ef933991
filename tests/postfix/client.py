"""The SMTP client that sends mail to Postfix: its messages, client addresses and raw sessions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from tests.support.client import HELO, Reply, Session, connect
from tests.support.peers import Peer, connected

from .instance import Address
from .proxies import Box


def message(subject: str, body: str = "Hello,\n.\n..two dots\nbye") -> bytes:
    """Return a message with CRLF line endings. It has all header fields that a server would add."""
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
    """Return the content with LF line endings, as in a mailbox."""
    return content.replace(b"\r\n", b"\n")


@contextlib.contextmanager
def connect_from(server: Address, address: str, helo: str = HELO) -> Iterator[Session]:
    """Begin a session to which XCLIENT assigns this client address."""
    with connect(server) as session:
        assert session.command(f"XCLIENT ADDR={address}")[0] == 220
        session.run(session.smtp.ehlo(hostname=helo))
        yield session


def submit(server: Address, sender: str, recipients: Sequence[str], content: bytes) -> Reply:
    """Send one message in a new session."""
    with connect(server) as session:
        return session.transact(sender, recipients, content)


def begin_envelope(server: Address, box: Box) -> Peer:
    """Begin a raw session and send an envelope, up to the accepted recipient."""
    peer = connected(server, 60)
    peer.sees_reply(b"220 ")
    for command in (f"EHLO {HELO}", f"MAIL FROM:<{box.sender}>", f"RCPT TO:<{box.address}>"):
        peer.asks(command.encode(), b"250")
    return peer


def begin_data(server: Address, box: Box) -> Peer:
    """Begin a raw session and send an envelope and DATA, up to the 354 reply."""
    peer = begin_envelope(server, box)
    peer.asks(b"DATA", b"354 ")
    return peer
