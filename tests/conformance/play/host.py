"""Capabilities of this machine and user: a private /dev/log, mounts, addresses.

Rule: all changes are made in private namespaces, which disappear with their processes.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import os
import shutil
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# /dev is replaced with a small directory that contains the usual harmless devices and the dangling
# link "log". The devices are bind-mounted because many containers do not permit mknod. Each run
# points the link to its own socket.
_HOLDER = """
dev=$1
for name in null zero full random urandom tty; do
    [ -e "/dev/$name" ] || continue
    : >"$dev/$name"; mount --bind "/dev/$name" "$dev/$name"
done
mkdir "$dev/shm" "$dev/pts"; chmod 1777 "$dev/shm"
ln -s /proc/self/fd "$dev/fd"
for number in 0:stdin 1:stdout 2:stderr; do
    ln -s "/proc/self/fd/${number%:*}" "$dev/${number#*:}"
done
ln -s "$2" "$dev/log"
mount --bind "$3" /etc/hosts || :
mount --rbind "$dev" /dev
echo ready
read -r line
"""


#: A name with two addresses in the private /etc/hosts: 127.0.0.2 and 127.0.0.3.
TWO_ADDRESSES = "two.addresses.test"
#: A name that most machines define, and that the private /etc/hosts always defines.
LOCALHOST = "localhost"


class Namespace:
    """A private mount namespace. A process keeps it until the suite closes it."""

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
                str(self._hosts()),
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
        """The ID of the process that keeps the namespace alive."""
        return self._holder.pid

    def _hosts(self) -> Path:
        """Return the contents of /etc/hosts, followed by the names used in transcripts."""
        path = self._directory / "hosts"
        with contextlib.suppress(OSError):
            path.write_text(Path("/etc/hosts").read_text() + "\n")
        with path.open("a") as file:
            if not _knows_localhost():
                file.write(f"127.0.0.1 {LOCALHOST}\n")
            file.writelines(
                f"{address} {TWO_ADDRESSES}\n" for address in ("127.0.0.2", "127.0.0.3")
            )
        return path

    @property
    def option(self) -> str:
        """Return the options of nsenter(1) for this namespace."""
        return f"--mount=/proc/{self._holder.pid}/ns/mnt"

    @property
    def prefix(self) -> list[str]:
        """Return the command prefix that runs a command in this namespace."""
        return ["nsenter", self.option, "--"]

    def inside(self, path: Path) -> Path:
        """Return the path outside the namespace for *path* inside it."""
        return Path(f"/proc/{self._holder.pid}/root{path}")

    def mount_tmpfs(self, path: Path, options: str) -> None:
        """Mount a small file system at *path*."""
        subprocess.run(
            [*self.prefix, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)],
            check=True,
            capture_output=True,
        )

    def unmount(self, path: Path) -> None:
        """Undo `mount_tmpfs`, with a lazy unmount because a process inside may still be exiting."""
        subprocess.run([*self.prefix, "umount", "-l", str(path)], check=False, capture_output=True)

    def close(self) -> None:
        """Kill the process that keeps the namespace alive, which removes the namespace."""
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.close()
        self._holder.wait()
        self._holder.stdout.close()
        shutil.rmtree(self._directory, ignore_errors=True)


class Network:
    """A private network namespace with only loopback, kept alive by a file descriptor."""

    def __init__(self) -> None:
        # A thread cannot leave the network again, so a new thread enters it.
        with ThreadPoolExecutor(1) as pool:
            self._descriptor = pool.submit(_new_network).result()

    @property
    def option(self) -> str:
        """Return the options of nsenter(1) for this network."""
        return f"--net=/proc/{os.getpid()}/fd/{self._descriptor}"

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Enter this network in the current thread. New sockets then belong to it permanently."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call("setns", self._descriptor, _CLONE_NEWNET)
            yield
        finally:
            _call("setns", home, _CLONE_NEWNET)
            os.close(home)

    def close(self) -> None:
        """Close the file descriptor."""
        os.close(self._descriptor)


_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1


def _call(name: str, *arguments: int) -> None:
    """Make a system call for which Python has no function."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _new_network() -> int:
    """Enter a new network, enable its loopback interface and return its file descriptor."""
    _call("unshare", _CLONE_NEWNET)
    with socket.socket() as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


class Host:
    """The capabilities of this machine, detected once, and its namespaces, created on demand."""

    def __init__(self) -> None:
        self._namespace: Namespace | None = None
        self._network: Network | None = None

    @functools.cached_property
    def capabilities(self) -> frozenset[str]:
        """The available members of HOST_CAPABILITIES."""
        found = {"root" if os.geteuid() == 0 else "unprivileged"}
        if self.namespace is not None:
            found |= {"syslog", "mounts"}
            hosts = self.namespace.inside(Path("/etc/hosts"))
            if hosts.is_file() and TWO_ADDRESSES in hosts.read_text():
                found.add("hosts")
        if self.network is not None:
            found.add("network")
        if "hosts" in found or _knows_localhost():
            found.add("localhost")
        if _has_ipv6_loopback():
            found.add("ipv6-loopback")
        return frozenset(found)

    @functools.cached_property
    def namespace(self) -> Namespace | None:
        """The private mount namespace, or None if this user cannot create one."""
        with contextlib.suppress(OSError):
            self._namespace = Namespace()
        return self._namespace

    @functools.cached_property
    def network(self) -> Network | None:
        """The private network, or None if this user cannot create one."""
        with contextlib.suppress(OSError):
            self._network = Network()
        return self._network

    def close(self) -> None:
        """Remove the namespaces."""
        if self._network is not None:
            self._network.close()
            self._network = None
        if self._namespace is not None:
            self._namespace.close()
            self._namespace = None


def _knows_localhost() -> bool:
    try:
        return socket.gethostbyname(LOCALHOST) == "127.0.0.1"
    except OSError:
        return False


def _has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True
