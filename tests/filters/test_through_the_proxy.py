"""Tests of running, stopped and hanging scanners with the real proxy and --strict.

In every case, bad mail must not be delivered, and good mail must not be rejected permanently.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import MESSAGE, command, needs, rehearse
from .daemons import EICAR

pytestmark = pytest.mark.any_account

BAD = MESSAGE + EICAR.encode() + b"\ncheapest pills of all\n"
SCANNERS = ["clamd", "spamd", "rspamd"]


def filter_command(scanner: str, place: Path) -> str:
    """Return the filter command for a scanner that listens on `place`."""
    return {
        "clamd": command("clamav.sh", place),
        "spamd": command("spamassassin.sh", 15, "-U", place),
        "rspamd": command("rspamd.py", place),
    }[scanner]


@pytest.fixture
def save(tmp_path: Path) -> Callable[[bytes], Path]:
    """Return a function that writes a message to a file."""

    def saved(message: bytes) -> Path:
        path = tmp_path / "message.eml"
        path.write_bytes(message)
        return path

    return saved


@pytest.mark.parametrize("scanner", SCANNERS)
def test_each_scanner_accepts_good_and_rejects_bad_mail(
    request: pytest.FixtureRequest, save: Callable[[bytes], Path], scanner: str
) -> None:
    asked = filter_command(scanner, request.getfixturevalue(scanner))
    good = rehearse(asked, save(MESSAGE), "--strict")
    assert good["verdict"] in ("accept", "rewrite")
    bad = rehearse(asked, save(BAD), "--strict")
    assert (bad["verdict"], bad["delivered"], bad["reply"][:2]) == ("reject", False, "55")


@pytest.mark.parametrize("scanner", SCANNERS)
def test_stopped_scanner_results_in_temporary_rejection(
    request: pytest.FixtureRequest, save: Callable[[bytes], Path], scanner: str
) -> None:
    asked = filter_command(scanner, request.getfixturevalue(f"stopped_{scanner}"))
    for message in (MESSAGE, BAD):
        said = rehearse(asked, save(message), "--strict")
        assert (said["verdict"], said["delivered"], said["reply"][:3]) == ("fail", False, "451")


@pytest.fixture
def hung() -> Iterator[Path]:
    """The socket of a scanner that accepts connections and never replies."""
    with (
        tempfile.TemporaryDirectory(prefix="postprox-") as name,
        socket.socket(socket.AF_UNIX) as listener,
    ):
        path = Path(name) / "hung.sock"
        listener.bind(str(path))
        listener.listen()
        yield path


@pytest.mark.parametrize("scanner", SCANNERS)
def test_hanging_scanner_times_out(save: Callable[[bytes], Path], hung: Path, scanner: str) -> None:
    needs("clamdscan", "spamc")
    place = hung
    if scanner == "clamd":
        place = hung.with_name("clamd.conf")
        place.write_text(f"LocalSocket {hung}\n")
    said = rehearse(filter_command(scanner, place), save(MESSAGE), "--strict", "-t", "1")
    assert (said["verdict"], said["timed_out"], said["delivered"]) == ("fail", True, False)


def append(word: str) -> str:
    """Return a filter that adds a line."""
    return f'{{ cat "$EMAIL"; echo {word}; }} >"$OUTFILE"'


def test_failing_chain_does_not_change_original_message(
    save: Callable[[bytes], Path],
) -> None:
    # Without -r, the original passes. The second filter writes to EMAIL.
    chain = command("chain.py", append("one"), append("two"), "exit 2")
    said = rehearse(chain, save(MESSAGE))
    assert (said["verdict"], said["received"]) == ("fail-open", said["sent"])


def test_timed_out_chain_logs_name_of_slow_filter(
    save: Callable[[bytes], Path], tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    chain = command("chain.py", append("one"), append("two"), "/bin/sleep 60")
    said = rehearse(chain, save(MESSAGE), "--strict", "-t", "2", "-d", str(spool))
    assert (said["verdict"], said["timed_out"]) == ("fail", True)
    assert said["filter"]["stderr"].splitlines()[-1].startswith("chain.py: sleep, after ")
    assert list(spool.iterdir()) == []


def test_chain_rewrites_message(save: Callable[[bytes], Path]) -> None:
    said = rehearse(command("chain.py", append("one"), append("two")), save(MESSAGE), "--strict")
    assert said["received"] == said["sent"] + "one\r\ntwo\r\n"
