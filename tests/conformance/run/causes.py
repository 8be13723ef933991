"""The causes of the misses in a run: the smallest set that explains all of them.

Rule: pure functions. Two misses have the same cause if they violate the same requirement, if their
step, expectation and observation are equal, or if the implementation file gives the same reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..format.vocabulary import HARMS, LEVELS
from .results import Result

#: The effect of a program that violates a requirement, by the harm of the requirement.
DEEDS = {
    "lost": "loses mail",
    "duplicated": "duplicates mail",
    "unfiltered": "passes mail unfiltered",
    "altered": "alters mail",
    "exposed": "exposes mail",
    "stalled": "stalls",
    "misreported": "misreports",
    "inconvenient": "is inconvenient",
    # Result files of formats 1 and 2 have no harm.
    "": "misses clauses",
}
_MISSED = ("failed", "diverged")


@dataclass(frozen=True)
class Cause:
    """Misses with the same cause, worst first."""

    results: tuple[Result, ...]

    @property
    def example(self) -> Result:
        """The miss that represents all others."""
        return self.results[0]

    @property
    def harm(self) -> str:
        """The worst harm of the misses."""
        return self.example.harm

    @property
    def broken(self) -> str:
        """The violated requirement of the example, or its cited requirements in older files."""
        return _broken(self.example)

    @property
    def others(self) -> str:
        """Return the number of misses besides the example, and their other requirements."""
        number = len(self.results) - 1
        further = tuple(dict.fromkeys(map(_broken, self.results)))[1:]
        also = f" (some violate {', '.join(further)})" if further else ""
        return f"and {number} other failure{'' if number == 1 else 's'}{also}" if number else ""

    @property
    def observation(self) -> str:
        """Return the expectation and the observation of the example in one line."""
        first = self.example.message.partition("\n")[0]
        return first.partition("] ")[2] or first


def causes(results: Iterable[Result]) -> tuple[Cause, ...]:
    """Return the causes of all misses, ordered by harm, then by number of misses."""
    missed = sorted((one for one in results if one.outcome in _MISSED), key=_weight)
    found = [Cause(tuple(sorted(group, key=_weight))) for group in _components(missed)]
    return tuple(sorted(found, key=lambda one: (_weight(one.example)[:2], -len(one.results))))


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
    """Return the causes of each harm under its heading, such as "loses mail in 3 ways"."""
    together: dict[str, list[Cause]] = {}
    for cause in found:
        together.setdefault(DEEDS[cause.harm], []).append(cause)
    return {
        f"{deed} in {len(those)} way{'' if len(those) == 1 else 's'}": those
        for deed, those in together.items()
    }


def _broken(result: Result) -> str:
    return result.requirement or ", ".join(result.clauses)


def _marks(result: Result) -> list[tuple[int, str]]:
    """Return the values that two results with one cause share, each with its kind."""
    reason = result.divergence.reason if result.divergence else ""
    values = enumerate((_broken(result), result.cause, reason))
    return [(kind, value) for kind, value in values if value]


def _weight(result: Result) -> tuple[int, int, str, str]:
    harm = HARMS.index(result.harm) if result.harm else len(HARMS)
    return harm, LEVELS.index(result.level), result.transcript, result.mode
