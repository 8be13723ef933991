"""rspamd.py with a real rspamd, up and down."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import MESSAGE, Filter, command


def test_other_mail_passes_as_it_is(run: Filter, rspamd: Path) -> None:
    ended = run(command("rspamd.py", rspamd))
    assert (ended.status, ended.written) == (0, b"")


def test_greylist_passes(run: Filter, rspamd: Path) -> None:
    ended = run(command("rspamd.py", rspamd), MESSAGE + b"perhaps pills\n")
    assert (ended.status, ended.written) == (0, b"")


def test_add_header_marks(run: Filter, rspamd: Path) -> None:
    message = MESSAGE + b"cheap pills\n"
    ended = run(command("rspamd.py", rspamd), message)
    assert (ended.status, ended.written) == (0, b"X-Spam: Yes\n" + message)


def test_rewrite_subject(run: Filter, rspamd: Path) -> None:
    ended = run(command("rspamd.py", rspamd), MESSAGE + b"lottery\n")
    assert ended.status == 0
    assert ended.written.startswith(b"Subject: [spam] x\nFrom: ")
    assert ended.written.count(b"Subject:") == 1


def test_a_subject_that_is_not_ascii_is_encoded(run: Filter, rspamd: Path) -> None:
    message = MESSAGE.replace(b"x\n", "Grüße\n".encode()) + b"lottery\n"
    written = run(command("rspamd.py", rspamd), message).written
    assert written.lower().startswith(b"subject: =?utf-8?q?=5bspam=5d_gr")
    assert written.isascii()


def test_reject(run: Filter, rspamd: Path) -> None:
    ended = run(command("rspamd.py", rspamd), MESSAGE + b"cheapest pills of all\n")
    assert (ended.status, ended.reply) == (1, "554 5.7.1 The message looks like spam")


def test_rspamds_own_words_are_one_line(run: Filter, rspamd: Path) -> None:
    ended = run(command("rspamd.py", rspamd), MESSAGE + b"own words\n")
    assert (ended.status, ended.said) == (1, "554 5.7.1 We know you 250 too well\n")


def test_soft_reject_is_for_now(run: Filter, rspamd: Path) -> None:
    ended = run(command("rspamd.py", rspamd), MESSAGE + b"later\n")
    assert (ended.status, ended.reply) == (1, "451 4.7.1 Come back later")


def test_rspamd_learns_the_envelope(run: Filter, rspamd: Path) -> None:
    envelope = {"SENDER": "spammer@example.net", "REMOTEIP": "192.0.2.66", "HELO": "evil.example"}
    assert run(command("rspamd.py", rspamd), MESSAGE, **envelope).status == 1


def test_an_envelope_that_is_not_known_is_left_out(run: Filter, rspamd: Path) -> None:
    unknown = dict.fromkeys(("SENDER", "RECIPIENT", "REMOTEIP", "HELO"), "")
    assert run(command("rspamd.py", rspamd), MESSAGE, **unknown).status == 0


def test_header_fields_are_added_and_removed(run: Filter, rspamd: Path) -> None:
    head = b"X-Spam-Level: *\n\t*\nX-Kept: 1\nx-spam-level: ***\nX-Kept: 2\nX-Last: 1\nX-Last: 2\n"
    ended = run(command("rspamd.py", rspamd), head + MESSAGE + b"headers\n")
    assert ended.status == 0
    kept, rest = ended.written.split(b"X-Kept: 1\n")
    assert b"X-Added: one\n\ttwo\n" in kept
    assert b"X-Twice: a\n" in kept
    assert b"X-Twice: b\n" in kept
    assert rest == b"X-Last: 1\n" + MESSAGE + b"headers\n"


def test_a_message_without_a_body_keeps_its_header(run: Filter, rspamd: Path) -> None:
    written = run(command("rspamd.py", rspamd), b"Subject: x\n\ncheap pills").written
    assert written == b"X-Spam: Yes\nSubject: x\n\ncheap pills"


def test_it_fails_while_rspamd_is_down(run: Filter, stopped_rspamd: Path) -> None:
    ended = run(command("rspamd.py", stopped_rspamd), MESSAGE + b"cheapest pills of all\n")
    assert ended.status == 2
    assert ended.reply.startswith(f"rspamd.py: rspamd at {stopped_rspamd} does not answer: ")


class Answers(http.server.BaseHTTPRequestHandler):
    """Says what no rspamd should."""

    status = 200
    text = b""

    def do_POST(self) -> None:
        """Answer."""
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.text)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def impostor() -> Iterator[str]:
    """The address of a server that says what the test wants."""
    with http.server.HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (200, b""),
        (200, b"<html>"),
        (200, b"[]"),
        (200, b'{"error": "out of memory"}'),
        (200, b'{"action": "something new"}'),
        (500, b'{"action": "no action"}'),
    ],
)
def test_an_answer_that_is_not_understood_is_a_failure(
    run: Filter, impostor: str, monkeypatch: pytest.MonkeyPatch, status: int, text: bytes
) -> None:
    monkeypatch.setattr(Answers, "status", status)
    monkeypatch.setattr(Answers, "text", text)
    assert run(command("rspamd.py", impostor)).status == 2


def test_discard(run: Filter, impostor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answers, "status", 200)
    monkeypatch.setattr(Answers, "text", b'{"action": "discard"}')
    assert run(command("rspamd.py", impostor)).reply == "250 2.7.1 Discarded"
