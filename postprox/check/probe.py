"""Reads the configuration from the system: postconf(1), units, users, programs and directories.

Rule: this module only reads data and makes no decisions. It opens only regular files. access.py
tests another user's permissions, which requires root.
"""

from __future__ import annotations

import codecs
import contextlib
import difflib
import errno
import glob
import grp
import importlib.machinery
import ipaddress
import os
import pwd
import re
import shlex
import shutil
import site
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import BinaryIO

from . import (
    access,
    machine,
    pipe_filters,
    python_mistakes,
    sandbox,
    script_commands,
    script_mistakes,
    shell_command,
    source_text,
    table_rules,
    tables,
)
from .facts import (
    UNLIMITED,
    DirectoryFacts,
    MissingCommand,
    ProgramFacts,
    ProxyFacts,
    SpoolFacts,
)
from .postconf import BrokenTable, Configuration, UnreadableError, host_names, parse
from .routes import Proxy, proxy_filter, upstream, upstream_endpoint, without_wrappers
from .script_mistakes import Mistake
from .shell_command import Target
from .unit import (
    DROP_IN,
    Ignored,
    MissingUnit,
    SocketUnit,
    Unit,
    ignored_lines,
    parse_socket,
    required_units,
)
from .unit import parse as parse_unit

#: The user that runs the proxy in the recipe.
OWN_USER = "postprox"

#: The PATH of commands started by spawn(8), and of commands started by systemd.
SPAWN_PATH = "/usr/bin:/bin"
SYSTEMD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: The timeout in seconds. postconf(1) can block on a FIFO, faccessat(2) on a network file system.
TIMEOUT = 10.0
#: The maximum size of a unit, drop-in or environment file, in octets.
LARGEST_FILE = 1 << 16
#: The maximum size in octets of a table to search.
LARGEST_TABLE = 1 << 22

#: The maximum length of an error message of postconf(1), which can contain a whole entry.
LARGEST_REASON = 200

HOSTS = Path("/etc/hosts")

UNIT_DIRECTORIES = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)


def read_configuration(directory: str) -> Configuration:
    """Read main.cf and master.cf with postconf(1). The directory "" means Postfix's default.

    Raises:
        UnreadableError: postconf(1) is missing, failed or timed out.
    """
    for name in ("main.cf", "master.cf"):
        path = Path(directory, name)
        if directory and path.exists() and not path.is_file():
            raise UnreadableError(f"{path} is not a regular file")
    own = directory or _default_directory()
    texts = _source_texts(own)
    orphans = tuple(source_text.orphans(texts[source_text.MASTER]) if texts else ())
    misplaced = source_text.misplaced(*texts.values()) if texts else []
    for lines in misplaced:
        texts = lines.applied(texts)
    corrections = source_text.corrections(*texts.values()) if texts else []
    earlier = source_text.replaced_value(texts[source_text.MAIN], "content_filter") if texts else ""
    written = source_text.assignments(texts[source_text.MAIN]) if texts else ()
    if not corrections and not misplaced:
        main, master, overrides = _outputs(directory)
        configuration = parse(main, master, overrides, directory)
        configuration = replace(
            configuration, orphans=orphans, replaced_filter=earlier, written=written
        )
        return _with_files(configuration)
    # postconf(1) cannot read these files, or misreads them, so it gets corrected copies.
    with tempfile.TemporaryDirectory() as copy:
        for name, text in texts.items():
            new = text
            for each in corrections:
                new = each.applied(new) if each.file == name else new
            Path(copy, name).write_text(new, errors="surrogateescape")
            os.utime(Path(copy, name), (0, 0))  # postconf(1) waits if main.cf was modified recently
        try:
            main, master, overrides = (text.replace(copy, own) for text in _outputs(copy))
        except UnreadableError as error:
            raise UnreadableError(str(error).replace(copy, own)) from None
    configuration = parse(main, master, overrides, directory)
    configuration = replace(
        configuration,
        corrections=tuple(corrections),
        misplaced=tuple(misplaced),
        orphans=orphans,
        corrected=own,
        written=written,
    )
    return _with_files(configuration)


def _with_files(configuration: Configuration) -> Configuration:
    """Add the contents of /etc/hosts, and the sockets that chrooted services can reach."""
    queue = configuration.parameter("queue_directory")
    paths = {
        endpoint.path
        for service in configuration.services
        if (endpoint := proxy_filter(service.parameter("smtpd_proxy_filter"), queue))
    }
    shared = frozenset(path for path in paths if path and _is_shared(queue, path))
    hidden = frozenset(
        path
        for service in configuration.services
        for path in service.milter_sockets()
        if _is_hidden(queue, path)
    )
    return replace(
        configuration,
        hosts=_hosts(),
        shared=shared,
        hidden_milters=hidden,
        broken_tables=tuple(_broken_tables(configuration)),
        closed_programs=tuple(_closed_programs(configuration)),
        closed_directories=tuple(_closed_directories(configuration)),
        foreign_directories=tuple(_foreign_directories(configuration)),
        is_queue_in_memory=_is_tmpfs(configuration.parameter("queue_directory")),
        foreign_interfaces=tuple(_foreign_interfaces(configuration)),
        missing_users=dict(_missing_users(configuration)),
        missing_delivery=_missing_delivery(configuration),
        missing_sasl=dict(_missing_sasl(configuration)),
        is_dovecot_stopped=_is_dovecot_stopped(),
        free_space=_free_space(configuration.parameter("queue_directory")),
        open_instances=tuple(_open_instances(configuration)),
    )


def _open_instances(configuration: Configuration) -> Iterator[tuple[str, str]]:
    """Yield the Postfix instances that receive mail from other machines without a filter.

    An instance that passes its mail to another server is left out, because that server can filter.
    """
    if configuration.directory or configuration.parameter("multi_instance_enable") != "yes":
        return
    for directory in re.split(r"[,\s]+", configuration.parameter("multi_instance_directories")):
        try:
            other = parse(*_outputs(directory), directory) if directory else None
        except UnreadableError:
            continue
        if other and other.parameter("multi_instance_enable") == "yes":
            yield from ((directory, label) for label in _open_services(other))


def _open_services(other: Configuration) -> Iterator[str]:
    """Yield the services of an instance that receive mail from other machines without a filter."""
    passed = ("relayhost", "transport_maps", "default_transport", "content_filter")
    is_local = re.fullmatch(
        r"(loopback-only|localhost|127\S*|\[?::1\]?|[,\s])+", other.parameter("inet_interfaces")
    )
    if is_local or any(other.main.get(name) for name in passed):
        return
    if "inet" in re.split(r"[,\s]+", other.parameter("master_service_disable")):
        return
    for service in other.services:
        names = {"smtpd_proxy_filter", "content_filter"}
        is_here = service.name.startswith(("127.", "localhost:", "[::1]"))
        is_filtered = any(service.parameter(name) or name in service.own for name in names)
        if service.program == "smtpd" and service.type == "inet" and not (is_here or is_filtered):
            yield service.label


