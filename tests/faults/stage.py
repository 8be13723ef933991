"""Executes one scenario with a client and an upstream server.

Rule: the client and upstream follow the protocol in lock-step. At the scenario's moment, the
scenario's deed is performed before any other action. The ledger records all observations. This
module only checks that the proxy sends valid SMTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NoReturn

from tests.faults.ledger import Delivery, Message
from tests.faults.proxies import Place, Process
from tests.faults.scenario import LEADING_TO, Scenario
from tests.support.peers import TIMEOUT

#: The pause after a deed in seconds. The proxy normally notices the deed in this time, but any
#: order of events is correct.
_SEEN = 0.01

_LINE = re.compile(rb"[2-5][0-9][0-9][ -][ -~]*\r\n")
#: The violation if the client gets the reply for an internal error of the proxy.
INTERNAL = "internal error"

_INTERNAL = b"421 4.3.0 The mail filter has failed"
_BODY = b"Subject: a scenario\r\n\r\n..a dot\r\n\xff 8 bit\r\n" + b"x" * 1200 + b"\r\n\r\n"
_LONG_BODY = _BODY + b"".join(b"%060d\r\n" % number for number in range(8000))
#: Almost one block (`limits.COPY_SIZE`) of the proxy. `_LONG_BODY` has almost two blocks.
_BLOCK_BODY = _BODY + b"".join(b"%060d\r\n" % number for number in range(4000))

#: The number of octets that upstream reads at once, normally and at the moment "sending".
_PIECE, _LITTLE = 65536, 1000

#: The bodies of both messages at the moments that require long bodies.
_BODIES = {
    "taking": (_LONG_BODY, _BODY),
    "content": (_LONG_BODY, _BODY),
    "sending": (_BLOCK_BODY, _LONG_BODY),
}


class GoneError(Exception):
    """The peer has disconnected."""


class Stage:
    """The state shared by the participants of a scenario."""

    def __init__(self, scenario: Scenario, token: str, place: Place) -> None:
        self.scenario = scenario
        self.place = place
        self.over = asyncio.Event()
        self.violations: list[str] = []
        first, second = _BODIES.get(scenario.moment, (_BODY, _BODY))
        self.message = Message(f"{token}a", scenario.kind, first + f"{token}\r\n".encode())
        self.second = Message(f"{token}b", "accepts", second + f"{token} 2\r\n".encode())
        #: The proxy after its start.
        self.process: Process | None = None
        self.connections = 0
        #: True if the client has received the greeting.
        self.greeted = False
        #: True if the client is waiting for the reply to RSET.
        self.resetting = False
        self._pending = bool(scenario.moment)
        self._leading = LEADING_TO.get(scenario.moment, "")
        #: Performs the action of a client or a signal.
        self.deeds: dict[str, Callable[[], Awaitable[None]]] = {}

    @property
    def undone(self) -> bool:
        """True if the scenario's deed is still pending."""
        return self._pending

    def expects(self, moment: str) -> bool:
        """Return whether the scenario's deed must be performed at this moment."""
        return self._pending and self.scenario.moment == moment

    async def reach(self, moment: str) -> None:
        """Perform the client's action or send the signal if this is the scenario's moment."""
        if self.expects(moment) and self.scenario.who in self.deeds:
            self._pending = False
            await self.deeds[self.scenario.who]()
            await asyncio.sleep(_SEEN)

    def upstreams_deed(self, step: str) -> str:
        """Return upstream's fault at this step, but only once. Otherwise, return ""."""
        if step == self._leading:
            self._leading = ""
            return "4yz"
        if not (self.expects(step) and self.scenario.who == "upstream"):
            return ""
        self._pending = False
        return self.scenario.deed

    def message_of(self, line: bytes) -> Message | None:
        """Return the message that a MAIL command announces."""
        return next((m for m in (self.message, self.second) if m.address in line), None)

    async def left(self) -> bool:
        """Wait until all upstream connections are closed. Return False after a timeout."""
        for _ in range(500):
            if not self.connections:
                return True
            await asyncio.sleep(0.01)
        return False

    @contextlib.asynccontextmanager
    async def gate(self) -> AsyncIterator[None]:
        """Block the message's filter until the moment "filtering" is over."""
        if not self.expects("filtering"):
            yield
            return
        path = self.place.ledger / f"{self.message.token}.gate"
        os.mkfifo(path)
        opening = asyncio.create_task(self._open_gate(str(path)))
        try:
            yield
        finally:
            opening.cancel()
            path.unlink()

    async def _open_gate(self, path: str) -> None:
        while True:
            try:
                gate = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
                break
            except OSError:  # no filter is waiting yet
                await asyncio.sleep(0.005)
        try:
            await self.reach("filtering")
        finally:
            os.close(gate)


