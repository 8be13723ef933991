"""Determines whether a transcript's client pipelines. The program must then offer PIPELINING.

Rule: a client pipelines if it sends a command while it awaits a reply or the greeting.
"""

from __future__ import annotations

from dataclasses import dataclass

from .alternatives import final_states
from .dialogue_state import NO_SIDES, Sides, commands_of
from .nodes import Group, Node


@dataclass(frozen=True)
class _State:
    sides: Sides = NO_SIDES
    pipelines: bool = False

    def after(self, group: Group) -> _State:
        step = group[0]
        sides = self.sides.after(group)
        before, now = self.sides.of(step.actor).due, sides.of(step.actor).due
        sends = step.kind == "C" and bool(commands_of(group))
        return _State(sides, self.pipelines or (sends and len(before) < len(now) > 1))


def pipelines(nodes: tuple[Node, ...]) -> bool:
    """Whether the client pipelines on every path through *nodes*."""
    return all(state.pipelines for state in final_states(nodes, _State(), _State.after))
