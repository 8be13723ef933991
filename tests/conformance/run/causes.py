"""Finds the smallest set of causes that explains all misses in a run.

Rule: pure functions. Two failures have the same cause if they violate the same requirement, or if
their step, expectation and observation are equal. Two known divergences have the same cause if the
implementation file gives the same reason. A cause's example is a miss of the requirement with the
largest share of failures, because the same mistake can also make transcripts for other requirements
fail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..format.vocabulary import HARMS, LEVELS, MAIL_HARMS
from .results import Result

#: The description of a program that violates a requirement, by the requirement's harm.
DEEDS = {
    "lost": "loses mail",
    "duplicated": "duplicates mail",
    "unfiltered": "passes mail unfiltered",
    "altered": "alters mail",
    "exposed": "exposes mail",
    "stalled": "stalls",
    "misreported": "misreports",
    "inconvenient": "is inconvenient",
    # Result files of formats 1 and 2 do not contain the harm.
    "": "misses clauses",
}
#: The heading for causes that only random sessions have found, if transcripts also fail.
_ALSO_RANDOM = "fails random sessions (possibly for the reasons above) in"
_MISSED = ("failed", "diverged")
#: The maximum number of other requirements that a cause lists.
_NAMED = 5


@dataclass(frozen=True)
class Cause:
    """Misses with the same cause. The first miss is the example."""

    results: tuple[Result, ...]

    @property
    def example(self) -> Result:
        """The miss that is shown as an example."""
        return self.results[0]

    @property
    def harm(self) -> str:
        """The harm of the example."""
        return self.example.harm

    @property
    def is_random(self) -> bool:
        """True if only random sessions have failed. Their rules are less specific."""
        return all(one.is_property for one in self.results)

    @property
    def broken(self) -> str:
        """The requirement that the example violates, or its cited requirements in older files."""
        return _broken(self.example)

    @property
    def others(self) -> str:
        """Return the number of other misses, and their other requirements."""
        number = len(self.results) - 1
        further = tuple(dict.fromkeys(map(_broken, self.results)))[1:]
        more = f" and {len(further) - _NAMED} more" if len(further) > _NAMED else ""
        also = f" (some violate {', '.join(further[:_NAMED])}{more})" if further else ""
        return f"and {number} other failure{'' if number == 1 else 's'}{also}" if number else ""

    @property
    def observation(self) -> str:
        """Return the example's expectation and observation in one line."""
        first = self.example.message.partition("\n")[0]
        return first.partition("] ")[2] or first


class Ranking:
    """Orders misses by the likelihood that their requirement describes the mistake."""

    def __init__(self, results: Iterable[Result]) -> None:
        played = [one for one in results if one.outcome != "skipped"]
        missed = [one for one in played if one.outcome in _MISSED]
        self._missed = Counter(map(_broken, missed))
        #: The number of misses that cite a requirement, even if they violate another one.
        self._cited = Counter(cited for one in missed for cited in one.requirements)
        self._kept = Counter(one.requirements[:1] for one in played if one.outcome not in _MISSED)

    def key(self, miss: Result) -> tuple[object, ...]:
        """Return the sort key of *miss*. Harm to mail and level MUST come first."""
        broken = _broken(miss)
        share = self._missed[broken] / (self._missed[broken] + self._kept[(broken,)])
        first = (miss.is_property, miss.harm not in MAIL_HARMS, LEVELS.index(miss.level))
        return *first, -share, -self._cited[broken], *_weight(miss)


def causes(results: Iterable[Result]) -> tuple[Cause, ...]:
    """Return the causes of all misses, ordered by harm and then by the number of misses.

    Causes that only random sessions have found come last, because a transcript identifies the
    violated requirement more precisely.
    """
    every = tuple(results)
    order = Ranking(every).key
    missed = sorted((one for one in every if one.outcome in _MISSED), key=_weight)
    found = [Cause(tuple(sorted(group, key=order))) for group in _components(missed)]
    return tuple(
        sorted(found, key=lambda one: (one.is_random, _weight(one.example)[:2], -len(one.results)))
    )


def _components(missed: list[Result]) -> Iterator[list[Result]]:
    """Yield groups of results that are connected by equal marks."""
    with_mark: dict[tuple[int, str], list[int]] = {}
    for number, result in enumerate(missed):
        for mark in _marks(result):
            with_mark.setdefault(mark, []).append(number)
    seen: set[int] = set()
    for start in range(len(missed)):
        group, queue = [], [start]
        while queue:
            number = queue.pop()
            if number not in seen:
                seen.add(number)
                group.append(missed[number])
                for mark in _marks(missed[number]):
                    queue += with_mark.pop(mark, [])
        if group:
            yield group


def by_harm(found: Iterable[Cause]) -> dict[str, list[Cause]]:
    """Return the causes of each harm by its heading, such as "loses mail in 3 ways"."""
    every = tuple(found)
    only_random = all(cause.is_random for cause in every)
    together: dict[str, list[Cause]] = {}
    for cause in every:
        also = cause.is_random and not only_random
        together.setdefault(_ALSO_RANDOM if also else f"{DEEDS[cause.harm]} in", []).append(cause)
    return {
        f"{deed} {len(those)} way{'' if len(those) == 1 else 's'}": those
        for deed, those in together.items()
    }


def _broken(result: Result) -> str:
    return result.requirement or ", ".join(result.clauses)


def _marks(result: Result) -> list[tuple[int, str]]:
    """Return values with their types. Results that share a value have the same cause."""
    if result.divergence:
        return [(2, result.divergence.reason)]
    values = enumerate((_broken(result), result.cause))
    return [(kind, value) for kind, value in values if value]


def _weight(result: Result) -> tuple[int, int, str, str]:
    harm = HARMS.index(result.harm) if result.harm else len(HARMS)
    return harm, LEVELS.index(result.level), result.transcript, result.mode
