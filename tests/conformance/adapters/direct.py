"""The delivery modes for programs that relay each command: `Direct`, and `Early` for early DATA.

Rule: the program receives all octets from the client, and sends all octets of each command. The
relay only hides the intended differences that the adapter names, which would otherwise fail every
transcript.

`Early` is for a program that relays DATA as soon as the client sends it. The transcripts, however,
require that the upstream server receives DATA only when there is a message. After an accepted
recipient, `Early` therefore itself replies 354 to the program, and sends DATA to the upstream
server when the content begins. If the upstream server refuses DATA, the program receives that reply
after the end of the content.
"""

from __future__ import annotations

import re
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from .command_line import Address
from .loop import Loop, ResetError, Signal, Stream, accept, connect, join, relay

GO_AHEAD = b"354 go ahead\r\n"
_DATA = re.compile(rb"[ \t]*DATA[ \t]*\r\n", re.IGNORECASE)
_CHUNK_SIZE = re.compile(rb"BDAT[ \t]+(\d{1,12})\b", re.IGNORECASE)
#: Commands that reset the accepted recipients if they succeed.
_NO_RECIPIENT = (b"EHLO", b"HELO", b"MAIL", b"RSET")
#: Matches lines, and an incomplete last line.
_PIECES = re.compile(rb"[^\n]*\n|[^\n]+")
#: The time limit in seconds for the program's upstream connection. After it, the next client is
#: accepted.
_CONNECTING = 10.0
_BACKLOG = 128


@dataclass(frozen=True)
class Wiring:
    """The sockets and addresses around the program."""

    #: The listening socket for clients.
    clients: socket.socket
    #: The address on which the program accepts clients.
    entrance: Address
    #: The socket to which the program connects as its upstream server.
    upstream_side: socket.socket
    #: The upstream server of the transcript.
    upstream: Address

    def is_upstream_reachable(self) -> bool:
        """Whether the upstream server listens, or its address is not an IPv4 address."""
        try:
            return self.upstream.is_listening()
        except OSError:  # inet_aton(3) accepts only IPv4 addresses
            return True

    def listen_for_program(self) -> None:
        """Let the program connect. Until then, its connections are refused."""
        self.upstream_side.listen(_BACKLOG)


class Rewriter:
    """Observes the octets from the upstream server, and changes the octets to the client.

    Each session has its own rewriter.
    """

    def from_upstream(self, octets: bytes) -> None:
        """Observe *octets*, which the upstream server sends to the program."""

    def to_client(self, octets: bytes) -> bytes:
        """Return the replacement for *octets*, which the program sends to the client."""
        return octets


@dataclass(frozen=True)
class Direct:
    """Relay octets unchanged between the client, the program and the upstream server."""

    #: Restores texts that the program replaces with its own texts, such as the greeting.
    rewriter: Callable[[], Rewriter] = Rewriter
    #: True if the program waits for the client after 221 instead of closing the connection. The
    #: relay then closes it like a client.
    closes_after_quit: bool = False

    #: True if DATA is sent to the upstream server only together with the content.
    holds_data = False

    def start(self, loop: Loop, wiring: Wiring) -> None:
        """Serve clients."""
        _Sessions(self, loop, wiring).start()


@dataclass(frozen=True)
class Early(Direct):
    """Relay like `Direct`, but hold DATA back until the content begins."""

    holds_data = True


class _Session:
    """One client and its rewriter."""

    def __init__(self, passage: Direct, client: Stream) -> None:
        self.client = client
        #: None until the program has accepted the connection.
        self.program: Stream | None = None
        self.rewriter = passage.rewriter()
        self.is_over = False

    async def to_client(self, program: Stream, paired: Signal) -> None:
        """Relay octets from the program."""
        self.program = program
        try:
            await relay(program, self.client, self.rewriter.to_client)
        finally:
            self.is_over = True
            paired.set()


class _Sessions:
    """All sessions, including the session whose upstream connection is awaited.

    Only the order of connections shows to which client an upstream connection belongs. The next
    client is therefore accepted only after the program has connected.
    """

    def __init__(self, passage: Direct, loop: Loop, wiring: Wiring) -> None:
        self._passage = passage
        self._loop = loop
        self._wiring = wiring
        self._unpaired: deque[_Session] = deque()
        self._paired = Signal(loop)
        self._is_listening = False

    def start(self) -> None:
        """Accept clients and the program's upstream connections."""
        self._listen_like_upstream()
        self._loop.start(self._accept_clients())

    def _listen_like_upstream(self) -> None:
        """Let the program connect if the upstream server listens.

        Otherwise the program would see a connection that ends without a greeting, where the
        transcript has a refused connection.
        """
        if not self._is_listening and self._wiring.is_upstream_reachable():
            self._is_listening = True
            self._wiring.listen_for_program()
            self._loop.start(self._accept_program())

    async def _accept_clients(self) -> None:
        while True:
            client = await accept(self._loop, self._wiring.clients)
            self._listen_like_upstream()
            # A fast program connects before this coroutine knows that the program has accepted.
            session = _Session(self._passage, client)
            self._unpaired.append(session)
            program = await connect(self._loop, self._wiring.entrance)
            if program is None:
                session.is_over = True
                client.close()
                continue
            directions = (relay(client, program), session.to_client(program, self._paired))
            self._loop.start(join(self._loop, client, program, *directions))
            while session in self._unpaired and not session.is_over:
                before = len(self._unpaired)
                await self._loop.wait(signals=(self._paired,), seconds=_CONNECTING)
                if len(self._unpaired) == before:
                    break

    async def _accept_program(self) -> None:
        while True:
            program = await accept(self._loop, self._wiring.upstream_side)
            session = None
            while self._unpaired and session is None:
                first = self._unpaired.popleft()
                # A program may connect after its client has disconnected.
                session = None if first.is_over and self._unpaired else first
            self._paired.set()
            self._loop.start(self._connect_upstream(program, session))

    async def _connect_upstream(self, program: Stream, session: _Session | None) -> None:
        outside = await connect(self._loop, self._wiring.upstream)
        if outside is None:
            program.reset()
            return
        link = _Link(self._passage, self._loop, program, outside, session)
        await join(self._loop, program, outside, link.commands(), link.replies())


