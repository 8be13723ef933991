"""spamassassin.sh with a running and a stopped spamd."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import MESSAGE, Filter, command, only

CERTAIN = MESSAGE.replace(b"hello", b"cheapest pills of all")


def header(message: bytes) -> bytes:
    return message.partition(b"\n\n")[0]


def test_spam_is_marked(run: Filter, spamd: Path) -> None:
    ended = run(command("spamassassin.sh", 15, "-U", spamd), MESSAGE + b"cheap pills\n")
    assert ended.status == 0
    assert b"X-Spam-Flag: YES\n" in ended.written
    assert ended.written.endswith(b"\n\nhello\ncheap pills\n")


def test_legitimate_mail_is_marked_as_not_spam(run: Filter, spamd: Path) -> None:
    ended = run(command("spamassassin.sh", 15, "-U", spamd))
    assert ended.status == 0
    assert b"X-Spam-Status: No, score=" in ended.written


def test_message_with_high_score_is_rejected(run: Filter, spamd: Path) -> None:
    ended = run(command("spamassassin.sh", 15, "-U", spamd), CERTAIN)
    assert (ended.status, ended.reply) == (1, "550 5.7.1 The message looks like spam")


def test_argument_sets_score_threshold(run: Filter, spamd: Path) -> None:
    assert run(command("spamassassin.sh", 6, "-U", spamd), MESSAGE + b"cheap pills\n").status == 1


def test_forged_score_in_message_is_ignored(run: Filter, spamd: Path) -> None:
    forged = b"X-Spam-Status: Yes, score=99.0 required=5.0\n"
    assert run(command("spamassassin.sh", 15, "-U", spamd), forged + MESSAGE + forged).status == 0


def test_envelope_sender_affects_score(run: Filter, spamd: Path) -> None:
    filter_command = command("spamassassin.sh", 15, "-U", spamd)
    assert b"TEST_SENDER" in run(filter_command, SENDER="spammer@example.net").written
    assert b"TEST_SENDER" not in run(filter_command, SENDER="<>").written


def test_envelope_sender_field_added_by_filter_is_removed(run: Filter, spamd: Path) -> None:
    own = b"X-Envelope-From: own@example.net\n"
    written = run(command("spamassassin.sh", 15, "-U", spamd), own + MESSAGE).written
    assert written.count(b"X-Envelope-From:") == 1
    assert own in header(written)


def test_8_bit_and_nul_octets_are_unchanged(run: Filter, spamd: Path) -> None:
    content = MESSAGE + b"\xe9\xff \xc3\xa9\n"
    written = run(command("spamassassin.sh", 15, "-U", spamd), content).written
    assert written.endswith(b"hello\n\xe9\xff \xc3\xa9\n")


def test_large_message_is_accepted_without_scan(run: Filter, tmp_path: Path) -> None:
    nobody = tmp_path / "nobody.sock"
    ended = run(command("spamassassin.sh", 15, "-U", nobody), MESSAGE + b"x" * 600_000 + b"\n")
    assert (ended.status, ended.written) == (0, b"")


def test_stopped_spamd_results_in_status_2(run: Filter, stopped_spamd: Path) -> None:
    ended = run(command("spamassassin.sh", 15, "-U", stopped_spamd), CERTAIN)
    assert ended.status == 2
    assert ended.reply == "spamc received no reply; check that spamd is running"


def test_missing_spamd_socket_results_in_status_2(run: Filter, stopped_spamd: Path) -> None:
    ended = run(command("spamassassin.sh", 15, "-U", stopped_spamd.with_name("none")), CERTAIN)
    assert ended.status == 2
    assert ended.reply == "spamc received no reply; check that spamd is running"


def test_missing_spamc_results_in_status_2(run: Filter, tmp_path: Path) -> None:
    ended = run(command("spamassassin.sh"), PATH=only(tmp_path, "wc", "cat", "sed", "head"))
    assert (ended.status, ended.reply) == (2, "spamc exited with status 127")


def test_unwritable_outfile_results_in_status_2(run: Filter, spamd: Path) -> None:
    ended = run(command("spamassassin.sh", 15, "-U", spamd), OUTFILE="/dev/full")
    assert ended.status == 2
    assert "cannot write OUTFILE" in ended.said


@pytest.mark.parametrize("points", ["many", "-1", "1.5", "99999", "9" * 30])
def test_invalid_score_threshold_is_reported(run: Filter, points: str) -> None:
    ended = run(command("spamassassin.sh", points))
    assert (ended.status, f"'{points}'" in ended.reply) == (2, True)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\0" * 1000,
        b"\nbody\n",
        b" continued\nA: b\n\nbody\n",
        b"Sub\0ject: \0\n\nx\0\n",
        b"a\r\n",
    ],
)
def test_malformed_message_is_marked(run: Filter, spamd: Path, message: bytes) -> None:
    ended = run(command("spamassassin.sh", 15, "-U", spamd), message)
    assert (ended.status, ended.written.endswith(message)) == (0, True)
    assert b"X-Spam-Status: No, score=" in header(ended.written)


@pytest.mark.parametrize(
    "sender", ["x\n\nX: ", "x\r\nX-Spam-Status: No, score=-99", "\udcff%s\\c", ""]
)
def test_sender_address_cannot_change_message(run: Filter, spamd: Path, sender: str) -> None:
    filter_command = command("spamassassin.sh", 15, "-U", spamd)
    ended = run(filter_command, SENDER=sender)
    assert (ended.status, ended.written.endswith(b"\n" + MESSAGE)) == (0, True)
    assert b"Envelope" not in ended.written
    assert run(filter_command, CERTAIN, SENDER=sender).status == 1


@pytest.mark.parametrize("email", ["", "-x", "/", "/nonexistent"])
def test_invalid_email_path_results_in_status_2(run: Filter, spamd: Path, email: str) -> None:
    assert run(command("spamassassin.sh", 15, "-U", spamd), EMAIL=email).status == 2


def test_missing_message_results_in_status_2(run: Filter, spamd: Path) -> None:
    assert run.again(command("spamassassin.sh", 15, "-U", spamd)).status == 2


def test_spamd_reply_without_score_results_in_status_2(run: Filter, tmp_path: Path) -> None:
    # This is the output if spamd's configuration clears all header fields.
    spamc = tmp_path / "spamc"
    spamc.write_text("#!/bin/sh\nexec cat\n")
    spamc.chmod(0o755)
    ended = run(command("spamassassin.sh"), PATH=f"{tmp_path}:/usr/bin:/bin")
    assert (ended.status, "no X-Spam-Status field" in ended.reply) == (2, True)


@pytest.mark.parametrize(
    ("score", "status"),
    [
        ("15.0", 1),
        ("14.9", 0),
        ("0.0", 0),
        ("999999999.0", 1),
        ("1000000000.0", 1),
        (f"{'9' * 20}.0", 1),
        ("9" * 5000, 1),
        (f"-{'9' * 20}.0", 0),
        ("-0.1", 0),
        ("0000000000014.0", 0),
        ("--5", 2),
        ("nan", 2),
    ],
    ids=lambda value: str(value)[:22],
)
def test_score_with_any_number_of_digits_determines_exit_status(
    run: Filter, tmp_path: Path, score: str, status: int
) -> None:
    spamc = tmp_path / "spamc"
    spamc.write_text(f"#!/bin/sh\necho 'X-Spam-Status: Yes, score={score} required=5.0'\ncat\n")
    spamc.chmod(0o755)
    ended = run(command("spamassassin.sh", 15), PATH=f"{tmp_path}:/usr/bin:/bin")
    assert ended.status == status
    assert "llegal number" not in ended.said
