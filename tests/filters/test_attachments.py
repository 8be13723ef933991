"""attachments.py: names, archives, uuencode."""

from __future__ import annotations

import binascii
import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from email.message import EmailMessage

import pytest

from .conftest import Filter, command

CLICKED = "js jse vbs wsf hta ps1 lnk iso img vhdx one msix xll docm scr cpl jar url"
SENT = "pdf docx xlsx png txt html ics p7s asc csv eml"
PART = b"""Subject: x
Content-Type: multipart/mixed; boundary=b

--b
%b

MZ
--b--
"""


def attached(name: str, content: bytes) -> bytes:
    message = EmailMessage()
    message["Subject"] = "x"
    message.set_content("hello")
    message.add_attachment(content, maintype="application", subtype="x", filename=name)
    return message.as_bytes()


def zipped(**files: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("_", "."), content)
    return held.getvalue()


def tarred(name: str, content: bytes = b"x") -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return held.getvalue()


def encrypted(content: bytes) -> bytes:
    """Mark the files of a zip archive as encrypted."""
    for mark, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        pieces = content.split(mark)
        content = mark.join((pieces[0], *(p[: at - 4] + b"\1" + p[at - 3 :] for p in pieces[1:])))
    return content


def uuencoded(name: str, content: bytes) -> bytes:
    lines = [binascii.b2a_uu(content[at : at + 45]) for at in range(0, len(content), 45)]
    return b"begin 644 %b\n%b`\nend\n" % (name.encode(), b"".join(lines))


def status(run: Filter, message: bytes) -> int:
    return run(command("attachments.py"), message).status


# Names.


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (b"Content-Disposition: attachment; filename=notes.txt", 0),
        (b'Content-Disposition: attachment; filename="GAME.EXE"', 1),
        (b'Content-Disposition: attachment; filename="game.exe. "', 1),
        (b'Content-Disposition: attachment; filename="game.exe::$DATA"', 1),
        (b"Content-Disposition: attachment; filename*=utf-8''g%61me%2Eexe", 1),
        (b'Content-Disposition: attachment; filename*0="game.e"; filename*1="xe"', 1),
        (b'Content-Disposition: attachment; filename="=?utf-8?B?Z2FtZS5leGU=?="', 1),
        (b'Content-Disposition: attachment; filename="=?nosuch?B?Z2FtZS50eHQ=?="', 0),
        (b'Content-Disposition: attachment; filename="=?utf-8?B?/w==?="', 0),
        (b"Content-Disposition: attachment; filename=\xff.txt", 0),
        (b"Content-Disposition: attachment; filename=\xff.exe", 1),
        (b"Content-Type: application/x; name=game.exe", 1),
        (b"Content-Type: a/b; name=a.exe\nContent-Disposition: inline; filename=a.txt", 1),
        (b"Content-Type: a/b; name=a.txt\nContent-Disposition: inline; filename=a.exe", 1),
        (b"Content-Type: a/b; name=a.txt\nContent-Type: a/b; name=a.exe", 1),
        (b'Content-Disposition: inline; filename="C:\\a\\game.exe"', 1),
    ],
)
def test_names(run: Filter, field: bytes, expected: int) -> None:
    assert status(run, PART % field) == expected


@pytest.mark.parametrize("suffix", CLICKED.split())
def test_what_runs_by_a_click_today(run: Filter, suffix: str) -> None:
    assert status(run, attached(f"invoice.pdf.{suffix}", b"x")) == 1


@pytest.mark.parametrize("suffix", SENT.split())
def test_what_people_send(run: Filter, suffix: str) -> None:
    assert status(run, attached(f"invoice.{suffix}", b"x")) == 0


def test_the_name_is_said_harmlessly(run: Filter) -> None:
    name = b"filename*=utf-8''a%0a250%20ok%0d%c3%a9.exe"
    ended = run(command("attachments.py"), PART % (b"Content-Disposition: attachment; " + name))
    assert ended.said == "550 5.7.1 We take no programs as attachments: a?250 ok??.exe\n"


def test_an_attached_message_is_looked_into(run: Filter) -> None:
    inner = attached("game.exe", b"x")
    assert status(run, PART % (b"Content-Type: message/rfc822\n\n" + inner)) == 1


def test_what_is_allowed_passes(run: Filter) -> None:
    allow = command("attachments.py", "--allow", ".docm", "--allow", ".EXE")
    assert run(allow, attached("game.exe", b"x")).status == 0
    assert run(allow, attached("game.js", b"x")).status == 1


@pytest.mark.parametrize("arguments", [["--allow"], [".exe"], ["--allow", ".a", ".b"]])
def test_wrong_arguments_are_a_failure(run: Filter, arguments: list[str]) -> None:
    assert run(command("attachments.py", *arguments)).status == 2


