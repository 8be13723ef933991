"""The adapter for smtp-gated, a transparent proxy in C, in its mode `fixed` without scanners.

Rule: smtp-gated itself handles every session and message. It relays each command at once, DATA as
well, so the passage is `Early`.

- smtp-gated always moves itself to the background. With -f it serves one session only and exits.
- It has a spool directory and a lock directory of its own, so it does not use DIR of -d. It has no
  filter.
"""

from __future__ import annotations

import os
import pwd

from postprox_conformance.adapters import Adapter, Early, Place, Program

SMTP_GATED = "/opt/smtp-gated/src/smtp-gated"

CONFIGURATION = """\
mode fixed
fixed_server {upstream.host}
fixed_server_port {upstream.port}
bind_address {entrance.host}
port {entrance.port}
set_user {user}
spool_path {files}/spool
lock_path {files}/lock
pidfile {files}/pid
statefile {files}/state
proxy_name client.example
max_load 999
max_per_host 500
log_level 0
nat_header_type 0
"""


def program(place: Place) -> Program:
    """Return the command of smtp-gated, with its configuration."""
    for name in ("spool", "lock"):
        (place.files / name).mkdir()
    text = CONFIGURATION.format(
        upstream=place.upstream,
        entrance=place.entrance,
        files=place.files,
        user=pwd.getpwuid(os.geteuid()).pw_name,
    )
    return Program([SMTP_GATED, place.write("smtp-gated.conf", text)], detaches=True)


ADAPTER = Adapter(program, Early(), version=[SMTP_GATED, "-v"])
