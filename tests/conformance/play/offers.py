"""Checks that the declared capabilities match the EHLO reply.

Rule: a contradiction is an error in the implementation file, which is reported before a run.
"""

from __future__ import annotations

from ..format.client_side import reply_codes
from ..format.extensions import SHOWN_BY_EHLO, keywords
from ..format.reader import parse_transcript
from .engine import Engine
from .harness import Harness, HarnessError, Settings
from .implementation import Implementation, ImplementationError
from .observers import StepFailedError

_HELLO = """\
+++
title = "EHLO: the upstream server offers every extension that is a capability"
requires = ["relay.ehlo-7"]
+++
U> 220 up.example ESMTP
C? 220
C> EHLO client.example
U< EHLO client.example
U> 250-up.example\\r\\n250-PIPELINING\\r\\n250-SIZE 10240000\\r\\n250-8BITMIME
U+ 250 ENHANCEDSTATUSCODES
"""


def check_offers(settings: Settings, mode: str) -> None:
    """Raise an error if the implementation file contradicts the EHLO reply in *mode*."""
    implementation = settings.implementation
    if implementation.described and (reply := ehlo_reply(settings, mode)):
        contradictions = contradictions_of(implementation, reply)
        if contradictions:
            raise ImplementationError(f"{implementation.name}: {'; '.join(contradictions)}")


def ehlo_reply(settings: Settings, mode: str) -> bytes:
    """Return the EHLO reply, or nothing if the program does not relay EHLO or its reply."""
    harness = Harness(parse_transcript(_HELLO, "ehlo"), mode, settings)
    try:
        harness.prepare()
        engine = Engine(harness)
        engine.start()
        engine.run(harness.transcript.steps)
        received = harness.clients["C"].received
        harness.wait_until(lambda: bool(reply_codes(bytes(received))))
        return bytes(received)
    except (HarnessError, StepFailedError):
        return b""
    finally:
        harness.close()


def contradictions_of(implementation: Implementation, reply: bytes) -> list[str]:
    """Return a message for each capability that *implementation* declares incorrectly."""
    shown = keywords(reply)
    return [
        f"capability '{capability}' is {'missing' if keyword in shown else 'declared'}, but the "
        f"reply to EHLO {'offers' if keyword in shown else 'lacks'} {keyword.decode()}"
        for keyword, capability in SHOWN_BY_EHLO.items()
        if (keyword in shown) != (capability in implementation.capabilities)
    ]
