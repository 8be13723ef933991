"""Tests that no server sees an early end of data, for all sequences of up to six octets.

The tests cover every sequence of CR, LF, a dot, NUL and a letter with every division into blocks,
both in client messages and in OUTFILE. Four server models with different line ends read the output.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from postprox.core.data import DotUnstuffer, encoded, normalized
from tests.support.fixtures import Spawn
from tests.support.peers import Peer
from tests.support.upstream import Upstream, begins_message, in_data, quits

pytestmark = pytest.mark.any_account

OCTETS = (b"\r", b"\n", b".", b"\0", b"x")
LONGEST = 6
END = b".\r\n"

#: The line ends of a strict server and of three lenient ones.
LINE_ENDS = {
    "CRLF": rb"\r\n",
    "LF": rb"\r?\n",
    "CR": rb"\r\n?",
    "any": rb"\r\n|\n|\r",
}
_EARLY_END = {
    name: re.compile(rb"(?:\A|%s)\.(?:%s)" % (end, end)) for name, end in LINE_ENDS.items()
}


def sequences(first: bytes) -> Iterator[bytes]:
    """Yield all sequences that begin with `first`."""
    for length in range(LONGEST):
        yield from (first + b"".join(rest) for rest in product(OCTETS, repeat=length))


def shown_end(wire: bytes, server: str) -> int:
    """Return the position at which a server sees the end of data, or -1."""
    end = _EARLY_END[server].search(wire)
    return end.end() if end else -1


def assert_not_smuggled(wire: bytes) -> None:
    assert wire.endswith(END)
    for server in LINE_ENDS:
        end = shown_end(wire, server)
        # A server that accepts CR as a line end sees the end of data at the last CR.
        assert end in (-1, len(wire), len(wire) - 1), (server, wire)


def received(pieces: list[bytes]) -> tuple[bytes, bytes, DotUnstuffer]:
    """Decode the input. Return the content, the input after the end of data and the decoder."""
    decoder = DotUnstuffer()
    content = b""
    for number, piece in enumerate(pieces):
        if decoder.complete:
            return content, decoder.trailing + b"".join(pieces[number:]), decoder
        content += decoder.feed(piece)
    return content, decoder.trailing, decoder


@pytest.mark.parametrize("first", OCTETS)
def test_message_has_no_early_end_of_data(first: bytes) -> None:
    for sequence in sequences(first):
        data = sequence + b"\r\n" + END
        content, _, decoder = received([data])
        assert decoder.complete
        for cut in range(len(content) + 1):
            assert_not_smuggled(b"".join(encoded([content[:cut], content[cut:]])))


@pytest.mark.parametrize("first", OCTETS)
def test_outfile_has_no_early_end_of_data(first: bytes) -> None:
    for sequence in sequences(first):
        for cut in range(len(sequence)):
            text = normalized([sequence[:cut], sequence[cut:]])
            assert_not_smuggled(b"".join(encoded(text)))


@pytest.mark.parametrize("first", OCTETS)
def test_decoded_message_is_independent_of_block_boundaries(first: bytes) -> None:
    """The input arrives octet by octet, and in two pieces for every possible division."""
    for sequence in sequences(first):
        data = sequence + b"\r\n" + END
        whole = received([data])[:2]
        assert received([data[at : at + 1] for at in range(len(data))])[:2] == whole
        for cut in range(1, len(data)):
            assert received([data[:cut], data[cut:]])[:2] == whole


@pytest.mark.parametrize("first", OCTETS)
def test_encoded_message_is_independent_of_block_boundaries(first: bytes) -> None:
    for sequence in sequences(first):
        whole = b"".join(encoded([sequence]))
        replacing = b"".join(encoded(normalized([sequence])))
        for cut in range(1, len(sequence)):
            pieces = [sequence[:cut], sequence[cut:]]
            assert b"".join(encoded(pieces)) == whole
            assert b"".join(encoded(normalized(pieces))) == replacing


@pytest.mark.parametrize("server", LINE_ENDS)
def test_server_models_detect_early_end_of_data(server: str) -> None:
    ending = {"CRLF": b"\r\n", "LF": b"\n", "CR": b"\r", "any": b"\n"}[server]
    assert shown_end(b"x" + ending + b"." + ending + b"x\r\n.\r\n", server) > 0


@pytest.mark.parametrize("command", ["exit 0", 'cat "$EMAIL" > "$OUTFILE"'])
def test_proxy_sends_no_early_end_of_data(
    spawn: Spawn, upstream: Upstream, command: str, tmp_path: Path
) -> None:
    drawn = random.Random(6).sample(list(sequences(b"\r")) + list(sequences(b"\n")), 40)  # noqa: S311
    client = spawn(upstream.address, "-d", str(tmp_path), "-c", command).client
    peer = in_data(client, upstream)
    for number, sequence in enumerate(drawn):
        if number:
            begins_message(client, peer)
        assert_not_smuggled(sent_on(client, peer, b"x" + sequence))
    quits(client, peer)


def sent_on(client: Peer, peer: Peer, text: bytes) -> bytes:
    """Send a message. Return the octets that upstream receives."""
    client.sends(text.replace(b"\r\n.", b"\r\n..") + b"\r\n" + END)
    peer.sees(b"DATA")
    peer.says(b"354 go on")
    wire = b""
    while not wire.endswith(b"\r\n" + END):
        wire += peer.line()
    peer.says(b"250 queued")
    client.sees(b"250 queued")
    return wire
