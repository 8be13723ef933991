"""The test client, which sends the commands that Postfix sends to a before-queue filter.

Rule: the client sends one message per session without pipelining, in the same order as Postfix:
EHLO, XFORWARD if offered, MAIL, RCPT, DATA, the message, QUIT.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .dialogue import CLIENT, COMMAND, CONTENT, PROXY, REPLY, Dialogue

if TYPE_CHECKING:
    import socket
    from contextlib import AbstractContextManager

HELLO = b"mx.example.org"
#: The timeout for each reply and each write is this number of seconds plus the filter's time limit.
_TIMEOUT = 30.0
#: The largest timeout that poll(2) accepts, in seconds.
_LARGEST = 2_000_000.0
_UNKNOWN = b"[UNAVAILABLE]"
# The octets that xtext does not encode (RFC 3461 section 4).
_PLAIN = frozenset(range(33, 127)) - frozenset(b"+=")


class NoAnswerError(Exception):
    """The proxy did not send a valid reply. The error text describes the proxy's output."""


@dataclass(frozen=True)
class Envelope:
    """The envelope and the identity of the sending server. Unknown values are b""."""

    sender: bytes
    recipients: tuple[bytes, ...]
    client_ip: bytes
    helo: bytes


class Client:
    """A client that uses `peer`, a socket connected to the proxy.

    waiting: a context manager that is active until the reply to the message is received.
    """

    def __init__(
        self, peer: socket.socket, dialogue: Dialogue, waiting: AbstractContextManager[None]
    ) -> None:
        self._waiting = waiting
        self._peer = peer
        self._dialogue = dialogue
        self._held = b""
        #: The time in seconds from the end of data to the final reply, or 0.0 if no message was
        #: sent.
        self.waited = 0.0

    def deliver(self, envelope: Envelope, content: bytes, filter_limit: float) -> bytes:
        """Send one message and return the final reply.

        Raises:
            NoAnswerError: the proxy did not send a valid reply.
        """
        greeting = self._answer(_TIMEOUT)
        if greeting[:1] != b"2":
            raise NoAnswerError(f"unexpected greeting: {_shown(greeting)}")
        reply = self._open(envelope)
        if reply[:3] == b"354":
            reply = self._send_content(content, filter_limit)
        self._command(b"QUIT")
        return reply

    def _open(self, envelope: Envelope) -> bytes:
        """Send the commands up to DATA. Return the reply to DATA, or the first negative reply."""
        offered = self._command(b"EHLO " + HELLO)
        lines = [
            *_xforward(offered, envelope),
            b"MAIL FROM:<%b>" % envelope.sender,
            *(b"RCPT TO:<%b>" % recipient for recipient in envelope.recipients),
            b"DATA",
        ]
        for line in lines:
            reply = self._command(line)
            if reply[:1] not in (b"2", b"3"):
                break
        return reply

    def _command(self, line: bytes) -> bytes:
        self._dialogue.note(CLIENT, PROXY, COMMAND, line + b"\r\n")
        self._send(line + b"\r\n")
        return self._answer(_TIMEOUT)

    def _send_content(self, content: bytes, filter_limit: float) -> bytes:
        self._dialogue.note(CLIENT, PROXY, CONTENT, content)
        stuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]
        self._send(stuffed)
        ending = time.monotonic()  # The filter may start before sendall() returns.
        self._send(b".\r\n")
        with self._waiting:
            reply = self._answer(_TIMEOUT + filter_limit)
        self.waited = time.monotonic() - ending
        return reply

    def _send(self, data: bytes) -> None:
        self._peer.settimeout(_TIMEOUT)
        try:
            self._peer.sendall(data)
        except OSError as error:
            raise NoAnswerError(f"cannot send to the proxy ({error})") from None

    def _answer(self, timeout: float) -> bytes:
        """Return one reply with all its lines."""
        self._peer.settimeout(min(timeout, _LARGEST))
        reply = b""
        while True:
            line = self._line(timeout)
            reply += line
            if not (line[:3].isdigit() and line[3:4] in (b" ", b"-")):
                raise NoAnswerError(f"unexpected output: {_shown(self._last_words(line))}")
            if line[3:4] == b" ":
                self._dialogue.note(PROXY, CLIENT, REPLY, reply)
                return reply

    def _last_words(self, line: bytes) -> bytes:
        """Return the last line of the output, where a traceback puts its error message."""
        try:
            while True:
                line = self._line(1.0)
        except NoAnswerError:
            return line

    def _line(self, timeout: float) -> bytes:
        while b"\n" not in self._held:
            try:
                data = self._peer.recv(65536)
            except TimeoutError:
                raise NoAnswerError(f"no reply within {timeout:g} s") from None
            except OSError as error:
                raise NoAnswerError(f"the connection failed ({error})") from None
            if not data:
                raise NoAnswerError("the proxy closed the connection without a reply")
            self._held += data
        line, end, self._held = self._held.partition(b"\n")
        return line + end


def _xforward(offered: bytes, envelope: Envelope) -> list[bytes]:
    """Return the XFORWARD command (XFORWARD_README), or [] if no known attribute is offered."""
    known = {
        b"NAME": b"",
        b"ADDR": (b"IPv6:" if b":" in envelope.client_ip else b"") + envelope.client_ip,
        b"PROTO": b"ESMTP",
        b"HELO": envelope.helo,
    }
    for line in offered.splitlines():
        words = line[4:].upper().split()
        if words[:1] == [b"XFORWARD"]:
            pairs = [name + b"=" + _xtext(known[name]) for name in words[1:] if name in known]
            return [b" ".join((b"XFORWARD", *pairs))] if pairs else []
    return []


def _xtext(value: bytes) -> bytes:
    """Encode a value (RFC 3461 section 4)."""
    if not value:
        return _UNKNOWN
    return b"".join(bytes((octet,)) if octet in _PLAIN else b"+%02X" % octet for octet in value)


def _shown(reply: bytes) -> str:
    return reply.decode("utf-8", "backslashreplace").strip()
