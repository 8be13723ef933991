"""A private syslog daemon that records all messages and does not affect the system.

A command that is started with the prefix `private_dev()` uses the daemon's socket as /dev/log. The
prefix creates a mount namespace in which /dev contains only the socket and harmless devices. Other
processes do not see the namespace, and it ends with its last process.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from pathlib import Path

#: The devices that programs require. They are bind-mounted, because many containers refuse mknod.
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")

ENTER = """
dev=$1; shift
for name in $DEVICES; do mount --bind "/dev/$name" "$dev/$name"; done
mount --rbind "$dev" /dev
exec "$@"
"""

UNSHARE = ("unshare", "--mount", "--propagation", "private")


def may_unshare() -> bool:
    """Return whether this process may create a mount namespace. Many containers forbid this."""
    try:
        probe = subprocess.run([*UNSHARE, "true"], check=False, capture_output=True)
    except OSError:
        return False
    return probe.returncode == 0


class DevLog:
    """The receiving end of a private /dev/log. `lines` contains all messages received so far."""

    def __init__(self, directory: Path) -> None:
        self._dev = directory
        self._make_dev()
        self.lines: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(directory / "log"))
        (directory / "log").chmod(0o666)
        # A thread reads the socket, because syslog(3) blocks if the queue of ten messages is full.
        self._reader = threading.Thread(target=self._read, name="devlog", daemon=True)
        self._reader.start()

    def _make_dev(self) -> None:
        self._dev.mkdir(mode=0o755)
        for name in DEVICES:
            (self._dev / name).touch()
        (self._dev / "fd").symlink_to("/proc/self/fd")
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            (self._dev / name).symlink_to(f"fd/{number}")

    def _read(self) -> None:
        while datagram := self._socket.recv(65536):
            self.lines.append(datagram.decode(errors="backslashreplace").rstrip("\n\0"))

    def private_dev(self) -> list[str]:
        """Return the prefix of a command that uses this /dev."""
        script = f'DEVICES="{" ".join(DEVICES)}"\n{ENTER}'
        return [*UNSHARE, "sh", "-ec", script, "sh", str(self._dev)]

    def close(self) -> None:
        """Stop reading. Later messages are lost, because syslog(3) ignores a closed socket."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"", str(self._dev / "log"))
        self._reader.join(timeout=5)
        self._socket.close()
