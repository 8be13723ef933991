"""Measures processor time of processes, and elapsed time.

Rule: processor time (user and system) is read from the kernel's accounting of a process. It does
not include other processes.
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
#: The fields of /proc/PID/stat (proc(5)), counted after the closing parenthesis of the command.
_PARENT, _CHILDREN_USER, _CHILDREN_SYSTEM = 1, 13, 14


class Spent(NamedTuple):
    """The times that some work took, in seconds."""

    processor: float
    wall: float

    def over(self, other: Spent) -> Spent:
        """Return the ratios of these times to others."""
        return Spent(self.processor / other.processor, self.wall / other.wall)

    def times(self, factor: float) -> Spent:
        """Return these times multiplied by a factor, for a mean or other units."""
        return Spent(self.processor * factor, self.wall * factor)


def own(pid: int) -> float:
    """Return the processor time of a process so far in seconds, without its children."""
    return time.clock_gettime((~pid << 3) | _PROCESS_CLOCK)


def family(*roots: int) -> float:
    """Return the processor time of these processes and their descendants so far in seconds.

    The time of an exited process is added to the parent that reaped it, in ticks of 10 ms.
    """
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):  # the process has just exited
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
    """Do the work and return its times. `account` returns the processor time."""
    used, began = account(), time.perf_counter()
    work()
    return Spent(account() - used, time.perf_counter() - began)


def least(times: int, *measures: Callable[[], Spent]) -> list[Spent]:
    """Run the measures alternately (A B C A B C …), and return the minimum of each.

    The minimum is the time on an otherwise idle machine. The rest is noise.
    """
    runs = [[measure() for measure in measures] for _ in range(times)]
    return [
        Spent(min(run.processor for run in each), min(run.wall for run in each))
        for each in zip(*runs, strict=True)
    ]
