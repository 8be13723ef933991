"""The adapter for Debian's package qpsmtpd with the plugin queue/smtp-forward.

Rule: qpsmtpd replies to every command itself. The plugin sends the message to the upstream server
after qpsmtpd has received the message, so the delivery mode is `Deferred`.

- A second plugin accepts every recipient. The adapter removes the fields Received and
  Authentication-Results that qpsmtpd prepends to a message.
- QPSMTPD_CONFIG is the path of qpsmtpd's configuration directory. qpsmtpd has no filter.
"""

from __future__ import annotations

import os
import pwd

from postprox_conformance.adapters import Adapter, Deferred, Place, Program

QPSMTPD = "/usr/bin/qpsmtpd-forkserver"

ACCEPT_ALL = "sub hook_rcpt { return OK }\n1;\n"


def program(place: Place) -> Program:
    """Write qpsmtpd's configuration, and return its command."""
    spool = place.files / "spool"
    spool.mkdir(mode=0o700)
    place.write("plugins/accept_all", ACCEPT_ALL)
    configuration = {
        "plugins": f"accept_all\nqueue/smtp-forward {place.upstream.host} {place.upstream.port}",
        "plugin_dirs": f"/usr/share/qpsmtpd/plugins\n{place.files}/plugins",
        "me": "client.example",
        "spool_dir": str(spool),
        "loglevel": "0",
        "timeout": "300",
    }
    for name, text in configuration.items():
        place.write(f"config/{name}", text + "\n")
    user = pwd.getpwuid(os.geteuid()).pw_name
    entrance = ["-l", place.entrance.host, "-p", str(place.entrance.port)]
    return Program(
        ["perl", "-T", QPSMTPD, *entrance, "-u", user, "-c", "20", "-m", "20", "-H"],
        {"QPSMTPD_CONFIG": f"{place.files}/config"},
    )


ADAPTER = Adapter(
    program,
    Deferred(added=("received", "authentication-results")),
    version=["perl", "-MQpsmtpd", "-e", "print Qpsmtpd::version()"],
)
