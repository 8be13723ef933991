"""Verifies a DKIM signature as a receiver does, but for the DNS."""

from __future__ import annotations

import subprocess
from pathlib import Path

# The module is Debian's, for Debian's Python; the DNS is a file.
VERIFY = """
import sys
import dkim
record = open(sys.argv[1], "rb").read()
names = []
def txt(name, timeout=5):
    names.append(name.decode())
    return record
good = dkim.verify(sys.stdin.buffer.read(), dnsfunc=txt)
print(good, *names)
"""


def verified(record: Path, message: bytes) -> str:
    """Return whether the signature is right, and the DNS names asked for, answered by `record`."""
    # As it is on the wire, and in the receiver's mailbox.
    wire = message.replace(b"\n", b"\r\n")
    done = subprocess.run(
        ["/usr/bin/python3", "-c", VERIFY, str(record)],
        input=wire,
        stdout=subprocess.PIPE,
        check=True,
    )
    return done.stdout.decode().strip()
