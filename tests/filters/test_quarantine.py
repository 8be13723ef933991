"""quarantine.py with other filters."""

from __future__ import annotations

import re
import stat
import subprocess
from pathlib import Path

import pytest

from .conftest import FILTERS, MESSAGE, Filter, command, needs
from .daemons import EICAR

REJECT = "echo 550 5.7.1 no >&2; exit 1"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "quarantine"


def kept(directory: Path) -> list[bytes]:
    return [path.read_bytes() for path in directory.glob("new/*")]


def test_virus_is_stored_without_notifying_sender(
    run: Filter, clamd: Path, directory: Path
) -> None:
    virus = MESSAGE + EICAR.encode() + b"\n"
    ended = run(command("quarantine.py", directory, FILTERS / "clamav.sh", clamd), virus)
    assert ended.status == 1
    (message,) = kept(directory)
    name = next(directory.glob("new/*")).name
    assert ended.reply == f"250 2.7.1 Quarantined as {name}"
    assert message.endswith(virus)
    head = message.removesuffix(virus)
    assert head.startswith(b"X-Envelope-From: a@example.net\nX-Envelope-To: b@example.org\n")
    assert b"X-Quarantine-Reason: 550 5.7.1 The message contains a virus: Test.EICAR" in head


def test_stopped_clamd_prevents_storage_and_delivery(
    run: Filter, stopped_clamd: Path, directory: Path
) -> None:
    ended = run(command("quarantine.py", directory, FILTERS / "clamav.sh", stopped_clamd))
    assert (ended.status, kept(directory)) == (2, [])


@pytest.mark.parametrize(
    ("filter_command", "status", "reply"),
    [
        ("exit 0", 0, ""),
        ("echo 451 4.7.1 later >&2; exit 1", 1, "451 4.7.1 later"),
        ("echo 250 gone >&2; exit 1", 1, "250 gone"),
        ("echo broken >&2; exit 2", 2, "quarantine.py: the filter failed with status 2: broken"),
        ("kill -9 $$", 2, "quarantine.py: the filter failed with status -9: not a word"),
    ],
)
def test_message_is_stored_only_after_permanent_rejection(
    run: Filter, directory: Path, filter_command: str, status: int, reply: str
) -> None:
    ended = run(command("quarantine.py", directory, filter_command))
    assert (ended.status, ended.reply) == (status, reply)
    assert kept(directory) == []


def test_output_of_wrapped_filter_is_delivered(run: Filter, directory: Path) -> None:
    written = run(command("quarantine.py", directory, 'echo new >"$OUTFILE"')).written
    assert written == b"new\n"


def test_reject_option_stores_and_rejects_message(run: Filter, directory: Path) -> None:
    ended = run(command("quarantine.py", "--reject", directory, REJECT))
    assert (ended.reply, len(kept(directory))) == ("550 5.7.1 no", 1)


def test_stored_message_contains_all_envelope_recipients(run: Filter, directory: Path) -> None:
    run(command("quarantine.py", directory, REJECT), RECIPIENTS="a@example.org\nb@example.org")
    (message,) = kept(directory)
    assert b"\nX-Envelope-To: a@example.org\nX-Envelope-To: b@example.org\n" in message


def test_stored_message_is_private(run: Filter, directory: Path) -> None:
    run(command("quarantine.py", directory, REJECT))
    (path,) = directory.glob("new/*")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) & 0o077 == 0


def test_message_is_synced_before_reply(run: Filter, directory: Path, tmp_path: Path) -> None:
    needs("strace")
    trace = tmp_path / "trace"
    calls = f"strace -f -qq -o {trace} -e trace=fsync,rename,write"
    run(f"{calls} {command('quarantine.py', directory, REJECT)}")
    seen = re.findall(r"(fsync|rename|250 2\.7\.1)", trace.read_text())
    assert seen == ["fsync", "rename", "fsync", "250 2.7.1"]


