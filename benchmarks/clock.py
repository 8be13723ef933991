"""How long something took: processor time of the processes that did it, and the wall clock.

Rule: processor time, user and system, is taken from the kernel's own accounts of a process, never
from a share of the machine; what others do meanwhile is not in it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

#: clock_getcpuclockid(3): the clock of all threads of a process, in the kernel's numbering.
_PROCESS_CLOCK = 2
_TICKS = os.sysconf("SC_CLK_TCK")
#: proc(5), /proc/PID/stat, counted after the command's closing parenthesis.
_PARENT, _CHILDREN_USER, _CHILDREN_SYSTEM = 1, 13, 14


class Spent(NamedTuple):
    """What some work took, in seconds."""

    processor: float
    wall: float

    def over(self, other: Spent) -> Spent:
        """Return the ratios of this to the other."""
        return Spent(self.processor / other.processor, self.wall / other.wall)

    def times(self, factor: float) -> Spent:
        """Return this, scaled: a mean of several, or other units."""
        return Spent(self.processor * factor, self.wall * factor)


def own(pid: int) -> float:
    """Return the processor seconds of a process so far, without its children's."""
    return time.clock_gettime((~pid << 3) | _PROCESS_CLOCK)


def family(*roots: int) -> float:
    """Return the processor seconds of these processes and all that descend from them so far.

    Whoever has ended is in the account of the parent that waited for it, in ticks of 10 ms.
    """
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):  # it has just ended
                fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
                parents[int(entry.name)] = int(fields[_PARENT])
                ended = int(fields[_CHILDREN_USER]) + int(fields[_CHILDREN_SYSTEM])
                used[int(entry.name)] = own(int(entry.name)) + ended / _TICKS
    return sum(used[pid] for pid in used if _descends(pid, roots, parents))


def _descends(pid: int, roots: Collection[int], parents: dict[int, int]) -> bool:
    while pid not in roots:
        if pid not in parents:
            return False
        pid = parents[pid]
    return True


def spent(account: Callable[[], float], work: Callable[[], object]) -> Spent:
    """Do the work; return what it took, with processor time as `account` has it."""
    used, began = account(), time.perf_counter()
    work()
    return Spent(account() - used, time.perf_counter() - began)


def least(times: int, *measures: Callable[[], Spent]) -> list[Spent]:
    """Run the measures in turn (A B C A B C …), so many times; return the least of each.

    The least is what it takes when nothing else wants the machine; the rest is noise.
    """
    runs = [[measure() for measure in measures] for _ in range(times)]
    return [
        Spent(min(run.processor for run in each), min(run.wall for run in each))
        for each in zip(*runs, strict=True)
    ]
