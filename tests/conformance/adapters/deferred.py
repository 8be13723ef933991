"""The delivery mode for programs that send their own replies and connect upstream later.

Rule: the program handles each message from DATA to the final reply, and sends its own DATA and the
content to the upstream server. This module relays everything else, which is the greeting, EHLO,
MAIL, RCPT, RSET, NOOP and QUIT, between the client and the upstream server. It also sends these
commands to the program. It relays the program's reply only if it is negative. Test the program with
the groups `data`, `filter` and `files`.

When the program connects to its upstream server, this module replies to EHLO, MAIL and RCPT itself,
and finds the session by its envelope. It relays DATA and the content to the upstream server,
without the header fields that the program has prepended.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field

from .direct import GO_AHEAD, Wiring
from .loop import Loop, ResetError, Stream, accept, connect

#: Extensions that are removed from the EHLO reply to the client, because they bypass a filter.
_BYPASSES = (b"STARTTLS", b"CHUNKING", b"BINARYMIME", b"BURL", b"XCLIENT")
#: Extensions that are removed from the EHLO reply to the program.
_NOT_FOR_PROGRAM = (*_BYPASSES, b"PIPELINING", b"XFORWARD", b"SIZE", b"SMTPUTF8")
#: Commands that this module rejects.
_REFUSED = (b"STARTTLS", b"BDAT", b"BURL", b"XCLIENT", b"XEXCH50")
_PATH = re.compile(rb"(?:FROM|TO):[ \t]*<?([^> \t\r\n]*)", re.IGNORECASE)
_END = b"\r\n.\r\n"
#: The commands with which a program that has sent DATA gives up a message, unless its content
#: begins in the same way.
_GIVING_UP = (b"RSET\r\n", b"QUIT\r\n")
_LONGEST = max(map(len, _GIVING_UP))
_LOST = b"421 4.4.2 upstream connection lost\r\n"
#: A reply line. The first group is its code, and the second group is `-` if more lines follow.
_REPLY_LINE = re.compile(rb"([2-5]\d\d)(?:([- ])[^\r\n]*)?\r\n")


@dataclass(frozen=True)
class Deferred:
    """Relay all commands, and let the program handle each message."""

    #: The names of header fields that the program prepends to a message, such as `received`.
    added: tuple[str, ...] = ("received",)
    #: The header fields that the program adds at the end of the header, such as `x-peer`.
    appended: tuple[str, ...] = ()
    #: True if the program sends DATA upstream before it has received the content. The relay
    #: then holds this DATA back until the content begins.
    holds_data: bool = False

    def start(self, loop: Loop, wiring: Wiring) -> None:
        """Serve clients."""
        wiring.listen_for_program()
        sessions: list[_Session] = []
        loop.start(_accept_clients(loop, wiring, sessions))
        loop.start(_accept_program(self, loop, wiring, sessions))


async def _accept_clients(loop: Loop, wiring: Wiring, sessions: list[_Session]) -> None:
    while True:
        client = await accept(loop, wiring.clients)
        loop.start(_Session(loop, client, wiring).serve(sessions))


async def _accept_program(
    passage: Deferred, loop: Loop, wiring: Wiring, sessions: list[_Session]
) -> None:
    while True:
        program = await accept(loop, wiring.upstream_side)
        loop.start(_Delivery(passage, loop, program, sessions).serve())


def _path(line: bytes) -> bytes:
    """Return the address in a MAIL or RCPT command."""
    found = _PATH.search(line)
    return found[1] if found else b""


def _verb(line: bytes) -> bytes:
    return line.split(None, 1)[0].upper() if line.strip() else b""


def _is_final(reply: bytes) -> bool:
    """Whether *reply* is a valid final reply, whose lines have a single code."""
    lines = [_REPLY_LINE.fullmatch(one) for one in reply.splitlines(keepends=True)]
    codes = {one[1] if one else b"" for one in lines}
    return len(codes) == 1 and codes.pop()[:1] in (b"2", b"4", b"5")


def _without(reply: bytes, extensions: tuple[bytes, ...]) -> bytes:
    """Return the EHLO *reply* without the lines for *extensions*."""
    first, *rest = reply.splitlines(keepends=True)
    lines = [first, *(one for one in rest if _verb(one[4:]) not in extensions)]
    lines[-1] = lines[-1][:3] + b" " + lines[-1][4:]
    return b"".join(lines)


@dataclass
class _Envelope:
    """One transaction of a session."""

    sender: bytes
    recipients: list[bytes] = field(default_factory=list)
    #: Whether one of the program's connections delivers this message.
    is_claimed: bool = False
    #: The upstream server's final reply, or b"" if it is not known yet.
    final: bytes = b""
    #: The first octets of the content.
    start: bytes = b""
    #: Whether the client has disconnected before the end of data.
    is_cut: bool = False

    def is_content(self, line: bytes) -> bool:
        """Whether the program's first line after DATA, if it looks like a command, is content."""
        return not self.is_cut and self.start.startswith(line)


