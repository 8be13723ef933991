"""Runs an example filter as the proxy does, and the programs that the filters ask."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from . import daemons

ROOT = Path(__file__).resolve().parents[2]
FILTERS = ROOT / "examples" / "filters"
MESSAGE = b"From: a@example.net\nTo: b@example.org\nSubject: x\n\nhello\n"
ENVELOPE = {
    "SENDER": "a@example.net",
    "RECIPIENT": "b@example.org",
    "REMOTEIP": "192.0.2.1",
    "HELO": "mail.example.net",
}
#: The reply codes that `--strict` accepts as a rejection.
CODE = re.compile(r"[245][0-9][0-9] ")


@dataclass(frozen=True)
class Ended:
    """The result of a filter: its exit status, standard error and OUTFILE."""

    status: int
    said: str
    written: bytes

    @property
    def reply(self) -> str:
        """The last line of standard error."""
        return self.said.rstrip("\n").rpartition("\n")[2]


class Filter:
    """Runs commands as the proxy runs a filter.

    Whatever the test is about, what `--strict` asks of a filter is checked: with status 1 the last
    line begins with a code, and whoever fails says so.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.email = directory / "email"
        self.outfile = directory / "outfile"

    def __call__(self, command: str, message: bytes = MESSAGE, **variables: str) -> Ended:
        self.email.write_bytes(message)
        return self.again(command, **variables)

    def again(self, command: str, **variables: str) -> Ended:
        """Run a command on the message that is there."""
        self.outfile.unlink(missing_ok=True)
        self.outfile.touch()
        files = {"EMAIL": str(self.email), "OUTFILE": str(self.outfile)}
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            env={"PATH": "/usr/bin:/bin", **files, **ENVELOPE, **variables},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
            timeout=60,
        )
        said = done.stderr.decode("utf-8", "backslashreplace")
        written = self.outfile.read_bytes() if self.outfile.is_file() else b""
        ended = Ended(done.returncode, said, written)
        assert 0 <= ended.status <= 2, ended
        if ended.status == 1:
            assert CODE.match(ended.reply), f"a rejection without a code: {ended}"
        if ended.status == 2:
            assert ended.reply.strip(), "a failure without a word"
        return ended


@pytest.fixture
def run(tmp_path: Path) -> Filter:
    return Filter(tmp_path)


def command(name: str, *arguments: object) -> str:
    """Return the command line of an example filter."""
    return shlex.join([str(FILTERS / name), *map(str, arguments)])


def rehearse(command: str, message: Path, *options: str) -> Any:
    """Send a message through the real proxy. Return its entry in the rehearsal."""
    done = subprocess.run(
        [sys.executable, "-m", "postprox.rehearse", "--json", *options, "-c", command, message],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    (said,) = json.loads(done.stdout)["messages"]
    return said


def only(directory: Path, *programs: str) -> str:
    """Return a PATH with these programs and no others."""
    path = directory / "only"
    path.mkdir()
    for program in programs:
        (path / program).symlink_to(f"/usr/bin/{program}")
    return str(path)


def needs(*programs: str) -> None:
    """Skip without these programs; fail where they were to be there."""
    for program in programs:
        if shutil.which(program, path=daemons.PROGRAMS) is None:
            if os.environ.get("POSTPROX_REQUIRE_POSTFIX") == "1":
                pytest.fail(f"{program} is not installed")
            pytest.skip(f"{program} is not installed")


@contextmanager
def public_directory() -> Iterator[Path]:
    """A directory for a daemon."""
    # A daemon runs as another user, and a socket's path must be short: pytest's own is neither.
    with tempfile.TemporaryDirectory(prefix="postprox-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="session")
def clamd() -> Iterator[Path]:
    """The configuration of a running clamd."""
    needs("clamd", "clamdscan")
    with public_directory() as directory, daemons.clamd(directory) as config:
        yield config


@pytest.fixture
def stopped_clamd() -> Iterator[Path]:
    """The configuration of a clamd that has run, and does no longer."""
    needs("clamd", "clamdscan")
    with public_directory() as directory:
        with daemons.clamd(directory) as config:
            pass
        yield config


@pytest.fixture(scope="session")
def spamd() -> Iterator[Path]:
    """The socket of a running spamd."""
    needs("spamd", "spamc")
    with public_directory() as directory, daemons.spamd(directory) as path:
        yield path


@pytest.fixture
def stopped_spamd() -> Iterator[Path]:
    """The socket of a spamd that has run, and does no longer."""
    needs("spamd", "spamc")
    with public_directory() as directory:
        with daemons.spamd(directory) as path:
            pass
        yield path


@pytest.fixture(scope="session")
def rspamd() -> Iterator[Path]:
    """The socket of a running rspamd."""
    needs("rspamd")
    with public_directory() as directory, daemons.rspamd(directory) as path:
        yield path


@pytest.fixture
def stopped_rspamd() -> Iterator[Path]:
    """The socket of an rspamd that has run, and does no longer."""
    needs("rspamd")
    with public_directory() as directory:
        with daemons.rspamd(directory) as path:
            pass
        yield path