# Archives.


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (zipped(notes_txt=b"x"), 0),
        (zipped(notes_txt=b"x", game_exe=b"x"), 1),
        (zipped(inner_zip=zipped(game_exe=b"x")), 1),
        (zipped(inner_dat=zipped(game_exe=b"x")), 1),
        (encrypted(zipped(game_exe=b"x")), 1),
        (encrypted(zipped(notes_txt=b"x")), 0),
        (encrypted(zipped(inner_zip=b"x")), 1),
        (tarred("notes.txt"), 0),
        (tarred("game.exe"), 1),
        (gzip.compress(tarred("game.exe")), 1),
        (gzip.compress(tarred("notes.txt")), 0),
        (bz2.compress(tarred("game.exe")), 1),
        (lzma.compress(tarred("game.exe")), 1),
        (gzip.compress(zipped(game_exe=b"x")), 1),
        (tarred("inner.tar.gz", gzip.compress(tarred("game.exe"))), 1),
        (b"PK\3\4 is no archive", 0),
        (gzip.compress(b"x" * 5_000_000), 0),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else str(value),
)
def test_archives(run: Filter, content: bytes, expected: int) -> None:
    assert status(run, attached("x.dat", content)) == expected


def test_the_name_of_a_compressed_file(run: Filter) -> None:
    assert status(run, attached("game.exe.gz", gzip.compress(b"x"))) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"Rar!\x1a\x07\1\0",
        b"7z\xbc\xaf\x27\x1c",
        b"MSCF\0\0\0\0",
        b"\0" * 32769 + b"CD001",
        zipped(inner_7z=b"7z\xbc\xaf\x27\x1c"),
    ],
    ids=["rar", "7z", "cab", "iso", "7z in zip"],
)
def test_an_archive_that_cannot_be_opened_is_refused(run: Filter, content: bytes) -> None:
    assert status(run, attached("x.dat", content)) == 1


def test_an_archive_that_cannot_be_opened_may_be_allowed(run: Filter) -> None:
    message = attached("x.7z", b"7z\xbc\xaf\x27\x1c")
    assert run(command("attachments.py", "--allow", ".7z"), message).status == 0


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(tarred("notes.txt"))[:-20],
        b"BZh9 is broken",
        b"\xfd7zXZ\0 is broken",
        zipped(notes_txt=b"x").replace(b"PK\1\2", b"PK\1\3"),
        b"\x1f\x8b",
    ],
    ids=["gzip", "bzip2", "xz", "zip", "short"],
)
def test_a_broken_archive_is_refused(run: Filter, content: bytes) -> None:
    assert status(run, attached("x.dat", content)) == 1


def test_archives_in_archives_without_end_are_refused(run: Filter) -> None:
    content = zipped(notes_txt=b"x")
    for _ in range(6):
        content = zipped(inner_zip=content)
    ended = run(command("attachments.py"), attached("x.zip", content))
    assert (ended.status, "without end" in ended.reply) == (1, True)


def test_an_archive_that_unpacks_without_end_is_refused(run: Filter) -> None:
    # 60 MB of zeros in 60 KB.
    bomb = gzip.compress(tarred("zeros.txt", b"\0" * 60_000_000))
    ended = run(command("attachments.py"), attached("x.tgz", bomb))
    assert (ended.status, "so large" in ended.reply) == (1, True)


# Uuencode, and what hides a part.


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (uuencoded("game.exe", b"x"), 1),
        (uuencoded("notes.txt", b"x" * 100), 0),
        (uuencoded("notes.zip", zipped(game_exe=b"x" * 300)), 1),
        (b"begin 644 without a dot\n", 0),
        (b"We begin 644 game.exe\n", 0),
        (b"begin-base64 644 game.exe\n====\n", 1),
    ],
)
def test_uuencode(run: Filter, body: bytes, expected: int) -> None:
    assert status(run, b"Subject: x\n\nhello\n" + body) == expected


def test_uuencode_before_the_first_part(run: Filter) -> None:
    field = b"Content-Type: text/plain"
    message = (PART % field).replace(b"\n\n--b", b"\n\n" + uuencoded("a.exe", b"x") + b"--b", 1)
    assert status(run, message) == 1


@pytest.mark.parametrize(
    "field",
    [
        b"Content-Type: message/partial; id=x; number=1; total=2",
        b"Content-Type: message/external-body; access-type=URL",
        b"Content-Type: message/rfc822\nContent-Transfer-Encoding: base64",
    ],
)
def test_what_cannot_be_looked_into_is_refused(run: Filter, field: bytes) -> None:
    assert status(run, PART % field) == 1


def test_parts_in_parts_without_end_are_refused(run: Filter) -> None:
    head = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(3000)
    )
    assert status(run, head) == 1


@pytest.mark.parametrize("message", [b"", b"\n", b"no header\n", b"Subject: x\n"])
def test_messages_of_next_to_nothing_pass(run: Filter, message: bytes) -> None:
    assert status(run, message) == 0


def test_it_fails_without_a_message(run: Filter) -> None:
    ended = run.again(command("attachments.py"))
    assert (ended.status, "FileNotFoundError" in ended.reply) == (2, True)