def _broken_tables(configuration: Configuration) -> Iterator[BrokenTable]:
    """Yield the tables whose type Postfix does not support, or whose index does not exist."""
    named = list(dict.fromkeys(table_rules.named_tables(configuration)))
    types: set[str] = set()
    if any(table.type in table_rules.PACKAGES for table in named):
        types = set(_postconf("", "-m").split())
    for table in named:
        index = f"{table.path}{table_rules.INDEXES.get(table.type, '')}"
        if table.type in table_rules.PACKAGES and table.type not in types:
            yield replace(table, is_unsupported=True)
        elif table.type in table_rules.INDEXES and not Path(index).exists():
            yield replace(table, has_text=Path(table.path).exists())


def _closed_programs(configuration: Configuration) -> Iterator[str]:
    """Yield the paths of the programs for local users whose group or mode is wrong."""
    group = configuration.parameter("setgid_group") or "postdrop"
    directory = configuration.parameter("command_directory") or "/usr/sbin"
    for name in ("postdrop", "postqueue"):
        with contextlib.suppress(OSError, KeyError):
            path = Path(directory, name)
            status = path.stat()
            is_right = status.st_gid == grp.getgrnam(group).gr_gid and status.st_mode & stat.S_ISGID
            if not is_right:
                yield str(path)


def _closed_directories(configuration: Configuration) -> Iterator[str]:
    """Yield the queue directories that postdrop(1) and postqueue(1) cannot access."""
    group = configuration.parameter("setgid_group") or "postdrop"
    for name in ("maildrop", "public"):
        with contextlib.suppress(OSError, KeyError):
            path = Path(configuration.parameter("queue_directory"), name)
            status = path.stat()
            is_searchable = status.st_mode & stat.S_IXGRP
            if status.st_gid != grp.getgrnam(group).gr_gid or not is_searchable:
                yield str(path)


def _foreign_directories(configuration: Configuration) -> Iterator[str]:
    """Yield the queue directories that do not belong to the user in mail_owner."""
    with contextlib.suppress(KeyError):
        owner = pwd.getpwnam(configuration.parameter("mail_owner") or "postfix")
        for name in table_rules.QUEUES:
            path = Path(configuration.parameter("queue_directory"), name)
            if path.is_dir() and path.stat().st_uid != owner.pw_uid:
                yield name


def _foreign_interfaces(configuration: Configuration) -> Iterator[str]:
    """Yield the addresses in inet_interfaces that this machine does not have."""
    for word in re.split(r"[,\s]+", configuration.parameter("inet_interfaces")):
        with contextlib.suppress(ValueError):
            address = ipaddress.ip_address(word.strip("[]"))
            family = socket.AF_INET if address.version == 4 else socket.AF_INET6
            try:
                with socket.socket(family) as probe:
                    probe.bind((str(address), 0))
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL:
                    yield word


def _free_space(directory: str) -> int | None:
    """Return the free space of a file system in octets, or None if unknown."""
    try:
        system = os.statvfs(directory)
    except OSError:
        return None
    return system.f_bavail * system.f_frsize


def _missing_delivery(configuration: Configuration) -> str:
    """Return the program of mailbox_command if it does not exist, or ""."""
    program = (configuration.parameter("mailbox_command").split() or [""])[0]
    return program if program.startswith("/") and not Path(program).exists() else ""


#: A plug-in of the package libsasl2-modules. libsasl2-2 itself has only ANONYMOUS, which Postfix
#: does not offer.
_SASL_PLUGINS = ("/usr/lib/*/sasl2/libplain.so*", "/usr/lib/sasl2/libplain.so*")


def _missing_sasl(configuration: Configuration) -> Iterator[tuple[str, str]]:
    """Yield the services that require SASL, but lack Dovecot's socket or the plug-ins of Cyrus."""
    queue = Path(configuration.parameter("queue_directory"))
    has_plugins = any(map(glob.glob, _SASL_PLUGINS))
    for service in configuration.services:
        if service.program != "smtpd" or service.parameter("smtpd_sasl_auth_enable") != "yes":
            continue
        kind, path = (service.parameter(f"smtpd_sasl_{name}") for name in ("type", "path"))
        if kind == "dovecot" and path and "$" not in path and not path.startswith("inet:"):
            path = path.removeprefix("unix:")
            place = f"{queue}/{path}" if service.is_chrooted() else queue / path
            if not os.path.lexists(place):
                yield service.label, str(queue / path)
        elif kind in ("", "cyrus") and not has_plugins:
            yield service.label, ""


def _is_dovecot_stopped() -> bool:
    has_unit = any(Path(each, "dovecot.service").exists() for each in UNIT_DIRECTORIES)
    return has_unit and not Path("/run/dovecot/master.pid").exists()


def _missing_users(configuration: Configuration) -> Iterator[tuple[str, str]]:
    """Yield the label of each pipe(8) service whose user does not exist, and the user's name."""
    for service in configuration.services:
        users = [word[5:].partition(":")[0] for word in service.words if word.startswith("user=")]
        if service.program == "pipe" and users and not has_user(users[0]):
            yield service.label, users[0]


def _is_shared(queue_directory: str, path: str) -> bool:
    """Return whether a mount or link may make a path the same file in and outside the chroot."""
    inner = Path(f"{queue_directory}{path}")
    parents = [each for each in inner.parents if each.is_relative_to(queue_directory)][:-1]
    with contextlib.suppress(OSError):
        if not Path(path).parent.is_dir():
            return False
        has_link = any(map(os.path.islink, parents))
        return has_link or os.path.lexists(inner) or inner.parent.samefile(Path(path).parent)
    return False


def _is_hidden(queue_directory: str, path: str) -> bool:
    """Return whether a path is known to exist only outside the chroot."""
    with contextlib.suppress(OSError):
        is_outside = Path(path).parent.is_dir()
        is_clear = os.path.lexists(path) or not Path(f"{queue_directory}{path}").parent.exists()
        return is_outside and is_clear and not _is_shared(queue_directory, path)
    return False


def configuration_files(
    configuration: Configuration, facts: Mapping[Proxy, ProxyFacts]
) -> list[str]:
    """Return the files and directories that determine what happens to mail."""
    paths = [configuration.directory or _default_directory()]
    paths += ["/etc/aliases", "/etc/aliases.db", "/etc/group", "/etc/passwd"]
    for proxy, seen in facts.items():
        paths += [seen.filter.path] if seen.filter else []
        if unit := proxy.unit:
            paths += [unit.path, unit.drop_ins, unit.options_file]
    return [path for path in paths if path]


