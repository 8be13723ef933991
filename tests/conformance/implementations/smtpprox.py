"""The adapter for smtpprox, a proxy in Perl.

Rule: smtpprox itself handles every session and message. It relays each command at once, DATA as
well, so the passage is `Early`.

- After QUIT smtpprox waits until the client closes the connection.
- Three children serve clients. smtpprox starts one child each 0.1 s.
- Messages are in unnamed files in /tmp, so smtpprox does not use DIR of -d. It has no filter.
"""

from __future__ import annotations

from pathlib import Path

from postprox_conformance.adapters import Adapter, Early, Place, Program

CHECKOUT = Path("/opt/smtpprox")


def program(place: Place) -> Program:
    """Return the command of smtpprox."""
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
