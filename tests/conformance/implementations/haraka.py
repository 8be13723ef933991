"""The adapter for Haraka with its plugin queue/smtp_proxy, of npm's package Haraka.

Rule: Haraka answers every command itself. Its plugin opens the upstream connection at MAIL and
sends DATA before it has the content, so the passage is `Deferred(holds_data=True)`.

- The second plugin accepts every recipient. Haraka's field Received is switched off.
- Haraka takes seconds to start, so haraka.toml keeps it running. It has no filter.
"""

from __future__ import annotations

from pathlib import Path

from postprox_conformance.adapters import Adapter, Deferred, Place, Program

MODULES = Path("/opt/haraka/node_modules")
NODE = MODULES / ".bin" / "node"
HARAKA = MODULES / "Haraka" / "bin" / "haraka"
#: The defaults, which a file of the same name replaces as a whole.
CONNECTION = MODULES / "Haraka" / "config" / "connection.ini"

ACCEPT_ALL = "exports.hook_rcpt = (next) => next(OK)\n"


def program(place: Place) -> Program:
    """Return the command of Haraka, with its configuration."""
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