def _outputs(directory: str) -> tuple[str, str, str]:
    """Return postconf's output for main.cf, for master.cf and for the `-o` parameters."""
    main, master = _postconf(directory, "-nx"), _postconf(directory, "-M")
    return main, master, _postconf(directory, "-Px")


def _default_directory() -> str:
    """Return Postfix's default directory, or "" if it is unknown."""
    if own := os.environ.get("MAIL_CONFIG"):
        return own
    # With an empty directory, an error in master.cf cannot make postconf(1) fail.
    with tempfile.TemporaryDirectory() as empty:
        try:
            return _postconf(empty, "-dh", "config_directory").strip()
        except UnreadableError:
            return ""


def _source_texts(directory: str) -> dict[str, str]:
    """Return the text of main.cf and of master.cf, or {} if they cannot be read."""
    try:
        names = (source_text.MAIN, source_text.MASTER)
        return {name: _source_text(Path(directory, name)) for name in names} if directory else {}
    except (UnreadableError, OSError):
        return {}


def _hosts() -> dict[str, tuple[str, ...]]:
    try:
        return host_names(_source_text(HOSTS))
    except (UnreadableError, OSError):
        return {}


def _source_text(path: Path) -> str:
    with _opened(path) as file:
        octets = file.read(LARGEST_TABLE + 1) or b""
    if len(octets) > LARGEST_TABLE:
        raise UnreadableError(f"{path} is larger than {LARGEST_TABLE} octets")
    return octets.decode(errors="surrogateescape")


#: A marker that a version control system adds to a file.
_CONFLICT = re.compile(r"<<<<<<<|=======|>>>>>>>")


def _postconf(directory: str, *options: str) -> str:
    program = shutil.which("postconf", path=SYSTEMD_PATH)
    if program is None:
        raise UnreadableError("postconf is missing; install Postfix")
    command = [program, *(["-c", directory] if directory else []), *options]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UnreadableError(f"{shlex.join(command)}: timed out after {TIMEOUT:g} s") from None
    if done.returncode:
        lines = done.stderr.decode(errors="backslashreplace").strip().splitlines()
        fatal = [line for line in lines if "fatal:" in line] or lines or ["no error message"]
        reason = fatal[0].partition("fatal: ")[2] or fatal[0]
        reason = reason if len(reason) <= LARGEST_REASON else f"{reason[:LARGEST_REASON]}..."
        if "bad field count" in reason:
            reason += "; the lines of an entry after the first must begin with a blank or tab"
        if _CONFLICT.search(reason):
            reason += "; resolve the merge conflict, because no Postfix program can read this file"
        elif "missing '=' after attribute name" in reason:
            reason += "; correct or remove this line, because no Postfix program can read this file"
        raise UnreadableError(f"{shlex.join(command)}: {reason}")
    return done.stdout.decode(errors="backslashreplace").replace("\0", "\\x00")


