"""Notifications to the service manager that started the server (sd_notify(3)).

Rule: a notification never blocks and never fails. Filters do not inherit the manager's variables.

The manager receives a changed status within `limits.STATUS` seconds. While a server has no
sessions, it does not check the status periodically, because the status cannot change.
"""

import os

from .. import TYPE_CHECKING
from ..core import limits
from .system import environ, socket

if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import Loop

#: The maximum number of digits in WATCHDOG_USEC, a 64-bit number.
_LONGEST_NUMBER = 20


class ServiceNotifier:
    """The connection to the service manager. Without a manager, all methods do nothing.

    status: returns the status text.
    busy: returns whether the server has sessions.
    """

    def __init__(
        self, loop: "Loop", status: "Callable[[], str]", busy: "Callable[[], bool]"
    ) -> None:
        self._loop = loop
        self._status = status
        self._busy = busy
        self._sent = ""  # the last status that the manager has received
        self._address = _notify_address()
        # The socket is opened in advance, because the watchdog must work even if no descriptor is
        # free.
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_UNIX, kind) if self._address else None
        self._period = _watchdog_seconds() / 2 or limits.NEVER
        self._watchdog_due = limits.NEVER  # the time of the next datagram, on the loop's clock
        #: The time on the loop's clock at which to call `timer`.
        self.deadline = limits.NEVER

    def ready(self) -> None:
        """Send READY=1 and start the periodic datagrams."""
        if self._address:
            self._send("READY=1", self._status())
            self._set_deadline()
            self._loop.add(self)

    def stopping(self) -> None:
        """Send STOPPING=1. The periodic datagrams continue."""
        self._send("STOPPING=1", self._status())

    def session_changed(self) -> None:
        """Check the status within `limits.STATUS` seconds, because a session has begun or ended."""
        if self._address:
            self.deadline = min(self.deadline, self._loop.clock() + limits.STATUS)
            self._loop.note_deadline(self.deadline)

    def close(self) -> None:
        """Close the socket and send no more datagrams."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def timer(self) -> None:
        """Send a datagram if the status has changed or the watchdog's datagram is due."""
        status = self._status()
        if status != self._sent or self._loop.clock() >= self._watchdog_due:
            self._send("WATCHDOG=1", status)
        self._set_deadline()

    def _set_deadline(self) -> None:
        """Set the time of the next check. A datagram that could not be sent is retried."""
        check = self._busy() or not self._sent
        soon = self._loop.clock() + limits.STATUS if check else limits.NEVER
        self.deadline = min(self._watchdog_due, soon)

    def _send(self, event: str, status: str) -> None:
        if self._socket is None:
            return
        self._sent = status
        self._watchdog_due = self._loop.clock() + self._period
        try:
            self._socket.sendto(f"{event}\nSTATUS={status}".encode(), self._address)
        except OSError:
            self._sent = ""  # the manager is not reading or has exited


def _notify_address() -> bytes:
    """Return the address of the manager's socket, or b"" if there is none (sd_notify(3))."""
    name = environ.pop(b"NOTIFY_SOCKET", b"")
    if name[:1] == b"@":
        return b"\0" + name[1:]
    return name if name[:1] == b"/" else b""


def _watchdog_seconds() -> float:
    """Return the manager's watchdog timeout for this process in seconds, or 0 if there is none.

    An invalid number of microseconds counts as 0. Status datagrams are sent even if the timeout is
    0.
    """
    microseconds, pid = (environ.pop(name, b"") for name in (b"WATCHDOG_USEC", b"WATCHDOG_PID"))
    for_us = pid in (b"", b"%d" % os.getpid())
    is_number = microseconds.isdigit() and len(microseconds) <= _LONGEST_NUMBER
    return int(microseconds) / 1e6 if for_us and is_number else 0.0
