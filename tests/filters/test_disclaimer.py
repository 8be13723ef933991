"""disclaimer.sh with the real altermime."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Filter, command, needs, only

MESSAGE = b"From: a@example.org\nSubject: x\n\nhello\n"
TEXT = b"-- \nExample Ltd\n"
OURS = {"SENDER": "a@example.org", "REMOTEIP": "10.0.0.1"}
SIGNED = b"""From: a@example.org
Content-Type: multipart/signed; boundary=b

--b

hello
--b
Content-Type: application/pgp-signature

x
--b--
"""


@pytest.fixture
def disclaimer(tmp_path: Path) -> str:
    """The filter's command line."""
    needs("altermime")
    text = tmp_path / "disclaimer.txt"
    text.write_bytes(TEXT)
    return command("disclaimer.sh", "example.org", text)


def test_our_mail_gets_it(run: Filter, disclaimer: str) -> None:
    ended = run(disclaimer, MESSAGE, **OURS)
    assert (ended.status, ended.written) == (0, MESSAGE + TEXT)


@pytest.mark.parametrize(
    "envelope",
    [
        {"SENDER": "a@example.net", "REMOTEIP": "10.0.0.1"},
        {"SENDER": "a@not-example.org", "REMOTEIP": "10.0.0.1"},
        {"SENDER": "<>", "REMOTEIP": "10.0.0.1"},
        {"SENDER": "a@example.org", "REMOTEIP": "192.0.2.1"},
        {"SENDER": "a@example.org", "REMOTEIP": ""},
    ],
)
def test_other_mail_does_not(run: Filter, disclaimer: str, envelope: dict[str, str]) -> None:
    ended = run(disclaimer, MESSAGE, **envelope)
    assert (ended.status, ended.written) == (0, b"")


def test_all_addresses_are_ours_if_the_administrator_says_so(run: Filter, disclaimer: str) -> None:
    envelope = {"SENDER": "a@Example.ORG", "REMOTEIP": "192.0.2.1"}
    assert run(f"{disclaimer} '*'", MESSAGE, **envelope).written == MESSAGE + TEXT


def test_text_and_html_both_get_it(run: Filter, disclaimer: str) -> None:
    html = b"<html><body><p>hello</p></body></html>\n"
    parts = b"--b\nContent-Type: text/plain\n\nhello\n--b\nContent-Type: text/html\n\n" + html
    head = b"From: a@example.org\nContent-Type: multipart/alternative; boundary=b\n\n"
    written = run(disclaimer, head + parts + b"--b--\n", **OURS).written
    assert written.count(b"Example Ltd") == 2


def test_a_signed_message_stays_as_it_is(run: Filter, disclaimer: str) -> None:
    ended = run(disclaimer, SIGNED, **OURS)
    assert (ended.status, ended.written) == (0, SIGNED)


def test_it_fails_without_the_text(run: Filter, tmp_path: Path) -> None:
    missing = tmp_path / "missing.txt"
    ended = run(command("disclaimer.sh", "example.org", missing), MESSAGE, **OURS)
    assert (ended.status, str(missing) in ended.reply) == (2, True)


def test_it_fails_where_altermime_is_not_installed(
    run: Filter, disclaimer: str, tmp_path: Path
) -> None:
    ended = run(disclaimer, MESSAGE, PATH=only(tmp_path, "tr"), **OURS)
    assert (ended.status, ended.reply) == (2, "altermime ended with status 127")


@pytest.mark.parametrize("programs", [(), ("tr", "altermime")])
def test_it_fails_where_what_it_calls_is_not_installed(
    run: Filter, disclaimer: str, tmp_path: Path, programs: tuple[str, ...]
) -> None:
    assert run(disclaimer, MESSAGE, PATH=only(tmp_path, *programs), **OURS).status == 2


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a disk of 64 KB."""
    directory = tmp_path / "small"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(directory)]
    if subprocess.run(mount, stderr=subprocess.DEVNULL, check=False).returncode:
        pytest.skip("mounting needs root")
    yield directory
    subprocess.run(["/bin/umount", str(directory)], check=True)


def test_a_message_cut_short_by_a_full_disk_is_a_failure(
    run: Filter, disclaimer: str, full_disk: Path
) -> None:
    outfile = full_disk / "outfile"
    ended = run(disclaimer, MESSAGE + b"x\n" * 100_000, OUTFILE=str(outfile), **OURS)
    assert (ended.status, ended.reply) == (2, "altermime has not written the whole message")