def _opened(path: str | Path) -> BinaryIO:
    """Open a regular file. A read from any other file, such as a FIFO, may never return.

    Raises:
        UnreadableError: the file is not a regular file.
        OSError: the file cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnreadableError(f"{path} is not a regular file")
    return os.fdopen(descriptor, "rb")


def _text(path: Path) -> str:
    """Read a systemd file.

    Raises:
        UnreadableError: the file is not a text file or is larger than `LARGEST_FILE`.
        OSError: the file cannot be opened.
    """
    with _opened(path) as file:
        octets = file.read(LARGEST_FILE + 1) or b""  # read() returns None if it would block
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text or len(octets) > LARGEST_FILE:
        raise UnreadableError(f"{path} must be a text file of at most {LARGEST_FILE} octets")
    return text


def table_texts(configuration: Configuration) -> dict[str, str]:
    """Read the text files of all tables that can route mail, except unreadable files."""
    found: dict[str, str] = {}
    for path in dict.fromkeys(tables.table_files(configuration)):
        with contextlib.suppress(OSError, UnreadableError), _opened(path) as file:
            octets = file.read(LARGEST_TABLE + 1) or b""
            if len(octets) <= LARGEST_TABLE:
                found[path] = octets.decode("latin-1")
    return found


def examples() -> str:
    """Return the directory that contains the Postfix recipe."""
    places = [
        *("/usr/share/doc/postprox", "/usr/local/share/doc/postprox"),
        *(f"{sys.prefix}/share/doc/postprox", str(Path(__file__).parents[2])),
    ]
    found = [place for place in places if Path(place, "examples/postfix").is_dir()]
    return f"{[*found, places[1]][0]}/examples/postfix"


def example_texts() -> dict[str, str]:
    """Return the text of each recipe file, indexed by file name.

    Raises:
        UnreadableError: the files are missing.
    """
    directory = Path(examples())
    found = {path.name: _text(path) for path in directory.glob("*.cf")}
    if not found:
        raise UnreadableError(f"{directory} is missing; install postprox again")
    return found


def installed_program() -> str:
    """Return the path of the installed proxy."""
    found = shutil.which("postprox", path=f"{SYSTEMD_PATH}:{sys.prefix}/bin")
    return found or "/usr/local/sbin/postprox"


def public_program() -> str:
    """Return the path of the proxy in a system directory, or "" if there is none."""
    return shutil.which("postprox", path=SYSTEMD_PATH) or ""


def has_user(name: str) -> bool:
    """Return whether a user exists."""
    return _account(name) is not None


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
    texts = [_text(file) for file in files_read]
    try:
        named = parse_unit(name, texts, {}).environment_files
        files = {name: _text(Path(name)) for name in named if Path(name).is_file()}
        unit = parse_unit(name, texts, files)
    except ValueError as error:
        raise UnreadableError(f"{path}, its drop-ins or its environment files: {error}") from None
    unit.user = _user_name(unit.user)
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
        for name in required_units(_text(file)):
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
        yield from ignored_lines(str(file), _text(file))
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
    lines = _text(path).split("\n") if path.is_file() else []
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
    found = parse_socket(name, [_text(file) for file in files])
    unit.ignored += tuple(_ignored(name, files, places))
    found.masked = _is_masked(paths[0])
    found.drop_ins = f"{places[0]}/{name}.d"
    found.drop_in_names = frozenset(file.name for file in files if file.suffix == ".conf")
    found.written = _written(found.drop_ins)
    found.installed = unit.installed
    found.instances = _sockets(unit)
    return found


def _user_name(user: str) -> str:
    """Convert a numeric user to a name, because units can use either (systemd.exec(5))."""
    if not re.fullmatch(r"0|[1-9][0-9]{0,9}", user, re.ASCII):
        return user
    try:
        return pwd.getpwuid(int(user)).pw_name
    except (KeyError, OverflowError):
        return user


def probe(configuration: Configuration, proxy: Proxy) -> ProxyFacts:
    """Collect the facts about a proxy."""
    user = _identity(proxy)
    program, unchecked, command_error = None, "", ""
    if proxy.options is not None and proxy.options.command is not None:
        search = SPAWN_PATH if proxy.service else SYSTEMD_PATH
        if proxy.unit:
            search = proxy.unit.environment.get("PATH", search)
        wrappers = proxy.words[: len(proxy.words) - len(without_wrappers(proxy.words))]
        for word in wrappers:  # such as env PATH=/opt/bin
            search = word.removeprefix("PATH=") if word.startswith("PATH=") else search
        command_error = machine.shell_error(proxy.options.command)
        variables = proxy.unit.environment if proxy.unit else {}
        command = shell_command.expanded(proxy.options.command, variables)
        program, unchecked = _filter(command, user, search)
    if proxy.unit:
        proxy.unit.links = _links(proxy, program)
    is_dynamic = proxy.unit is not None and proxy.unit.dynamic_user
    own = _found((*without_wrappers(proxy.words), "")[0])
    return ProxyFacts(
        user_exists=not user or is_dynamic or _account(user) is not None,
        has_own_user=has_user(OWN_USER),
        program=_program(own, user, SYSTEMD_PATH),
        has_group_of_postfix=_has_group_of_postfix(configuration, proxy),
        is_user_temporary=is_dynamic and _account(user) is None,
        closed_library=_closed_library(own, user) if proxy.words else "",
        filter=program,
        filter_unchecked=unchecked,
        command_error=command_error,
        upstream_missing=_upstream_missing(configuration, proxy),
        rewriters=tuple(_rewriters(proxy)),
        is_upstream_unknown=_is_upstream_unknown(proxy),
        spool=_spool(configuration, proxy),
        status_directories=dict(_status_directories(proxy)),
        missing_paths=tuple(_missing_paths(proxy.unit)) if proxy.unit else (),
        closed_working_directory=_closed_working_directory(proxy),
        missing_programs=tuple(_missing_programs(proxy.unit)) if proxy.unit else (),
        missing_groups=tuple(_missing_groups(proxy)),
        unknown_permissions=_unknown_permissions(user),
    )


_CHAIN = re.compile(r"\s*/[\w./-]+(\s*&&\s*/[\w./-]+)+\s*")
#: A command that reads the result of an earlier filter.
_REREAD = re.compile(r"(<|\bcat|\b-s|\bcp|\bmv)\s*[\"']?\$\{?OUTFILE|\$1\b|\$\{?@")


def _rewriters(proxy: Proxy) -> Iterator[str]:
    """Yield the scripts of a filter command that write $OUTFILE, if there are several."""
    command = (proxy.options.command if proxy.options else "") or ""
    paths = command.split(" && ") if _CHAIN.fullmatch(command) else []
    texts = {path.strip(): _script(path.strip()).decode("latin-1") for path in paths}
    found = [path for path, text in texts.items() if "EMAIL" in text and "OUTFILE" in text]
    if len(found) > 1 and not any(map(_REREAD.search, texts.values())):
        yield from found


def _links(proxy: Proxy, seen: ProgramFacts | None) -> dict[str, str]:
    """Return the real path of each unit or proxy path that contains a symbolic link."""
    unit = proxy.unit or Unit("")
    paths = [*sandbox.paths_of(unit), *without_wrappers(proxy.words)[:1], "/bin/sh", "/usr/bin/sh"]
    paths += [seen.path, seen.interpreter] if seen else []
    paths += [*(seen.targets if seen else ()), unit.setting("WorkingDirectory")]
    if wanted := proxy.options:
        files = [file for file in (wanted.metrics, wanted.pid_file) if file]
        paths += [wanted.directory, *(os.path.dirname(file) or "/" for file in files)]  # noqa: PTH120
    real = {path: os.path.realpath(path) for path in paths if path.startswith("/")}
    return {path: found for path, found in real.items() if found != path.rstrip("/")}


#: The settings that contain paths. If one of these paths is missing, systemd does not start the
#: service.
_REQUIRED_PATHS = (
    *("EnvironmentFile", "ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "ExecPaths"),
    *("NoExecPaths", "BindPaths", "BindReadOnlyPaths", "WorkingDirectory"),
)


def _found(program: str) -> str:
    """Return the path of a program. Like systemd, search PATH for a name without a slash."""
    return program if "/" in program else shutil.which(program, path=SYSTEMD_PATH) or program


def _closed_library(program: str, user: str) -> str:
    """Return the first part of the installed package that the user cannot read, or "".

    The installed program is a launcher that names the directory of the package.
    """
    found = re.search(rb'^library = "(/[^"\n]+)"$', _script(program), re.MULTILINE)
    if not found:
        return ""
    library = Path(os.path.realpath(os.fsdecode(found[1])))
    source = library / "postprox" / "__init__.py"
    if closed := _closed(str(source), user):
        return closed
    return str(library) if source.exists() and _may(user, os.R_OK, str(source)) is False else ""


def _missing_paths(unit: Unit) -> Iterator[str]:
    """Yield the missing paths that the unit requires. Paths with the prefix `-` are optional."""
    for name in _REQUIRED_PATHS:
        for item in " ".join(unit.settings.get(name, ())).split():
            path = item.lstrip("+").partition(":")[0]
            is_known = path.startswith("/") and "%" not in path
            is_made = sandbox.is_made_by_systemd(unit, path)
            if is_known and not is_made and not Path(path).exists():
                yield path

    yield from (path for path in unit.required if "%" not in path and not Path(path).exists())


def _missing_programs(unit: Unit) -> Iterator[str]:
    """Yield the programs that must succeed before the unit starts the proxy, but are missing."""
    for name in ("ExecCondition", "ExecStartPre"):
        for command in unit.settings.get(name, ()):
            path = command.lstrip("@:+!").partition(" ")[0]
            if path.startswith("/") and "%" not in path and not Path(path).exists():
                yield path


#: The minimum similarity of a misspelt group name to the correct name.
_SIMILAR_GROUP = 0.8


def _missing_groups(proxy: Proxy) -> Iterator[tuple[str, str]]:
    """Yield the missing groups of a unit or a spawn(8) service, each with a similar group or ""."""
    names = [proxy.group] if proxy.service else []
    if proxy.unit:
        own = "" if proxy.unit.dynamic_user else proxy.unit.setting("Group")
        names = [own, *" ".join(proxy.unit.settings.get("SupplementaryGroups", ())).split()]
    for name in filter(None, names):
        if "#" in name:
            return  # a comment, which is reported as such
        if not name.isdigit() and "%" not in name:
            try:
                grp.getgrnam(name)
            except KeyError:
                known = [group.gr_name for group in grp.getgrall()]
                yield (
                    name,
                    next(iter(difflib.get_close_matches(name, known, 1, _SIMILAR_GROUP)), ""),
                )


def _closed_working_directory(proxy: Proxy) -> str:
    path = proxy.unit.setting("WorkingDirectory") if proxy.unit else ""
    account = _account(proxy.user)
    if path == "~" and account:
        path = account.pw_dir
    if not path.startswith("/") or "%" in path or path in _missing_paths(proxy.unit or Unit("")):
        return ""
    if not Path(path).is_dir():
        return path
    return _closed(f"{path}/file", _identity(proxy))


def _unknown_permissions(user: str) -> str:
    if not user:
        return "the user that the proxy runs as, and that user's permissions"
    if _account(user) is None:
        return f"the permissions of user {user}, which exists only while the service runs"
    return f"the permissions of user {user} (run postprox-check as root)"


def _has_group_of_postfix(configuration: Configuration, proxy: Proxy) -> bool:
    """Return whether spawn(8) refuses the proxy's primary group, that of Postfix or root."""
    owner = configuration.parameter("mail_owner") or "postfix"
    own, postfix = _account(proxy.user), _account(owner)
    has_default = proxy.service is not None and not proxy.group
    return bool(own and postfix and has_default and own.pw_gid in (0, postfix.pw_gid))


