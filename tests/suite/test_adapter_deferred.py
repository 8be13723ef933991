"""The delivery mode for programs that send their own replies and connect upstream later."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pytest

from tests.suite.adapting import FORWARDER, Adapted, adapted, write_adapter

pytestmark = pytest.mark.any_account


@dataclass
class Session:
    """A session through the forwarder. The test acts as both the client and the upstream server."""

    running: Adapted

    def __post_init__(self) -> None:
        self._client = self.running.connect()
        self._upstream = self.running.accept()
        self._down: BinaryIO = self._client.makefile("rb")
        self._up: BinaryIO = self._upstream.makefile("rb")
        self.answer(b"220 up.example\r\n")
        self.ask(b"EHLO client.example\r\n", b"250 up.example\r\n")

    def send(self, octets: bytes) -> None:
        """Send octets as the client."""
        self._client.sendall(octets)

    def answer(self, reply: bytes) -> None:
        """Send a reply that the client must receive unchanged."""
        self._upstream.sendall(reply)
        assert self.told() == reply

    def ask(self, command: bytes, reply: bytes) -> None:
        """Send a command that the upstream server must receive, and then its reply."""
        self.send(command)
        assert self.seen() == command
        self.answer(reply)

    def envelope(self) -> None:
        """Send an envelope."""
        self.ask(b"MAIL FROM:<a@example>\r\n", b"250 sender\r\n")
        self.ask(b"RCPT TO:<b@example>\r\n", b"250 recipient\r\n")

    def message(self, content: bytes = b"Subject: x\r\n\r\n") -> None:
        """Send a message that the upstream server accepts with 354."""
        self.send(b"DATA\r\n")
        assert self.told() == b"354 send\r\n"
        self.send(content + b".\r\n")
        assert self.seen() == b"DATA\r\n"
        self._upstream.sendall(b"354 go\r\n")

    def refuse(self, reply: bytes) -> None:
        """Send a reply from the upstream server."""
        self._upstream.sendall(reply)

    def disconnect(self) -> None:
        """Disconnect as the client."""
        self._client.shutdown(socket.SHUT_WR)

    def leave(self) -> None:
        """Disconnect as the upstream server."""
        self._upstream.shutdown(socket.SHUT_RDWR)

    def seen(self) -> bytes:
        """Return the next line that the upstream server receives."""
        return self._up.readline()

    def told(self) -> bytes:
        """Return the next line that the client receives."""
        return self._down.readline()

    def close(self) -> None:
        """Close both ends."""
        for one in (self._up, self._down, self._client, self._upstream):
            one.close()


#: The part of FORWARDER that receives and sends a message.
FORWARD = FORWARDER[FORWARDER.index("        lines = []\n") : FORWARDER.index("class Server")]
#: Its replacement for a program that sends DATA before it has the content. If the client
#: disconnects or sends the line `bad`, the program sends RSET.
FORWARD_EARLY = """\
        self.upstream = upstream = smtplib.SMTP(*address(sys.argv[2]))  # stays open
        upstream.ehlo("forwarder")
        upstream.mail(sender)
        for recipient in recipients:
            upstream.rcpt(recipient)
        upstream.docmd("DATA")
        content = b""
        while not content.endswith(b"\\r\\n.\\r\\n"):
            line = self.rfile.readline()
            if line in (b"", b"bad\\r\\n"):
                upstream.docmd("RSET")
                return "451 bad line"
            content += line
        upstream.send(content)
        return f"{upstream.getreply()[0]} done"

