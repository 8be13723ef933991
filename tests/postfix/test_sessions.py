"""smtp(8) with a connection cache sends messages from different senders in one session.

The mail log shows the reuse of a session as `conn_use=N`.
"""

from __future__ import annotations

from tests.support.client import connect

from .client import connect_from, message
from .proxies import Run
from .site import Site

REUSED = r".*conn_use=\d+.*status="


def test_each_message_on_cached_connection_has_its_own_envelope(site: Site) -> None:
    boxes = [site.proxy.box("exit 0") for _ in range(3)]
    for number, box in enumerate(boxes):
        front = site.postfix.addresses["open_cached"]
        with connect_from(front, f"192.0.2.{number}", f"helo{number}.example") as session:
            session.transact(box.sender, [box.address], message(box.name))
    runs = [box.wait_run() for box in boxes]
    assert runs == [
        Run(box.sender, box.address, f"192.0.2.{number}", f"helo{number}.example")
        for number, box in enumerate(boxes)
    ]
    site.postfix.wait_log(f"to=<{boxes[1].address}>{REUSED}sent")
    site.postfix.wait_log(f"to=<{boxes[2].address}>{REUSED}sent")


def test_cached_connection_is_reused_after_rejection(site: Site) -> None:
    scripts = ("exit 0", "echo '550 5.7.1 no' >&2; exit 1", "exit 0")
    boxes = [site.proxy.box(script) for script in scripts]
    with connect(site.postfix.addresses["open_cached"]) as session:
        for box in boxes:
            session.transact(box.sender, [box.address], message(box.name))
    site.postfix.wait_log(f"to=<{boxes[1].address}>{REUSED}bounced")
    site.postfix.wait_log(f"to=<{boxes[2].address}>{REUSED}sent")
    site.postfix.wait_delivered(boxes[2].address)


def test_cached_connection_is_reused_after_refused_recipient(site: Site) -> None:
    box = site.proxy.box("exit 0")
    with connect(site.postfix.addresses["open_cached"]) as session:
        session.transact(box.sender, ["refused@mail.test"], message("to none"))
        session.transact("", [box.address], message("to one"))
    site.postfix.wait_delivered(box.address)
    assert box.wait_run().sender == "<>"
