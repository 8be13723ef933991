"""Scenarios: every step of the protocol, times all that may go wrong at it, times every filter.

Rule: a scenario is a name. Everything that happens in it follows from the name, so any can be run
again by itself; `python3 -m tests.faults NAME`.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from tests.faults.filters import KINDS

MODES = ("spawned", "listening")

#: Moments of a session, in their order. What the client or a signal does happens at one of them.
BEFORE_THE_FILTER = ("connected", "greeted", "hello", "sender", "recipient", "data", "content")
WITH_A_VERDICT = ("ended", "filtering", "asked", "taking", "taken", "answered")
MOMENTS = (*BEFORE_THE_FILTER, *WITH_A_VERDICT)
CLIENT_DEEDS = ("closes", "resets", "half-closes", "stalls")
SIGNALS = {
    "spawned": ("TERM", "TERM-TERM", "INT", "HUP"),
    "listening": ("TERM", "TERM-TERM", "INT"),  # a server ignores SIGHUP
}

#: What upstream is asked, and what it may do instead of answering. It has the message's "content"
#: when it has begun to read, though all of it may be on its way; when the proxy is "sending", most
#: is not, for upstream's socket takes only a little. Its "own-RSET" the proxy sends unasked.
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

#: What upstream refuses beforehand, so that the step comes at all: the client takes an envelope
#: back that was refused, and the proxy one whose message was.
LEADING_TO = {"RSET": "RCPT", "own-RSET": "DATA"}

#: The filters of scenarios that never come to the filter.
_A_FEW = ("accepts", "refuses", "fails")


@dataclass(frozen=True)
class Scenario:
    """One session: `who` does `deed` at `moment`; "nobody", "" and "" if all goes well."""

    mode: str
    kind: str
    who: str
    moment: str
    deed: str

    @property
    def fault(self) -> str:
        """What goes wrong, whatever the filter and the mode."""
        return f"{self.who}-{self.deed}-at-{self.moment}" if self.moment else "nothing"

    @property
    def name(self) -> str:
        """The scenario's name."""
        return f"{self.mode}/{self.kind}/{self.fault}"

    @property
    def narrow(self) -> bool:
        """Whether upstream's socket takes less than one block of a message at a time."""
        return self.moment == "sending"

    @property
    def rejecting(self) -> bool:
        """Whether the proxy runs with -r: in half of the scenarios, always the same half."""
        return bool(zlib.crc32(self.name.encode()) & 1)


def every_scenario() -> Iterator[Scenario]:
    """All scenarios, always in the same order."""
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
    """Return `size` of all scenarios, the same ones for the same seed."""
    return random.Random(seed).sample(list(every_scenario()), size)  # noqa: S311
