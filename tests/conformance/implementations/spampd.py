"""The adapter for spampd(8) from Debian's spampd package.

Rule: spampd itself handles every session and message. It relays DATA before it has the content, so
the delivery mode is `Early`.

- -t, the time limit for a message, becomes --satimeout. spampd ignores the directory of -d, because
  it stores messages in unnamed files in /tmp.
- With --maxsize=0, every message is too large to scan and is relayed unchanged. SpamAssassin still
  loads all its rules, which takes a second.
- After QUIT, spampd waits until the client closes the connection.
"""

from __future__ import annotations

import os
import pwd

from postprox_conformance.adapters import Adapter, Early, Place, Program


def program(place: Place) -> Program:
    """Return spampd's command."""
    argv = [
        "/usr/sbin/spampd",
        f"--socket={place.entrance}",
        f"--relaysocket={place.upstream}",
        f"--satimeout={place.options.timeout}",
        f"--pid={place.files}/pid",
        f"--user={pwd.getpwuid(os.geteuid()).pw_name}",
        f"--group={os.getegid()}",
        *("--local-only", "--maxsize=0", "--children=2"),
        *(["--nodetach"] if place.options.foreground else []),
        # Net::Server reads this variable. After a SIGKILL, its lock file would remain in /tmp.
        *("--", "serialize=none"),
    ]
    return Program(argv, detaches=not place.options.foreground)


#: A child process of spampd that is still starting would survive a SIGTERM.
SETTLING = 0.3

ADAPTER = Adapter(program, Early(closes_after_quit=True), unix=True, settling=SETTLING)
