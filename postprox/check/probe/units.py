"""Reads the units of systemd and their drop-ins.

Rule: this module only reads data and makes no decisions.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..postconf import UnreadableError
from ..unit import (
    DROP_IN,
    Ignored,
    MissingUnit,
    SocketUnit,
    Unit,
    ignored_lines,
    parse_socket,
    required_units,
)
from ..unit import parse as parse_unit
from . import accounts, system

UNIT_DIRECTORIES = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)


def installed_units(directories: Sequence[str] | None = None) -> Iterator[Unit]:
    """Read the installed postprox units with their drop-ins and sockets. Template units come last.

    If several units have the same name, the first directory takes precedence, as in systemd.
    """
    paths: dict[str, Path] = {}
    directories = directories or UNIT_DIRECTORIES
    for directory in directories:
        for path in Path(directory).glob("*.service"):
            if path.name.startswith("postprox") or _starts_proxy(path):
                paths.setdefault(path.name, path)
    for name in sorted(paths, key=lambda name: ("@" in name, name)):
        if _is_unit(paths[name]):
            yield from _instances_of(read_unit(paths[name], directories), directories)


def _instances_of(unit: Unit, places: Sequence[str]) -> Iterator[Unit]:
    """Yield each instance of a template that has files of its own, and then the other instances."""
    is_template = unit.name.endswith("@.service")
    has_file = any("%" in each for each in unit.settings.get("EnvironmentFile", ()))
    own = [
        name
        for name in unit.instances
        if is_template and unit.enabled and (has_file or _has_drop_ins(name, places))
    ]
    for name in own:
        yield read_unit(Path(unit.path), places, name)
    unit.instances = tuple(name for name in unit.instances if name not in own)
    if unit.instances:
        stems = tuple(name.removesuffix(".service") for name in own)
        unit.enabled = tuple(e for e in unit.enabled if e.rpartition(".")[0] not in stems)
        if unit.socket:
            unit.socket.instances = _sockets(unit)
        yield unit


def _has_drop_ins(name: str, places: Sequence[str]) -> bool:
    """Return whether an instance or its socket has drop-ins that no other instance uses."""
    names = (f"{name}.d", f"{name.replace('.service', '.socket')}.d")
    return any(Path(place, each).is_dir() for place in places for each in names)


def _sockets(unit: Unit) -> tuple[str, ...]:
    return tuple(each.replace(".service", ".socket") for each in unit.instances)


#: An ExecStart= line that starts postprox, not postprox-check.
_START = re.compile(r"^ExecStart=.*\bpostprox(?=[\"'\s]|$)", re.MULTILINE)


def _starts_proxy(path: Path) -> bool:
    """Return whether the file is a unit that starts the proxy."""
    try:
        return _is_unit(path) and bool(_START.search(path.read_text("utf-8", "replace")))
    except OSError:
        return False


def _is_unit(path: Path) -> bool:
    return path.is_file() or _is_masked(path)


def _is_masked(path: Path) -> bool:
    """Return whether the path is a masked unit, that is, a link to /dev/null."""
    return os.path.realpath(path) == os.devnull


def read_unit(path: Path, directories: Sequence[str] | None = None, instance: str = "") -> Unit:
    """Read a unit, its drop-ins and its socket from its own directory and systemd's directories.

    instance: the name of an instance, such as postprox@1.service, if `path` is a template.

    Raises:
        OSError: a file cannot be opened.
        UnreadableError: a file is not a regular text file, is too large, or has a syntax error.
    """
    own = str(path.parent)
    directories = directories or UNIT_DIRECTORIES
    places = list(directories if own in directories else [own, *directories])
    name = instance or path.name
    files_read = list(_with_drop_ins(path, places, name))
    texts = [system.read_text(file) for file in files_read]
    try:
        named = parse_unit(name, texts, {}).environment_files
        files = {name: system.read_text(Path(name)) for name in named if Path(name).is_file()}
        unit = parse_unit(name, texts, files)
    except ValueError as error:
        raise UnreadableError(f"{path}, its drop-ins or its environment files: {error}") from None
    unit.user = accounts.user_name(unit.user)
    unit.path = str(path)
    hidden = [Path(place, path.name) for place in places if place != own]
    unit.hidden_path = next((str(each) for each in hidden if each.is_file()), "")
    unit.installed = own in directories
    unit.masked = _is_masked(path)
    unit.drop_ins = f"{places[0]}/{name}.d"
    unit.drop_in_names = frozenset(file.name for file in files_read if file.suffix == ".conf")
    unit.written = _written(unit.drop_ins)
    stem = name.removesuffix(".service")
    links = [link.name for place in places for link in Path(place).glob(f"*.[wr]*s/{stem}*")]
    unit.enabled = tuple(dict.fromkeys(link for link in links if _is_of(link, stem)))
    unit.instances = _instances(name, unit.enabled)
    unit.ignored = tuple(_ignored(name, files_read, places))
    unit.socket = _socket_of(unit, places)
    files_read += _socket_files(unit, places)
    unit.missing_units = tuple(_missing_units(files_read, places))
    return unit


#: The directories of generated units (systemd.generator(7)), such as those for SysV scripts.
GENERATED_DIRECTORIES = tuple(
    f"/run/systemd/{name}" for name in ("generator", "generator.early", "generator.late")
)


def _socket_files(unit: Unit, places: Sequence[str]) -> list[Path]:
    """Return the files of a service's socket unit."""
    name = unit.name.replace(".service", ".socket")
    paths = [Path(place, _template_of(name)) for place in places]
    path = next((path for path in paths if path.is_file()), None)
    return list(_with_drop_ins(path, places, name)) if path and unit.socket else []


