"""The adapter for Debian's package qpsmtpd with the plugin queue/smtp-forward.

Rule: qpsmtpd replies to every command itself. The plugin sends the message to the upstream server
after qpsmtpd has received the message, so the delivery mode is `Deferred`.

- The plugins are rcpt_ok and queue/smtp-forward. The adapter removes the fields Received and
  Authentication-Results that qpsmtpd prepends to a message.
- QPSMTPD_CONFIG is the path of qpsmtpd's configuration directory. qpsmtpd has no filter.
"""

from __future__ import annotations

import os
import pwd

from postprox_conformance.adapters import Adapter, Deferred, Place, Program

QPSMTPD = "/usr/bin/qpsmtpd-forkserver"


def program(place: Place) -> Program:
    """Write qpsmtpd's configuration, and return its command."""
    spool = place.files / "spool"
    spool.mkdir(mode=0o700)
    configuration = {
        "plugins": f"rcpt_ok\nqueue/smtp-forward {place.upstream.host} {place.upstream.port}",
        "plugin_dirs": "/usr/share/qpsmtpd/plugins",
        "relayclients": "127.",
        "rcpthosts": "example",
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
