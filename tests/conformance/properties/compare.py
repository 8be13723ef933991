"""Compares two implementations by the observable results of a plan.

Rule: only results that must be equal in all implementations are compared. Wordings, timings and
additional commands to the upstream server may differ. Aspects are compared separately, so that one
known difference does not hide others.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest

from ..format.payload import visible
from ..format.vocabulary import ENVELOPE_VARIABLES
from .content import unstuffed
from .plan import Message
from .run import Exchange, Run

Aspect = Callable[[Run], list[str]]


def _ends(run: Run) -> list[str]:
    return [f"the session: {run.trouble or 'ends normally'}"]


def _replies(run: Run) -> list[str]:
    return [
        f"{_name(exchange)}: {answer}"
        for exchange in run.exchanges
        for answer in _answers(exchange)
    ]


def _answers(exchange: Exchange) -> list[str]:
    """Return the codes, with one code in place of alternatives that a requirement permits."""
    codes = exchange.codes
    if isinstance(exchange.item, Message) and codes in ([503], [554]):
        return ["503 or 554 (data.needs-recipient)"]
    return list(map(str, codes))


def _name(exchange: Exchange) -> str:
    return visible(getattr(exchange.item, "line", b"DATA"))


def _deliveries(run: Run) -> list[str]:
    return [
        "upstream gets: "
        + " / ".join(map(visible, (delivery.mail, *delivery.recipients, unstuffed(delivery.wire))))
        for delivery in run.deliveries
    ]


def _emails(run: Run) -> list[str]:
    return [f"EMAIL: {visible(one.email or b'')}" for one in run.filter_runs]


def _variable(name: str) -> Aspect:
    def values(run: Run) -> list[str]:
        return [f"{name}={visible(one.environment.get(name, b''))}" for one in run.filter_runs]

    return values


#: Events that occur equally often in both runs, or whose differences belong to another aspect.
_OF_EACH_FILTER: dict[str, Aspect] = {
    "email": _emails,
    **{name.lower(): _variable(name) for name in ENVELOPE_VARIABLES},
}
ASPECTS: dict[str, Aspect] = {
    "end": _ends,
    "replies": _replies,
    "deliveries": _deliveries,
    "filters": lambda run: ["the filter runs" for _ in run.filter_runs],
    **_OF_EACH_FILTER,
}


def differences(aspect: str, one: Run, other: Run) -> list[str]:
    """Return the differences in *aspect*, each as 'this | that'.

    If one session ends early, its missing results count only as a difference in how it ended.
    """
    look = ASPECTS[aspect]
    in_pairs = aspect in _OF_EACH_FILTER or one.trouble or other.trouble
    pairs = (
        zip(look(one), look(other), strict=False)
        if in_pairs
        else zip_longest(look(one), look(other))
    )
    return [f"{this or 'nothing'} | {that or 'nothing'}" for this, that in pairs if this != that]
