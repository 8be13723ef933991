"""Accepted mail is delivered unchanged, before and after the queue."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.client import connect

from .client import begin_envelope, message, submit, unix
from .instance import without_trace
from .site import Site

WAYS = ("open_before", "open_adjusted", "open_after")


@pytest.mark.parametrize("way", WAYS)
def test_message_accepted_by_filter_is_delivered_unchanged(site: Site, way: str) -> None:
    box, content = site.proxy.box("exit 0"), message("accepted")
    assert site.send(way, box, content)[0] == 250
    assert without_trace(site.postfix.wait_delivered(box.address)) == unix(content)


@pytest.mark.parametrize("way", WAYS)
def test_eight_bit_text_and_dots_are_delivered_unchanged(site: Site, way: str) -> None:
    box, content = site.proxy.box("exit 0"), message("octets", ".\n..\n.x\n\n \xe9\u20ac\t\n.\n")
    assert site.send(way, box, content)[0] == 250
    assert without_trace(site.postfix.wait_delivered(box.address)) == unix(content)


@pytest.mark.parametrize("way", ["open_before", "open_adjusted"])
def test_line_of_any_length_is_delivered_unchanged(site: Site, way: str) -> None:
    # After the queue, smtp(8) would fold the line.
    box, content = site.proxy.box("exit 0"), message("long line", "." + "x" * 100_000)
    assert site.send(way, box, content)[0] == 250
    assert without_trace(site.postfix.wait_delivered(box.address)) == unix(content)


def test_bdat_message_is_delivered_unchanged(site: Site) -> None:
    box, content = site.proxy.box("exit 0"), message("BDAT")
    with begin_envelope(site.postfix.addresses["open_before"], box) as peer:
        peer.sends(f"BDAT {len(content)} LAST\r\n".encode() + content)
        peer.sees_reply(b"250 ")
    assert without_trace(site.postfix.wait_delivered(box.address)) == unix(content)


@pytest.mark.parametrize("way", ["open_before", "open_after"])
def test_message_of_20_mb_is_delivered_unchanged(site: Site, way: str) -> None:
    line = "".join(chr(33 + n % 94) for n in range(77))
    box, content = site.proxy.box("exit 0"), message("large", f"{line}\n" * (20_000_000 // 78))
    assert site.send(way, box, content)[0] == 250
    # A plain `assert a == b` would make pytest compute a difference for minutes.
    same = without_trace(site.postfix.wait_delivered(box.address)) == unix(content)
    assert same


@pytest.mark.parametrize("way", ["open_before", "open_after"])
def test_filter_reads_message_with_lf_line_endings(site: Site, way: str) -> None:
    copy = site.proxy.directory / "runs" / f"{way}-copy"
    box, content = site.proxy.box(f'cp "$EMAIL" "{copy}"'), message("read me")
    site.send(way, box, content)
    site.postfix.wait_delivered(box.address)
    assert without_trace(copy.read_bytes()) == unix(content)


@pytest.mark.parametrize("way", WAYS)
def test_outfile_content_is_delivered(site: Site, way: str) -> None:
    box = site.proxy.box("""sed 's/^Subject: /&[checked] /' "$EMAIL" >"$OUTFILE" """)
    site.send(way, box, message("rewritten"))
    delivered = without_trace(site.postfix.wait_delivered(box.address))
    assert delivered == unix(message("[checked] rewritten"))


@pytest.mark.parametrize("way", WAYS)
def test_accepted_message_leaves_no_files(site: Site, way: str) -> None:
    box = site.proxy.box("exit 0")
    site.send(way, box, message("tidy"))
    site.postfix.wait_delivered(box.address)
    site.proxy.wait_clean(site.postfix)


def test_session_with_several_messages_delivers_all(site: Site) -> None:
    boxes = [site.proxy.box("exit 0") for _ in range(3)]
    with connect(site.postfix.addresses["open_before"]) as session:
        for box in boxes:
            session.transact(box.sender, [box.address], message(box.name))
    for box in boxes:
        delivered = site.postfix.wait_delivered(box.address)
        assert without_trace(delivered) == unix(message(box.name))


@pytest.mark.parametrize("way", ["open_before", "open_after"])
def test_message_to_several_recipients_is_filtered_only_once(site: Site, way: str) -> None:
    boxes = [site.proxy.box("exit 0") for _ in range(5)]
    addresses = [box.address for box in boxes]
    submit(site.postfix.addresses[way], boxes[0].sender, addresses, message("to many"))
    for address in addresses:
        site.postfix.wait_delivered(address)
    assert [len(box.runs()) for box in boxes] == [1, 0, 0, 0, 0]


def test_recipient_refused_by_upstream_is_refused_by_proxy(site: Site) -> None:
    box = site.proxy.box("exit 0")
    with connect(site.postfix.addresses["open_before"]) as session:
        session.command(f"MAIL FROM:<{box.sender}>")
        reply = session.command("RCPT TO:<refused@mail.test>")
    assert reply == (554, b"5.7.1 <refused@mail.test>: Recipient address rejected: Access denied")


def test_refused_recipient_does_not_affect_other_recipients(
    site: Site,
) -> None:
    box = site.proxy.box("exit 0")
    addresses = ["refused@mail.test", box.address]
    submit(site.postfix.addresses["open_after"], box.sender, addresses, message("to one"))
    site.postfix.wait_delivered(box.address)
    bounce = site.postfix.wait_delivered(box.sender)
    assert b"<refused@mail.test>: host 127." in bounce


def test_data_without_accepted_recipient_does_not_start_filter(site: Site) -> None:
    box = site.proxy.box("exit 0")
    submit(
        site.postfix.addresses["open_after"], box.sender, ["refused@mail.test"], message("to none")
    )
    site.postfix.wait_delivered(box.sender)
    runs = list((site.proxy.directory / "runs").glob("refused.*"))
    assert runs == []


def test_all_clients_are_served_if_they_exceed_process_limit(site: Site) -> None:
    boxes = [site.proxy.box("exit 0") for _ in range(25)]
    with ThreadPoolExecutor(len(boxes)) as clients:
        replies = clients.map(lambda box: site.send("open_before", box, message(box.name)), boxes)
        assert [code for code, _ in replies] == [250] * len(boxes)
    for box in boxes:
        delivered = site.postfix.wait_delivered(box.address)
        assert without_trace(delivered) == unix(message(box.name))
