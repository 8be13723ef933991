"""Finds the files and directories that a filter script writes to.

Rule: this module only reads data and makes no decisions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import sandbox
from ..scripts import used_files
from . import accounts

#: The configurations of logrotate(8).
_LOGROTATE = "/etc/logrotate.d"


def rotations(targets: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each target that logrotate(8) creates with a given owner, and the path of its
    configuration file.
    """
    for file in sorted(Path(_LOGROTATE).glob("*")) if targets else ():
        try:
            text = file.read_text("utf-8", "replace")
        except OSError:
            continue
        for target in targets:
            created = rf"^[^#\n]*{re.escape(target)}(?=[\s{{\"])[^}}]*^\s*create\s+\d+\s+\w"
            if re.search(created, text, re.MULTILINE):
                yield target, str(file)


#: Directories for temporary files, and names of directories that should not be in them.
_SHORT = ("/tmp", "/var/tmp")  # noqa: S108
_KEPT = re.compile("quarantine|archive|infected|virus|spam", re.IGNORECASE)


def targets(script: str, interpreter: str, user: str) -> tuple[str, ...]:
    """Return the existing directories and files that a script writes to."""
    name = Path(interpreter or "sh").name
    if name not in ("sh", "dash", "bash") and not name.startswith("python"):
        return ()
    found = []
    for path in used_files.written_paths(script):
        if Path(path).is_file():
            # A file such as a log can be writable in a directory that is not.
            found.append(path)
            continue
        is_directory = path.endswith("/") or Path(path).is_dir()
        parent = path.rstrip("/") if is_directory else path.rpartition("/")[0]
        is_made = "mkdir" in script and _KEPT.search(parent) and sandbox.is_below(parent, _SHORT)
        if (Path(parent).is_dir() or is_made) and parent not in ("", "/"):
            found.append(parent)
    return tuple(dict.fromkeys(found))


#: Directories that several programs share, and system logs.
_COMMON = (
    *("/var/backups", "/var/cache", "/var/lib", "/var/log", "/var/mail", "/var/opt", "/var/spool"),
    *("/var/log/auth.log", "/var/log/mail.log", "/var/log/maillog", "/var/log/messages"),
    *("/var/log/mail.err", "/var/log/mail.info", "/var/log/mail.warn", "/var/log/syslog"),
)
#: The directories that contain programs and configurations of the system.
_SYSTEM = (
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
)


def is_private(path: str, user: str) -> bool:
    """Return whether root's ownership is the only reason why the user cannot write to a path."""
    is_common = path in _COMMON or len(Path(path).parts) < 3 or sandbox.is_below(path, _SYSTEM)
    if is_common or accounts.find(user) is None or Path(path).is_symlink():
        return False
    is_closed = accounts.closed_directory(str(Path(path).parent / "x"), user) and not is_foreign(
        path, user
    )
    return Path(path).stat().st_uid == 0 and not is_closed


def is_foreign(path: str, user: str) -> bool:
    """Return whether the directory of a path belongs to the user.

    With DynamicUser=yes, the user can reach this directory only in the unit.
    """
    account = accounts.find(user)
    return account is not None and Path(path).parent.stat().st_uid == account.pw_uid
