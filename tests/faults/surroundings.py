"""Hostile surroundings: a log that nobody reads, limits, file systems that are full.

Rule: what a process is put into is made here, for it alone: a mount name space, a limit, a file
system in memory. It ends with the process.
"""

from __future__ import annotations

import os
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.postfix.devlog import DEVICES, ENTER, UNSHARE
from tests.support.proxies import ISOLATED_PYTHON, ROOT

NOBODY = 65534


@contextmanager
def unread_log(directory: Path) -> Iterator[list[str]]:
    """Give a prelude whose command finds a /dev/log that takes ten lines, and is never read."""
    device = directory / "dev"
    device.mkdir()
    for name in DEVICES:
        (device / name).touch()
    (device / "fd").symlink_to("/proc/self/fd")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(device / "log"))
        script = f'DEVICES="{" ".join(DEVICES)}"\n{ENTER}'
        yield [*UNSHARE, "sh", "-ec", script, "sh", str(device)]


def small_file_system(mounted: Path, size: str) -> list[str]:
    """Return a prelude whose command finds a file system in memory at `mounted`.

    size: as mount(8) takes it, "size=64k" or "nr_inodes=1".
    """
    mount = f"mount -t tmpfs -o {size} tmpfs {shlex.quote(str(mounted))}"
    return [*UNSHARE, "sh", "-ec", f'{mount}; exec "$@"', "sh"]


def limited(name: str, value: int) -> list[str]:
    """Return a prelude that sets a limit of setrlimit(2) for its command."""
    program = (
        "import os, resource, sys\n"
        f"resource.setrlimit(resource.{name}, ({value}, {value}))\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    return [sys.executable, "-I", "-S", "-c", program]


def _program(text: str) -> list[str]:
    return [*ISOLATED_PYTHON, "-c", text]


#: The proxy as nobody, without a further process or thread. It loads all modules before, because
#: nobody may not be able to read the directory of this Python.
NO_MORE_PROCESSES = _program(f"""
import pkgutil, posix, resource, sys, traceback
sys.path.insert(0, {str(ROOT)!r})
import postprox.shell, postprox.core
for package in (postprox.shell, postprox.core):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        __import__(module.name)
posix.setgroups([])
posix.setgid({NOBODY})
posix.setuid({NOBODY})
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
from postprox.__main__ import main
sys.exit(main())
""")


def other_system(functions: str) -> list[str]:
    """Return the proxy on a system of which some calls are others, as a command.

    functions: their definitions, by the names that they have in `posix`. They may use `posix`
        itself, and `_thread`, `stat` and `is_file`, and are in the list `ours`.
    """
    return _program(f"""
import _thread, posix, stat, sys, time
sys.path.insert(0, {str(ROOT)!r})
import postprox.shell.system as system
class System:
    def __getattr__(self, name):
        return getattr(posix, name)
def is_file(descriptor):
    return stat.S_ISREG(posix.fstat(descriptor).st_mode)
{functions}
system.posix = System()
for function in ours:
    setattr(system.posix, function.__name__, function)
from postprox.__main__ import main
sys.exit(main())
""")


def descriptors(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208
