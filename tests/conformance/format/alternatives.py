"""Follows the paths through a transcript's alternatives.

Rule: paths are identified by their state, so paths with equal states are followed only once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

from .nodes import Either, Group, Node, grouped

State = TypeVar("State", bound=Hashable)


def final_states(
    nodes: tuple[Node, ...], start: State, advance: Callable[[State, Group], State]
) -> frozenset[State]:
    """Return the final state of each path through *nodes*."""
    return _after(nodes, frozenset((start,)), advance)


def _after(
    nodes: tuple[Node, ...], states: frozenset[State], advance: Callable[[State, Group], State]
) -> frozenset[State]:
    for node in grouped(nodes):
        if isinstance(node, tuple):
            states = frozenset(advance(state, node) for state in states)
        elif isinstance(node, Either):
            ends = (_after(branch, states, advance) for branch in node.branches)
            states = frozenset().union(*ends)
        else:
            states = _after(node.steps, states, advance)
    return states
