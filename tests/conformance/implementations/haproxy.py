"""The adapter for HAProxy in TCP mode, which relays octets without interpreting SMTP.

Rule: docs/adapters.md explains this file line by line.
"""

from __future__ import annotations

from postprox_conformance.adapters import Adapter, Early, Place, Program

CONFIGURATION = """\
defaults
  mode tcp
  retries 0
  timeout connect 30s
  timeout client 300s
  timeout server 300s
  timeout client-fin 1s
  timeout server-fin 1s
frontend clients
  bind {entrance}
  default_backend upstream
backend upstream
  server upstream {upstream}
"""


def program(place: Place) -> Program:
    """Write HAProxy's configuration, and return its command."""
    text = CONFIGURATION.format(entrance=place.entrance, upstream=place.upstream)
    configuration = place.write("haproxy.cfg", text)
    return Program(["/usr/sbin/haproxy", "-db", "-f", configuration])


ADAPTER = Adapter(program, Early())
