"""docs/rspamd.md and docs/filters.md: rspamd with the package's configuration and the pages' files.

rspamd and redis run in a private network namespace with its own 127.0.0.1.
"""

from __future__ import annotations

import base64
import gzip
import io
import os
import socket
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import daemons, printed
from .conftest import MESSAGE, Filter, command, needs, public_directory

LOCAL = "/etc/rspamd/local.d"
NOT_ACCEPTED = "554 5.7.1 The message has an attachment that we do not accept"
#: rspamd recognises a Windows program by its content, and a script only by its name.
PROGRAM, SCRIPT = b"MZ" * 100, b"alert(1)\n"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace requires root")


def running(sections: list[str]) -> Iterator[Path]:
    """Run an rspamd with the files from these sections. Yield its socket."""
    needs("rspamd", "redis-server", "ip")
    with public_directory() as directory:
        local = {name: text for title in sections for name, text in printed.files(title, LOCAL)}
        with daemons.packaged_rspamd(directory, local) as path:
            yield path


@pytest.fixture(scope="module")
def attachments() -> Iterator[Path]:
    yield from running(["Attachments"])


@pytest.fixture(scope="module")
def greylisting() -> Iterator[Path]:
    yield from running(["Greylisting"])


def mixed(header: bytes, content: bytes, encode: bool = True) -> bytes:
    """Return a message with a text part and another part."""
    body = base64.encodebytes(content) if encode else content
    return (
        b"From: a@example.net\nTo: b@example.org\nSubject: x\nMIME-Version: 1.0\n"
        b'Content-Type: multipart/mixed; boundary="b"\n'
        b"\n--b\nContent-Type: text/plain\n\nhello\n--b\n" + header + b"\n" + body + b"\n--b--\n"
    )


def named(name: bytes, content: bytes = PROGRAM) -> bytes:
    """Return a message with an attachment of this name."""
    header = b'Content-Type: application/octet-stream; name="%b"\n' % name
    return mixed(header + b"Content-Transfer-Encoding: base64\n", content)


def disposed(parameters: bytes, content: bytes = PROGRAM) -> bytes:
    """Return a message with an attachment and these Content-Disposition parameters."""
    header = b"Content-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n"
    return mixed(header + b"Content-Disposition: attachment; %b\n" % parameters, content)


def zipped(name: str, content: bytes = PROGRAM) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(name, content)
    return archive.getvalue()


def tarred() -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as file:
        member = tarfile.TarInfo("evil.exe")
        member.size = len(PROGRAM)
        file.addfile(member, io.BytesIO(PROGRAM))
    return archive.getvalue()


def gzipped(name: str) -> bytes:
    archive = io.BytesIO()
    with gzip.GzipFile(name, "wb", fileobj=archive) as file:
        file.write(PROGRAM)
    return archive.getvalue()


def encoded(encoding: bytes) -> bytes:
    """Return a message with a zip file and this Content-Transfer-Encoding."""
    header = b'Content-Type: application/zip; name="a.zip"\nContent-Transfer-Encoding: %b\n'
    return mixed(header % encoding, zipped("evil.exe"))


