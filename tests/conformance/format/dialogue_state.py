"""The state of a dialogue after some of a transcript's steps: all client and upstream sides.

Rule: a state is a plain value. `Sides.after` returns the next one.
"""

from __future__ import annotations

from dataclasses import dataclass

from .client_side import ClientSide, reply_codes
from .nodes import Group, ReplyPattern, Step
from .payload import Payload

#: A code other than 354, in place of a pattern's code.
_OTHER = b""
_CONTINUE = "354"


@dataclass(frozen=True)
class Sides:
    """The senders of commands by actor: the clients, and the program as an upstream client."""

    _sides: tuple[tuple[str, ClientSide], ...] = ()

    def of(self, actor: str) -> ClientSide:
        """Return the side of *actor*."""
        return dict(self._sides).get(actor, ClientSide())

    def after(self, group: Group) -> Sides:
        """Return the state after the steps of *group*."""
        actor, side = group[0].actor, self.of(group[0].actor)
        if is_connect(group[0]):
            return self._with(actor, ClientSide())
        if commands := commands_of(group):
            return self._with(actor, side.sent(commands))
        if codes := codes_of(group):
            return self._with(actor, side.replied(*codes))
        return self

    def _with(self, actor: str, side: ClientSide) -> Sides:
        return Sides(tuple(sorted({**dict(self._sides), actor: side}.items())))


def is_connect(step: Step) -> bool:
    """Whether *step* begins a connection."""
    return step.verb == "@connect"


def commands_of(group: Group) -> bytes:
    """Return the octets that a client sends or the upstream server awaits in *group*."""
    step = group[0]
    if f"{step.kind}{step.mark}" in ("C>", "U<") and not step.verb:
        return octets_of(group)
    return b""


def codes_of(group: Group) -> tuple[bytes, ...]:
    """Return the codes of the replies that a client awaits or upstream sends in *group*."""
    step = group[0]
    if isinstance(step.argument, ReplyPattern):
        codes = step.argument.codes
        return (_CONTINUE.encode() if _CONTINUE in codes or "3xx" in codes else _OTHER,)
    if f"{step.kind}{step.mark}" in ("C<", "U>") and not step.verb:
        return reply_codes(octets_of(group))
    return ()


def octets_of(group: Group) -> bytes:
    """Return the abridged octets of *group*."""
    payloads = (step.argument for step in group if isinstance(step.argument, Payload))
    return b"".join(payload.abridged() for payload in payloads)


#: The state before the first step.
NO_SIDES = Sides()