def test_failed_storage_results_in_status_2(run: Filter, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = run(command("quarantine.py", tmp_path / "file", REJECT))
    assert ended.status == 2
    assert ended.reply.startswith("quarantine.py: the message cannot be kept: ")


def test_full_disk_results_in_status_2_and_leaves_no_file(run: Filter, directory: Path) -> None:
    # A file size limit of one block simulates a full disk.
    limited = f"ulimit -f 1; exec {command('quarantine.py', directory, REJECT)}"
    ended = run(limited, MESSAGE + b"x" * 100_000)
    assert ended.status == 2
    assert ended.reply.startswith("quarantine.py: the message cannot be kept: ")
    assert [path for path in directory.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["tmp", "new", "cur"])
def test_link_in_quarantine_directory_results_in_status_2(
    run: Filter, directory: Path, tmp_path: Path, name: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    directory.mkdir()
    (directory / name).symlink_to(elsewhere)
    assert run(command("quarantine.py", directory, REJECT)).status == 2
    assert list(elsewhere.iterdir()) == []


def test_world_writable_directory_results_in_status_2(run: Filter, directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o777)
    ended = run(command("quarantine.py", directory, REJECT))
    assert (ended.status, "other users can write" in ended.reply) == (2, True)


def test_quarantine_directory_may_be_symbolic_link(
    run: Filter, directory: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    directory.symlink_to(tmp_path / "elsewhere")
    assert run(command("quarantine.py", directory, REJECT)).status == 1
    assert len(kept(directory)) == 1


@pytest.mark.parametrize("name", ["with a space", "-dash", "qu'ote", "$(id)"])
def test_directory_name_may_contain_any_character(run: Filter, tmp_path: Path, name: str) -> None:
    assert run(f"cd {tmp_path}; {command('quarantine.py', name, REJECT)}").status == 1
    assert len(kept(tmp_path / name)) == 1


@pytest.mark.parametrize("message", [b"", b"\0", b"\nno header\n", b"A: " + b"x" * 999_999, b"a\r"])
def test_any_message_is_stored_unchanged(run: Filter, directory: Path, message: bytes) -> None:
    run(command("quarantine.py", directory, REJECT), message)
    (stored,) = kept(directory)
    assert stored.partition(b"X-Quarantine-Reason: 550 5.7.1 no\n")[2] == message


def test_envelope_cannot_add_header_field(run: Filter, directory: Path) -> None:
    reason = r"printf '550 5.7.1 \033no\rmore\n' >&2; exit 1"
    envelope = {"SENDER": "a\r\n\nx\udcff", "RECIPIENTS": "b\r\nc\x1b"}
    run(command("quarantine.py", directory, reason), MESSAGE, **envelope)
    (stored,) = kept(directory)
    assert stored.splitlines()[0] == b"X-Envelope-From: a???x\xff"
    assert b"\x1b" not in stored
    assert b"\nX-Quarantine-Reason: 550 5.7.1 ?no?more\n" in stored


@pytest.mark.parametrize("missing", ["EMAIL", "OUTFILE", "SENDER"])
def test_missing_variable_results_in_status_2(run: Filter, directory: Path, missing: str) -> None:
    ended = run(f"unset {missing}; {command('quarantine.py', directory, REJECT)}")
    assert (ended.status, [path for path in directory.rglob("*") if path.is_file()]) == (2, [])


def test_documented_command_releases_message(run: Filter, directory: Path) -> None:
    run(command("quarantine.py", directory, REJECT))
    text = (FILTERS / "quarantine.py").read_text()
    (sed,) = re.findall(r"^    (sed .*) FILE \| sendmail", text, re.MULTILINE)
    (path,) = directory.glob("new/*")
    done = subprocess.run(["/bin/sh", "-c", f"{sed} {path}"], stdout=subprocess.PIPE, check=True)
    assert done.stdout == MESSAGE


@pytest.mark.parametrize("arguments", [[], ["x"], ["--reject", "x"]])
def test_invalid_arguments_result_in_status_2(run: Filter, arguments: list[str]) -> None:
    assert run(command("quarantine.py", *arguments)).status == 2
