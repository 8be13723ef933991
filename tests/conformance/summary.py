"""The terminal's table: outcomes by clause group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from .results import Result
from .words import GROUPS, OUTCOMES


def summary_lines(results: Iterable[Result]) -> list[str]:
    """One line for each group (the first folder of a transcript's name) and one for all."""
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
