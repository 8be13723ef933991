"""The filters in examples/ with a real Postfix, installed as documented."""

from __future__ import annotations

import shlex
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.filters import daemons
from tests.filters.uses import as_written, single_line

from .client import message
from .instance import PATIENCE, Address, Postfix, program, public_directory
from .site import Site

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "filters"


@pytest.fixture(scope="module")
def installed() -> Iterator[Path]:
    """A directory with the filters that every user may enter."""
    with public_directory("postprox-filters-") as directory:
        for path in EXAMPLES.iterdir():
            if path.suffix in (".sh", ".py"):
                shutil.copy(path, directory)
        yield directory


@pytest.fixture(scope="module")
def chain(installed: Path) -> Iterator[str]:
    """A chain of the size limit, clamd and spamd, with both daemons running."""
    needs("clamd", "clamdscan", "spamd", "spamc")
    with (
        public_directory("postprox-clamd-") as clamd_directory,
        public_directory("postprox-spamd-") as spamd_directory,
        daemons.clamd(clamd_directory) as clamd,
        daemons.spamd(spamd_directory) as spamd,
    ):
        yield chained(
            installed,
            f"{installed}/size-limit.sh 25000000",
            f"{installed}/clamav.sh {clamd}",
            f"{installed}/spamassassin.sh 15 -U {spamd}",
        )


def needs(*programs: str) -> None:
    for name in programs:
        if program(name) is None:
            pytest.skip(f"{name} is not installed")


def chained(installed: Path, *commands: str) -> str:
    return f"exec {shlex.join([f'{installed}/chain.py', *commands])}"


@pytest.mark.parametrize("way", ["strict_before", "strict_after"])
def test_legitimate_mail_is_delivered_with_spam_score(site: Site, chain: str, way: str) -> None:
    box = site.proxy.box(chain)
    assert site.send(way, box, message("good"))[0] == 250
    delivered = site.postfix.wait_delivered(box.address)
    assert b"\nX-Spam-Status: No, " in delivered
    assert b"X-Envelope-From" not in delivered


def test_virus_is_rejected_during_smtp_session(site: Site, chain: str) -> None:
    box = site.proxy.box(chain)
    code, text = site.send("strict_before", box, message("virus", daemons.EICAR))
    assert code == 550
    assert text.startswith(b"5.7.1 The message contains a virus: Test.EICAR")


def test_spam_is_marked_and_delivered(site: Site, chain: str) -> None:
    box = site.proxy.box(chain)
    assert site.send("strict_before", box, message("spam", "cheap pills"))[0] == 250
    assert b"\nX-Spam-Flag: YES\n" in site.postfix.wait_delivered(box.address)


def test_definite_spam_is_rejected(site: Site, chain: str) -> None:
    box = site.proxy.box(chain)
    reply = site.send("strict_before", box, message("spam", "cheapest pills of all"))
    assert reply == (550, b"5.7.1 The message looks like spam")


def test_stopped_scanner_defers_mail_and_is_logged(site: Site, installed: Path) -> None:
    needs("clamdscan")
    configuration = installed / "down.conf"
    configuration.write_text(f"LocalSocket {installed}/nobody.sock\n")
    box = site.proxy.box(chained(installed, "true", f"{installed}/clamav.sh {configuration}"))
    assert site.send("strict_before", box, message("held", daemons.EICAR))[0] == 451
    assert site.postfix.delivered(box.address) == []
    if site.syslog is not None:
        line = site.wait_syslog(box.sender, "said=")
        assert 'said="chain.py: clamav.sh failed with status 2 after ' in line


def test_spawn_passes_documented_commands_unchanged(
    needs_postfix: None,
) -> None:
    written = as_written()

    def services(addresses: Mapping[str, Address]) -> str:
        """Return a spawn(8) service for each command that prints its arguments."""
        return "".join(
            f"{addresses[str(number)]} inet n n n - 1 spawn\n"
            f"    user=nobody argv=/usr/bin/printf [%s] --strict -c {text}\n"
            for number, text in enumerate(written)
        )

    names = [str(number) for number in range(len(written))]
    with (
        public_directory("postprox-uses-") as directory,
        Postfix(directory, names, services) as postfix,
    ):
        for name, text in zip(names, written, strict=True):
            with socket.create_connection(postfix.addresses[name], PATIENCE) as client:
                shown = client.makefile("rb").read().decode()
            command = text.removeprefix("{").removesuffix("}")
            assert single_line(shown) == f"[--strict][-c][{single_line(command)}]"
