"""A rewriter for programs that insert their own name into the greeting and the EHLO reply.

Rule: the program's own texts are replaced with the upstream server's texts, which every transcript
expects. All other texts remain unchanged.
"""

from __future__ import annotations

from .direct import Rewriter


class OwnName(Rewriter):
    """Restores the upstream server's greeting and EHLO reply.

    *name* is the text that the program sends instead of the upstream server's text. *removed* is an
    extension that the program removes from the EHLO reply.
    """

    def __init__(self, name: bytes, removed: bytes = b"") -> None:
        self._own_greeting = b"220 " + name
        self._own_hello = (b"250 " + name, b"250-" + name)
        self._removed = removed
        self._greeting: list[bytes] = []
        self._is_greeted = False
        self._reply: list[bytes] = []
        self._is_last = False
        self._unfinished = b""
        self._held = b""
        #: Within an EHLO reply, the upstream server's lines up to the removed one.
        self._before: list[bytes] = []

    def from_upstream(self, octets: bytes) -> None:
        """Store the upstream server's last reply."""
        *lines, self._unfinished = (self._unfinished + octets).split(b"\n")
        for line in lines:
            if self._is_last:
                self._reply = []
            self._reply.append(line + b"\n")
            self._is_last = line[3:4] != b"-"
            if not self._is_greeted:
                self._greeting, self._is_greeted = self._reply, self._is_last

    def to_client(self, octets: bytes) -> bytes:
        """Replace the program's own texts. The possible beginning of one is held back."""
        *lines, self._held = (self._held + octets).split(b"\n")
        sent = b"".join(self._line(line + b"\n") for line in lines)
        names = (self._own_greeting, *self._own_hello)
        if self._before or any(name.startswith(self._held[: len(name)]) for name in names):
            return sent
        sent, self._held = sent + self._held, b""
        return sent

    def _line(self, line: bytes) -> bytes:
        if line.startswith(self._own_greeting):
            return b"".join(self._greeting)
        if line.startswith(self._own_hello) and self._reply:
            first, *rest = self._reply
            extensions = [one[4:].strip().upper() for one in rest]
            if self._removed in extensions and line[3:4] == b"-":
                self._before = [first, *rest[: extensions.index(self._removed)]]
            return line[:4] + first[4:]
        if self._before and all(line[4:] != one[4:] for one in self._before):
            self._before = []
            return b"250-" + self._removed + b"\r\n" + line
        return line
