"""The adapter for the Proxy handler in PyPI's package aiosmtpd.

Rule: aiosmtpd replies to every command itself. Its handler sends the message to the upstream server
after it has received the message, so the delivery mode is `Deferred`.

- The handler has no command line, because `aiosmtpd -c aiosmtpd.handlers.Proxy` rejects the
  handler's two arguments. A script starts the server with the class that aiosmtpd provides for this
  purpose.
- The handler adds the field X-Peer at the end of the header. The adapter removes this field.
- aiosmtpd runs with the Python interpreter in /opt/aiosmtpd. It does not support filters.
"""

from __future__ import annotations

from postprox_conformance.adapters import Adapter, Deferred, Place, Program

PYTHON = "/opt/aiosmtpd/bin/python"

SCRIPT = """\
import asyncio, signal, sys
from aiosmtpd.controller import UnthreadedController
from aiosmtpd.handlers import Proxy

host, port, upstream_host, upstream_port = sys.argv[1:]
loop = asyncio.new_event_loop()
handler = Proxy(upstream_host, int(upstream_port))
UnthreadedController(handler, hostname=host, port=int(port), loop=loop).begin()
loop.add_signal_handler(signal.SIGTERM, loop.stop)
loop.run_forever()
"""

VERSION = "import aiosmtpd; print(aiosmtpd.__version__)"


def program(place: Place) -> Program:
    """Return the command that starts a server with the Proxy handler."""
    script = place.write("proxy.py", SCRIPT)
    ends = (place.entrance, place.upstream)
    addresses = [str(part) for end in ends for part in (end.host, end.port)]
    return Program([PYTHON, script, *addresses])


ADAPTER = Adapter(
    program, Deferred(added=(), appended=("x-peer",)), version=[PYTHON, "-c", VERSION]
)
