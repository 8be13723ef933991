"""What this machine and user can do for a transcript: a /dev/log of its own, mounts, addresses.

Rule: whatever is changed is changed in a private mount namespace that ends with its holder.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

# /dev becomes a small directory of its own: the usual harmless devices (bind-mounted, for mknod is
# refused in many containers) and a dangling link "log", which each run points at its own socket.
_HOLDER = """
dev=$1
for name in null zero full random urandom tty; do
    : >"$dev/$name"; mount --bind "/dev/$name" "$dev/$name"
done
mkdir "$dev/shm" "$dev/pts"; chmod 1777 "$dev/shm"
ln -s /proc/self/fd "$dev/fd"
for number in 0:stdin 1:stdout 2:stderr; do
    ln -s "/proc/self/fd/${number%:*}" "$dev/${number#*:}"
done
ln -s "$2" "$dev/log"
mount --rbind "$dev" /dev
echo ready
read -r line
"""


class Namespace:
    """A private mount namespace, alive as long as the process that made it wants."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="postprox-suite-ns-"))
        self.log_path = self._directory / "log"
        (self._directory / "dev").mkdir()
        self._holder = subprocess.Popen(
            [
                "/usr/bin/env",
                "unshare",
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-ec",
                _HOLDER,
                "sh",
                str(self._directory / "dev"),
                str(self.log_path),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"ready\n":
            self.close()
            raise OSError("no private mount namespace")

    @property
    def pid(self) -> int:
        """The process that holds the namespace."""
        return self._holder.pid

    @property
    def prefix(self) -> list[str]:
        """What to put before a command to have it run in here."""
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--"]

    def inside(self, path: Path) -> Path:
        """Where *path* of the namespace is seen from outside."""
        return Path(f"/proc/{self._holder.pid}/root{path}")

    def mount_tmpfs(self, path: Path, options: str) -> None:
        """A small file system of its own at *path*."""
        subprocess.run(
            [*self.prefix, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)],
            check=True,
            capture_output=True,
        )

    def unmount(self, path: Path) -> None:
        """The end of `mount_tmpfs`; lazy, for whoever is inside may still be ending."""
        subprocess.run([*self.prefix, "umount", "-l", str(path)], check=False, capture_output=True)

    def close(self) -> None:
        """End the holder, and with it the namespace."""
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.close()
        self._holder.wait()
        self._holder.stdout.close()
        shutil.rmtree(self._directory, ignore_errors=True)


class Host:
    """The capabilities of this machine, found out once, and its namespace, made when needed."""

    def __init__(self) -> None:
        self._namespace: Namespace | None = None

    @functools.cached_property
    def capabilities(self) -> frozenset[str]:
        """Those of HOST_CAPABILITIES that are there."""
        found = {"root" if os.geteuid() == 0 else "unprivileged"}
        if self.namespace is not None:
            found |= {"syslog", "mounts"}
        if _has_ipv6_loopback():
            found.add("ipv6-loopback")
        return frozenset(found)

    @functools.cached_property
    def namespace(self) -> Namespace | None:
        """The private namespace; None where this user may not have one."""
        with contextlib.suppress(OSError):
            self._namespace = Namespace()
        return self._namespace

    def close(self) -> None:
        """End what was made."""
        if self._namespace is not None:
            self._namespace.close()
            self._namespace = None


def _has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True