def _identity(proxy: Proxy) -> str:
    """Return the user of a proxy in the notation of spawn(8): USER, or USER:GROUP.

    Like spawn(8), the check then uses only this group, or the primary group if GROUP is empty.
    Without a colon, all groups of the user count.
    """
    return f"{proxy.user}:{proxy.group}" if proxy.service and proxy.user else proxy.user


def _account(user: str) -> pwd.struct_passwd | None:
    """Return the account of a user, or of USER:GROUP."""
    try:
        return pwd.getpwnam(user.partition(":")[0])
    except KeyError:
        return None


def _may(user: str, right: int, path: str) -> bool | None:
    """Return whether the user has a permission (such as os.R_OK), or None if unknown."""
    account = _account(user)
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
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    return {access.ALLOWED: True, access.REFUSED: False}.get(done.returncode)


def _filter(command: str, user: str, search: str) -> tuple[ProgramFacts | None, str]:
    """Return the filter in a shell command, or the reason why it is unknown.

    If the command runs several programs, the result is the first one that does not exist, or else
    the first one.
    """
    found: list[ProgramFacts] = []
    for target in shell_command.targets(command):
        path = _found_by_shell(target.program, search)
        if path.startswith("/"):
            found.append(_script_of(target, path, user, search))
        elif not found and path not in shell_command.PREPARATIONS:
            break
    if not found:
        return None, (
            f"the filter, because the first word of its command is not a program ({command})"
        )
    seen = next((each for each in found if not each.exists), found[0])
    return (replace(seen, missing_command=None) if "PATH=" in command else seen), ""


def _script_of(target: Target, path: str, user: str, search: str) -> ProgramFacts:
    """Return the facts about a program, or about the script that the program reads."""
    seen = _program(path, user, search)
    if "/" not in target.program and not seen.exists:
        elsewhere = shutil.which(target.program, path=SYSTEMD_PATH) or ""
        return replace(seen, sought_name=target.program, sought_path=search, elsewhere=elsewhere)
    if not target.script or not seen.executable:
        return seen
    script = _program(target.script, user, search, interpreter=path)
    return replace(script, executable=script.readable) if script.exists else script


def _found_by_shell(word: str, search: str) -> str:
    """Return the path of a command, or the name of a shell builtin."""
    if "/" in word:
        return word
    ask = ["/bin/sh", "-c", 'command -v -- "$1"', "sh", word]
    found = subprocess.run(ask, env={"PATH": search}, capture_output=True, text=True, check=False)
    return found.stdout.strip() or f"{search.rpartition(':')[2]}/{word}"


def _program(path: str, user: str, search: str, interpreter: str = "") -> ProgramFacts:
    """Return the facts about a program, or about a script that `interpreter` reads."""
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        similar, link = _similar_path(path)
        return ProgramFacts(
            path,
            exists=False,
            real=_real(path),
            is_link=Path(path).is_symlink(),
            similar=similar,
            dangling_link=link,
        )
    except OSError:
        return ProgramFacts(path, exists=True, closed_directory=_closed(path, user))
    is_file = stat.S_ISREG(mode)
    script = _script(path) if is_file else b""
    arguments = "" if interpreter else machine.joined_arguments(script)
    interpreter = interpreter or _interpreter(script, search)
    has_crlf = machine.has_crlf(interpreter, script)
    lost_status, lost_status_line = machine.lost_status(interpreter, script)
    unread_line, unread_line_number = machine.without_message(interpreter, script)
    executable = _may(user, os.X_OK, path) if is_file else False
    text = script.decode("latin-1") if script else ""
    has_head = text.startswith("#!")
    targets = _targets(text, interpreter, user)
    existing = [each for each in targets if os.path.exists(each)]  # noqa: PTH110
    closed = tuple(each for each in existing if _may(user, os.W_OK, each) is False)
    private = tuple(each for each in closed if _is_private(each, user))
    is_shell = Path(interpreter or "sh").name in ("sh", "dash")
    language = shell_command.language(text) if is_shell else ""
    reply_line, reply_lines = machine.reply_to_output(interpreter, text)
    is_dash = is_shell and Path(os.path.realpath(interpreter or "/bin/sh")).name != "bash"
    return ProgramFacts(
        path=path,
        exists=True,
        real=_real(path),
        is_link=Path(path).is_symlink(),
        is_directory=stat.S_ISDIR(mode),
        executable=executable,
        closed_directory="" if executable else _closed(path, user),
        readable=_may(user, os.R_OK, path) if script else True,
        has_noexec=is_file and bool(os.statvfs(path).f_flag & os.ST_NOEXEC),
        open_paths=machine.open_paths(path),
        interpreter=interpreter,
        interpreter_executable=_may(user, os.X_OK, interpreter) if interpreter else True,
        reply_line=reply_line,
        reply_lines=reply_lines,
        first_line=text.partition("\n")[0] if has_head else "",
        replacement=_replacement(interpreter, language, search),
        bash_feature=shell_command.bash_feature(text) if is_dash and not language else "",
        language=language,
        targets=targets,
        closed_targets=closed,
        private_targets=private,
        rotations=dict(_rotations(closed)),
        foreign_targets=tuple(each for each in private if _is_foreign(each, user)),
        has_mark=script.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)),
        is_utf16=script.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)),
        is_blank=is_file and machine.is_blank(path, script, interpreter),
        is_foreign=is_file and machine.is_foreign(path),
        is_displaced=script[:1].isspace()
        and script.lstrip().startswith(b"#!")
        and shell_command.needs_first_line(text),
        joined_arguments=arguments,
        has_crlf=has_crlf,
        lost_status=lost_status,
        lost_status_line=lost_status_line,
        mistakes=()
        if language
        else (
            *machine.mistakes(interpreter, text),
            *script_mistakes.login_variables(text, is_python="python" in interpreter),
            *_python_mistakes(path, text, interpreter),
            *(_closed_working_directories(text, user) if is_shell else ()),
            *(_unreadable_files(text, user) if is_shell else ()),
            *_bad_patterns(text, interpreter),
            *_notices(text, interpreter),
            *_closed_sockets(text, user),
            *_closed_temporary(text, user),
            *(
                script_mistakes.scans_by_name(text)
                if _clamd_user() not in ("", "root", user.partition(":")[0])
                else ()
            ),
        ),
        unread_line=unread_line,
        unread_line_number=unread_line_number,
        missing_command=None if language else _missing_command(text, interpreter, user, search),
        syntax_error="" if has_crlf else machine.syntax_error(interpreter, script),
    )