"""


def session(
    directory: Path, sender: str, forwarder: str = FORWARDER, passage: str = "Deferred()"
) -> Iterator[Session]:
    program = forwarder.replace("{sender}", sender).replace("{{", "{").replace("}}", "}")
    write_adapter(directory, passage, relay=program)
    with adapted(directory) as running:
        talk = Session(running)
        try:
            yield talk
        finally:
            talk.close()


@pytest.fixture
def talk(tmp_path: Path) -> Iterator[Session]:
    """A session through a program that forwards each message."""
    yield from session(tmp_path, "sender")


@pytest.fixture
def changed(tmp_path: Path) -> Iterator[Session]:
    """A session through a program that changes the sender."""
    yield from session(tmp_path, "'other@example'")


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Session]:
    """A session through a program that refuses a message at the line `bad`."""
    right = "            lines.append(line)\n"
    refusal = '            if line == b"bad\\r\\n":\n                return "451 bad line"\n'
    assert right in FORWARDER
    yield from session(tmp_path, "sender", FORWARDER.replace(right, right + refusal))


@pytest.fixture
def early(tmp_path: Path) -> Iterator[Session]:
    """A session through a program that sends DATA before it has the content."""
    program = FORWARDER.replace(FORWARD, FORWARD_EARLY)
    yield from session(tmp_path, "sender", program, "Deferred(added=(), holds_data=True)")


def test_early_data_command_is_sent_with_content(early: Session) -> None:
    early.envelope()
    early.message()
    assert [early.seen() for _ in range(3)] == [b"Subject: x\r\n", b"\r\n", b".\r\n"]
    early.answer(b"250 2.0.0 queued\r\n")


@pytest.mark.parametrize("content", [b"Subject: x\r\n", b"RSET\r\n"])
def test_early_data_command_is_not_sent_if_client_disconnects(
    early: Session, content: bytes
) -> None:
    early.envelope()
    early.send(b"DATA\r\n")
    assert early.told() == b"354 send\r\n"
    early.send(content)
    early.disconnect()
    assert early.seen() == b"QUIT\r\n"
    early.refuse(b"221 bye\r\n")
    assert early.seen() == b""


def test_early_data_command_is_not_sent_if_program_refuses_message(early: Session) -> None:
    early.envelope()
    early.send(b"DATA\r\n")
    assert early.told() == b"354 send\r\n"
    early.send(b"bad\r\n.\r\n")
    assert early.told() == b"451 bad line\r\n"
    early.disconnect()
    assert early.seen() == b"QUIT\r\n"


def test_content_may_begin_like_command(early: Session) -> None:
    early.envelope()
    early.message(b"RSET\r\n")
    assert [early.seen() for _ in range(2)] == [b"RSET\r\n", b".\r\n"]


def test_client_receives_reply_to_quit_after_invalid_final_reply(early: Session) -> None:
    early.envelope()
    early.message()
    assert [early.seen() for _ in range(3)][-1] == b".\r\n"
    early.refuse(b"250-2.0.0 fine\r\n550 5.7.1 no\r\n")
    assert early.told() == b"550 done\r\n"
    early.send(b"QUIT\r\n")
    assert early.told() == b"221 bye\r\n"


def test_message_is_received_without_added_header_field(talk: Session) -> None:
    talk.envelope()
    talk.message()
    assert [talk.seen() for _ in range(3)] == [b"Subject: x\r\n", b"\r\n", b".\r\n"]


def test_content_after_early_reply_is_received(talk: Session) -> None:
    lines = 200_000
    talk.envelope()
    talk.message(b"\r\n" + b"x" * 98 * lines + b"\r\nlast\r\n")
    assert talk.seen() == b"\r\n"
    talk.refuse(b"250 early\r\n")
    assert [len(talk.seen()), talk.seen(), talk.seen()] == [98 * lines + 2, b"last\r\n", b".\r\n"]


def test_client_receives_upstream_final_reply_text(talk: Session) -> None:
    talk.envelope()
    talk.message()
    assert [talk.seen() for _ in range(3)][-1] == b".\r\n"
    talk.answer(b"250 2.0.0 queued\r\n")


def test_invalid_final_reply_does_not_replace_program_reply(waiting: Session) -> None:
    waiting.envelope()
    waiting.message()
    assert [waiting.seen() for _ in range(3)][-1] == b".\r\n"
    waiting.refuse(b"250-2.0.0 fine\r\n550 5.7.1 no\r\n")
    assert waiting.told() == b"250 forwarded\r\n"


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[Session]:
    """A session through a program that ignores invalid final replies until it loses upstream."""
    started = "            with smtplib.SMTP(*address(sys.argv[2])) as upstream:\n"
    assert started in FORWARDER
    sends = """\
            upstream = smtplib.SMTP(*address(sys.argv[2]))
            upstream.ehlo()
            upstream.mail(sender)
            upstream.rcpt(recipients[0])
            upstream.docmd("DATA")
            upstream.send(text + b".\\r\\n")
            while line := upstream.file.readline():
                if line[:3].isdigit():
                    return "250 forwarded"
            return "451 upstream lost"
