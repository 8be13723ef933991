"""The manual's own example: clamdscan as the filter, with a clamd of the tests' own.

Its database is one signature, the EICAR test string, so that it starts at once and asks nobody.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .client import message
from .instance import program, public_directory, wait_for
from .site import Site

#: Harmless, and known to every scanner; in two halves, lest one take this file for a virus.
EICAR = r"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"

CLAMD_CONF = """
Foreground yes
DatabaseDirectory {dir}/db
LocalSocket {dir}/clamd.sock
LocalSocketMode 666
LogFile {dir}/clamd.log
MaxThreads 2
StreamMaxLength 100M
"""

FILTER = """
clamdscan --config-file={dir}/clamd.conf --disable-summary --stdout - <"$EMAIL"
STATUS=$?
[ $STATUS -eq 0 ] && exit 0
if [ $STATUS -eq 1 ]; then
    echo 550 Message contains a virus >&2
    exit 1
fi
exit 2
"""


@pytest.fixture(scope="module")
def scanner() -> Iterator[Path]:
    """The directory of a running clamd."""
    clamd = program("clamd")
    if clamd is None or program("clamdscan") is None:
        pytest.skip("clamd is not installed (Debian: apt-get install clamav-daemon clamdscan)")
    with public_directory("postprox-clamd-") as directory:
        (directory / "db").mkdir()
        (directory / "db/test.ndb").write_text(f"Test.EICAR:0:*:{EICAR.encode().hex()}\n")
        config = directory / "clamd.conf"
        config.write_text(CLAMD_CONF.format(dir=directory))
        output = subprocess.DEVNULL
        with subprocess.Popen([clamd, f"--config-file={config}"], stdout=output) as daemon:
            wait_for("clamd to listen", (directory / "clamd.sock").is_socket)
            yield directory
            daemon.terminate()


@pytest.mark.parametrize("way", ["strict_before", "strict_after"])
def test_a_clean_message_passes(site: Site, scanner: Path, way: str) -> None:
    box = site.proxy.box(FILTER.format(dir=scanner))
    assert site.send(way, box, message("clean"))[0] == 250
    site.postfix.wait_delivered(box.address)


def test_a_virus_is_rejected(site: Site, scanner: Path) -> None:
    box = site.proxy.box(FILTER.format(dir=scanner))
    reply = site.send("strict_before", box, message("virus", EICAR))
    assert reply == (550, b"Message contains a virus")


def test_a_virus_is_bounced(site: Site, scanner: Path) -> None:
    box = site.proxy.box(FILTER.format(dir=scanner))
    site.send("strict_after", box, message("virus", EICAR))
    bounce = site.postfix.wait_delivered(box.sender)
    assert b"\nDiagnostic-Code: smtp; 550 Message contains a virus\n" in bounce
