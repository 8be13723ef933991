"""The filters in examples/: each does what it says, and ends with status 2 when it cannot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.sh"))
PROGRAM = b"""Subject: x
Content-Type: multipart/mixed; boundary=b

--b
Content-Disposition: attachment; %b

MZ
--b--
"""


class Filter:
    """Runs a filter as the proxy does, with commands of the test's own in the path."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.email = directory / "email"
        self.outfile = directory / "outfile"
        self.email.write_bytes(b"Subject: x\n\nhello\n")

    def add_command(self, name: str, script: str) -> None:
        path = self.directory / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def __call__(self, name: str, **environment: str) -> tuple[int, str]:
        """Return the exit status and the last line of standard error."""
        self.outfile.touch()
        command = [sys.executable] if name.endswith(".py") else ["/bin/sh"]
        done = subprocess.run(
            [*command, EXAMPLES / name],
            env={
                "PATH": f"{self.directory}:/usr/bin:/bin",
                "EMAIL": str(self.email),
                "OUTFILE": str(self.outfile),
                "SENDER": "a@example.net",
                "RECIPIENT": "b@example.org",
                "REMOTEIP": "192.0.2.1",
                "HELO": "mail.example.net",
            }
            | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=30,
        )
        return done.returncode, (done.stderr.splitlines() or [""])[-1]


@pytest.fixture
def run(tmp_path: Path) -> Filter:
    return Filter(tmp_path)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.name))
def test_shell_syntax(script: Path) -> None:
    subprocess.run(["/bin/sh", "-n", script], check=True)


@pytest.mark.parametrize("name", [*(path.name for path in SCRIPTS), "attachments.py"])
def test_example_is_listed_and_executable(name: str) -> None:
    assert f"]({name})" in (EXAMPLES / "README.md").read_text()
    assert (EXAMPLES / name).stat().st_mode & 0o111


def test_clamdscan_passes_clean_mail(run: Filter) -> None:
    run.add_command("clamdscan", "cat >/dev/null; echo stream: OK")
    assert run("clamdscan.sh") == (0, "")


def test_clamdscan_rejects_a_virus_by_name(run: Filter) -> None:
    run.add_command("clamdscan", "cat >/dev/null; echo stream: Eicar-Signature FOUND; exit 1")
    assert run("clamdscan.sh") == (1, "550 5.7.1 The message contains a virus: Eicar-Signature")


def test_clamdscan_fails_without_clamd(run: Filter) -> None:
    run.add_command("clamdscan", "echo ERROR: no clamd; exit 2")
    assert run("clamdscan.sh")[0] == 2


def test_clamdscan_fails_where_it_is_not_installed(run: Filter) -> None:
    run.add_command("clamdscan", "exit 127")
    assert run("clamdscan.sh")[0] == 2


def test_spamc_marks(run: Filter) -> None:
    run.add_command("spamc", 'echo "X-Spam-Level: ***"; cat')
    assert run("spamc.sh") == (0, "")
    assert run.outfile.read_text() == "X-Spam-Level: ***\nSubject: x\n\nhello\n"


def test_spamc_rejects_many_points(run: Filter) -> None:
    run.add_command("spamc", 'echo "X-Spam-Level: ****************"; cat')
    assert run("spamc.sh") == (1, "550 5.7.1 The message looks like spam")


def test_spamc_does_not_count_stars_in_the_body(run: Filter) -> None:
    run.add_command("spamc", 'cat; echo "X-Spam-Level: ****************"')
    assert run("spamc.sh") == (0, "")


def test_spamc_fails_without_spamd(run: Filter) -> None:
    run.add_command("spamc", "exit 69")
    assert run("spamc.sh") == (2, "spamc ended with status 69")


@pytest.mark.parametrize(
    ("environment", "status"),
    [
        ({}, 0),
        ({"SENDER": "boss@Example.ORG"}, 1),
        ({"SENDER": "boss@not-example.org"}, 0),
        ({"HELO": "example.org"}, 1),
        ({"HELO": "MX.example.org"}, 1),
        ({"HELO": "example.org.example.net"}, 0),
        ({"SENDER": "boss@example.org", "REMOTEIP": "10.1.2.3"}, 0),
        ({"SENDER": "boss@example.org", "REMOTEIP": ""}, 0),
        ({"SENDER": "<>", "HELO": "-n * $(exit 3)"}, 0),
    ],
)
def test_forged_sender(run: Filter, environment: dict[str, str], status: int) -> None:
    assert run("forged-sender.sh", **environment)[0] == status


@pytest.mark.parametrize(
    ("name", "status"),
    [
        (b"filename=notes.txt", 0),
        (b'filename="GAME.EXE"', 1),
        (b'filename="game.exe. "', 1),
        (b"filename*=utf-8''g%61me%2Eexe", 1),
        (b'filename="=?utf-8?B?Z2FtZS5leGU=?="', 1),
        (b'filename="=?nosuch?B?Z2FtZS50eHQ=?="', 0),
        (b'filename="=?utf-8?B?/w==?="', 0),
        (b"filename=\xff.txt", 0),
    ],
)
def test_attachments(run: Filter, name: bytes, status: int) -> None:
    run.email.write_bytes(PROGRAM % name)
    assert run("attachments.py")[0] == status


def test_attachments_fails_without_a_message(run: Filter) -> None:
    run.email.unlink()
    assert run("attachments.py")[0] == 2
