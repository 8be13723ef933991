"""Tests that a failing kernel call never loses a message, a file or another session.

Each kind of call fails at two points of a session in the gate, and at eight in `nox -s faults`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.faults.traced import some_calls
from tests.support.fixtures import Serve, Spawn
from tests.support.upstream import MESSAGE, Upstream, in_data, quits, takes_message

INDEXES = 8 if "POSTPROX_FAULTS" in os.environ else 2

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is needed")


@pytest.mark.parametrize("mode", ["spawned", "listening"])
def test_guarantees_hold_if_strace_injects_error(mode: str, tmp_path: Path) -> None:
    findings = some_calls(mode, INDEXES, tmp_path / "proxy")
    assert not findings.violations
    assert {"read", "write", "openat", "mmap", "linkat", "pread64"} <= findings.injected.keys()


def refused_links(directory: Path, error: str, address: str) -> tuple[list[str], dict[str, Any]]:
    """Return the arguments and the command of a proxy for which linkat(2) fails."""
    (directory / "spool").mkdir()
    strace = ["strace", "-D", "-o", str(directory / "calls")]
    prelude = [*strace, "-e", f"inject=linkat:error={error}"]
    command = 'grep -q body "$EMAIL"'
    return ["-r", "-d", str(directory / "spool"), "-c", command, address], {"prelude": prelude}


def links_tried(directory: Path) -> int:
    assert not list((directory / "spool").iterdir())
    return (directory / "calls").read_text().count("linkat(")


@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
def test_spawned_proxy_delivers_message_despite_failed_linkat(
    spawn: Spawn, upstream: Upstream, tmp_path: Path, error: str
) -> None:
    arguments, how = refused_links(tmp_path, error, upstream.address)
    client = spawn(*arguments, **how).client
    peer = in_data(client, upstream)
    client.says(*MESSAGE)
    takes_message(client, peer, *MESSAGE)
    quits(client, peer)
    assert links_tried(tmp_path) == 1


@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
def test_listening_proxy_does_not_retry_failed_linkat(
    serve: Serve, upstream: Upstream, tmp_path: Path, error: str
) -> None:
    arguments, how = refused_links(tmp_path, error, upstream.address)
    server = serve(*arguments, **how)
    for _ in range(2):
        client = server.client()
        peer = in_data(client, upstream)
        client.says(*MESSAGE)
        takes_message(client, peer, *MESSAGE)
        quits(client, peer)
    assert links_tried(tmp_path) == 1
