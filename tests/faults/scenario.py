"""The scenarios: every protocol step, combined with every fault and every filter.

Rule: the name determines the scenario completely. `python3 -m tests.faults NAME` runs it again.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from tests.faults.filters import KINDS

MODES = ("spawned", "listening")

#: The moments of a session, in order. The client acts or a signal arrives at one of them.
BEFORE_THE_FILTER = ("connected", "greeted", "hello", "sender", "recipient", "data", "content")
WITH_A_VERDICT = ("ended", "filtering", "asked", "taking", "taken", "answered")
MOMENTS = (*BEFORE_THE_FILTER, *WITH_A_VERDICT)
CLIENT_DEEDS = ("closes", "resets", "half-closes", "stalls")
SIGNALS = {
    "spawned": ("TERM", "TERM-TERM", "INT", "HUP"),
    "listening": ("TERM", "TERM-TERM", "INT"),  # a server ignores SIGHUP
}

#: The commands that upstream receives, and its possible faults. At "content", upstream has begun to
#: read the message, and the proxy may have sent all of it. At "sending", the proxy has not sent
#: most of it, because upstream's socket buffer is small. The proxy itself sends "own-RSET".
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

#: Additional upstream faults before upstream has received the whole message. After that message
#: was sent, a proxy has to accept any 2yz as the final reply.
EARLY_DEEDS = ("accepts-and-closes", "accepts-and-resets")

#: The command that upstream must refuse before each step can occur. The client sends RSET after a
#: refused envelope, and the proxy sends RSET after a refused message.
LEADING_TO = {"RSET": "RCPT", "own-RSET": "DATA"}

#: The filters for scenarios whose fault occurs before the filter runs.
_A_FEW = ("accepts", "refuses", "fails")


@dataclass(frozen=True)
class Scenario:
    """One session, in which `who` performs `deed` at `moment`, or "nobody" without a fault."""

    mode: str
    kind: str
    who: str
    moment: str
    deed: str

    @property
    def fault(self) -> str:
        """The scenario's name without the mode and the filter."""
        return f"{self.who}-{self.deed}-at-{self.moment}" if self.moment else "nothing"

    @property
    def name(self) -> str:
        """The scenario's name."""
        return f"{self.mode}/{self.kind}/{self.fault}"

    @property
    def narrow(self) -> bool:
        """True if upstream's socket buffer is smaller than a block of the message."""
        return self.moment == "sending"

    @property
    def rejecting(self) -> bool:
        """True if the proxy runs with -r. This depends only on the scenario's name."""
        return bool(zlib.crc32(self.name.encode()) & 1)


def every_scenario() -> Iterator[Scenario]:
    """Yield all scenarios in a fixed order."""
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
    """Return `size` scenarios. The selection depends only on the seed."""
    return random.Random(seed).sample(list(every_scenario()), size)  # noqa: S311
