"""The directories that systemd hides from a unit, creates for it, or makes writable.

Rule: the functions depend only on the unit and a path (systemd.exec(5)).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from .unit import Unit

_HOMES = ("/home", "/root", "/run/user")
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108
#: The settings that create directories, each with the parent directory.
_MADE = {
    "RuntimeDirectory": "/run",
    "StateDirectory": "/var/lib",
    "CacheDirectory": "/var/cache",
    "LogsDirectory": "/var/log",
}
#: The read-only directories for each value of ProtectSystem=.
_PROTECTED = {
    **dict.fromkeys(("1", "yes", "true", "on"), ("/usr", "/boot", "/efi")),
    "full": ("/usr", "/boot", "/efi", "/etc"),
    "strict": ("/",),
}
_NEVER_PROTECTED = ("/dev", "/proc", "/sys")
_NO = ("", "0", "no", "false", "off")


def is_below(path: str, directories: Sequence[str]) -> bool:
    """Return whether the path is one of the directories or below one of them."""
    return any(PurePosixPath(path).is_relative_to(directory) for directory in directories)


def is_made_by_systemd(unit: Unit, path: str) -> bool:
    """Return whether systemd creates the directory when it starts the unit."""
    if unit.private_tmp and path.rstrip("/") in _TEMPORARY:
        return True
    return path.rstrip("/") in _made(unit)


def is_below_made(unit: Unit, path: str) -> bool:
    """Return whether the path is below a directory that systemd creates for the unit."""
    return is_made_by_systemd(unit, path) or is_below(path, _made(unit))


def made_by(unit: Unit, setting: str) -> list[str]:
    """Return the directories that systemd creates because of a setting."""
    return [path for path in _made(unit) if path.startswith(f"{_MADE[setting]}/")]


def _made(unit: Unit) -> list[str]:
    name = unit.name.rpartition(".")[0].replace("@", "@1") if "@." in unit.name else unit.name
    name = name.removesuffix(".service")
    return [
        f"{parent}/{item.partition(':')[0].replace('%N', name).replace('%n', unit.name)}"
        for setting, parent in _MADE.items()
        for item in unit.paths(setting)
    ]


def paths_of(unit: Unit) -> list[str]:
    """Return the paths in the unit's settings, and the directories that systemd creates."""
    names = ("ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "TemporaryFileSystem")
    items = [item for name in (*names, "ExecPaths", "NoExecPaths") for item in unit.paths(name)]
    return [*(item.partition(":")[0] for item in items), *_made(unit)]


def _real(unit: Unit, path: str) -> str:
    """Resolve the symbolic links in a path. systemd also resolves the links in its settings."""
    return unit.links.get(path, path)


def _is_really_below(unit: Unit, path: str, directories: Sequence[str]) -> bool:
    return is_below(_real(unit, path), [_real(unit, directory) for directory in directories])


def hiding_setting(unit: Unit, path: str) -> str:
    """Return the setting that hides a path from the unit, or "" if there is none."""
    home = unit.setting("ProtectHome")
    real = _real(unit, path)
    for each in dict.fromkeys((path, real)):
        if home not in (*_NO, "read-only") and is_below(each, _HOMES):
            return f"ProtectHome={home}"
        is_made = is_made_by_systemd(unit, each)
        if unit.private_tmp and is_below(each, _TEMPORARY) and not is_made:
            return "DynamicUser=yes" if unit.dynamic_user else "PrivateTmp=yes"
        for name in ("InaccessiblePaths", "TemporaryFileSystem"):
            for item in unit.paths(name):
                directory = item.partition(":")[0]
                if is_below(each, [directory, _real(unit, directory)]):
                    return f"{name}={item}"
    return ""


def protecting_setting(unit: Unit, path: str) -> str:
    """Return the setting that makes a path read-only for the unit, or "" if there is none."""
    private = _TEMPORARY if unit.private_tmp else ()
    writable = [*_made(unit), *unit.paths("ReadWritePaths"), *private, *_NEVER_PROTECTED]
    level = "strict" if unit.dynamic_user else unit.setting("ProtectSystem")
    home = ["/home", "/root"] if unit.setting("ProtectHome") == "read-only" else []
    protected = {
        "ProtectHome=read-only": home,
        "ReadOnlyPaths=": unit.paths("ReadOnlyPaths"),
        f"ProtectSystem={level}": _PROTECTED.get(level, ()),
    }
    if _is_really_below(unit, path, writable):
        return ""
    found = (n for n, paths in protected.items() if _is_really_below(unit, path, paths))
    return next(found, "")


def forbidding_setting(unit: Unit, path: str) -> str:
    """Return the setting that forbids the unit to execute a program, or "" if there is none."""

    def longest(name: str) -> int:
        items = (_real(unit, item) for item in unit.paths(name))
        real = _real(unit, path)
        return max((len(item) for item in items if is_below(real, [item])), default=-1)

    refused = longest("NoExecPaths")
    return "NoExecPaths" if refused > longest("ExecPaths") else ""
