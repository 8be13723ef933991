"""The adapter for npm's package Haraka with the plugin queue/smtp_proxy.

Rule: Haraka replies to every command itself. The plugin opens the upstream connection at MAIL and
sends DATA before it has the content, so the delivery mode is `Deferred(holds_data=True)`.

- A second plugin accepts every recipient. Haraka's Received field is disabled.
- Haraka takes seconds to start, so haraka.toml keeps it running. It does not support filters.
"""

from __future__ import annotations

from pathlib import Path

from postprox_conformance.adapters import Adapter, Deferred, Place, Program

MODULES = Path("/opt/haraka/node_modules")
NODE = MODULES / ".bin" / "node"
HARAKA = MODULES / "Haraka" / "bin" / "haraka"
#: Haraka's default configuration. A file with the same name replaces a default file entirely.
CONNECTION = MODULES / "Haraka" / "config" / "connection.ini"

ACCEPT_ALL = "exports.hook_rcpt = (next) => next(OK)\n"


def program(place: Place) -> Program:
    """Write Haraka's configuration, and return its command."""
    place.write("plugins/accept_all.js", ACCEPT_ALL)
    place.write("package.json", "{}\n")
    (place.files / "queue").mkdir()
    (place.files / "node_modules").symlink_to(MODULES)
    connection = CONNECTION.read_text("utf-8")
    configuration = {
        "plugins": "accept_all\nqueue/smtp_proxy",
        "smtp.ini": f"listen={place.entrance}\nnodes=0",
        "connection.ini": connection.replace("; add_received=true", "add_received=false"),
        "smtp_proxy.ini": f"host={place.upstream.host}\nport={place.upstream.port}",
        "loglevel": "LOGCRIT",
        "me": "client.example",
        "host_list": "example",
    }
    for name, text in configuration.items():
        place.write(f"config/{name}", text + "\n")
    return Program([NODE, HARAKA, "-c", place.files])


ADAPTER = Adapter(
    program,
    Deferred(added=(), holds_data=True),
    starting=60,
    version=[NODE, HARAKA, "-v"],
)