def _python_mistakes(path: str, text: str, interpreter: str) -> Iterator[Mistake]:
    """Yield the mistakes in a script for the system's Python."""
    if Path(interpreter).name not in ("python3", Path(os.path.realpath(sys.executable)).name):
        return
    yield from python_mistakes.text_mode(text)
    yield from python_mistakes.standard_input(text, sys.stdlib_module_names)
    yield from python_mistakes.lost_result(text)
    yield from python_mistakes.shell_commands(text)
    if os.path.realpath(interpreter) != os.path.realpath(sys.executable):
        return
    # The check may run without the directories of installed modules (python3 -S).
    places = [str(Path(path).parent), *sys.path, *site.getsitepackages()]
    for number, name in python_mistakes.imported(text):
        is_known = name in sys.stdlib_module_names or name in sys.builtin_module_names
        if not is_known and importlib.machinery.PathFinder.find_spec(name, places) is None:
            line = text.split("\n")[number - 1]
            if "sys.path" not in text:
                place = _private_module(name)
                yield Mistake(python_mistakes.MODULE, line.strip(), number, place, path=name)
            return


def _private_module(name: str) -> str:
    """Return the path of a module that pip installed for root only (--user), or ""."""
    with contextlib.suppress(OSError):  # an ordinary user cannot read the directory
        places = Path(pwd.getpwuid(0).pw_dir, ".local/lib").glob("python3*/site-packages")
        found = [place / file for place in places for file in (name, f"{name}.py")]
        return next((str(path) for path in found if path.exists()), "")
    return ""


def _closed_working_directories(text: str, user: str) -> Iterator[Mistake]:
    """Yield the lines that cannot enter a directory, so that the script ends."""
    for found in script_mistakes.working_directories(text):
        if not sandbox.is_below(found.path, _VOLATILE):
            is_directory = Path(found.path).is_dir()
            if not is_directory or _may(user, os.X_OK, found.path) is False:
                yield replace(found, correction="a+x" if is_directory else "")


#: Commands that bash implements itself, but sh(1) may not.
_BASH_BUILTINS = (
    *("bind", "builtin", "caller", "compgen", "complete", "declare", "dirs", "disown", "enable"),
    *("function", "help", "history", "let", "local", "logout", "mapfile", "popd", "pushd"),
    *("readarray", "select", "shopt", "suspend", "time", "typeset"),
)
#: Directories whose contents can differ between the check and the proxy, or change before the
#: filter runs.
_VOLATILE = ("/tmp", "/var/tmp", "/run", "/var/run", "/dev", "/proc")  # noqa: S108
#: The Debian packages of each scanner and its daemon. `_EQUIVALENT` maps a program to another one
#: that accepts the same arguments.
_PACKAGES = {
    "clamdscan": "clamdscan clamav-daemon",
    "clamscan": "clamav",
    "rspamc": "rspamd",
    "spamassassin": "spamassassin",
    "spamc": "spamc spamd",
}
_EQUIVALENT = {"clamscan": "clamdscan", "python": "python3"}


def _missing_command(
    script: str, interpreter: str, user: str, search: str
) -> MissingCommand | None:
    """For a shell script, return the first program that the user cannot run."""
    if Path(interpreter or "sh").name not in ("sh", "dash", "bash"):
        return None
    for command in script_commands.commands(script):
        name = command.program
        found = MissingCommand(name, command.line, command.is_result, "", exists=True)
        if name.startswith("/"):
            if sandbox.is_below(name, _VOLATILE):
                continue
            try:
                is_file = stat.S_ISREG(Path(name).stat().st_mode)
            except (FileNotFoundError, NotADirectoryError):
                other, link = _similar_path(name)
                package = _package(name.removeprefix("/usr/bin/"))
                return replace(
                    found, exists=False, replacement="" if link else other, package=package
                )
            except OSError:
                continue
            if is_file and command.is_direct and _may(user, os.X_OK, name) is False:
                return found
        elif name not in _BASH_BUILTINS and not Path(_found_by_shell(name, search)).is_file():
            if "/" not in _found_by_shell(name, search):
                continue  # a builtin
            other = shutil.which(name, path=SYSTEMD_PATH) or _similar_program(name, search)
            other = other or _elsewhere(name)
            return replace(
                found,
                exists=False,
                sought_path=search,
                replacement=other,
                package=_package(name),
            )
    return None


def _elsewhere(name: str) -> str:
    """Return the only program with this name in the directories of other software, or ""."""
    if not re.fullmatch(r"[\w.+-]+", name):
        return ""
    found = [
        path
        for pattern in (f"opt/*/bin/{name}", f"opt/*/{name}", f"usr/local/*/bin/{name}")
        for path in Path("/").glob(pattern)
        if path.is_file() and os.access(path, os.X_OK)
    ]
    return str(found[0]) if len(found) == 1 else ""


def _package(name: str) -> str:
    """Return the Debian package of a scanner, or "" if unknown."""
    return _PACKAGES.get(name, "") if shutil.which("apt-get", path=SYSTEMD_PATH) else ""


def _unreadable_files(script: str, user: str) -> Iterator[Mistake]:
    """Yield the lines that read a file which does not exist, or which the user cannot read.

    A missing file counts only if sh(1) then ends the script.
    """
    for found in (*script_mistakes.read_files(script), *script_mistakes.data_files(script)):
        is_data = found.kind == script_mistakes.DATA
        path = Path(found.path)
        if sandbox.is_below(found.path, _VOLATILE):
            if path.is_file():
                yield replace(found, kind=script_mistakes.HIDDEN)
            continue
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            if not is_data:
                yield found
            continue
        except OSError:
            continue
        if _may(user, os.R_OK, found.path) is False:
            kind = found.kind if is_data else script_mistakes.UNREADABLE
            yield replace(found, kind=kind, correction=_read_permission(user, found.path, status))


