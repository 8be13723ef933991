"""Tests that the content of actions is compared and that every action is handled."""

from __future__ import annotations

import pytest

from postprox.core import actions, log_levels
from postprox.shell import connection
from tests.unit import dialogue

KINDS = [
    actions.SendToClient(b"x"),
    actions.SendToClient(b"y"),
    actions.SendToUpstream(b"x"),
    actions.WriteSpool(b"x", b"x"),
    actions.CloseClient(),
    actions.ConnectUpstream(),
    actions.CloseUpstream(),
    actions.OpenSpool(),
    actions.FinishSpool(),
    actions.RunFilter({b"HELO": b"x"}),
    actions.RunFilter({b"HELO": b"y"}),
    actions.KillFilter("late"),
    actions.Deliver(),
    actions.DeliverReplacement(),
    actions.DiscardMessage(),
    actions.CountMessage("accept", "delivered", 9, 0.5),
    actions.CountMessage("accept", "deferred", 9, 0.5),
    actions.CountMessage("accept", "delivered", 8, 0.5),
    actions.Log(log_levels.ERROR, "x"),
    actions.Log(log_levels.INFO, "x"),
    actions.LogSeldom(log_levels.ERROR, "x"),
]


@pytest.mark.parametrize("action", KINDS, ids=repr)
def test_action_differs_from_all_other_actions(action: actions.Action) -> None:
    assert [other for other in KINDS if other == action] == [action]


def test_equal_actions_have_equal_hashes() -> None:
    assert (
        len({actions.WriteSpool(b"x", b"x"), actions.WriteSpool(b"x", b"x"), actions.Deliver()})
        == 2
    )


def test_repr_shows_arguments() -> None:
    assert repr(actions.Log(log_levels.ERROR, "x")) == "Log(3, 'x')"


def all_kinds(base: type[actions.Action] = actions.Action) -> set[type[actions.Action]]:
    """Return the leaf subclasses of `base`, which are the action classes."""
    below = base.__subclasses__()
    return {kind for each in below for kind in all_kinds(each)} if below else {base}


@pytest.mark.parametrize(
    "known",
    [connection._PERFORM.keys(), dialogue._PERFORM.keys(), {type(action) for action in KINDS}],
    ids=["connection", "dialogue", "these tests"],
)
def test_every_action_is_handled(known: set[type[actions.Action]]) -> None:
    assert set(known) == all_kinds()
