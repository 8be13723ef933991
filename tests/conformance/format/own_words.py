"""Replaces a reply with its class if a profile does not prescribe the reply's text.

Rule: without the class transparent, these are the replies to all commands, except the reply to the
end of data in the class synchronous.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from .client_side import ClientSide
from .dialogue_state import NO_SIDES, Sides, octets_of
from .nodes import Either, Group, Include, Node, Note, ReplyPattern, Step
from .profiles import Profile

_REPLY_LINE = re.compile(rb"([2-5])[0-9]{2}(?:([ -])[^\n]*)?\r?\n")


@dataclass(frozen=True)
class _State:
    """The state of one path through the alternatives."""

    sides: Sides = NO_SIDES
    #: The clients that have received only a part of a reply.
    in_reply: frozenset[str] = frozenset()

    def after(self, group: Group) -> _State:
        step, in_reply = group[0], self.in_reply
        if _is_reply(step):
            lines = octets_of(group).splitlines()
            is_open = bool(lines) and lines[-1][3:4] == b"-"
            in_reply = in_reply | {step.actor} if is_open else in_reply - {step.actor}
        return _State(self.sides.after(group), in_reply)


_States = frozenset[_State]


def in_own_words(nodes: tuple[Node, ...], profile: Profile) -> tuple[Node, ...]:
    """Return *nodes*, with only the class of each reply that *profile* does not prescribe."""
    if "transparent" in profile.classes:
        return nodes
    return _Rewriter("synchronous" in profile.classes).nodes(nodes, frozenset((_State(),)))[0]


@dataclass(frozen=True)
class _Rewriter:
    #: Whether the reply to the end of data comes from the upstream server.
    relays_final_reply: bool

    def nodes(self, nodes: tuple[Node, ...], states: _States) -> tuple[tuple[Node, ...], _States]:
        """Return the rewritten *nodes* and the states after them."""
        written: list[Node] = []
        for node in _with_continuations(nodes):
            match node:
                case tuple():
                    written += self._group(node, states)
                    states = frozenset(state.after(node) for state in states)
                case Either(branches):
                    ends = [self.nodes(branch, states) for branch in branches]
                    states = frozenset().union(*(end for _, end in ends))
                    rewritten = tuple(branch for branch, _ in ends)
                    if any(rewritten):
                        written.append(replace(node, branches=rewritten))
                case Include():
                    steps, states = self.nodes(node.steps, states)
                    written.append(replace(node, steps=steps))
                case Note():
                    written.append(node)
        return tuple(written), states

    def _group(self, group: Group, states: _States) -> tuple[Step, ...]:
        step = group[0]
        if not _is_reply(step) or self._is_relayed(step, states):
            return group
        lines = octets_of(group).splitlines(keepends=True)
        found = [_REPLY_LINE.fullmatch(line) for line in lines]
        patterns = []
        is_open = any(step.actor in state.in_reply for state in states)
        for one in found:
            if one is None:
                return group
            if not is_open:
                patterns.append(ReplyPattern((f"{one[1].decode()}xx",)))
            is_open = one[2] == b"-"
        return tuple(replace(step, mark="?", argument=one, source="") for one in patterns)

    def _is_relayed(self, step: Step, states: _States) -> bool:
        sides = (state.sides.of(step.actor) for state in states)
        return self.relays_final_reply and any(map(_awaits_final_reply, sides))


def _awaits_final_reply(side: ClientSide) -> bool:
    return side.awaits_final_reply


def _is_reply(step: Step) -> bool:
    return (step.kind, step.mark, step.verb) == ("C", "<", "")


def _with_continuations(nodes: tuple[Node, ...]) -> list[Either | Include | Note | Group]:
    """Return *nodes*, with each step and its `+` lines as one group."""
    found: list[Either | Include | Note | Group] = []
    for node in nodes:
        before = found[-1] if found else None
        if isinstance(node, Step) and node.mark == "+" and isinstance(before, tuple):
            found[-1] = (*before, node)
        else:
            found.append((node,) if isinstance(node, Step) else node)
    return found