def _read_permission(user: str, path: str, status: os.stat_result) -> str:
    """Return the mode that lets a user read a file, or the group that can read it, or ""."""
    if _closed(path, user) or not stat.S_ISREG(status.st_mode):
        return ""
    account = _account(user)
    if account and status.st_uid == account.pw_uid:
        return "u+r"
    if not status.st_gid or not status.st_mode & stat.S_IRGRP:
        return "g+r"
    with contextlib.suppress(KeyError):
        return f"group {grp.getgrgid(status.st_gid).gr_name}"
    return ""


def _bad_patterns(script: str, interpreter: str) -> Iterator[Mistake]:
    """Yield the lines in which grep(1) reads patterns that match every message, or none."""
    if Path(interpreter or "sh").name not in ("sh", "dash", "bash"):
        return
    for found in script_mistakes.pattern_files(script):
        if not sandbox.is_below(found.path, _VOLATILE) and Path(found.path).is_file():
            lines = _script(found.path).split(b"\n")
            is_blank = any(not line.strip() for line in lines[:-1]) or lines[-1].isspace()
            if is_blank or any(line.endswith(b"\r") for line in lines):
                yield replace(found, correction="blank" if is_blank else "cr")


def _closed_temporary(script: str, user: str) -> Iterator[Mistake]:
    """Yield the line that creates a temporary file, if the user cannot write to /tmp."""
    found = next(script_mistakes.temporary_files(script), None)
    if found and "TMPDIR" not in script and _may(user, os.W_OK, found.path) is False:
        yield found


def _closed_sockets(script: str, user: str) -> Iterator[Mistake]:
    """Yield the line with the only socket of a script if the user cannot connect to it.

    `correction` is the group that may connect to the socket, or "".
    """
    local = "" if _clamd_setting("TCPSocket") else _clamd_setting("LocalSocket")
    paths = script_mistakes.absolute_paths(script, local)
    sockets = [each for each in paths if _is_socket(each.path)]
    if len({each.path for each in sockets}) != 1:
        return
    found = sockets[0]
    if _may(user, os.W_OK, found.path) is False:
        status, closed = Path(found.path).stat(), _closed(found.path, user)
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


def _notices(script: str, interpreter: str) -> Iterator[Mistake]:
    """Yield the line that runs sendmail(1) if this is the program of Postfix."""
    is_python = Path(interpreter).name.startswith("python")
    is_postfix = Path(os.path.realpath("/usr/sbin/sendmail")).name == "sendmail"
    if is_postfix and (is_python or Path(interpreter or "sh").name in ("sh", "dash", "bash")):
        yield from pipe_filters.notices(script, is_python=is_python)


#: The configuration files of clamd, on Debian and elsewhere.
_CLAMD = ("/etc/clamav/clamd.conf", "/etc/clamd.d/scan.conf", "/etc/clamd.conf")


def _clamd_user() -> str:
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


def _similar_program(name: str, search: str) -> str:
    """Return the program in PATH whose name was probably mistyped, or "".

    Only equivalent programs, swapped letters and doubled letters are considered, because any other
    similar name may belong to a different program.
    """
    if shutil.which(other := _EQUIVALENT.get(name, name), path=search):
        return other
    names = {each for place in search.split(":") for each in _names(place)}
    near = [each for each in names if set(each) == set(name) and abs(len(each) - len(name)) < 2]
    return (difflib.get_close_matches(name, near, 1, 0.85) or [""])[0]


def _names(directory: str) -> list[str]:
    try:
        return [each.name for each in Path(directory).iterdir()]
    except OSError:
        return []


#: The suffixes of the file names of backups and templates.
_BACKUPS = ("~", ".bak", ".dist", ".example", ".old", ".orig", ".rej", ".sample", ".save", ".swp")


def _similar_path(path: str) -> tuple[str, str]:
    """Return an existing path similar to a missing path, and the path's dangling link, or "" for
    each.

    If the path contains a dangling link, the result is similar to the target of the link.
    """
    parts = Path(path).parts
    for number in range(2, len(parts) + 1):
        link = Path(*parts[:number])
        if link.is_symlink() and not link.exists():
            target = Path(os.path.realpath(link))
            return _similar(target, parts[number:]), str(link)
    found = _similar(Path(path), ())
    return found or shutil.which(Path(path).name, path=SYSTEMD_PATH) or "", ""


def _similar(path: Path, rest: Sequence[str]) -> str:
    """Return a similar path, or "". With `rest` appended, the path must be a file."""
    existing = next((each for each in path.parents if each.is_dir()), Path("/"))
    name, *below = path.relative_to(existing).parts
    names = [each for each in _names(str(existing)) if not each.endswith(_BACKUPS)]
    for near in difflib.get_close_matches(name, names, 5, 0.8):
        found = existing.joinpath(near, *below)
        if found.joinpath(*rest).is_file():
            return str(found)
    return ""


def _replacement(interpreter: str, language: str, search: str) -> str:
    """Return the installed interpreter for a script whose #! line is missing or wrong, or ""."""
    name = language or Path(interpreter.partition(" ")[0] or "bash").name
    if Path(interpreter).parent.parent.joinpath("pyvenv.cfg").exists():
        return ""  # another interpreter lacks the modules of the virtual environment
    names = [name, *(["python3"] if re.fullmatch(r"python[0-9.]*", name) else [])]
    names = ["bash"] if name in ("sh", "dash") else names
    names += difflib.get_close_matches(name, ("sh", "bash", "python3", "perl", "ruby"), 1, 0.75)
    found = (shutil.which(each, path=search) for each in names)
    return next(filter(None, found), "")


#: The configurations of logrotate(8).
_LOGROTATE = "/etc/logrotate.d"


