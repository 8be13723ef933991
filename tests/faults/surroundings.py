"""Hostile environments: an unread log, resource limits and full file systems.

Rule: each environment, such as a mount namespace, a limit or a file system in memory, affects only
one process and ends with it.
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
    """Yield a command prefix that provides a /dev/log that accepts ten lines and is never read."""
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
    """Return a command prefix that mounts a file system in memory at `mounted`.

    size: an option of mount(8), such as "size=64k" or "nr_inodes=1".
    """
    mount = f"mount -t tmpfs -o {size} tmpfs {shlex.quote(str(mounted))}"
    return [*UNSHARE, "sh", "-ec", f'{mount}; exec "$@"', "sh"]


def limited(name: str, value: int) -> list[str]:
    """Return a command prefix that sets a limit with setrlimit(2)."""
    program = (
        "import os, resource, sys\n"
        f"resource.setrlimit(resource.{name}, ({value}, {value}))\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    return [sys.executable, "-I", "-S", "-c", program]


def _program(text: str) -> list[str]:
    return [*ISOLATED_PYTHON, "-c", text]


#: Runs the proxy as the user nobody, who may not start a process or thread. The code first loads
#: all modules, because this user may be unable to read Python's directory.
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
    """Return a command that runs the proxy with some system calls replaced.

    functions: Python code that defines the replacements under their names in `posix` and lists
        them in `ours`. It may use `posix`, `_thread`, `stat` and `is_file`.
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
    """Return a process's number of open descriptors."""
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208
