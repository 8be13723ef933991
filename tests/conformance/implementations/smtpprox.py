"""The adapter for smtpprox, a proxy in Perl.

Rule: smtpprox itself handles every session and message. It relays each command immediately,
including DATA, so the delivery mode is `Early`.

- After QUIT, smtpprox waits until the client closes the connection.
- Three child processes serve clients. smtpprox starts one of them every 0.1 s.
- smtpprox ignores the directory of -d, because it stores messages in unnamed files in /tmp. It does
  not support filters.
"""

from __future__ import annotations

from pathlib import Path

from postprox_conformance.adapters import Adapter, Early, Place, Program

CHECKOUT = Path("/opt/smtpprox")


def program(place: Place) -> Program:
    """Return smtpprox's command."""
    script = CHECKOUT / "smtpprox"
    return Program(
        ["perl", f"-I{CHECKOUT}", script, "--children=3", str(place.entrance), str(place.upstream)]
    )


ADAPTER = Adapter(
    program,
    Early(closes_after_quit=True),
    settling=0.4,
    version=["tail", "-n", "1", CHECKOUT / "ChangeLog"],
)
