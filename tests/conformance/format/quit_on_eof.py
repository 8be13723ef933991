"""Determines whether a transcript requires upstream QUIT after a client disconnects without QUIT.

Rule: QUIT counts if the upstream server awaits it after the client's @eof, @close or @reset.
"""

from __future__ import annotations

from dataclasses import dataclass

from .alternatives import final_states
from .client_side import QUIT
from .dialogue_state import NO_SIDES, Sides, commands_of
from .nodes import Group, Node

_ENDS = ("@eof", "@close", "@reset")


@dataclass(frozen=True)
class _State:
    sides: Sides = NO_SIDES
    #: The clients that have sent QUIT.
    have_quit: frozenset[str] = frozenset()
    #: Whether QUIT went upstream after a client disconnected without QUIT.
    is_left: bool = False
    is_required: bool = False

    def after(self, group: Group) -> _State:
        step = group[0]
        side = self.sides.of(step.actor)
        sides = self.sides.after(group)
        new = sides.of(step.actor).due[len(side.due) :]
        if step.kind == "C":
            have_quit = self.have_quit | ({step.actor} if QUIT in new else set())
            leaves = step.verb in _ENDS and step.actor not in have_quit
            return _State(sides, have_quit, self.is_left or leaves, self.is_required)
        sends_quit = step.kind == "U" and bool(commands_of(group)) and QUIT in new
        required = self.is_required or (self.is_left and sends_quit)
        return _State(sides, self.have_quit, self.is_left, required)


def requires_quit_on_eof(nodes: tuple[Node, ...]) -> bool:
    """Whether every path through *nodes* requires QUIT upstream after such a disconnect."""
    return all(state.is_required for state in final_states(nodes, _State(), _State.after))