class _Session:
    """One client, its connection to the program and its connection to the upstream server."""

    def __init__(self, loop: Loop, client: Stream, wiring: Wiring) -> None:
        self._loop = loop
        self._client = client
        self._wiring = wiring
        self._program: Stream | None = None
        self.upstream: Stream | None = None
        self.greeting = b""
        self._hello = b"EHLO client.example\r\n"
        self.hello_reply = b"250 upstream.example\r\n"
        self.envelope: _Envelope | None = None

    # --- the upstream server

    async def ask(self, line: bytes) -> bytes:
        """Send a command to the upstream server. Return its reply, or b"" after a disconnect."""
        if self.upstream is None and not await self._connect_again():
            return b""
        assert self.upstream is not None
        try:
            await self.upstream.send(line)
            reply = await self.upstream.reply()
        except ResetError:
            reply = b""
        if not reply:
            self.drop_upstream()
        return reply

    async def _connect(self) -> bytes:
        """Connect to the upstream server. Return its greeting, or b""."""
        self.upstream = await connect(self._loop, self._wiring.upstream)
        if self.upstream is None:
            return b""
        try:
            self.greeting = await self.upstream.reply()
        except ResetError:
            self.greeting = b""
        if not self.greeting:
            self.drop_upstream()
        return self.greeting

    async def _connect_again(self) -> bool:
        return bool(await self._connect()) and bool(await self.ask(self._hello))

    def drop_upstream(self) -> None:
        """Disconnect from the upstream server, which then discards an incomplete message."""
        if self.upstream is not None:
            self.upstream.close()
        self.upstream = None

    # --- the client

    async def serve(self, sessions: list[_Session]) -> None:
        """Serve the client until it disconnects."""
        sessions.append(self)
        try:
            if await self._begin():
                while await self._command():
                    pass
            if self.upstream is not None:
                await self.ask(b"QUIT\r\n")
        except ResetError:
            pass
        finally:
            sessions.remove(self)
            self.drop_upstream()
            self._client.close()
            if self._program is not None:
                self._program.close()

    async def _begin(self) -> bool:
        greeting = await self._connect()
        self._program = await connect(self._loop, self._wiring.entrance)
        if not greeting or self._program is None:
            await self._client.send(b"421 4.4.1 the upstream server cannot be reached\r\n")
            return False
        own = await self._program.reply()
        await self._client.send(greeting if own[:1] == b"2" else own)
        return True

    async def _command(self) -> bool:
        """Handle one command. Return False at the end of the session."""
        if not await self._next_is_client():
            return False
        line = await self._client.line()
        if not line.endswith(b"\n"):
            return False
        verb = _verb(line)
        if verb == b"DATA" and self.envelope is not None and self.envelope.recipients:
            return await self._data(line)
        if verb == b"QUIT":
            await self._quit(line)
            return False
        reply = b"502 5.5.1 not supported\r\n" if verb in _REFUSED else await self.ask(line)
        if reply[:1] == b"2":
            reply = await self._also_to_program(verb, line, reply)
        await self._client.send(reply or _LOST)
        return bool(reply)

    async def _quit(self, line: bytes) -> None:
        """Relay QUIT. Without an upstream server, the client gets the program's reply."""
        reply = await self._tell(line)
        if reply and reply[:3] != b"421" and self.upstream is not None:
            reply = await self.ask(line) or _LOST
        self.drop_upstream()
        await self._client.send(reply)

    async def _next_is_client(self) -> bool:
        """Wait for client input. Return False if another peer ends the session first."""
        assert self._program is not None
        while not self._client.has_buffered:
            others = [self._program.readable]
            if self.upstream is not None:
                others.append(self.upstream.readable)
            await self._loop.wait(self._client.readable, *others)
            if self._client.is_ready():
                return True
            if self._program.is_ready():
                await self._client.send(await self._program.reply())
                self._client.close()
                return False
            # One of the program's deliveries may have closed the connection in the meantime.
            if self.upstream is not None and self.upstream.is_ready():
                self.drop_upstream()
                await self._client.send(_LOST)
                return False
        return True

    async def _also_to_program(self, verb: bytes, line: bytes, reply: bytes) -> bytes:
        """Send the accepted command *line* to the program. Return the reply for the client."""
        if verb in (b"EHLO", b"HELO"):
            self._hello, self.hello_reply, self.envelope = line, reply, None
            await self._tell(verb + b" client.example\r\n")
            return _without(reply, _BYPASSES)
        if verb == b"MAIL":
            self.envelope = _Envelope(_path(line))
            own = await self._tell(self._bare(verb, line))
            if own[:1] != b"2":
                self.envelope = None
                return own
        elif verb == b"RCPT" and self.envelope is not None:
            # The program may relay the command before it replies.
            self.envelope.recipients.append(_path(line))
            own = await self._tell(self._bare(verb, line))
            if own[:1] != b"2":
                self.envelope.recipients.pop()
                return own
        elif verb == b"RSET":
            self.envelope = None
            await self._tell(line)
        return reply

    @staticmethod
    def _bare(verb: bytes, line: bytes) -> bytes:
        """Return MAIL or RCPT without its parameters, which the program may not support."""
        return verb + (b" FROM:<" if verb == b"MAIL" else b" TO:<") + _path(line) + b">\r\n"

    async def _tell(self, line: bytes) -> bytes:
        """Send a command to the program. Return its reply."""
        assert self._program is not None
        await self._program.send(line)
        return await self._program.reply()

    # --- a message

    async def _data(self, line: bytes) -> bool:
        """Let the program handle a message. Return False at the end of the session."""
        reply = await self._tell(line)
        await self._client.send(reply)
        if reply[:3] != b"354":
            return bool(reply)
        envelope = self.envelope
        assert self._program is not None
        assert envelope is not None
        whole = await self._content(envelope)
        reply = await self._program.reply()
        if _is_final(envelope.final) and reply[:1] == envelope.final[:1]:
            reply = envelope.final  # the upstream server's reply with its original text
        self.envelope = None
        if reply:
            await self._client.send(reply)
        if envelope.final and not _is_final(envelope.final):
            self.drop_upstream()  # it may not reply to the next command
        return bool(reply) and whole

    async def _content(self, envelope: _Envelope) -> bool:
        """Send the content to the program. Return False if the session ends before the end of the
        content.

        If the program replies before the end of data, it has abandoned the session, and the rest of
        the content must not be read as commands.
        """
        assert self._program is not None
        seen = b"\r\n"
        while True:
            if not self._client.has_buffered:
                await self._loop.wait(self._client.readable, self._program.readable)
                if not self._client.is_ready():
                    if self._program.is_ready():
                        return False  # an early reply
                    continue
            octets = await self._client.octets()
            if not octets:
                envelope.is_cut = True
                self._program.finish()
                return False
            if len(envelope.start) < _LONGEST:
                envelope.start += octets[:_LONGEST]
            whole = seen + octets
            at = whole.find(_END)
            if at >= 0:
                cut = at + len(_END) - len(seen)
                self._client.unread(octets[cut:])
                await self._program.send(octets[:cut])
                return True
            seen = whole[-4:]
            await self._program.send(octets)