class _Link:
    """One connection from the program to the upstream server."""

    def __init__(
        self,
        passage: Direct,
        loop: Loop,
        program: Stream,
        outside: Stream,
        session: _Session | None,
    ) -> None:
        self._passage = passage
        self._loop = loop
        self._program = program
        self._outside = outside
        self._session = session
        #: The commands that await replies, oldest first. The greeting is the reply to the first
        #: one.
        self._awaited: deque[bytes] = deque([b""])
        self._has_recipient = False
        #: True after 334 in reply to AUTH. The next line is an answer, not a command.
        self._is_challenged = False
        #: The received lines of the reply to DATA, or None if that reply is not awaited.
        self._reply: bytes | None = None
        self._answer = b""
        #: Whether the program must still receive a negative reply to DATA.
        self._is_refused = False
        self._is_over = False
        self._news = Signal(loop)

    # --- from the program

    async def commands(self) -> None:
        """Relay octets from the program to the upstream server."""
        if not self._passage.holds_data and not self._passage.closes_after_quit:
            await relay(self._program, self._outside)
            return
        try:
            await self._command_lines()
            self._outside.finish()
        except ResetError:
            self._program.reset()
            self._outside.reset()

    async def _command_lines(self) -> None:
        start, chunk = b"", 0
        while line := await self._program.line():
            is_data = not start and not self._is_challenged and _DATA.fullmatch(line)
            if is_data and await self._holds():
                if not await self._message(line):
                    return
                continue
            if chunk:  # the content that follows BDAT, which is not a command
                chunk = max(0, chunk - len(line))
            else:
                start += line[:32]
                if line.endswith(b"\n"):
                    chunk, start = self._note_line(start), b""
            await self._outside.send(line)

    def _note_line(self, line: bytes) -> int:
        """Await the reply to a command or an answer within AUTH. Return the size of a chunk."""
        if self._is_challenged:
            self._is_challenged = False
            self._awaited.append(b"AUTH")
            return 0
        self._awaited.append(line.split(None, 1)[0].upper() if line.strip() else b"")
        size = _CHUNK_SIZE.match(line)
        return int(size[1]) if size else 0

    async def _holds(self) -> bool:
        """Wait for the replies to the previous commands. Return whether to hold DATA back."""
        while self._passage.holds_data and self._awaited and not self._is_over:
            await self._loop.wait(signals=(self._news,))
        return self._passage.holds_data and self._has_recipient

    async def _message(self, data: bytes) -> bool:
        """Send the DATA command *data* and a message.

        Return False if the program disconnects before the end.
        """
        self._has_recipient = False
        await self._program.send(GO_AHEAD)
        first = await self._program.octets()
        if not first:
            return False
        self._program.unread(first)
        self._reply = b""
        await self._outside.send(data)
        while self._is_asked and not self._is_over:
            await self._loop.wait(signals=(self._news,))
        accepted = self._answer[:3] == b"354"
        self._awaited.append(b".")
        if not await self._content(accepted):
            return False
        if self._is_refused:
            self._awaited.pop()
            await self._program.send(self._answer)
            self._is_refused = False
            if self._is_over:
                self._program.finish()
        return True

    async def _content(self, accepted: bool) -> bool:
        """Send the content if DATA was *accepted*. Return False if the content is incomplete."""
        begins = True
        while line := await self._program.line():
            if accepted:
                await self._outside.send(line)
            if begins and line == b".\r\n":
                return True
            begins = line.endswith(b"\r\n")
        return False

    # --- from the upstream server

    @property
    def _is_asked(self) -> bool:
        """Whether the upstream server has not yet replied to DATA."""
        return self._reply is not None

    async def replies(self) -> None:
        """Relay octets from the upstream server to the program."""
        line = b""
        try:
            while octets := await self._outside.octets():
                relayed = b""
                for piece in _PIECES.findall(octets):
                    is_held = self._is_asked
                    line = (line + piece)[-512:] if len(line) > 512 else line + piece
                    if piece.endswith(b"\n"):
                        # Update the state before the program can send its next command.
                        self._reply_line(line)
                        line = b""
                    relayed += b"" if is_held else piece
                if self._session is not None:
                    self._session.rewriter.from_upstream(relayed)
                await self._program.send(relayed)
            if not self._is_refused:
                self._program.finish()
        except ResetError:
            self._program.reset()
            self._outside.reset()
        finally:
            self._is_over = True
            self._news.set()

    def _reply_line(self, line: bytes) -> None:
        is_last = line[3:4] != b"-"
        if self._reply is not None:
            self._reply += line
            if is_last:
                self._answer, self._reply = self._reply, None
                self._is_refused = self._answer[:3] != b"354"
        elif is_last and self._awaited:
            self._replied(self._awaited.popleft(), line)
        if is_last:
            self._news.set()

    def _replied(self, command: bytes, line: bytes) -> None:
        self._is_challenged = line[:3] == b"334" and command == b"AUTH"
        if line[:1] == b"2" and command in (*_NO_RECIPIENT, b"RCPT"):
            self._has_recipient = command == b"RCPT"
        if line[:3] == b"221" and command == b"QUIT" and self._passage.closes_after_quit:
            session = self._session
            if session is not None and session.program is not None:
                session.program.finish()
