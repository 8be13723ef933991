"""The test of the benchmarks as a milter (pymilter, Debian's package python3-milter).

    python3 milter.py SOCKET MARK

Rule: the test is the one of the scripts in `filters`, but runs within this process.
"""

from __future__ import annotations

import os
import sys

import Milter

SOCKET, MARK = sys.argv[1], sys.argv[2].encode()


class Scan(Milter.Base):  # type: ignore[misc]
    """One connection of smtpd(8)."""

    def envfrom(self, *_: object) -> int:
        """Begin a message."""
        self.content = bytearray()
        return int(Milter.CONTINUE)

    def body(self, chunk: bytes) -> int:
        """Keep a part of the message."""
        self.content += chunk
        return int(Milter.CONTINUE)

    def eom(self) -> int:
        """Reject a message that contains the mark."""
        return int(Milter.REJECT if MARK in self.content else Milter.CONTINUE)


os.umask(0)  # smtpd(8) runs as another user
Milter.factory = Scan
Milter.runmilter("scan", SOCKET, 60)
