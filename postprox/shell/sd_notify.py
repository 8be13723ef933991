"""The service manager, if one has started the server (sd_notify(3)): it is told that clients are
served, that the server is alive, and what it does.

Rule: telling makes nobody wait and never fails; no filter sees the variables of the manager.
"""

import os
import socket

from .. import TYPE_CHECKING
from ..core import limits
from .system import environ

if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import Loop

#: Digits of WATCHDOG_USEC, a number of 64 bits.
_LONGEST_NUMBER = 20


class ServiceNotifier:
    """Whoever is to be told, from `serving` until `stopping`; without a manager, nobody.

    status: returns what the server does, in words.
    """

    def __init__(self, loop: "Loop", status: "Callable[[], str]") -> None:
        self._loop = loop
        self._status = status
        self._address = _notify_address()
        # Held from now on: the manager is told how we are when there are no descriptors left, too.
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_UNIX, kind) if self._address else None
        self._period = _watchdog_seconds() / 2 or limits.STATUS
        #: When `timer` is to be called, on the loop's clock.
        self.deadline = limits.NEVER

    def ready(self) -> None:
        """Tell that clients are served from now on."""
        if self._address:
            self._tell("READY=1", f"STATUS={self._status()}")
            self.deadline = self._loop.clock() + self._period
            self._loop.add(self)

    def stopping(self) -> None:
        """Tell that no more clients are served; that the server is alive is still told."""
        self._tell("STOPPING=1", f"STATUS={self._status()}")

    def close(self) -> None:
        """Tell nothing any more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def timer(self) -> None:
        """Tell how it is."""
        self.deadline = self._loop.clock() + self._period
        self._tell("WATCHDOG=1", f"STATUS={self._status()}")

    def _tell(self, *lines: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            pass  # it does not read, or is not there: it will find out how we are by itself


def _notify_address() -> bytes:
    """Return the address of the manager's socket; b"" if there is none (sd_notify(3))."""
    name = environ.pop(b"NOTIFY_SOCKET", b"")
    if name[:1] == b"@":
        return b"\0" + name[1:]
    return name if name[:1] == b"/" else b""


def _watchdog_seconds() -> float:
    """Return within which time the manager wants to be told that this process lives, or 0.

    A value that is no number of microseconds is 0 too: the manager is told all the same.
    """
    microseconds, pid = (environ.pop(name, b"") for name in (b"WATCHDOG_USEC", b"WATCHDOG_PID"))
    for_us = pid in (b"", b"%d" % os.getpid())
    is_number = microseconds.isdigit() and len(microseconds) <= _LONGEST_NUMBER
    return int(microseconds) / 1e6 if for_us and is_number else 0.0
