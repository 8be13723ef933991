"""dkim-sign.sh with the real dkimsign; the signature is verified as a receiver would."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Filter, command, needs, only
from .signature import verified

MESSAGE = b"From: a@example.org\nTo: b@example.net\nSubject: x\n\nhello\n\n.dot\n\n\n"
OURS = {"SENDER": "a@example.org", "REMOTEIP": "10.0.0.1"}


@pytest.fixture
def sign(keys: Path) -> str:
    """The filter's command line."""
    return command("dkim-sign.sh", "example.org", "mail2026", keys / "mail2026.key")


def test_our_mail_is_signed(run: Filter, sign: str, keys: Path) -> None:
    ended = run(sign, MESSAGE, **OURS)
    assert ended.status == 0
    assert ended.written.endswith(MESSAGE)
    assert verified(keys / "mail2026.dns", ended.written) == "True mail2026._domainkey.example.org."


def test_a_signed_message_that_is_changed_is_found_out(run: Filter, sign: str, keys: Path) -> None:
    written = run(sign, MESSAGE, **OURS).written.replace(b"hello", b"hallo")
    assert verified(keys / "mail2026.dns", written).startswith("False")


@pytest.mark.parametrize(
    "envelope",
    [
        {"SENDER": "a@example.net", "REMOTEIP": "10.0.0.1"},
        {"SENDER": "a@example.org", "REMOTEIP": "192.0.2.1"},
        {"SENDER": "a@example.org", "REMOTEIP": ""},
        {"SENDER": "a@sub.example.org", "REMOTEIP": "10.0.0.1"},
        {"SENDER": "<>", "REMOTEIP": "127.0.0.1"},
    ],
)
def test_mail_of_others_is_not_signed(run: Filter, sign: str, envelope: dict[str, str]) -> None:
    ended = run(sign, MESSAGE, **envelope)
    assert (ended.status, ended.written) == (0, b"")


def test_all_addresses_are_ours_if_the_administrator_says_so(run: Filter, sign: str) -> None:
    ended = run(f"{sign} '*'", MESSAGE, SENDER="a@Example.ORG", REMOTEIP="192.0.2.1")
    assert ended.written.startswith(b"DKIM-Signature:")


@pytest.mark.parametrize("content", [b"", b"not a key\n"])
def test_it_fails_with_a_key_that_is_none(run: Filter, tmp_path: Path, content: bytes) -> None:
    needs("dkimsign")
    key = tmp_path / "key"
    key.write_bytes(content)
    assert run(command("dkim-sign.sh", "example.org", "s", key), MESSAGE, **OURS).status == 2


def test_it_fails_with_a_message_that_cannot_be_signed(run: Filter, sign: str) -> None:
    ended = run(sign, b"no header at all\n", **OURS)
    assert (ended.status, ended.reply) == (2, "dkimsign has not signed the message")


def test_it_fails_without_the_key(run: Filter, tmp_path: Path) -> None:
    ended = run(command("dkim-sign.sh", "example.org", "s", tmp_path / "none"), MESSAGE, **OURS)
    assert (ended.status, str(tmp_path / "none") in ended.reply) == (2, True)


def test_it_fails_where_dkimsign_is_not_installed(run: Filter, sign: str, tmp_path: Path) -> None:
    ended = run(sign, MESSAGE, PATH=only(tmp_path, "tr"), **OURS)
    assert (ended.status, ended.reply) == (2, "dkimsign ended with status 127")
    assert run(sign, MESSAGE, PATH=str(tmp_path), **OURS).status == 2


def test_a_message_cut_short_behind_the_signature_is_a_failure(
    run: Filter, sign: str, tmp_path: Path
) -> None:
    dkimsign = tmp_path / "dkimsign"
    dkimsign.write_text("#!/bin/sh\necho DKIM-Signature: x\n")
    dkimsign.chmod(0o755)
    ended = run(sign, MESSAGE, PATH=f"{tmp_path}:/usr/bin:/bin", **OURS)
    assert (ended.status, ended.reply) == (2, "dkimsign has not written the whole message")


def test_it_fails_when_the_signed_message_cannot_be_written(run: Filter, sign: str) -> None:
    assert run(sign, MESSAGE, OUTFILE="/dev/full", **OURS).status == 2