def _rotations(targets: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each target that logrotate(8) creates with an owner, and the configuration."""
    for file in sorted(Path(_LOGROTATE).glob("*")) if targets else ():
        try:
            text = file.read_text("utf-8", "replace")
        except OSError:
            continue
        for target in targets:
            created = rf"^[^#\n]*{re.escape(target)}(?=[\s{{\"])[^}}]*^\s*create\s+\d+\s+\w"
            if re.search(created, text, re.MULTILINE):
                yield target, str(file)


#: Directories for temporary files, and names of directories that should not be there.
_SHORT = ("/tmp", "/var/tmp")  # noqa: S108
_KEPT = re.compile("quarantine|archive|infected|virus|spam", re.IGNORECASE)


def _targets(script: str, interpreter: str, user: str) -> tuple[str, ...]:
    """Return the existing directories and files that a script writes to."""
    name = Path(interpreter or "sh").name
    if name not in ("sh", "dash", "bash") and not name.startswith("python"):
        return ()
    found = []
    for path in shell_command.written_paths(script):
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


def _is_private(path: str, user: str) -> bool:
    """Return whether root's ownership is the only reason why the user cannot write to a path."""
    is_common = path in _COMMON or len(Path(path).parts) < 3 or sandbox.is_below(path, _SYSTEM)
    if is_common or _account(user) is None or Path(path).is_symlink():
        return False
    is_closed = _closed(str(Path(path).parent / "x"), user) and not _is_foreign(path, user)
    return Path(path).stat().st_uid == 0 and not is_closed


def _is_foreign(path: str, user: str) -> bool:
    """Return whether the directory of a path belongs to the user.

    With DynamicUser=yes, the user can reach this directory only in the unit.
    """
    account = _account(user)
    return account is not None and Path(path).parent.stat().st_uid == account.pw_uid


def _real(path: str) -> str:
    """Return the path with symbolic links resolved, or "" if it contains none."""
    real = os.path.realpath(path)
    return "" if real == path.rstrip("/") else real


def _closed(path: str, user: str) -> str:
    """Return the first directory above a path, or above its target, that the user cannot search."""

    def may_search(directory: str) -> bool | None:
        return _may(user, os.X_OK, directory)

    closed = machine.closed_directory(path, may_search)
    return closed or machine.closed_directory(os.path.realpath(path), may_search)


def _script(path: str) -> bytes:
    """Read a script. Return b"" if the file is a binary program or cannot be read."""
    try:
        with _opened(path) as file:
            text = file.read(machine.LARGEST_SCRIPT) or b""
    except (OSError, UnreadableError):
        return b""
    return b"" if text.startswith(b"\x7fELF") else text


def _interpreter(script: bytes, search: str) -> str:
    """Return the interpreter of a script. For env(1), return the program that env(1) starts."""
    line = script[:256].partition(b"\n")[0].decode("latin-1")
    if not line.startswith("#!"):
        return ""
    # As in the kernel, a CR before LF is part of the interpreter's name, and a NUL ends the line.
    words = re.split("[ \t]+", line[2:].partition("\0")[0].strip(" \t"))
    if words[0].endswith("/env") and len(words) > 2 and not words[1].startswith("-"):
        return " ".join(words[1:])  # the kernel passes the rest of the line as one argument
    if words[0].endswith("/env") and len(words) > 1:
        name = next((word for word in words[1:] if not word.startswith("-")), "")
        return shutil.which(name, path=search) or name
    return words[0]


def _upstream_missing(configuration: Configuration, proxy: Proxy) -> bool:
    """Return whether the upstream server is on this machine but refuses connections.

    A service in this Postfix configuration is not tested, because Postfix may be stopped during the
    check.
    """
    if proxy.options is None or upstream(configuration, proxy) is not None:
        return False
    place = upstream_endpoint(configuration, proxy.options)
    if not place.is_here():
        return False
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    try:
        with socket.socket(socket.AF_UNIX if place.path else family) as client:
            client.settimeout(1.0)
            client.connect(place.path or (place.host, place.port))
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    except OSError:
        pass
    return False


def _is_upstream_unknown(proxy: Proxy) -> bool:
    """Return whether the host name of the upstream server has no address."""
    host = proxy.options.target.host if proxy.options else b""
    try:
        if host:
            socket.getaddrinfo(host, None)
    except socket.gaierror:
        return True
    except (OSError, UnicodeError):
        pass
    return False


def _has_foreign_files(directory: Path) -> bool:
    """Return whether `directory` contains files that postprox did not create."""
    try:
        return any(not entry.name.startswith("postprox-") for entry in directory.iterdir())
    except OSError:
        return False


def _spool(configuration: Configuration, proxy: Proxy) -> SpoolFacts | None:
    if proxy.options is None:
        return None
    directory = Path(proxy.options.directory)
    if proxy.service:  # spawn(8) runs in the queue directory
        directory = Path(configuration.parameter("queue_directory"), directory)
    if proxy.unit and sandbox.is_made_by_systemd(proxy.unit, str(directory)):
        return _private_spool(directory) if proxy.unit.private_tmp else None
    try:
        status, system = directory.stat(), os.statvfs(directory)
    except OSError:
        return SpoolFacts(exists=False, is_link=directory.is_symlink())
    rights = [_may(_identity(proxy), right, str(directory)) for right in (os.W_OK, os.X_OK)]
    writable = None if None in rights else all(rights)
    line, file = _boot_line(directory)
    return SpoolFacts(
        exists=stat.S_ISDIR(status.st_mode),
        writable=writable,
        mode=stat.S_IMODE(status.st_mode),
        is_file=not stat.S_ISDIR(status.st_mode),
        is_link=directory.is_symlink(),
        has_foreign_files=_has_foreign_files(directory),
        is_read_only=bool(system.f_flag & os.ST_RDONLY),
        closing_unit=_closing_unit(configuration, directory) if proxy.service else "",
        free=system.f_bavail * system.f_frsize,
        # A file system without an inode limit, such as btrfs, reports 0 inodes in total.
        free_files=system.f_favail if system.f_files else UNLIMITED,
        closed_directory="" if writable else _closed(str(directory), _identity(proxy)),
        owner=_user_name(str(status.st_uid)),
        boot_line=line,
        boot_file=file,
        lost_by="" if line else _lost_by(proxy, directory),
        is_tmpfs=_is_tmpfs(str(directory)),
    )


def _private_spool(directory: Path) -> SpoolFacts | None:
    """Return the space for a unit's own /tmp, which is in the file system of /tmp."""
    if str(directory) not in ("/tmp", "/var/tmp"):  # noqa: S108
        return None
    system = os.statvfs(directory)
    return SpoolFacts(
        exists=True,
        writable=True,
        mode=0o700,
        free=system.f_bavail * system.f_frsize,
        free_files=system.f_favail if system.f_files else UNLIMITED,
        is_tmpfs=_is_tmpfs(str(directory)),
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


def _is_tmpfs(directory: str) -> bool:
    """Return whether a tmpfs is mounted on the directory."""
    with contextlib.suppress(OSError):
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
        return [directory, "tmpfs"] in [mount[1:3] for mount in mounts]
    return False


def _status_directories(proxy: Proxy) -> Iterator[tuple[str, DirectoryFacts]]:
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
        rights = [_may(_identity(proxy), right, directory) for right in (os.W_OK, os.X_OK)]
        writable = None if None in rights else all(rights)
        if unit.dynamic_user and _account(proxy.user) is None and not status.st_mode & stat.S_IWGRP:
            # A temporary user owns only the directories that systemd creates.
            writable = bool(status.st_mode & stat.S_IWOTH)
        yield directory, DirectoryFacts(True, writable, _user_name(str(status.st_uid)))


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
            for line in _text(files[name]).split("\n"):
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
        for line in _text(Path(MOUNTS)).split("\n"):
            words = [*line.partition("#")[0].split(), "", "", "", ""]
            is_empty = words[2] == "tmpfs" and not re.search(r"\buid=", words[3])
            if is_empty and words[1].rstrip("/") == str(directory):
                return MOUNTS
    return ""
