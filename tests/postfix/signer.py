"""A real opendkim, which signs local mail and verifies other mail.

What it takes for own mail is its default: what comes from 127.0.0.1, and what an authenticated
client sends, if the From: header names the domain.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .instance import Address, program, wait_for

CONFIGURATION = """
Mode sv
Domain mail.test
Selector test
KeyFile {dir}/key.pem
RequireSafeKeys no
Socket inet:{address.port}@{address.host}
Canonicalization relaxed/simple
# Say of every message that was verified that it was.
AlwaysAddARHeader yes
Syslog no
Background no
"""


@functools.cache
def private_key() -> bytes:
    """A key, made once: making one takes a second of a busy machine."""
    command = ["openssl", "genrsa", "2048"]
    return subprocess.run(command, check=True, capture_output=True).stdout


@contextlib.contextmanager
def running_signer(directory: Path, address: Address) -> Iterator[None]:
    """opendkim as a milter at the address, within the `with`."""
    opendkim = program("opendkim")
    if opendkim is None:
        pytest.skip("opendkim is not installed (Debian: apt-get install opendkim)")
    (directory / "key.pem").touch(mode=0o600)
    (directory / "key.pem").write_bytes(private_key())
    configuration = directory / "opendkim.conf"
    configuration.write_text(CONFIGURATION.format(dir=directory, address=address))
    with subprocess.Popen([opendkim, "-f", "-x", configuration]) as daemon:
        wait_for("opendkim to listen", lambda: accepts(address))
        try:
            yield
        finally:
            daemon.kill()  # it stores nothing, and SIGTERM takes 5 s


def accepts(address: Address) -> bool:
    """Whether a server listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(address) == 0


def is_signed(delivered: bytes) -> bool:
    """Whether the header of the message holds a signature."""
    header = delivered[: delivered.find(b"\n\n") + 1]
    return b"\nDKIM-Signature: " in header


def is_verified(delivered: bytes) -> bool:
    """Whether the message was looked at for a signature."""
    return b"\nAuthentication-Results: " in delivered


def fits(delivered: bytes) -> bool:
    """Whether the signature was made over the body that was delivered (RFC 6376 3.7, bh=)."""
    header, _, body = delivered.partition(b"\n\n")
    given = re.search(rb"\sbh=([^;]*);", header)
    assert given is not None, "no signature"
    wire = body.replace(b"\n", b"\r\n")
    made = base64.b64encode(hashlib.sha256(wire).digest())
    return b"".join(given[1].split()) == made
