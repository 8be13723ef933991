"""clamav.sh with a running and a stopped clamd."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import MESSAGE, Filter, command
from .daemons import EICAR

VIRUS = MESSAGE + EICAR.encode() + b"\n"


def test_clean_mail_is_accepted(run: Filter, clamd: Path) -> None:
    assert run(command("clamav.sh", clamd)).status == 0


def test_virus_name_appears_in_rejection(run: Filter, clamd: Path) -> None:
    ended = run(command("clamav.sh", clamd), VIRUS)
    assert ended.status == 1
    assert ended.reply.startswith("550 5.7.1 The message contains a virus: Test.EICAR")


def test_message_containing_scanner_output_is_accepted(run: Filter, clamd: Path) -> None:
    assert run(command("clamav.sh", clamd), MESSAGE + b"stream: Virus FOUND\n").status == 0


@pytest.mark.parametrize("message", [b"", b"\0" * 1000, b"\nbody", b"A: " + b"x" * 400_000, b"a\r"])
def test_malformed_message_is_scanned(run: Filter, clamd: Path, message: bytes) -> None:
    assert run(command("clamav.sh", clamd), message).status == 0
    assert run(command("clamav.sh", clamd), message + b"\n" + EICAR.encode()).status == 1


@pytest.mark.parametrize("email", ["", "-x", "/", "/nonexistent"])
def test_invalid_email_path_results_in_status_2(run: Filter, clamd: Path, email: str) -> None:
    assert run(command("clamav.sh", clamd), EMAIL=email).status == 2


def test_stopped_clamd_results_in_status_2(run: Filter, stopped_clamd: Path) -> None:
    ended = run(command("clamav.sh", stopped_clamd), VIRUS)
    assert ended.status == 2
    assert "clamdscan exited with status 2" in ended.said


def test_missing_clamdscan_results_in_status_2(run: Filter, tmp_path: Path) -> None:
    assert run(command("clamav.sh"), PATH=str(tmp_path)).status == 2


def test_missing_message_results_in_status_2(run: Filter, clamd: Path) -> None:
    assert run.again(command("clamav.sh", clamd)).status == 2
