"""Reads facts about processes, including all their threads, from /proc.

Rule: all threads of a process count, because the first one may sleep or exit while others run.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import sys
from pathlib import Path

#: The state of listening sockets in /proc/net/tcp (TCP_LISTEN in the kernel's tcp_states.h).
_LISTENING = "0A"
#: A size in octets that is larger than any file read here.
_FILE = 65536


def _read(path: str) -> str:
    """Return the contents of a file in /proc, or "" if it is gone. pathlib would be too slow."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return ""
    try:
        return os.read(descriptor, _FILE).decode("latin-1")
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def _stat(directory: str) -> list[str] | None:
    """Return the fields that follow the command name in a stat file, such as state and parent."""
    text = _read(f"{directory}/stat")
    return text[text.rindex(")") + 2 :].split() if text else None


def _tasks(pid: int | str) -> list[str]:
    """Return the directories of all threads of *pid*, or nothing if it is gone."""
    directory = f"/proc/{pid}/task"
    with contextlib.suppress(OSError):
        return [f"{directory}/{task}" for task in os.listdir(directory)]  # noqa: PTH208 - as above
    return []


def _states(pid: int) -> list[str]:
    """Return the state of each thread of *pid*, such as R, S, D or Z."""
    return [fields[0] for task in _tasks(pid) if (fields := _stat(task))]


def children(pid: int | str = "self") -> set[int]:
    """Return the children of *pid* (default: this process), including zombies."""
    return {int(child) for task in _tasks(pid) for child in _read(f"{task}/children").split()}


def descendants(pid: int) -> set[int]:
    """Return *pid* and all its descendants."""
    found, ahead = set(), [pid]
    while ahead:
        one = ahead.pop()
        found.add(one)
        ahead += children(one) - found
    return found


def is_alive(pid: int) -> bool:
    """Whether a thread of *pid* is alive."""
    return any(state not in "ZX" for state in _states(pid))


def sleeps(pid: int) -> bool:
    """Whether every thread of *pid* is waiting for an event, or *pid* is gone."""
    return all(state in "SZX" for state in _states(pid))


def process_group(pid: int) -> int | None:
    """Return the process group of *pid*, or None if it is gone."""
    fields = _stat(f"/proc/{pid}")
    return int(fields[2]) if fields else None


def peak_memory(pid: int) -> int:
    """Return the peak resident memory of *pid* in octets, or 0 if it is gone."""
    return _memory(pid, "VmHWM:")


def _memory(pid: int, name: str) -> int:
    for task in _tasks(pid):
        for line in _read(f"{task}/status").splitlines():
            if line.startswith(name):
                return int(line.split()[1]) << 10
    return 0


def resident_memory(pid: int) -> int:
    """Return the resident memory of *pid* in octets, or 0 if it is gone."""
    return _memory(pid, "VmRSS:")


def processor_time(pid: int) -> float:
    """Return the processor time of all threads of *pid*, in seconds."""
    fields = _stat(f"/proc/{pid}")
    ticks = int(fields[11]) + int(fields[12]) if fields else 0
    return ticks / os.sysconf("SC_CLK_TCK")


def listens(pid: int) -> set[str]:
    """Return the addresses on which *pid* accepts TCP connections, such as [::]:25.

    An IPv6 socket bound to ::ffff:127.0.0.1 serves only 127.0.0.1.
    """
    inodes = {link.removeprefix("socket:[").removesuffix("]") for link in _open_files(pid)}
    return {
        _address(fields[1])
        for name in ("tcp", "tcp6")
        for fields in _table(Path(f"/proc/{pid}/net/{name}"))
        if fields[3] == _LISTENING and fields[9] in inodes
    }


def _open_files(pid: int) -> list[str]:
    found = []
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(str(entry.readlink()))
    return found


def _table(path: Path) -> list[list[str]]:
    """Yield the rows of a table such as /proc/net/tcp, without its heading."""
    with contextlib.suppress(OSError):
        return [line.split() for line in path.read_text().splitlines()[1:]]
    return []


def _address(written: str) -> str:
    """Decode an address in a table such as /proc/net/tcp, with words in host byte order."""
    host, port = written.split(":")
    words = [int(host[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(host), 8)]
    address = ipaddress.ip_address(b"".join(words))
    if address.version == 6:
        address = address.ipv4_mapped or address
    text = f"[{address}]" if address.version == 6 else str(address)
    return f"{text}:{int(port, 16)}"


def command_line(pid: int) -> str:
    """Return the command line of *pid*, for messages."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "?"
    return " ".join(word.decode("utf-8", "backslashreplace") for word in words if word)