"""
    start, end = FORWARDER.index(started), FORWARDER.index("        except smtplib.SMTPResp")
    yield from session(tmp_path, "sender", FORWARDER[:start] + sends + FORWARDER[end:])


def test_program_reports_lost_upstream_after_invalid_final_reply(waiting: Session) -> None:
    waiting.envelope()
    waiting.message()
    assert [waiting.seen() for _ in range(3)][-1] == b".\r\n"
    waiting.refuse(b"  File one\nError: two\n")
    waiting.leave()
    assert waiting.told() == b"451 upstream lost\r\n"


@pytest.fixture
def leaving(tmp_path: Path) -> Iterator[Session]:
    """A session through a program that closes the session after its final reply."""
    reply = "self.reply(self.forward(sender, recipients))\n"
    assert reply in FORWARDER
    yield from session(tmp_path, "sender", FORWARDER.replace(reply, f"{reply}{' ' * 16}return\n"))


@pytest.mark.parametrize("pipelined", [b"", b"QUIT\r\n"])
def test_client_is_disconnected_if_program_disconnects(leaving: Session, pipelined: bytes) -> None:
    leaving.envelope()
    leaving.message()
    assert [leaving.seen() for _ in range(3)][-1] == b".\r\n"
    leaving.send(pipelined)
    leaving.answer(b"250 2.0.0 queued\r\n")
    assert leaving.told() == b""


def test_quit_after_upstream_loss_does_not_reconnect(waiting: Session) -> None:
    waiting.envelope()
    waiting.message()
    assert [waiting.seen() for _ in range(3)][-1] == b".\r\n"
    waiting.leave()
    assert waiting.told() == b"451 upstream lost\r\n"
    waiting.send(b"QUIT\r\n")
    waiting.running.upstream.settimeout(0.5)
    with pytest.raises(TimeoutError):
        waiting.running.accept()
    assert waiting.told() == b"221 bye\r\n"


def test_refusal_by_program_reaches_client(talk: Session) -> None:
    talk.ask(b"MAIL FROM:<a@example>\r\n", b"250 sender\r\n")
    talk.send(b"RCPT TO:<refused@example>\r\n")
    talk.seen()
    talk.refuse(b"250 recipient\r\n")
    assert talk.told() == b"550 no\r\n"


def test_early_reply_of_program_ends_session(strict: Session) -> None:
    strict.envelope()
    strict.send(b"DATA\r\n")
    assert strict.told() == b"354 send\r\n"
    strict.send(b"bad\r\n")
    assert strict.told() == b"451 bad line\r\n"
    strict.send(b"MAIL FROM:<content@example>\r\n")
    assert strict.seen() in (b"", b"QUIT\r\n")


def test_program_reply_reaches_client_if_program_changes_sender(changed: Session) -> None:
    changed.envelope()
    changed.send(b"DATA\r\n")
    assert changed.told() == b"354 send\r\n"
    changed.send(b"Subject: x\r\n\r\n.\r\n")
    assert changed.told() == b"451 upstream refused\r\n"
