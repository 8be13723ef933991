"""The adapter for smtp-gated, a transparent proxy in C, in mode `fixed` without scanners.

Rule: smtp-gated itself handles every session and message. It relays each command immediately,
including DATA, so the delivery mode is `Early`.

- smtp-gated always goes into the background. With -f, it serves only one session and exits.
- smtp-gated relays STARTTLS unless its option `forbid_starttls` is set, and then passes all octets
  unread. The adapter sets the option.
- smtp-gated ignores the directory of -d, because it has its own spool and lock directories. It does
  not support filters.
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
forbid_starttls yes
"""


def program(place: Place) -> Program:
    """Write smtp-gated's configuration, and return its command."""
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
