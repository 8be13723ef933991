"""The scenarios: every step of the protocol, combined with every fault and every filter.

Rule: a scenario is determined by its name, so each can be run again separately with `python3 -m
tests.faults NAME`.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from tests.faults.filters import KINDS

MODES = ("spawned", "listening")

#: The moments of a session, in order. The client or a signal acts at one of them.
BEFORE_THE_FILTER = ("connected", "greeted", "hello", "sender", "recipient", "data", "content")
WITH_A_VERDICT = ("ended", "filtering", "asked", "taking", "taken", "answered")
MOMENTS = (*BEFORE_THE_FILTER, *WITH_A_VERDICT)
CLIENT_DEEDS = ("closes", "resets", "half-closes", "stalls")
SIGNALS = {
    "spawned": ("TERM", "TERM-TERM", "INT", "HUP"),
    "listening": ("TERM", "TERM-TERM", "INT"),  # a server ignores SIGHUP
}

#: The commands that upstream receives, and its possible faults. At "content", upstream has begun to
#: read the message, all of which may have been sent. At "sending", most of it has not been sent,
#: because the buffer of upstream's socket is small. "own-RSET" is sent by the proxy itself.
UPSTREAM_STEPS = (
    "greeting",
    "EHLO",
    "XFORWARD",
    "MAIL",
    "RCPT",
    "DATA",
    "content",
    "sending",
    "end",
    "RSET",
    "own-RSET",
    "QUIT",
)
UPSTREAM_DEEDS = ("closes", "resets", "stalls", "4yz", "5yz", "421", "garbage", "half", "twice")

#: What upstream may do too as long as it has not been sent the whole message. A 2yz that it gives
#: for what it was sent whole is believed, and no proxy could do better.
EARLY_DEEDS = ("accepts-and-closes", "accepts-and-resets")

#: The commands that upstream must refuse first, so that the step occurs. The client resets a
#: refused envelope, and the proxy resets that of a refused message.
LEADING_TO = {"RSET": "RCPT", "own-RSET": "DATA"}

#: The filters for scenarios that end before the filter.
_A_FEW = ("accepts", "refuses", "fails")


@dataclass(frozen=True)
class Scenario:
    """One session, in which `who` does `deed` at `moment` ("nobody", "" and "" for no fault)."""

    mode: str
    kind: str
    who: str
    moment: str
    deed: str

    @property
    def fault(self) -> str:
        """The fault, without the filter and the mode."""
        return f"{self.who}-{self.deed}-at-{self.moment}" if self.moment else "nothing"

    @property
    def name(self) -> str:
        """The scenario's name."""
        return f"{self.mode}/{self.kind}/{self.fault}"

    @property
    def narrow(self) -> bool:
        """Whether the buffer of upstream's socket is smaller than a block of the message."""
        return self.moment == "sending"

    @property
    def rejecting(self) -> bool:
        """Whether the proxy runs with -r, which depends only on the name of the scenario."""
        return bool(zlib.crc32(self.name.encode()) & 1)


def every_scenario() -> Iterator[Scenario]:
    """Return all scenarios in a fixed order."""
    for mode, kind in product(MODES, KINDS):
        yield Scenario(mode, kind, "nobody", "", "")
        for who, deeds in (("client", CLIENT_DEEDS), ("signal", SIGNALS[mode])):
            moments = MOMENTS if kind in _A_FEW else WITH_A_VERDICT
            for moment, deed in product(moments, deeds):
                yield Scenario(mode, kind, who, moment, deed)
        for moment, deed in product(UPSTREAM_STEPS, UPSTREAM_DEEDS):
            yield Scenario(mode, kind, "upstream", moment, deed)
        for deed in EARLY_DEEDS:
            yield Scenario(mode, kind, "upstream", "sending", deed)


def sample(size: int, seed: int) -> list[Scenario]:
    """Return a sample of `size` scenarios that is determined by the seed."""
    return random.Random(seed).sample(list(every_scenario()), size)  # noqa: S311
