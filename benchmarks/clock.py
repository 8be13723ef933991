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
#: The shortest processor time in seconds that a ratio uses. The kernel can report 0 for very short
#: work, such as a message of a few octets.
_SHORTEST = 1e-6
#: The fields of /proc/PID/stat (proc(5)), counted after the closing parenthesis of the command.
_PARENT, _CHILDREN_USER, _CHILDREN_SYSTEM = 1, 13, 14


class Spent(NamedTuple):
    """The times that some work took, in seconds."""

    processor: float
    wall: float

    def over(self, other: Spent) -> Spent:
        """Return the ratios of these times to others."""
        return Spent(self.processor / max(other.processor, _SHORTEST), self.wall / other.wall)

    def less(self, other: Spent) -> Spent:
        """Return the differences of these times from others."""
        return Spent(self.processor - other.processor, self.wall - other.wall)

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
    used = 0.0
    for pid in descendants(*roots):
        with contextlib.suppress(OSError):  # the process has just exited
            ended = sum(map(int, _stat(pid)[_CHILDREN_USER : _CHILDREN_SYSTEM + 1]))
            used += own(pid) + ended / _TICKS
    return used


def descendants(*roots: int) -> dict[int, int]:
    """Return the parents of these processes and of their descendants by PID."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int(_stat(int(entry.name))[_PARENT])
    return {pid: parents[pid] for pid in parents if _descends(pid, roots, parents)}


def _stat(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()


def _descends(pid: int, roots: Collection[int], parents: dict[int, int]) -> bool:
    while pid not in roots:
        if pid not in parents:
            return False
        pid = parents[pid]
    return True


def memory(pids: Collection[int]) -> float:
    """Return the proportional set size (PSS) of these processes in MB.

    A page that several processes use is divided between them (smaps_rollup in proc(5)).
    """
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_bytes()
            total += int(rollup.partition(b"\nPss:")[2].split()[0])
    return total / 1024


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
