"""An aiosmtplib session for tests that send whole messages without an event loop.

Rule: aiosmtplib determines the octets on the wire. A test that depends on them uses `peers`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import aiosmtplib

HELO = "client.example"

T = TypeVar("T")
Reply = tuple[int, bytes]


def _reply(code: int, message: str) -> Reply:
    return code, message.encode(errors="surrogateescape")


@dataclass(frozen=True)
class Session:
    """A connected client, and the event loop for its calls."""

    smtp: aiosmtplib.SMTP
    _runner: asyncio.Runner

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(call)

    def command(self, line: str) -> Reply:
        """Send an unmodified command. Return its reply."""
        return _reply(*self.run(self.smtp.execute_command(line.encode())))

    def data(self, content: bytes) -> Reply:
        """Send DATA and a message. Return the final reply."""
        try:
            return _reply(*self.run(self.smtp.data(content)))
        except aiosmtplib.SMTPDataError as error:
            return _reply(error.code, error.message)

    def transact(self, sender: str, recipients: Sequence[str], content: bytes) -> Reply:
        """Send one message. Return the final reply, or the refusal of the envelope."""
        reply = self.command(f"MAIL FROM:<{sender}>")
        if reply[0] != 250:
            return reply
        replies = [self.command(f"RCPT TO:<{recipient}>") for recipient in recipients]
        accepted = any(code == 250 for code, _ in replies)
        return self.data(content) if accepted else replies[-1]


@contextlib.contextmanager
def connect(
    address: tuple[str, int], helo: str = HELO, tls: ssl.SSLContext | None = None
) -> Iterator[Session]:
    """Begin a session with EHLO, and end it with QUIT.

    tls: the context if the connection begins with TLS.
    """
    host, port = address
    with asyncio.Runner() as runner:
        smtp = aiosmtplib.SMTP(
            hostname=host,
            port=port,
            local_hostname=helo,
            timeout=60,
            start_tls=False,
            use_tls=tls is not None,
            tls_context=tls,
        )
        session = Session(smtp, runner)
        try:
            session.run(smtp.connect())
            session.run(smtp.ehlo())
            yield session
            with contextlib.suppress(aiosmtplib.SMTPServerDisconnected):
                assert session.command("QUIT")[0] == 221
        finally:
            # With TLS, close() waits for the server on a loop that no longer runs.
            if isinstance(smtp.transport, asyncio.WriteTransport):
                smtp.transport.abort()
