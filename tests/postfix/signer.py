"""A real opendkim, which signs local mail and verifies other mail.

By default, OpenDKIM signs mail from 127.0.0.1 and from authenticated clients if the domain of the
From: header field is its own.
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
# Add an Authentication-Results field to every verified message.
AlwaysAddARHeader yes
Syslog no
Background no
"""


@functools.cache
def private_key() -> bytes:
    """Return a key, cached because it takes a second to generate."""
    command = ["openssl", "genrsa", "2048"]
    return subprocess.run(command, check=True, capture_output=True).stdout


@contextlib.contextmanager
def running_signer(directory: Path, address: Address) -> Iterator[None]:
    """Run opendkim as a milter on the address."""
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
    """Return whether a server listens on the address."""
    with socket.socket() as probe:
        return probe.connect_ex(address) == 0


def is_signed(delivered: bytes) -> bool:
    """Return whether the message header contains a signature."""
    header = delivered[: delivered.find(b"\n\n") + 1]
    return b"\nDKIM-Signature: " in header


def is_verified(delivered: bytes) -> bool:
    """Return whether OpenDKIM has verified the message."""
    return b"\nAuthentication-Results: " in delivered


def fits(delivered: bytes) -> bool:
    """Return whether the signature's body hash matches the delivered body (RFC 6376 3.7, bh=)."""
    header, _, body = delivered.partition(b"\n\n")
    given = re.search(rb"\sbh=([^;]*);", header)
    assert given is not None, "no signature"
    wire = body.replace(b"\n", b"\r\n")
    made = base64.b64encode(hashlib.sha256(wire).digest())
    return b"".join(given[1].split()) == made
