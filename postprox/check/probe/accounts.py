"""Reads users, groups and their permissions.

Rule: this module only reads data and makes no decisions. access.py tests another user's
permissions, which requires root.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import subprocess
import sys
from collections.abc import Sequence

from .. import access, machine
from ..routes import Proxy
from . import system

#: The user that runs the proxy in the recipe.
OWN_USER = "postprox"


def has_user(name: str) -> bool:
    """Return whether a user exists."""
    return find(name) is not None


def user_name(user: str) -> str:
    """Convert a numeric user to a name, because units can use either (systemd.exec(5))."""
    if not re.fullmatch(r"0|[1-9][0-9]{0,9}", user, re.ASCII):
        return user
    try:
        return pwd.getpwuid(int(user)).pw_name
    except (KeyError, OverflowError):
        return user


def unknown_permissions(user: str) -> str:
    if not user:
        return "the user that the proxy runs as, and that user's permissions"
    if find(user) is None:
        return f"the permissions of user {user}, which exists only while the service runs"
    return f"the permissions of user {user} (run postprox-check as root)"


def identity(proxy: Proxy) -> str:
    """Return the user of a proxy in the notation of spawn(8): USER, or USER:GROUP.

    If there is a colon, the check uses only this group, like spawn(8), or the primary group if
    GROUP is empty. Without a colon, the check uses all groups of the user.
    """
    return f"{proxy.user}:{proxy.group}" if proxy.service and proxy.user else proxy.user


def find(user: str) -> pwd.struct_passwd | None:
    """Return the account of a user, or of USER:GROUP."""
    try:
        return pwd.getpwnam(user.partition(":")[0])
    except KeyError:
        return None


def may(user: str, right: int, path: str) -> bool | None:
    """Return whether the user has a permission (such as os.R_OK), or None if unknown."""
    account = find(user)
    if account is None:
        return None
    if os.geteuid() == account.pw_uid:
        return os.access(path, right)
    groups = _groups_of(user, account)
    return _ask_as(account, right, path, groups) if os.geteuid() == 0 else None


def _groups_of(user: str, account: pwd.struct_passwd) -> list[int]:
    """Return the IDs of the groups with which a program runs, beginning with the main group."""
    _, colon, group = user.partition(":")
    if not colon:
        return [account.pw_gid, *os.getgrouplist(account.pw_name, account.pw_gid)]
    try:
        return [grp.getgrnam(group).gr_gid if group else account.pw_gid]
    except KeyError:
        return [account.pw_gid]


def _ask_as(
    account: pwd.struct_passwd, right: int, path: str, groups: Sequence[int]
) -> bool | None:
    words = map(str, (right, path, account.pw_uid, *groups))
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", access.__file__, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={},
            start_new_session=True,
            timeout=system.TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    return {access.ALLOWED: True, access.REFUSED: False}.get(done.returncode)


def closed_directory(path: str, user: str) -> str:
    """Return the first directory above a path, or above its target, that the user cannot search."""

    def may_search(directory: str) -> bool | None:
        return may(user, os.X_OK, directory)

    closed = machine.closed_directory(path, may_search)
    return closed or machine.closed_directory(os.path.realpath(path), may_search)