ZIP = zipped("evil.exe")
REJECTED = {
    "program": named(b"evil.exe"),
    "capitals": named(b"EVIL.EXE"),
    "double": named(b"invoice.pdf.exe"),
    "double-reversed": named(b"invoice.exe.pdf"),
    "final-dot": named(b"evil.exe."),
    "final-space": named(b"evil.exe "),
    "encoded-word": named(b"=?utf-8?b?ZXZpbC5leGU=?="),
    "right-to-left": named(b"=?utf-8?q?evil=E2=80=AEfdp.exe?="),
    "rfc2231": disposed(b"filename*=utf-8''evil%2Eexe"),
    "rfc2231-pieces": disposed(b'filename*1="xe"; filename*0="evil.e"'),
    "script": named(b"a.js", SCRIPT),
    "program-as-text": named(b"a.txt"),
    "program-with-two-names": disposed(b'filename="ok.txt"; filename="evil.exe"'),
    "macros": named(b"a.docm"),
    "image": named(b"a.iso"),
    "zip": encoded(b"base64"),
    "zip-name": named(b"picture.jpg", ZIP),
    "zip-space": encoded(b"base64 "),
    "zip-in-zip": named(b"a.zip", zipped("b.zip", ZIP)),
    "gzip-name": named(b"evil.exe.gz"),
    "gzip-inner-name": named(b"invoice.gz", gzipped("evil.exe")),
    "tar": named(b"a.tar.gz", tarred()),
    "tnef": named(b"winmail.dat", b"\x78\x9f\x3e\x22"),
    "www.example.com": named(b"www.example.com", b"text"),
    "in-a-message": b"From: a@example.net\nSubject: x\nMIME-Version: 1.0\n"
    b"Content-Type: message/rfc822\n\n" + named(b"evil.exe"),
}
DEEP = b"".join(
    b"Content-Type: multipart/mixed; boundary=q%d\n\n--q%d\n" % (number, number)
    for number in range(120)
)
#: Attachments that rspamd does not detect, as the page states. If this changes, update the page.
MISSED = {
    "two-names": disposed(b"filename=\"ok.txt\"; filename*=utf-8''evil.js", SCRIPT),
    "name-twice": disposed(b'filename="ok.txt"; filename="evil.js"', SCRIPT),
    "open-quote": named(b"x", SCRIPT).replace(b'"x"', b'"evil.js'),
    "single-quotes": named(b"x", SCRIPT).replace(b'"x"', b"'evil.js'"),
    "backslash": named(b"evil.j\\s", SCRIPT),
    "stream": named(b"evil.js::$DATA", SCRIPT),
    "no-name": named(b"x").replace(b'; name="x"', b""),
    "encoding-comment": encoded(b"base64 (as usual)"),
    "encoding-quotes": encoded(b'"base64"'),
    "encoding-twice": encoded(b"7bit\nContent-Transfer-Encoding: base64"),
    "encoding-unknown": encoded(b"x-base64"),
    "zip-without-end": named(b"a.zip", ZIP[: ZIP.rfind(b"PK\5\6")]),
    "zip-and-more": named(b"a.zip", ZIP + b"x" * 70_000),
    "zip-as-document": named(b"a.docx", ZIP),
    "gzip-in-zip": named(b"a.zip", zipped("invoice.gz", gzipped("evil.exe"))),
    "uuencode": MESSAGE + b"\nbegin 644 evil.exe\n#35I \n`\nend\n",
    "yenc": MESSAGE + b"\n=ybegin line=128 size=4 name=evil.exe\nabcd\n=yend size=4\n",
    "link": mixed(
        b'Content-Type: message/external-body; access-type=URL; URL="http://example.net/evil.exe"\n',
        b"Content-Type: application/octet-stream\n\n",
        encode=False,
    ),
    "deep": b"From: a@example.net\nSubject: x\nMIME-Version: 1.0\n"
    + DEEP
    + b'Content-Type: application/octet-stream; name="evil.exe"\n\nMZ\n',
}
ACCEPTED = {
    "text": MESSAGE,
    "pdf": named(b"a.pdf", b"%PDF-1.4\n"),
    "zip": named(b"a.zip", zipped("a.txt")),
    "dots": named(b"minutes 2026.12.01 v1.2.odt", b"x"),
}


@pytest.mark.parametrize("kind", REJECTED)
def test_forbidden_attachment_is_rejected(run: Filter, attachments: Path, kind: str) -> None:
    ended = run(command("rspamd.py", attachments), REJECTED[kind])
    assert (ended.status, ended.reply) == (1, NOT_ACCEPTED)


@pytest.mark.parametrize("kind", MISSED)
def test_attachment_documented_as_undetected_is_accepted(
    run: Filter, attachments: Path, kind: str
) -> None:
    assert run(command("rspamd.py", attachments), MISSED[kind]).status == 0


@pytest.mark.parametrize("kind", ACCEPTED)
def test_permitted_attachment_is_accepted(run: Filter, attachments: Path, kind: str) -> None:
    assert run(command("rspamd.py", attachments), ACCEPTED[kind]).status == 0


#: With this configuration, a message without Date, To and Message-Id scores more than 4 points.
DOUBTFUL = b"Subject: x\n\nhello\n"
GOOD = MESSAGE.replace(
    b"Subject", b"Date: Tue, 01 Dec 2026 12:00:00 +0000\nMessage-Id: <1@example.net>\nSubject"
)


def redis(place: Path, *lines: str) -> list[str]:
    """Send commands to rspamd's redis server. Return the lines of the reply."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place.with_name("redis.sock")))
        client.sendall("".join(f"{line}\r\n" for line in (*lines, "QUIT")).encode())
        return client.makefile("rb").read().decode().split("\r\n")


def test_suspicious_message_is_greylisted_then_accepted(run: Filter, greylisting: Path) -> None:
    ask = command("rspamd.py", greylisting)
    for _ in range(2):
        ended = run(ask, DOUBTFUL)
        assert (ended.status, ended.reply) == (1, "451 4.7.1 Try again later")
    keys = [line for line in redis(greylisting, "KEYS rg*") if line.startswith("rg")]
    assert keys
    for key in keys:
        # Simulate that five minutes have passed.
        _, first, *_ = redis(greylisting, f"GET {key}")
        redis(greylisting, f"SET {key} {int(first) - 301} EX 86400")
    assert run(ask, DOUBTFUL).status == 0


def test_stopped_redis_disables_greylisting(run: Filter) -> None:
    for place in running(["Greylisting"]):
        redis(place, "SHUTDOWN NOSAVE")
        assert run(command("rspamd.py", place), DOUBTFUL).status == 0


def test_legitimate_mail_is_accepted_immediately(run: Filter, greylisting: Path) -> None:
    assert run(command("rspamd.py", greylisting), GOOD, SENDER="new@example.net").status == 0
