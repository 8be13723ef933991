"""Reads the files, sockets and modules that a filter script uses.

Rule: this module only reads data and makes no decisions.
"""

from __future__ import annotations

import contextlib
import grp
import importlib.machinery
import os
import pwd
import re
import site
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from .. import environment, sandbox
from ..postconf import UnreadableError
from ..scripts import proxy_variables, python, sending, used_files
from ..scripts.mistake import Kind, Mistake
from . import accounts, system


def in_python(path: str, text: str, interpreter: str) -> Iterator[Mistake]:
    """Yield the mistakes in a script for the system's Python."""
    if Path(interpreter).name not in ("python3", Path(os.path.realpath(sys.executable)).name):
        return
    yield from python.text_mode(text)
    yield from python.standard_input(text, sys.stdlib_module_names)
    yield from python.lost_result(text)
    yield from python.shell_commands(text)
    yield from python.caught_exit(text)
    if os.path.realpath(interpreter) != os.path.realpath(sys.executable):
        return
    # The check may run without the directories of installed modules (python3 -S).
    places = [str(Path(path).parent), *sys.path, *site.getsitepackages()]
    for number, name in python.imported(text):
        is_known = name in sys.stdlib_module_names or name in sys.builtin_module_names
        if not is_known and importlib.machinery.PathFinder.find_spec(name, places) is None:
            line = text.split("\n")[number - 1]
            if "sys.path" not in text:
                place = _private_module(name)
                yield Mistake(Kind.MODULE, line.strip(), number, place, path=name)
            return


def _private_module(name: str) -> str:
    """Return the path of a module that pip installed for root only (--user), or ""."""
    with contextlib.suppress(OSError):  # an ordinary user cannot read the directory
        places = Path(pwd.getpwuid(0).pw_dir, ".local/lib").glob("python3*/site-packages")
        found = [place / file for place in places for file in (name, f"{name}.py")]
        return next((str(path) for path in found if path.exists()), "")
    return ""


#: The environment file of the packaged unit. Proxies that spawn(8) starts do not read it.
DEFAULTS = "/etc/default/postprox"


def unset(script: str) -> Iterator[Mistake]:
    """Yield the line that uses a variable of the unit's environment file."""
    with contextlib.suppress(OSError, UnreadableError):
        values = environment.parse(system.read_text(Path(DEFAULTS))).values
        yield from proxy_variables.unset_variables(script, values)


def working_directories(text: str, user: str) -> Iterator[Mistake]:
    """Yield the lines that cannot enter a directory, so that the script ends."""
    for found in used_files.working_directories(text):
        if not sandbox.is_below(found.path, VOLATILE):
            is_directory = Path(found.path).is_dir()
            if not is_directory or accounts.may(user, os.X_OK, found.path) is False:
                yield replace(found, correction="a+x" if is_directory else "")


#: Directories whose contents can differ between the check and the proxy, or change before the
#: filter runs.
VOLATILE = ("/tmp", "/var/tmp", "/run", "/var/run", "/dev", "/proc")  # noqa: S108


def unreadable(script: str, user: str) -> Iterator[Mistake]:
    """Yield the lines that read a file which does not exist, or which the user cannot read.

    A missing file counts only if sh(1) then ends the script.
    """
    for found in (*used_files.read_files(script), *used_files.data_files(script)):
        is_data = found.kind == Kind.DATA
        path = Path(found.path)
        if sandbox.is_below(found.path, VOLATILE):
            if path.is_file():
                yield replace(found, kind=Kind.HIDDEN)
            continue
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            if not is_data:
                yield found
            continue
        except OSError:
            continue
        if accounts.may(user, os.R_OK, found.path) is False:
            kind = found.kind if is_data else Kind.UNREADABLE
            yield replace(found, kind=kind, correction=_read_permission(user, found.path, status))


