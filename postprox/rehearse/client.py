"""The client of a rehearsal: says what Postfix says to a proxy before its queue.

Rule: one message a session, in lock-step, in Postfix's order: EHLO, XFORWARD if it is offered,
MAIL, RCPT, DATA, the message, QUIT.
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
#: How long the proxy may take for anything but a filter's run, in seconds.
PATIENCE = 30.0
#: The largest timeout that poll(2) can take, in seconds.
_LARGEST = 2_000_000.0
_UNKNOWN = b"[UNAVAILABLE]"
# Octets that xtext leaves as they are (RFC 3461 section 4).
_PLAIN = frozenset(range(33, 127)) - frozenset(b"+=")


class NoAnswerError(Exception):
    """The proxy did not answer as a proxy does; the message says what came instead."""


@dataclass(frozen=True)
class Envelope:
    """What a message's envelope says, and where it claims to come from; b"" if not known."""

    sender: bytes
    recipients: tuple[bytes, ...]
    client_ip: bytes
    helo: bytes


class Client:
    """A client on `peer`, which is connected to the proxy.

    `waiting` is entered while the reply to the message is awaited.
    """

    def __init__(
        self, peer: socket.socket, dialogue: Dialogue, waiting: AbstractContextManager[None]
    ) -> None:
        self._waiting = waiting
        self._peer = peer
        self._dialogue = dialogue
        self._held = b""
        #: How long the reply to the message took, in seconds; 0.0 if none was sent.
        self.waited = 0.0

    def deliver(self, envelope: Envelope, content: bytes, filter_limit: float) -> bytes:
        """Hand one message over; return the reply that decides about it.

        Raises:
            NoAnswerError: the proxy did not answer.
        """
        greeting = self._answer(PATIENCE)
        if greeting[:1] != b"2":
            raise NoAnswerError(f"it said: {_shown(greeting)}")
        reply = self._open(envelope)
        if reply[:3] == b"354":
            reply = self._send_content(content, filter_limit)
        self._command(b"QUIT")
        return reply

    def _open(self, envelope: Envelope) -> bytes:
        """Go as far as the reply to DATA, or to the first refusal."""
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
        return self._answer(PATIENCE)

    def _send_content(self, content: bytes, filter_limit: float) -> bytes:
        self._dialogue.note(CLIENT, PROXY, CONTENT, content)
        stuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]
        self._send(stuffed)
        ending = time.monotonic()  # before the end is sent: the filter may start at once
        self._send(b".\r\n")
        with self._waiting:
            reply = self._answer(PATIENCE + filter_limit)
        self.waited = time.monotonic() - ending
        return reply

    def _send(self, data: bytes) -> None:
        self._peer.settimeout(PATIENCE)
        try:
            self._peer.sendall(data)
        except OSError as error:
            raise NoAnswerError(f"it takes no more input ({error})") from None

    def _answer(self, patience: float) -> bytes:
        """Return one reply with all its lines."""
        self._peer.settimeout(min(patience, _LARGEST))
        reply = b""
        while True:
            line = self._line(patience)
            reply += line
            if not (line[:3].isdigit() and line[3:4] in (b" ", b"-")):
                raise NoAnswerError(f"it said: {_shown(self._last_words(line))}")
            if line[3:4] == b" ":
                self._dialogue.note(PROXY, CLIENT, REPLY, reply)
                return reply

    def _last_words(self, line: bytes) -> bytes:
        """Return the last line of all that comes: of a traceback it is the one that tells."""
        try:
            while True:
                line = self._line(1.0)
        except NoAnswerError:
            return line

    def _line(self, patience: float) -> bytes:
        while b"\n" not in self._held:
            try:
                data = self._peer.recv(65536)
            except TimeoutError:
                raise NoAnswerError(f"no answer in {patience:g} s") from None
            except OSError as error:
                raise NoAnswerError(f"the connection broke ({error})") from None
            if not data:
                raise NoAnswerError("it closed the connection without an answer")
            self._held += data
        line, end, self._held = self._held.partition(b"\n")
        return line + end


def _xforward(offered: bytes, envelope: Envelope) -> list[bytes]:
    """Return the XFORWARD command in the words that are offered, if any (XFORWARD_README)."""
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