class Client:
    """The SMTP client, which sends two messages and QUIT. It repeats a refused envelope once."""

    def __init__(
        self, stage: Stage, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._stage = stage
        self._reader = reader
        self._writer = writer
        self._silent = False  # True if the client no longer writes
        self._under_way: Message | None = None
        stage.deeds["client"] = self._act

    async def session(self) -> None:
        """Run the session until it ends or fails."""
        try:
            async with asyncio.timeout(2 * TIMEOUT):
                await self._converse()
        except (GoneError, ConnectionError):
            pass
        except TimeoutError:
            self._stage.violations.append("the session does not end")
        finally:
            self._writer.close()

    async def _converse(self) -> None:
        await self._stage.reach("connected")
        if (await self._reply())[:1] == b"2":
            self._stage.greeted = True
            await self._stage.reach("greeted")
            if (await self._ask(b"EHLO client.example"))[:1] == b"2":
                await self._stage.reach("hello")
                await self._ask(b"XFORWARD ADDR=192.0.2.7 HELO=sender.example")
                await self._send(self._stage.message)
                await self._send(self._stage.second)
                if self._stage.expects("own-RSET"):  # the proxy sends its RSET later
                    await self._ask(b"NOOP")
        await self._ask(b"QUIT")
        await self._drain()

    async def _send(self, message: Message) -> None:
        if await self._announces(message) or await self._announces(message):
            await self._transmit(message)
            await self._stage.reach("answered")

    async def _announces(self, message: Message) -> bool:
        """Send the envelope. Return whether the message may follow."""
        commands = (
            (b"MAIL FROM:<" + message.address + b">", "sender"),
            (b"RCPT TO:<somebody@example.com>", "recipient"),
            (b"DATA", "data"),
        )
        for command, moment in commands:
            if (await self._ask(command))[:1] not in b"23":
                await self._reset()
                return False
            await self._stage.reach(moment)
        return True

    async def _reset(self) -> None:
        self._stage.resetting = True
        await self._ask(b"RSET")
        self._stage.resetting = False

    async def _transmit(self, message: Message) -> None:
        half = len(message.content) // 2
        await self._say(message.content[:half])
        await self._stage.reach("content")
        await self._say(message.content[half:])
        async with self._stage.gate():
            await self._say(b".\r\n")
            message.ended = True
            self._under_way = message
            await self._stage.reach("ended")
            message.told = await self._reply()
            self._under_way = None

    async def _ask(self, command: bytes) -> bytes:
        await self._say(command + b"\r\n")
        return await self._reply()

    async def _say(self, octets: bytes) -> None:
        if self._silent:
            await self._drain()
            raise GoneError
        self._writer.write(octets)
        await self._writer.drain()

    async def _reply(self) -> bytes:
        reply = await read_reply(self._reader)
        for line in reply.splitlines(keepends=True):
            if not _LINE.fullmatch(line):
                self._stage.violations.append(f"the client received {line[:60]!r}")
        if reply.startswith(_INTERNAL):
            self._stage.violations.append(INTERNAL)
        return reply

    async def _drain(self) -> None:
        """Read until the end of the stream. The only permitted reply is 421."""
        rest = await self._reader.read(-1)
        message = self._under_way
        if message is not None and not message.told:
            message.told, rest = rest[: rest.find(b"\n") + 1], rest[rest.find(b"\n") + 1 :]
        if rest and not re.fullmatch(rb"421[ -~]*\r\n", rest):
            self._stage.violations.append(f"the client received unexpected {rest[:60]!r}")

    async def _act(self) -> None:
        deed = self._stage.scenario.deed
        if self._under_way is not None and deed != "stalls":
            self._under_way.left_at = self._stage.scenario.moment
        if deed == "closes":
            self._writer.close()
        elif deed == "resets":
            reset(self._writer)
        elif deed == "half-closes":
            self._silent = True
            self._writer.write_eof()
        else:
            self._silent = True


async def read_reply(reader: asyncio.StreamReader) -> bytes:
    """Read one reply with any number of lines."""
    reply = b""
    while line := await reader.readline():
        reply += line
        if line[3:4] != b"-":
            return reply
    raise GoneError


class Upstream:
    """The upstream mail server for the current stage."""

    def __init__(self) -> None:
        self.stage: Stage | None = None
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        """Start listening and return HOST:PORT."""
        self._server = await self._listening()
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    async def _listening(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stage = self.stage
        if stage is None:
            writer.close()
            return
        stage.connections += 1
        try:
            await _UpstreamSession(stage, reader, writer).serve()
        except (GoneError, ConnectionError):
            pass
        finally:
            writer.close()
            stage.connections -= 1


class NarrowUpstream(Upstream):
    """An upstream server with buffers that are smaller than a block of a message."""

    async def _listening(self) -> asyncio.Server:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the kernel's minimum
        # With small segments, the proxy's send buffer remains small too.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 256)
        listener.bind(("127.0.0.1", 0))
        return await asyncio.start_server(self._serve, sock=listener, limit=_LITTLE)


class _UpstreamSession:
    def __init__(
        self, stage: Stage, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._stage = stage
        self._reader = reader
        self._writer = writer
        self._message: Message | None = None
        self._held = b""  # unread input after the last line or message

    async def serve(self) -> None:
        await self._answer("greeting", b"220 up.example ESMTP\r\n")
        while line := await self._line():
            verb = line.split()[0].upper()
            if verb == b"MAIL":
                self._message = self._stage.message_of(line)
            if verb == b"DATA":
                await self._take()
            elif verb == b"QUIT":
                await self._answer("QUIT", b"221 bye\r\n")
                return
            else:
                await self._answer(self._step(verb), b"250 2.0.0 ok\r\n")

    def _step(self, verb: bytes) -> str:
        """Return the scenario's step for a command."""
        own = verb == b"RSET" and not self._stage.resetting
        return "own-RSET" if own else verb.decode("latin-1")

    async def _line(self) -> bytes:
        while b"\n" not in self._held:
            data = await self._reader.read(_PIECE)
            if not data:
                raise GoneError
            self._held += data
        line, _, self._held = self._held.partition(b"\n")
        return line

    async def _take(self) -> None:
        await self._stage.reach("asked")
        if (await self._answer("DATA", b"354 go on\r\n"))[:3] != b"354" or self._message is None:
            return
        delivery = Delivery()
        self._message.deliveries.append(delivery)
        interruption = b""
        wire = bytearray(b"\r\n")
        end = -1
        while end < 0:
            data = await self._reader.read(_LITTLE if self._stage.expects("sending") else _PIECE)
            if not data:
                raise GoneError
            wire += data
            end = wire.find(b"\r\n.\r\n", max(0, len(wire) - len(data) - 4))
            delivery.content = bytes(wire[2 : end + 2 if end >= 0 else len(wire)])
            await self._stage.reach("taking")
            interruption = interruption or await self._interrupt("content")
            if end < 0 and len(wire) > _LITTLE:  # a short message may already be complete
                interruption = interruption or await self._interrupt("sending")
        delivery.whole = True
        self._held = bytes(wire[end + 5 :])
        await self._end(delivery, interruption)

    async def _end(self, delivery: Delivery, interruption: bytes) -> None:
        """Reply to the end of a message unless the reply was already sent."""
        if interruption:
            # An early reply may have been taken for the final reply.
            delivery.answer = interruption if _LINE.match(interruption) else b""
            return
        await self._stage.reach("taken")
        gone = self._reader.at_eof()
        answer = await self._answer("end", b"250 2.0.0 queued\r\n")
        delivery.answer = b"" if gone or not _LINE.match(answer) else answer

    async def _interrupt(self, step: str) -> bytes:
        """Send an early reply if the scenario requires it. Return the reply, or b""."""
        if not (self._stage.expects(step) and self._stage.scenario.who == "upstream"):
            return b""
        said = await self._answer(step, b"")
        if not said:  # upstream stalls and stops reading
            await self._stage.over.wait()
            raise GoneError
        return said

    async def _answer(self, step: str, usual: bytes) -> bytes:
        """Reply, or perform the scenario's fault at this step. Return the reply."""
        deed = self._stage.upstreams_deed(step)
        if deed.startswith("accepts-and-"):
            await self._accept_and_leave(deed)
        if deed == "resets":
            reset(self._writer)
        if deed in ("closes", "resets"):
            raise GoneError
        said = {
            "stalls": b"",
            "4yz": b"451 4.0.0 not now\r\n",
            "5yz": b"554 5.0.0 never\r\n",
            "421": b"421 4.0.0 closing\r\n",
            "garbage": b"\0\xff no reply\r\n",
            "half": b"25",
            "twice": (usual or b"250 2.0.0 queued\r\n") * 2,
        }.get(deed, usual)
        self._writer.write(said)
        await self._writer.drain()
        return said

    async def _accept_and_leave(self, deed: str) -> NoReturn:
        """Send 2yz and close the connection, so that the proxy receives both events at once."""
        assert self._stage.process is not None
        with self._stage.process.held():
            self._writer.write(b"250 2.0.0 queued\r\n")
            if deed == "accepts-and-resets":
                reset(self._writer)
            else:
                self._writer.close()
            with contextlib.suppress(ConnectionError):
                await self._writer.wait_closed()
        raise GoneError


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a TCP connection with RST."""
    peer = writer.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
