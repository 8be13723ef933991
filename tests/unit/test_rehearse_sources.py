"""postprox-rehearse: reading messages from mboxes, directories and standard input."""

from __future__ import annotations

import json
import mailbox
import os
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from postprox.rehearse import sources
from tests.unit.rehearsing import MESSAGE, Rehearse

SEPARATOR = b"From ann@example.net Mon Jan  6 12:00:00 2025\n"
TEXTS = [b"Subject: %d\n\nhello\n" % number for number in range(3)]


def read(*paths: Path) -> list[bytes]:
    return [source.read() for source in sources.found(paths)]


def names(*paths: Path) -> list[str]:
    return [source.name for source in sources.found(paths)]


def documented(rehearse: Rehearse, *arguments: str, stdin: bytes = b"") -> Any:
    result = rehearse("--json", "-c", "true", *arguments, stdin=stdin)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)["messages"]


# mbox


def test_mbox_is_split(tmp_path: Path) -> None:
    box = tmp_path / "inbox"
    box.write_bytes(b"".join(SEPARATOR + text + b"\n" for text in TEXTS))
    assert read(box) == TEXTS
    assert names(box) == [f"{box}:1", f"{box}:2", f"{box}:3"]


def test_mbox_with_crlf_is_split(tmp_path: Path) -> None:
    box = tmp_path / "inbox"
    text = b"".join(SEPARATOR + text + b"\n" for text in TEXTS)
    box.write_bytes(text.replace(b"\n", b"\r\n"))
    assert read(box) == [text.replace(b"\n", b"\r\n") for text in TEXTS]


def test_mbox_written_by_python_is_split(tmp_path: Path) -> None:
    box = mailbox.mbox(tmp_path / "inbox")
    for number in range(3):
        message = Message()
        message["Subject"] = str(number)
        message.set_payload("From here on\nit goes on\n\nFrom now on, too\n")
        box.add(message)
    box.close()
    body = b"\n\nFrom here on\nit goes on\n\nFrom now on, too\n"
    assert read(tmp_path / "inbox") == [b"Subject: %d" % number + body for number in range(3)]


@pytest.mark.parametrize(
    "line",
    [
        b"From here on it goes on\n",
        b"From Monday on\n",
        b">From ann@example.net Mon Jan  6 12:00:00 2025\n",
    ],
)
def test_quoted_from_line_does_not_split_message(tmp_path: Path, line: bytes) -> None:
    box = tmp_path / "inbox"
    text = b"Subject: x\n\n" + line
    box.write_bytes((SEPARATOR + text + b"\n") * 2)
    assert read(box) == [text.replace(b">From", b"From")] * 2


def test_separator_without_preceding_empty_line_does_not_split_mbox(tmp_path: Path) -> None:
    box = tmp_path / "inbox"
    box.write_bytes(SEPARATOR + b"Subject: x\n\nhello\n" + SEPARATOR)
    assert len(names(box)) == 1


def test_mbox_of_bounces_is_split(tmp_path: Path) -> None:
    box = tmp_path / "inbox"
    box.write_bytes((b"From MAILER-DAEMON Mon Jan  6 12:00:00 2025\n" + MESSAGE + b"\n") * 2)
    assert read(box) == [MESSAGE] * 2


def test_message_containing_mbox_separator_is_not_split(tmp_path: Path) -> None:
    path = tmp_path / "x.eml"
    path.write_bytes(MESSAGE + b"\n" + SEPARATOR + MESSAGE)
    assert read(path) == [MESSAGE + b"\n" + SEPARATOR + MESSAGE]


def test_mbox_messages_are_delivered(rehearse: Rehearse) -> None:
    box = rehearse.save(b"".join(SEPARATOR + text + b"\n" for text in TEXTS), "inbox")
    received = [message["received"] for message in documented(rehearse, box)]
    assert received == [text.replace(b"\n", b"\r\n").decode() for text in TEXTS]


# Directories


def test_maildir_is_read(tmp_path: Path) -> None:
    box = mailbox.Maildir(tmp_path / "box", create=True)
    for text in TEXTS:
        box.add(text)
    (tmp_path / "box" / "tmp" / "unfinished").write_bytes(b"Subj")
    (tmp_path / "box" / "dovecot-uidlist").write_bytes(b"3 V1\n")
    assert sorted(read(tmp_path / "box")) == TEXTS


def test_maildir_folders_are_read(tmp_path: Path) -> None:
    box = mailbox.Maildir(tmp_path / "box", create=True)
    box.add(TEXTS[0])
    box.add_folder("Spam").add(TEXTS[1])
    assert read(tmp_path / "box") == TEXTS[:2]


def test_directory_is_read_recursively_in_order(tmp_path: Path) -> None:
    for name in ("b.eml", "a.eml", "c/d.eml", ".hidden", ".git/x"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(MESSAGE)
    assert names(tmp_path) == [str(tmp_path / name) for name in ("a.eml", "b.eml", "c/d.eml")]


def test_link_to_parent_directory_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.eml").write_bytes(MESSAGE)
    (tmp_path / "again").symlink_to(tmp_path)
    assert names(tmp_path) == [str(tmp_path / "a.eml")]


# Standard input and pipes


def test_standard_input_is_read(rehearse: Rehearse) -> None:
    (message,) = documented(rehearse, "-", stdin=MESSAGE)
    assert (message["message"], message["received"].count("hello")) == ("-", 1)


def test_pipe_is_read(rehearse: Rehearse) -> None:
    reader, writer = os.pipe()
    os.write(writer, MESSAGE)
    os.close(writer)
    (source,) = sources.found([Path(f"/dev/fd/{reader}")])
    os.close(reader)
    assert source.read() == MESSAGE


@pytest.mark.parametrize("arguments", [["-", "--watch"], ["-", "x.eml"], ["-", "-"]])
def test_standard_input_cannot_be_combined_with_files(
    rehearse: Rehearse, arguments: list[str]
) -> None:
    result = rehearse("-c", "true", *arguments)
    assert (result.returncode, "-: must be the only message" in result.stderr) == (2, True)


# Errors


def test_directory_without_messages_is_reported(rehearse: Rehearse) -> None:
    (rehearse.directory / "empty" / ".git").mkdir(parents=True)
    result = rehearse("-c", "true", "empty")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "rehearse: no message in the directory 'empty'\n"


def test_all_errors_are_reported_together(rehearse: Rehearse) -> None:
    (rehearse.directory / "empty").mkdir()
    result = rehearse("-c", "true", "missing", "empty")
    assert result.stderr == (
        "rehearse: cannot read the message 'missing': No such file or directory; "
        "no message in the directory 'empty'\n"
    )


def test_large_mbox_is_not_stored_in_memory(tmp_path: Path) -> None:
    box = tmp_path / "inbox"
    box.write_bytes((SEPARATOR + MESSAGE + b"x" * 1000 + b"\n\n") * 1000)
    found = sources.found([box])
    assert len(found) == 1000
    assert {source.octets for source in found} == {b""}
