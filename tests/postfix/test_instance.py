"""The private Postfix without a proxy: it delivers mail and leaves no processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.peers import connected

from .client import message, submit, unix
from .instance import Address, Postfix, public_directory, without_trace


def plain_services(addresses: Mapping[str, Address]) -> str:
    """Return an smtpd(8) service that refuses one recipient."""
    return f"{addresses['plain']} inet n - n - - smtpd\n"


@pytest.fixture(scope="module")
def directory(needs_postfix: None) -> Iterator[Path]:
    with public_directory("postprox-instance-") as path:
        yield path


@pytest.fixture(scope="module")
def postfix(directory: Path) -> Iterator[Postfix]:
    with Postfix(directory, ["plain"], plain_services) as running:
        yield running


def test_message_is_delivered_unchanged(postfix: Postfix) -> None:
    content = message("plain")
    reply = submit(postfix.addresses["plain"], "a@mail.test", ["b@mail.test"], content)
    assert reply[0] == 250
    assert without_trace(postfix.wait_delivered("b@mail.test")) == unix(content)


def test_queue_is_empty_after_delivery(postfix: Postfix) -> None:
    submit(postfix.addresses["plain"], "a@mail.test", ["c@mail.test"], message("queue"))
    postfix.wait_delivered("c@mail.test")
    postfix.wait_quiet()


def test_delivery_is_logged(postfix: Postfix) -> None:
    submit(postfix.addresses["plain"], "a@mail.test", ["d@mail.test"], message("log"))
    assert postfix.wait_log(r"to=<d@mail\.test>.*status=(\w+)")[1] == "sent"


def test_stopped_instance_leaves_no_processes(needs_postfix: None) -> None:
    with public_directory("postprox-instance-") as path:
        with Postfix(path, ["plain"], plain_services) as postfix:
            address = postfix.addresses["plain"]
        with pytest.raises(ConnectionRefusedError):
            connected(address)