def _missing_units(files: Sequence[Path], places: Sequence[str]) -> Iterator[MissingUnit]:
    """Yield the services that the unit requires, but that do not exist or are masked."""
    places = [*places, *GENERATED_DIRECTORIES]
    if not any(Path(place, "sysinit.target").exists() for place in places):
        return  # systemd's own units are in an unknown directory, so other units may be there too
    for file in files:
        for name in required_units(system.read_text(file)):
            template = re.sub("@[^.]*", "@", name)
            paths = [Path(place, each) for place in places for each in (name, template)]
            found = [path for path in paths if path.exists() or path.is_symlink()]
            if found and not _is_masked(found[0]):
                continue
            if not found and Path("/etc/init.d", name.removesuffix(".service")).exists():
                continue
            known = sorted({p.name for d in places for p in Path(d).glob("*.service")} - {name})
            known = [] if found else [each for each in known if not each.startswith("postprox")]
            near = (difflib.get_close_matches(name, known, 1, 0.85) or [""])[0]
            yield MissingUnit(str(file), name, near, bool(found))


#: File name suffixes that suggest a misnamed drop-in. Backup suffixes, such as .bak, are not
#: included.
_SUFFIXES = ("", ".cfg", ".cnf", ".config", ".ini", ".service", ".socket", ".txt")


def _ignored(name: str, files: Sequence[Path], places: Sequence[str]) -> Iterator[Ignored]:
    """Yield the lines and the drop-ins that systemd ignores."""
    for file in files:
        yield from ignored_lines(str(file), system.read_text(file))
    for place in places:
        for file in sorted(Path(place, f"{name}.d").glob("[!.]*")):
            if file.suffix in _SUFFIXES and file.is_file():
                yield Ignored(str(file), "", "is not read, because its name does not end in .conf")


def _template_of(name: str) -> str:
    """Return the name of the file that defines a unit or an instance of a template."""
    return re.sub("@.*(?=[.])", "@", name)


def _with_drop_ins(path: Path, places: Sequence[str], name: str) -> Iterator[Path]:
    """Yield a unit and its drop-ins, with those of a template before those of an instance.

    Earlier directories take precedence.
    """
    if not _is_masked(path):
        yield path
    drop_ins = {
        drop_in.name: drop_in
        for folder in dict.fromkeys((path.name, name))
        for place in reversed(places)
        for drop_in in Path(place, f"{folder}.d").glob("*.conf")
    }
    yield from (drop_ins[name] for name in sorted(drop_ins) if drop_ins[name].is_file())


def _written(drop_ins: str) -> tuple[str, ...]:
    """Return the settings in the drop-in that this check's commands have written earlier."""
    path = Path(drop_ins, DROP_IN)
    lines = system.read_text(path).split("\n") if path.is_file() else []
    return tuple(line for line in lines if re.match(r"\w+=", line))


def _is_of(link: str, stem: str) -> bool:
    """Return whether a link in a *.wants directory refers to the service or its socket."""
    name, _, kind = link.rpartition(".")
    is_own = name.startswith(stem) if stem.endswith("@") else name == stem
    return is_own and kind in ("service", "socket")


def _instances(name: str, enabled: Sequence[str]) -> tuple[str, ...]:
    """Return the services that systemd starts.

    A template without known instances counts as one service.
    """
    if not name.removesuffix(".service").endswith("@"):
        return (name,)
    stems = sorted({each.rpartition(".")[0] for each in enabled} - {name.rpartition(".")[0]})
    return tuple(f"{stem}.service" for stem in stems) or (name.replace("@.", "@1."),)


def _socket_of(unit: Unit, places: Sequence[str]) -> SocketUnit | None:
    """Read the socket unit that belongs to a service.

    Return None if the service has no socket unit.
    """
    name = unit.name.replace(".service", ".socket")
    file = _template_of(name)
    paths = [Path(place, file) for place in places if _is_unit(Path(place, file))]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return None
    files = list(_with_drop_ins(path, places, name))
    found = parse_socket(name, [system.read_text(file) for file in files])
    unit.ignored += tuple(_ignored(name, files, places))
    found.masked = _is_masked(paths[0])
    found.drop_ins = f"{places[0]}/{name}.d"
    found.drop_in_names = frozenset(file.name for file in files if file.suffix == ".conf")
    found.written = _written(found.drop_ins)
    found.installed = unit.installed
    found.instances = _sockets(unit)
    return found
