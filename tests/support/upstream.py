"""An upstream server that a test controls, and common steps of a session.

Rule: the test sends every line of the client and the upstream server. For automatic replies, use
`answering`.
"""

from __future__ import annotations

import socket

from tests.support.peers import Peer, address

MESSAGE = (b"Subject: x", b"", b"body", b".")


class Upstream:
    """The server to which the proxy under test connects."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._peers: list[Peer] = []
        self.address = address(listener)

    def accepts(self) -> Peer:
        """Accept the next connection."""
        accepted, _ = self._listener.accept()
        self._peers.append(Peer(accepted))
        return self._peers[-1]

    def greets(self) -> Peer:
        """Accept the next connection, and send the greeting."""
        peer = self.accepts()
        peer.says(b"220 up")
        return peer

    def closes(self) -> None:
        for peer in self._peers:
            peer.leaves()


def greeted(client: Peer, upstream: Upstream) -> Peer:
    """Begin a session. Return the upstream server's end of the connection."""
    peer = upstream.greets()
    client.sees(b"220 up")
    return peer


def relays(client: Peer, peer: Peer, command: bytes, reply: bytes = b"250 ok") -> None:
    client.says(command)
    peer.sees(command)
    peer.says(reply)
    client.sees(reply)


def sends_envelope(client: Peer, peer: Peer, sender: bytes = b"a@example") -> None:
    relays(client, peer, b"MAIL FROM:<%b>" % sender)
    relays(client, peer, b"RCPT TO:<b@example>")


def begins_message(client: Peer, peer: Peer) -> None:
    """Send an envelope and DATA, up to the 354 reply."""
    sends_envelope(client, peer)
    client.asks(b"DATA", b"354 ")


def in_transaction(client: Peer, upstream: Upstream, sender: bytes = b"a@example") -> Peer:
    """Begin a session, up to an accepted recipient. Return upstream's end of the connection."""
    peer = greeted(client, upstream)
    relays(client, peer, b"EHLO client")
    sends_envelope(client, peer, sender)
    return peer


def in_data(client: Peer, upstream: Upstream, sender: bytes = b"a@example") -> Peer:
    """Begin a session, up to the 354 reply. Return upstream's end of the connection."""
    peer = in_transaction(client, upstream, sender)
    client.asks(b"DATA", b"354 ")
    return peer


def passes_next_message(client: Peer, upstream: Upstream) -> None:
    """Send a message after the end of the upstream connection, and then QUIT."""
    client.says(b"MAIL FROM:<a@example>")
    peer = upstream.greets()
    peer.sees(b"EHLO client")
    peer.says(b"250 ok")
    peer.sees(b"MAIL FROM:<a@example>")
    peer.says(b"250 ok")
    client.sees(b"250 ok")
    relays(client, peer, b"RCPT TO:<b@example>")
    client.asks(b"DATA", b"354 ")
    client.says(*MESSAGE)
    takes_message(client, peer, *MESSAGE)
    quits(client, peer)


def takes_message(client: Peer, peer: Peer, *texts: bytes) -> None:
    """Accept a message from the proxy as the upstream server."""
    peer.sees(b"DATA")
    peer.says(b"354 go on")
    peer.sees(*texts)
    peer.says(b"250 queued")
    client.sees(b"250 queued")


def quits(client: Peer, peer: Peer) -> None:
    relays(client, peer, b"QUIT", b"221 bye")
    client.sees_end()
