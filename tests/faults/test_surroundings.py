"""Tests that a lack of resources causes a 4yz reply and never loses a message."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.proxies import RUN
from tests.faults.surroundings import NO_MORE_PROCESSES, NOBODY, limited, small_file_system
from tests.postfix.devlog import may_unshare
from tests.support.answering import Answering
from tests.support.fixtures import Serve, Spawn
from tests.support.peers import Peer
from tests.support.proxies import ISOLATED_PYTHON
from tests.support.upstream import (
    MESSAGE,
    Upstream,
    greeted,
    in_data,
    in_transaction,
    passes_next_message,
    quits,
    relays,
    takes_message,
)

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="requires root")
NAME_SPACES = pytest.mark.skipif(not may_unshare(), reason="requires mount namespaces")

REFUSE_ALL = "echo '550 virus' >&2; exit 1"
LARGE = b"x" * 70 + b"\r\n"


def sends_large(client: Peer, octets: int) -> None:
    client.sends(LARGE * (octets // len(LARGE)) + b".\r\n")


# File systems


@NAME_SPACES
@pytest.mark.parametrize("filtered", [(), ("-c", "exit 0")])
def test_message_after_oversized_message_is_delivered(
    spawn: Spawn, upstream: Upstream, tmp_path: Path, filtered: tuple[str, ...]
) -> None:
    proxy = spawn(
        *("-d", str(tmp_path), *filtered, upstream.address),
        prelude=small_file_system(tmp_path, "size=128k"),
    )
    peer = in_data(proxy.client, upstream)
    sends_large(proxy.client, 400_000)
    proxy.client.sees_reply(b"452 ")
    peer.sees(b"QUIT")
    peer.says(b"221 bye")
    passes_next_message(proxy.client, upstream)


@NAME_SPACES
def test_message_never_bypasses_filter_if_disk_is_full(
    spawn: Spawn, upstream: Upstream, tmp_path: Path
) -> None:
    proxy = spawn(
        *("-d", str(tmp_path), "-c", f'test -s "$EMAIL" || exit 0; {REFUSE_ALL}', upstream.address),
        prelude=small_file_system(tmp_path, "size=128k"),
    )
    peer = in_data(proxy.client, upstream)
    sends_large(proxy.client, 90_000)
    assert proxy.client.line()[:3] in (b"452", b"550")
    peer.sees(b"QUIT")


@NAME_SPACES
def test_inode_shortage_results_in_452_reply(
    spawn: Spawn, upstream: Upstream, tmp_path: Path
) -> None:
    proxy = spawn(
        *("-d", str(tmp_path), "-c", "exit 0", upstream.address),
        prelude=small_file_system(tmp_path, "nr_inodes=1"),
    )
    peer = in_transaction(proxy.client, upstream)
    proxy.client.asks(b"DATA", b"452 ")
    quits(proxy.client, peer)


@NAME_SPACES
def test_filter_that_fills_disk_results_in_451_reply(
    spawn: Spawn, upstream: Upstream, tmp_path: Path
) -> None:
    proxy = spawn(
        *("-r", "-d", str(tmp_path), "-c", 'yes > "$OUTFILE" || exit 75', upstream.address),
        prelude=small_file_system(tmp_path, "size=128k"),
    )
    peer = in_data(proxy.client, upstream)
    proxy.client.says(*MESSAGE)
    proxy.client.sees_reply(b"451 ")
    peer.sees(b"QUIT")


def test_removed_spool_directory_causes_452_reply_without_ending_session(
    spawn: Spawn, upstream: Upstream, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    proxy = spawn("-d", str(spool), "-c", "exit 0", upstream.address)
    peer = in_transaction(proxy.client, upstream)
    spool.rmdir()
    proxy.client.asks(b"DATA", b"452 ")
    quits(proxy.client, peer)


def test_spool_directory_removed_by_filter_does_not_affect_message(
    spawn: Spawn, upstream: Upstream, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    proxy = spawn("-d", str(spool), "-c", f"rm -r {spool}", upstream.address)
    peer = in_data(proxy.client, upstream)
    proxy.client.says(*MESSAGE)
    takes_message(proxy.client, peer, *MESSAGE)
    quits(proxy.client, peer)


# Limits


def test_message_exceeding_file_size_limit_gets_452_reply(
    spawn: Spawn, upstream: Upstream, tmp_path: Path
) -> None:
    proxy = spawn(
        *("-d", str(tmp_path), "-c", "exit 0", upstream.address),
        prelude=limited("RLIMIT_FSIZE", 200_000),
    )
    peer = in_data(proxy.client, upstream)
    sends_large(proxy.client, 400_000)
    proxy.client.sees_reply(b"452 ")
    peer.sees(b"QUIT")
    peer.says(b"221 bye")
    passes_next_message(proxy.client, upstream)


#: The open file limits for a spawned proxy. Three descriptors belong to the client, and the
#: interpreter requires a fourth to read its modules.
FEW_DESCRIPTORS = range(4, 15)


@pytest.mark.parametrize("logging", [(), ("-v",)])
@pytest.mark.parametrize("descriptors", FEW_DESCRIPTORS)
def test_descriptor_shortage_causes_error_reply_without_delivery(
    spawn: Spawn, answering: Answering, tmp_path: Path, descriptors: int, logging: tuple[str, ...]
) -> None:
    limit = f"(resource.RLIMIT_NOFILE, ({descriptors}, {descriptors}))"
    program = f"import resource\nresource.setrlimit{limit}\n{RUN}"
    arguments = ["-d", str(tmp_path), *logging, "-c", REFUSE_ALL, answering.address]
    proxy = spawn(*arguments, command=[*ISOLATED_PYTHON, "-c", program])
    last = proxy.client.reply()
    for line in (b"EHLO x", b"MAIL FROM:<a@b>", b"RCPT TO:<c@d>", b"DATA", b"x\r\n."):
        if last[:1] not in (b"2", b"3"):
            break
        last = proxy.client.request(line)
    assert last[:1] in (b"4", b"5")
    assert not answering.messages
    proxy.client.leaves()
    assert proxy.exit_status() in (0, 1)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def for_all() -> Iterator[Path]:
    """A directory in which every user can create files."""
    directory = Path(tempfile.mkdtemp(prefix="faults-"))
    directory.chmod(0o1777)
    yield directory
    shutil.rmtree(directory)


@ROOT_ONLY
@pytest.mark.parametrize("rejecting", [(), ("-r",)])
def test_failed_fork_does_not_bypass_filter(
    spawn: Spawn, upstream: Upstream, for_all: Path, rejecting: tuple[str, ...]
) -> None:
    arguments = ["-d", str(for_all), *rejecting, "-c", REFUSE_ALL, upstream.address]
    client = spawn(*arguments, command=NO_MORE_PROCESSES).client
    peer = in_data(client, upstream)
    client.says(*MESSAGE)
    client.sees_reply(b"451 ")
    peer.sees(b"QUIT")
    peer.leaves()
    client.asks(b"QUIT", b"221 ")
    client.sees_end()
    assert not list(for_all.iterdir())


def readable(user: int, directory: Path, pid: int) -> int:
    """Return how many message files and proxy descriptors a user can open."""
    files = f"{directory}/*.email {directory}/*.out /proc/{pid}/fd/*"
    program = f'for file in {files}; do if test -r "$file"; then echo; fi; done'
    command = ["/bin/sh", "-c", program]
    return len(subprocess.check_output(command, user=user, group=user, extra_groups=[]))


@ROOT_ONLY
def test_other_users_cannot_open_message_files_or_descriptors(
    spawn: Spawn, upstream: Upstream, for_all: Path
) -> None:
    gate = for_all / "gate"
    os.mkfifo(gate)
    proxy = spawn("-d", str(for_all), "-c", f"read -r _ <{gate}; exit 0", upstream.address)
    peer = in_data(proxy.client, upstream)
    proxy.client.says(*MESSAGE)
    with gate.open("w"):  # waits until the filter is running
        assert readable(0, for_all, proxy.process.pid) > 2
        assert readable(NOBODY, for_all, proxy.process.pid) == 0
    takes_message(proxy.client, peer, *MESSAGE)
    quits(proxy.client, peer)


def test_large_message_uses_constant_memory(
    spawn: Spawn, upstream: Upstream, tmp_path: Path
) -> None:
    proxy = spawn(
        *("-d", str(tmp_path), "-c", 'cat "$EMAIL" > "$OUTFILE"', upstream.address),
        prelude=limited("RLIMIT_AS", 48 << 20),
    )
    peer = in_data(proxy.client, upstream)
    sends_large(proxy.client, 60 << 20)
    peer.sees(b"DATA")
    peer.says(b"354 go on")
    count = 0
    while peer.line() != b".\r\n":
        count += 1
    assert count == (60 << 20) // len(LARGE)
    peer.says(b"250 queued")
    proxy.client.sees(b"250 queued")


# Clients


def test_client_waits_until_idle_client_frees_slot(serve: Serve, upstream: Upstream) -> None:
    server = serve("--max-sessions", "4", upstream.address)
    idle = [server.client() for _ in range(4)]
    peers = [greeted(client, upstream) for client in idle]
    waiting = server.client()
    relays(idle[0], peers[0], b"NOOP")
    idle[1].leaves()
    peers[1].sees(b"QUIT")
    peers[1].leaves()
    greeted(waiting, upstream)
    relays(idle[0], peers[0], b"NOOP")
