"""The summary on the terminal, with failures in full, their causes, and outcomes by group.

Rule: for failures with the same cause, one is printed in full, followed by the names of the others.
The last part begins with the causes, worst harm first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from ..format.vocabulary import GROUPS, OUTCOMES
from ..play.dialogue import shorten
from .causes import Ranking, by_harm, causes
from .results import Result

#: The maximum number of other failures with the same cause that are listed. The verdict lists all
#: of them.
_NAMED = 20
#: The number of causes printed for each harm. The HTML page lists all of them.
_CAUSES = 20
#: The length of the line with the expectation and the observation.
_WIDTH = 160


def summary_lines(results: Iterable[Result]) -> list[str]:
    """Return a line for each group (the first folder of a name) and one for the total."""
    counts: dict[str, Counter[str]] = {}
    for result in results:
        group = result.transcript.partition("/")[0] if "/" in result.transcript else "(other)"
        counts.setdefault(group, Counter())[result.outcome] += 1
    order = [*(name for name in GROUPS if name in counts), *sorted(counts.keys() - set(GROUPS))]
    total = sum(counts.values(), Counter[str]())
    return [
        _row("", [*OUTCOMES]),
        *(_count_row(name, counts[name]) for name in order),
        _count_row("all", total),
    ]


def _count_row(name: str, counts: Counter[str]) -> str:
    return _row(name, [str(counts[outcome] or "-") for outcome in OUTCOMES])


def _row(name: str, cells: list[str]) -> str:
    return f"{name:<10}" + "".join(f"{cell:>10}" for cell in cells)


def harm_lines(results: Iterable[Result]) -> Iterator[str]:
    """Yield each harm with its smallest set of causes, each with an example."""
    ways = by_harm(causes(results))
    for heading, found in ways.items():
        yield f"{heading}:"
        for cause in found[:_CAUSES]:
            one = cause.example
            yield f"  {one.sentence or one.title} ({cause.broken})"
            yield f"    {one.transcript} [{one.mode}] {cause.others}".rstrip()
            if cause.observation:
                yield f"    {shorten(cause.observation, _WIDTH)}"
        if len(found) > _CAUSES:
            yield f"  and {len(found) - _CAUSES} more ways; --html lists them all"
    if ways:
        yield "The subcommand 'explain' prints the reasons for a requirement."


def failure_lines(results: Iterable[Result], told: Mapping[str, str]) -> Iterator[str]:
    """Yield each distinct failure with the names of equal failures. The likeliest mistake is first.

    told: the texts by transcript and mode.
    """
    every = tuple(results)
    order = Ranking(every).key
    same: dict[str, list[Result]] = {}
    for result in sorted((one for one in every if one.outcome == "failed"), key=order):
        same.setdefault(result.cause, []).append(result)
    for missed in same.values():
        yield ""
        yield told.get(missed[0].name, missed[0].text or missed[0].cause)
        if others := [one.name for one in missed[1:]]:
            more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
            named = ", ".join(others[:_NAMED]) + more
            yield f"{len(others)} more with the same cause: {named}"