def _read_permission(user: str, path: str, status: os.stat_result) -> str:
    """Return the mode that lets a user read a file, or the group that can read it, or ""."""
    if not stat.S_ISREG(status.st_mode):
        return ""
    if closed := accounts.closed_directory(path, user):
        above = Path(closed).stat()
        places = [
            (each.st_gid, each.st_mode & bit)
            for each, bit in ((above, stat.S_IXGRP), (status, stat.S_IRGRP))
        ]
        group = _common_group(places)
        return f"group {group}" if group else ""
    account = accounts.find(user)
    if account and status.st_uid == account.pw_uid:
        return "u+r"
    if not status.st_gid or not status.st_mode & stat.S_IRGRP:
        return "g+r"
    with contextlib.suppress(KeyError):
        return f"group {grp.getgrgid(status.st_gid).gr_name}"
    return ""


def bad_patterns(script: str, interpreter: str) -> Iterator[Mistake]:
    """Yield the lines in which grep(1) reads patterns that match every message, or none."""
    if Path(interpreter or "sh").name not in ("sh", "dash", "bash"):
        return
    for found in used_files.pattern_files(script):
        if not sandbox.is_below(found.path, VOLATILE) and Path(found.path).is_file():
            lines = system.read_script(found.path).split(b"\n")
            is_blank = any(not line.strip() for line in lines[:-1]) or lines[-1].isspace()
            if is_blank or any(line.endswith(b"\r") for line in lines):
                yield replace(found, correction="blank" if is_blank else "cr")


def temporary(script: str, user: str) -> Iterator[Mistake]:
    """Yield the line that creates a temporary file, if the user cannot write to /tmp."""
    found = next(used_files.temporary_files(script), None)
    if found and "TMPDIR" not in script and accounts.may(user, os.W_OK, found.path) is False:
        yield found


def sockets(script: str, user: str) -> Iterator[Mistake]:
    """Yield the line with the only socket of a script if the user cannot connect to it.

    `correction` is the group that may connect to the socket, or "".
    """
    local = "" if _clamd_setting("TCPSocket") else _clamd_setting("LocalSocket")
    paths = used_files.absolute_paths(script, local)
    sockets = [each for each in paths if _is_socket(each.path)]
    if len({each.path for each in sockets}) != 1:
        return
    found = sockets[0]
    if accounts.may(user, os.W_OK, found.path) is False:
        status, closed = Path(found.path).stat(), accounts.closed_directory(found.path, user)
        places = [(status.st_gid, status.st_mode & stat.S_IWGRP)]
        if closed:
            above = Path(closed).stat()
            places.append((above.st_gid, above.st_mode & stat.S_IXGRP))
        yield replace(found, correction=_common_group(places))


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(Path(path).stat().st_mode)
    except OSError:
        return False


def _common_group(places: Sequence[tuple[int, int]]) -> str:
    """Return the group that has the permission for each path, or ""."""
    group = places[0][0]
    if group == 0 or any(gid != group or not is_permitted for gid, is_permitted in places):
        return ""
    try:
        return grp.getgrgid(group).gr_name
    except KeyError:
        return ""


def notices(script: str, interpreter: str) -> Iterator[Mistake]:
    """Yield the line that runs sendmail(1) if this is the program of Postfix."""
    is_python = Path(interpreter).name.startswith("python")
    is_postfix = Path(os.path.realpath("/usr/sbin/sendmail")).name == "sendmail"
    if is_postfix and (is_python or Path(interpreter or "sh").name in ("sh", "dash", "bash")):
        yield from sending.notices(script, is_python=is_python)


#: The configuration files of clamd, on Debian and elsewhere.
_CLAMD = ("/etc/clamav/clamd.conf", "/etc/clamd.d/scan.conf", "/etc/clamd.conf")


def clamd_user() -> str:
    """Return the user of clamd, or "" if unknown."""
    return _clamd_setting("User") or ("root" if any(map(os.path.isfile, _CLAMD)) else "")


def _clamd_setting(name: str) -> str:
    """Return a setting in the configuration of clamd, or "" if it is not set."""
    for path in _CLAMD:
        with contextlib.suppress(OSError):
            text = Path(path).read_text("utf-8", "replace")
            found = re.search(rf"^\s*{name}\s+(\S+)", text, re.MULTILINE)
            return found[1] if found else ""
    return ""
