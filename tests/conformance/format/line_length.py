"""Determines the longest line that a program must relay in a transcript.

Rule: command lines longer than _LONGEST_COMMAND do not count, because any program may refuse them.
"""

from __future__ import annotations

from dataclasses import dataclass

from .alternatives import final_states
from .dialogue_state import NO_SIDES, Sides, commands_of
from .nodes import Group, Node

#: The length in octets, including CRLF (relay.long-lines-2).
_LONGEST_COMMAND = 131072


@dataclass(frozen=True)
class _State:
    sides: Sides = NO_SIDES
    #: The octets that each client has sent since its last LF.
    begun: tuple[tuple[str, int], ...] = ()
    longest: int = 0

    def after(self, group: Group) -> _State:
        step = group[0]
        sides = self.sides.after(group)
        if step.kind != "C" or not (octets := commands_of(group)):
            return _State(sides, self.begun, self.longest)
        begun = dict(self.begun)
        lines = octets.split(b"\n")
        lengths = [len(line) + 1 for line in lines[:-1]]
        lengths.append(len(lines[-1]))
        lengths[0] += begun.get(step.actor, 0)
        begun[step.actor] = lengths[-1]
        counted = [
            one
            for one in lengths
            if one <= _LONGEST_COMMAND or self.sides.of(step.actor).is_content
        ]
        return _State(sides, tuple(sorted(begun.items())), max(self.longest, *counted, 0))


def longest_line(nodes: tuple[Node, ...]) -> int:
    """Return the line's length in octets, including CRLF, over all paths through *nodes*."""
    return min(state.longest for state in final_states(nodes, _State(), _State.after))
