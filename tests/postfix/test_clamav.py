"""The manual's example: clamdscan is the filter, and it uses a private clamd."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .client import message
from .instance import public_directory
from .scanner import EICAR, Scanner
from .site import Site

FILTER = """
clamdscan --config-file={config} --disable-summary --stdout - <"$EMAIL"
STATUS=$?
[ $STATUS -eq 0 ] && exit 0
if [ $STATUS -eq 1 ]; then
    echo 550 Message contains a virus >&2
    exit 1
fi
exit 2
"""


@pytest.fixture(scope="module")
def scanner() -> Iterator[Scanner]:
    """A running clamd."""
    with public_directory("postprox-clamd-") as directory:
        clamd = Scanner(directory)
        clamd.start()
        yield clamd
        clamd.stop()


@pytest.mark.parametrize("way", ["strict_before", "strict_after"])
def test_clean_message_is_delivered(site: Site, scanner: Scanner, way: str) -> None:
    box = site.proxy.box(FILTER.format(config=scanner.config))
    assert site.send(way, box, message("clean"))[0] == 250
    site.postfix.wait_delivered(box.address)


def test_virus_is_rejected_before_queue(site: Site, scanner: Scanner) -> None:
    box = site.proxy.box(FILTER.format(config=scanner.config))
    reply = site.send("strict_before", box, message("virus", EICAR))
    assert reply == (550, b"Message contains a virus")


def test_virus_found_after_queue_is_bounced(site: Site, scanner: Scanner) -> None:
    box = site.proxy.box(FILTER.format(config=scanner.config))
    site.send("strict_after", box, message("virus", EICAR))
    bounce = site.postfix.wait_delivered(box.sender)
    assert b"\nDiagnostic-Code: smtp; 550 Message contains a virus\n" in bounce