class _Delivery:
    """A connection from the program to this module, which acts as the program's upstream server."""

    def __init__(
        self, passage: Deferred, loop: Loop, program: Stream, sessions: list[_Session]
    ) -> None:
        self._passage = passage
        self._loop = loop
        self._program = program
        self._sessions = sessions
        self._session: _Session | None = None
        self._added = _names(passage.added)
        self._appended = _names(passage.appended)

    async def serve(self) -> None:
        """Act as the program's upstream server."""
        try:
            await self._program.send(b"220 upstream.example\r\n")
            while line := await self._program.line():
                if not await self._command(_verb(line), line):
                    return
        finally:
            self._program.close()

    async def _command(self, verb: bytes, line: bytes) -> bool:
        """Handle one command. Return False at the end of the connection."""
        if verb == b"DATA" and self._session is not None:
            return await self._data(self._session)
        await self._program.send(self._reply(verb, line))
        return verb != b"QUIT"

    def _reply(self, verb: bytes, line: bytes) -> bytes:
        if verb in (b"EHLO", b"HELO"):
            return _without(self._hello_reply(), _NOT_FOR_PROGRAM)
        if verb == b"MAIL":
            self._session = self._claimed(_path(line))
            return b"250 2.1.0 ok\r\n" if self._session else b"451 4.3.0 unknown envelope\r\n"
        if verb == b"RCPT":
            envelope = self._session.envelope if self._session else None
            known = envelope is not None and _path(line) in envelope.recipients
            return b"250 2.1.5 ok\r\n" if known else b"550 5.1.1 unknown recipient\r\n"
        if verb in (b"RSET", b"NOOP"):
            return b"250 2.0.0 ok\r\n"
        return b"221 2.0.0 bye\r\n" if verb == b"QUIT" else b"502 5.5.1 not supported\r\n"

    def _hello_reply(self) -> bytes:
        return self._sessions[-1].hello_reply if self._sessions else b"250 upstream.example\r\n"

    def _claimed(self, sender: bytes) -> _Session | None:
        """Return the oldest session with this sender whose message is not being delivered yet."""
        for session in self._sessions:
            envelope = session.envelope
            if envelope is not None and not envelope.is_claimed and envelope.sender == sender:
                envelope.is_claimed = True
                return session
        return None

    async def _data(self, session: _Session) -> bool:
        """Send DATA and the content. Return False if either peer disconnects."""
        if self._passage.holds_data:
            envelope = session.envelope
            await self._program.send(GO_AHEAD)
            first = await self._program.line()
            if not first:
                session.drop_upstream()
                return False
            self._program.unread(first)
            if first.upper() in _GIVING_UP and not (envelope and envelope.is_content(first)):
                return True
        reply = await session.ask(b"DATA\r\n")
        if not reply:
            return False
        if reply[:3] != b"354" and self._passage.holds_data:
            await self._read_content()
        if reply[:3] != b"354" or not self._passage.holds_data:
            self._note(session, reply)
            await self._program.send(reply)
        return reply[:3] != b"354" or await self._content(session)

    def _note(self, session: _Session, reply: bytes) -> None:
        if session.envelope is not None and reply[:3] != b"354":
            session.envelope.final = reply

    async def _read_content(self) -> None:
        """Read and discard the content of a message that the upstream server has refused."""
        begins = True
        while line := await self._program.line():
            if begins and line == b".\r\n":
                return
            begins = line.endswith(b"\n")

    async def _content(self, session: _Session) -> bool:
        """Send the content, and relay replies. Return False if a peer disconnects."""
        upstream = session.upstream
        assert upstream is not None
        head = _Head(self._added, self._appended)
        end, has_ended = b"\r\n", False
        while True:
            if not self._program.has_buffered and not upstream.has_buffered:
                await self._loop.wait(self._program.readable, upstream.readable)
            if upstream.is_ready():
                reply = await upstream.reply()
                if not reply:
                    session.drop_upstream()
                    return False
                self._note(session, reply)
                await self._program.send(reply)
                if has_ended and _is_final(reply):
                    return True
                continue  # an early or invalid reply, or a part of one
            if self._program.is_ready():
                if has_ended:  # the program does not wait for a valid reply
                    return await self._goes_on(session)
                octets = await self._program.octets()
                if not octets:
                    session.drop_upstream()
                    return False
                end = (end + octets)[-len(_END) :]
                has_ended = end == _END
                await upstream.send(head.without_added(octets))

    async def _goes_on(self, session: _Session) -> bool:
        """Await the program's next command. Return False if the program disconnects."""
        octets = b""
        with contextlib.suppress(ResetError):
            octets = await self._program.octets()
        self._program.unread(octets)
        if not octets:
            session.drop_upstream()
        return bool(octets)


