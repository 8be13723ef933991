"""Kernel functions that Python's standard library lacks, and unique addresses for a process.

Rule: these functions only wrap system calls and make no decisions.
"""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

from .command_line import Address

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
#: The first port for programs. All their ports are below the range of ephemeral ports.
_FIRST_PORT = 10100
_PROCESSES = 10000

_prctl = ctypes.CDLL(None).prctl


def die_with(parent: int, number: signal.Signals) -> None:
    """Send this process the signal *number* when its parent exits, even after execve(2).

    If the parent is no longer the process *parent*, that process has already exited.
    """
    _prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent exits."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children() -> list[int]:
    """Return the child processes of this process."""
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii").split()
    return sorted(map(int, listed))


def own_addresses(files: Path, *, unix: bool, slot: int = 0) -> tuple[Address, Address]:
    """Return the program's address for clients, and its upstream address.

    The addresses are unique, because they are derived from this process's ID.
    """
    if unix:
        return Address(str(files / "in")), Address(str(files / "up"))
    number = os.getpid()
    host = f"127.{number >> 16 & 127 | 128}.{number >> 8 & 255}.{number & 255 or 1}"
    port = _FIRST_PORT + 2 * (number % _PROCESSES + slot)
    return Address(host, port), Address(host, port + 1)
