"""Determines the bare LF policies with which a program can complete a transcript.

Rule: a policy is excluded if the transcript expects content upstream that contradicts it. The
policy refuse also requires a step that accepts a 5yz reply.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .alternatives import final_states
from .dialogue_state import NO_SIDES, Sides, commands_of
from .nodes import Group, Node, ReplyPattern
from .vocabulary import BARE_LF_POLICIES

PASS, NORMALISE, REFUSE = BARE_LF_POLICIES
_BARE_LF = re.compile(rb"(?<!\r)\n")


@dataclass(frozen=True)
class _State:
    sides: Sides = NO_SIDES
    policies: frozenset[str] = frozenset(BARE_LF_POLICIES)
    #: Whether a client has sent a bare LF in content or after a command.
    is_in_content: bool = False
    is_in_command: bool = False
    is_refused: bool = False

    def after(self, group: Group) -> _State:
        step, side = group[0], self.sides.of(group[0].actor)
        octets = commands_of(group)
        found = step.kind == "C" and _has_bare_lf(side.rest, octets)
        excluded: set[str] = set()
        if self.is_in_content and step.kind == "U" and side.is_content and octets:
            is_passed = _has_bare_lf(side.rest, side.content_in(octets))
            excluded = {REFUSE, NORMALISE if is_passed else PASS}
        elif self.is_in_content and step.verb == "@message":
            excluded = {REFUSE}
        refuses = (
            side.awaits_final_reply
            and isinstance(step.argument, ReplyPattern)
            and any(code.startswith("5") for code in step.argument.codes)
        )
        return _State(
            self.sides.after(group),
            self.policies - excluded,
            self.is_in_content or (found and side.is_content),
            self.is_in_command or (found and not side.is_content),
            self.is_refused or refuses,
        )

    @property
    def permitted(self) -> frozenset[str]:
        is_accepted = self.is_in_command or (self.is_in_content and not self.is_refused)
        return self.policies - {REFUSE} if is_accepted else self.policies


def _has_bare_lf(before: bytes, octets: bytes) -> bool:
    """Whether *octets*, which follow *before*, contain an LF without CR."""
    return _BARE_LF.search(before + octets, len(before)) is not None


def bare_lf_policies(nodes: tuple[Node, ...]) -> frozenset[str]:
    """Return the BARE_LF_POLICIES that at least one path through *nodes* permits."""
    return frozenset().union(
        *(state.permitted for state in final_states(nodes, _State(), _State.after))
    )