def _names(fields: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(name.lower().encode() + b":" for name in fields)


class _Head:
    """Removes each header field that the program adds to a message, but only once.

    Fields *added* are in front of the message. Fields *appended* are anywhere in its header.
    """

    def __init__(self, added: tuple[bytes, ...], appended: tuple[bytes, ...] = ()) -> None:
        self._left = [*added, *appended]
        self._appended = appended
        self._is_over = not self._left
        self._is_in_added = False
        self._held = b""

    def without_added(self, octets: bytes) -> bytes:
        """Return the octets to relay. The possible beginning of an added field is held back."""
        self._held += octets
        sent = b""
        while not self._is_over and b"\n" in self._held:
            line, _, rest = self._held.partition(b"\n")
            if not self._is_added(line):
                self._is_over = not self._awaits_appended(line)
                if self._is_over:
                    break
                sent += line + b"\n"
            self._held = rest
        if not self._is_over and (self._may_be_added() or self._appended):
            return sent
        self._is_over = True
        sent, self._held = sent + self._held, b""
        return sent

    def _awaits_appended(self, line: bytes) -> bool:
        """Whether the header continues after *line* and an appended field is still expected."""
        is_header = line.rstrip(b"\r") not in (b"", b".")
        return is_header and any(name in self._left for name in self._appended)

    def _is_added(self, line: bytes) -> bool:
        """Whether *line* belongs to an added field. Each field is recognised only once."""
        if self._is_in_added and line[:1] in (b" ", b"\t"):
            return True
        name = next((one for one in self._left if line.lower().startswith(one)), None)
        if name is not None:
            self._left.remove(name)
        self._is_in_added = name is not None
        return self._is_in_added

    def _may_be_added(self) -> bool:
        """Whether the incomplete line may belong to an added field."""
        if self._is_in_added and self._held[:1] in (b" ", b"\t", b""):
            return True
        return any(one.startswith(self._held[: len(one)].lower()) for one in self._left)
