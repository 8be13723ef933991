"""Reads the directories that a proxy writes to.

Rule: this module only reads data and makes no decisions.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from .. import sandbox
from ..facts import UNLIMITED, DirectoryFacts, SpoolFacts
from ..postconf import Configuration, UnreadableError
from ..routes import Proxy
from . import accounts, system


def _has_foreign_files(directory: Path) -> bool:
    """Return whether `directory` contains files that postprox did not create."""
    try:
        return any(not entry.name.startswith("postprox-") for entry in directory.iterdir())
    except OSError:
        return False


def spool_facts(configuration: Configuration, proxy: Proxy) -> SpoolFacts | None:
    if proxy.options is None:
        return None
    directory = Path(proxy.options.directory)
    if proxy.service:  # spawn(8) runs in the queue directory
        directory = Path(configuration.parameter("queue_directory"), directory)
    if proxy.unit and sandbox.is_made_by_systemd(proxy.unit, str(directory)):
        return _private_spool(directory) if proxy.unit.private_tmp else None
    try:
        status, space = directory.stat(), os.statvfs(directory)
    except OSError:
        return SpoolFacts(exists=False, is_link=directory.is_symlink())
    rights = [
        accounts.may(accounts.identity(proxy), right, str(directory))
        for right in (os.W_OK, os.X_OK)
    ]
    writable = None if None in rights else all(rights)
    line, file = _boot_line(directory)
    return SpoolFacts(
        exists=stat.S_ISDIR(status.st_mode),
        writable=writable,
        mode=stat.S_IMODE(status.st_mode),
        is_file=not stat.S_ISDIR(status.st_mode),
        is_link=directory.is_symlink(),
        has_foreign_files=_has_foreign_files(directory),
        is_read_only=bool(space.f_flag & os.ST_RDONLY),
        closing_unit=_closing_unit(configuration, directory) if proxy.service else "",
        free=space.f_bavail * space.f_frsize,
        # A file system without an inode limit, such as btrfs, reports 0 inodes in total.
        free_files=space.f_favail if space.f_files else UNLIMITED,
        closed_directory=""
        if writable
        else accounts.closed_directory(str(directory), accounts.identity(proxy)),
        owner=accounts.user_name(str(status.st_uid)),
        boot_line=line,
        boot_file=file,
        lost_by="" if line else _lost_by(proxy, directory),
        is_tmpfs=system.is_tmpfs(str(directory)),
    )


def _private_spool(directory: Path) -> SpoolFacts | None:
    """Return the free space of a unit's private /tmp, which uses the file system of /tmp."""
    if str(directory) not in ("/tmp", "/var/tmp"):  # noqa: S108
        return None
    space = os.statvfs(directory)
    return SpoolFacts(
        exists=True,
        writable=True,
        mode=0o700,
        free=space.f_bavail * space.f_frsize,
        free_files=space.f_favail if space.f_files else UNLIMITED,
        is_tmpfs=system.is_tmpfs(str(directory)),
    )


def _closing_unit(configuration: Configuration, directory: Path) -> str:
    """Return the unit of Postfix if it forbids its programs to write to a directory, or ""."""
    try:
        pid = Path(configuration.parameter("queue_directory"), "pid/master.pid").read_text().strip()
        mounts = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
        unit = Path(f"/proc/{pid}/cgroup").read_text().strip().rpartition("/")[2]
    except OSError:
        return ""
    above = [mount for mount in mounts if directory.is_relative_to(mount[4])]
    nearest = max(above, key=lambda mount: len(mount[4]), default=None)
    is_read_only = nearest is not None and "ro" in nearest[5].split(",")
    return unit if is_read_only and unit.endswith(".service") else ""


def status_directories(proxy: Proxy) -> Iterator[tuple[str, DirectoryFacts]]:
    """Yield the facts about the directories of --metrics and --pid-file."""
    unit, wanted = proxy.unit, proxy.options
    files = [wanted.metrics, wanted.pid_file] if wanted and unit and unit.path else []
    for file in filter(None, files):
        directory = file.rpartition("/")[0] or "/"
        if unit is None or not file.startswith("/") or sandbox.is_below_made(unit, directory):
            continue
        try:
            status = Path(directory).stat()
        except FileNotFoundError:
            yield directory, DirectoryFacts(exists=False)
            continue
        except OSError:
            continue
        rights = [
            accounts.may(accounts.identity(proxy), right, directory) for right in (os.W_OK, os.X_OK)
        ]
        writable = None if None in rights else all(rights)
        if (
            unit.dynamic_user
            and accounts.find(proxy.user) is None
            and not status.st_mode & stat.S_IWGRP
        ):
            # A temporary user owns only the directories that systemd creates.
            writable = bool(status.st_mode & stat.S_IWOTH)
        yield directory, DirectoryFacts(True, writable, accounts.user_name(str(status.st_uid)))


#: The directories that contain tmpfiles.d files, in order of precedence.
TMPFILES_DIRECTORIES = (
    *("/etc/tmpfiles.d", "/run/tmpfiles.d", "/usr/local/lib/tmpfiles.d", "/usr/lib/tmpfiles.d"),
)
#: The file systems that are mounted at boot.
MOUNTS = "/etc/fstab"


def _boot_line(directory: Path) -> tuple[str, str]:
    """Return the line that systemd-tmpfiles(8) uses for a directory, and the line's file."""
    for file, line in _tmpfiles_lines():
        words = line.split()
        is_directory = len(words) > 1 and words[0][:1] in ("d", "D", "e", "v", "q", "Q")
        if is_directory and words[1].rstrip("/") == str(directory):
            return line, file
    return "", ""


def _tmpfiles_lines() -> Iterator[tuple[str, str]]:
    """Yield the files and lines of tmpfiles.d(5), in the order of precedence.

    Among files with the same name, the first directory takes precedence. Among lines for the same
    path, the first file name takes precedence.
    """
    files: dict[str, Path] = {}
    for place in TMPFILES_DIRECTORIES:
        for path in Path(place).glob("*.conf"):
            files.setdefault(path.name, path)
    for name in sorted(files):
        with contextlib.suppress(OSError, UnreadableError):
            for line in system.read_text(files[name]).split("\n"):
                yield str(files[name]), line


def _lost_by(proxy: Proxy, directory: Path) -> str:
    """Return the path that causes the loss of the directory at boot (`SpoolFacts.lost_by`)."""
    settings = proxy.unit.settings if proxy.unit else {}
    if {"ExecStartPre", "RuntimeDirectory"} & settings.keys():
        return ""
    for top in ("/run", "/var/run", "/dev/shm"):  # noqa: S108
        if sandbox.is_below(str(directory), (top,)) and not directory.is_mount():
            return top
    for file, line in _tmpfiles_lines():
        words = line.split()
        if len(words) > 1 and words[0][:1] in ("r", "R") and fnmatch(str(directory), words[1]):
            return file
    with contextlib.suppress(OSError, UnreadableError):
        for line in system.read_text(Path(MOUNTS)).split("\n"):
            words = [*line.partition("#")[0].split(), "", "", "", ""]
            is_empty = words[2] == "tmpfs" and not re.search(r"\buid=", words[3])
            if is_empty and words[1].rstrip("/") == str(directory):
                return MOUNTS
    return ""
