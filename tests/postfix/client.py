"""The outside world: an SMTP client that sends one message and tells what it was answered."""

from __future__ import annotations

import re
import smtplib
from collections.abc import Sequence

from .instance import Address

HELO = "client.example"

Reply = tuple[int, bytes]


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


def connect(server: Address, helo: str = HELO) -> smtplib.SMTP:
    """A session past EHLO; ended by `with`."""
    session = smtplib.SMTP(*server, timeout=60)
    session.ehlo(helo)
    return session


def connect_from(server: Address, address: str, helo: str = HELO) -> smtplib.SMTP:
    """A session past EHLO that Postfix takes for one from the address."""
    session = connect(server)
    assert session.docmd("XCLIENT", f"ADDR={address}")[0] == 220
    session.ehlo(helo)
    return session


def begin_data(session: smtplib.SMTP, sender: str, recipients: Sequence[str]) -> None:
    """An accepted envelope, and DATA."""
    session.mail(sender)
    for recipient in recipients:
        assert session.rcpt(recipient)[0] == 250
    assert session.docmd("DATA")[0] == 354


def transact(
    session: smtplib.SMTP, sender: str, recipients: Sequence[str], content: bytes
) -> Reply:
    """One transaction; the reply to the first command that was refused, or to the message."""
    reply: Reply = session.mail(sender)
    accepted = 0
    if reply[0] == 250:
        for recipient in recipients:
            reply = session.rcpt(recipient)
            accepted += reply[0] == 250
    if accepted:
        reply = session.docmd("DATA")
    if reply[0] == 354:
        session.send(re.sub(rb"(?m)^\.", b"..", content) + b".\r\n")
        reply = session.getreply()
    return reply


def submit(server: Address, sender: str, recipients: Sequence[str], content: bytes) -> Reply:
    """One message in a session of its own."""
    with connect(server) as session:
        return transact(session, sender, recipients, content)
