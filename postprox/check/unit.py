"""A parser for the systemd units that run the proxy: a service and its sockets.

Rule: the functions depend only on the text. Only the settings of systemd.unit(5), systemd.exec(5)
and systemd.socket(5) that affect the proxy are parsed. Parsing takes linear time.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from . import environment
from .environment import Assignments, Comment


@dataclass(frozen=True)
class Ignored:
    """A line or a file that systemd ignores."""

    path: str
    #: The line, or "" for the whole file.
    line: str
    reason: str
    #: The setting, or the section in brackets, that was probably intended, or "".
    right: str = ""
    #: The section that contains the line, if the setting belongs to another section.
    section: str = ""

    @property
    def is_unread_socket(self) -> bool:
        """Whether systemd ignores an entire file, and this file is a drop-in of a socket unit."""
        return not self.line and ".socket" in self.path


@dataclass(frozen=True)
class MissingUnit:
    """A unit that the service or its socket requires, but that systemd cannot start."""

    #: The path of the unit file or drop-in that requires this unit.
    path: str
    name: str
    #: An installed unit with a similar name, or "".
    near: str
    is_masked: bool


@dataclass(eq=False)
class SocketUnit:
    """A socket unit that starts the proxy."""

    name: str
    #: The values of ListenStream=.
    listen: tuple[str, ...]
    #: True if systemd starts one service for each connection.
    accept: bool = False
    #: All settings in the [Socket] section.
    settings: dict[str, list[str]] = field(default_factory=dict)
    #: The directory of the unit's drop-ins.
    drop_ins: str = ""
    #: The names of all drop-ins, from any directory.
    drop_in_names: frozenset[str] = frozenset()
    #: The lines of the drop-in that the commands of an earlier check wrote.
    written: tuple[str, ...] = ()
    #: True if systemd reads this unit file.
    installed: bool = False
    #: True if the unit is masked with a link to /dev/null.
    masked: bool = False
    #: The names of the units that systemd starts.
    instances: tuple[str, ...] = ()


@dataclass(eq=False)
class Unit:
    """The settings of a unit and its drop-ins that affect the proxy."""

    name: str
    words: tuple[str, ...] = ()
    #: The user that runs the proxy, or "" if unknown.
    user: str = "root"
    #: True if the user exists only while the service is running (DynamicUser=).
    dynamic_user: bool = False
    private_tmp: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    #: The environment file that sets a variable, indexed by the variable's name.
    variable_files: dict[str, str] = field(default_factory=dict)
    environment_files: list[str] = field(default_factory=list)
    #: All settings in the [Service] section. An empty value removes earlier values.
    settings: dict[str, list[str]] = field(default_factory=dict)
    #: The environment file with the proxy's options, or "" if ExecStart= does not use it.
    options_file: str = ""
    #: True if the options file exists.
    options_file_exists: bool = True
    #: The contents of the options file.
    assignments: Assignments = field(default_factory=Assignments)
    #: The comments in the values of the variables that ExecStart= uses, each with the path of its
    #: environment file.
    comments: tuple[tuple[str, Comment], ...] = ()
    #: For each variable of the packaged unit that ExecStart= does not use, the path of the
    #: environment file that sets it.
    unused: dict[str, str] = field(default_factory=dict)
    #: Parts of ExecStart= that were probably meant for the filter, but that systemd would replace.
    replaced: tuple[str, ...] = ()
    #: The path of the unit, or "" for a command line.
    path: str = ""
    #: The path of another unit file with the same name, which systemd does not read, or "".
    hidden_path: str = ""
    #: The directory of the unit's drop-ins, or "" for a command line.
    drop_ins: str = ""
    #: The names of all drop-ins, from any directory.
    drop_in_names: frozenset[str] = frozenset()
    #: The lines of the drop-in that the commands of an earlier check wrote.
    written: tuple[str, ...] = ()
    #: True if systemd reads this unit file.
    installed: bool = False
    #: True if the unit is masked with a link to /dev/null.
    masked: bool = False
    #: The names of the units that systemd starts. A template has one name for each instance.
    instances: tuple[str, ...] = ()
    #: The instances that are started at boot, and their sockets.
    enabled: tuple[str, ...] = ()
    #: The paths that must exist, or systemd does not start the unit (ConditionPathExists=).
    required: tuple[str, ...] = ()
    #: The lines and drop-ins of the unit and its socket that systemd ignores.
    ignored: tuple[Ignored, ...] = ()
    socket: SocketUnit | None = None
    missing_units: tuple[MissingUnit, ...] = ()
    #: The paths of the unit and the proxy that contain symbolic links, each with its real path.
    links: dict[str, str] = field(default_factory=dict)

    def setting(self, name: str, default: str = "") -> str:
        """Return the value of a setting."""
        return (self.settings.get(name) or [default])[-1]

    def is_set(self, name: str) -> bool:
        """Return the value of a boolean setting."""
        return self.setting(name) in _TRUE

    def paths(self, name: str) -> list[str]:
        """Return the items of a path list without their prefixes."""
        items = " ".join(self.settings.get(name, ())).split()
        return [item.lstrip("-+") for item in items]


#: The name of the drop-in that the check's commands write. The name sorts last, so systemd applies
#: the drop-in last.
DROP_IN = "zz-postprox-check.conf"

_SECTIONS = ("Unit", "Service", "Socket", "Install")
_TRUE = ("1", "yes", "true", "on")

#: The variables that the proxy sets for the filter.
FILTER_VARIABLES = (
    *("EMAIL", "OUTFILE", "SENDER", "RECIPIENT", "RECIPIENTS", "RECIPIENTCOUNT"),
    *("REMOTEIP", "HELO", "QUEUE_ID", "CLIENT_NAME"),
)

_OPTION_VARIABLE = re.compile(rf"\$\{{?({environment.OPTIONS}|{environment.UPSTREAM})\b")

#: Specifiers with a fixed value (systemd.unit(5)). `_name_specifiers` returns the specifiers
#: derived from the unit's name.
_SPECIFIERS = {
    "%": "%",
    "C": "/var/cache",
    "E": "/etc",
    "L": "/var/log",
    "S": "/var/lib",
    "T": "/tmp",  # noqa: S108
    "V": "/var/tmp",  # noqa: S108
    "t": "/run",
}

#: The maximum length of a command line, in characters. Without a limit, the variables of a small
#: file could expand to gigabytes.
LARGEST_COMMAND = 1 << 15
_TOO_LONG = f"the command line is longer than {LARGEST_COMMAND} characters"

_BLANKS = " \t\r\n"
_PART = re.compile(
    r"""(?P<blanks>[ \t\r\n]+)
    | '(?P<single>[^']*)'
    | "(?P<double>[^"\\]*(?:\\.[^"\\]*)*)"
    | \\(?P<escaped>.)
    | (?P<bare>[^ \t\r\n'"\\]+)""",
    re.DOTALL | re.VERBOSE,
)


def parse(name: str, texts: Sequence[str], files: Mapping[str, str]) -> Unit:
    """Parse a unit and then its drop-ins.

    `files` maps the path of each environment file to its text.

    Raises:
        ValueError: a quote is unterminated, or the command line is too long.
    """
    unit = Unit(name, settings=_settings(texts, "Service"))
    conditions = _settings(texts, "Unit")
    unit.required = tuple(
        path
        for name in ("ConditionPathExists", "AssertPathExists")
        for path in conditions.get(name, ())
        if path.startswith("/")
    )
    unit.user = unit.setting("User", "root")
    unit.dynamic_user = unit.is_set("DynamicUser")
    unit.private_tmp = unit.dynamic_user or unit.is_set("PrivateTmp")
    for value in unit.settings.get("Environment", ()):
        unit.environment.update(_variables(split_words(value)))
    specifiers = _SPECIFIERS | _name_specifiers(unit.name)
    unit.environment_files = [
        re.sub("%(.)", lambda found: specifiers.get(found[1], found[0]), value.removeprefix("-"))
        for value in unit.settings.get("EnvironmentFile", ())
    ]
    contents = {path: environment.parse(files[path]) for path in files}
    for path in _last_of_each(unit.environment_files):
        values = contents[path].values if path in contents else {}
        unit.environment.update(values)
        unit.variable_files.update(dict.fromkeys(values, path))
    unit.comments = tuple(_comments(unit, contents))
    unit.unused = _unused(unit, contents)
    if unit.environment_files and _OPTION_VARIABLE.search(unit.setting("ExecStart")):
        names = {environment.OPTIONS, environment.UPSTREAM}
        setting = [path for path in contents if names & contents[path].values.keys()]
        used = [path for path in unit.environment_files if path in setting]
        unit.options_file = (used or unit.environment_files)[-1]
        unit.options_file_exists = unit.options_file in contents
        unit.assignments = contents.get(unit.options_file, unit.assignments)
    _expand(unit, unit.setting("ExecStart"))
    return unit


def parse_socket(name: str, texts: Sequence[str]) -> SocketUnit:
    """Parse a socket unit and then its drop-ins."""
    settings = _settings(texts, "Socket")
    accept = (settings.get("Accept") or ["no"])[-1] in _TRUE
    listen = tuple(settings.get("ListenStream", ()))
    return SocketUnit(name, listen, accept, settings=settings)


def required_units(text: str) -> list[str]:
    """Return the services and sockets without which systemd does not start the unit."""
    found = _settings([text], "Unit")
    names = [each for key in ("Requires", "BindsTo", "Requisite") for each in found.get(key, ())]
    words = " ".join(names).split()
    return [word for word in words if re.fullmatch(r"[\w@:.\\-]+\.(service|socket)", word)]


_FOREIGN = "is not a section of a {} unit; move it to a drop-in of the {} unit"
#: Settings by section. A setting in another section, or with a similar name, has no effect.
_KNOWN = {
    "Unit": (
        *("Requires", "BindsTo", "Requisite", "Wants", "After", "Before", "PartOf", "Conflicts"),
        *("ConditionPathExists", "AssertPathExists", "OnFailure", "StartLimitIntervalSec"),
    ),
    "Service": (
        *("ExecStart", "ExecStartPre", "ExecStartPost", "ExecReload", "ExecStop", "ExecCondition"),
        *("Restart", "RestartSec", "Type", "User", "Group", "DynamicUser", "SupplementaryGroups"),
        *("Environment", "EnvironmentFile", "WorkingDirectory", "RuntimeDirectory"),
        *("StateDirectory", "ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "ExecPaths"),
        *("NoExecPaths", "BindPaths", "BindReadOnlyPaths", "PrivateTmp", "ProtectHome"),
        *("ProtectSystem", "TimeoutStopSec", "TimeoutStartSec", "KillMode", "KillSignal", "UMask"),
        *("NoNewPrivileges", "RestrictAddressFamilies", "SystemCallFilter", "WatchdogSec"),
    ),
    "Socket": ("ListenStream", "Accept", "BindToDevice", "Service", "SocketUser", "SocketMode"),
}


def _misplaced(path: str, section: str, line: str) -> Iterator[Ignored]:
    """Find a setting in the wrong section, or with a misspelt name."""
    name = line.partition("=")[0].strip(_BLANKS)
    if "=" not in line or section not in ("Unit", "Service", "Socket"):
        return
    if section == "Socket" and (name in _KNOWN["Service"] or "Exec" in name):
        return  # most of these settings are also valid in [Socket]
    right = next((other for other, names in _KNOWN.items() if name in names), section)
    if right != section and name not in _KNOWN[section]:
        yield Ignored(
            path, line, f"is in [{section}], but belongs in [{right}]", f"[{right}]", section
        )
    elif right == section and name not in _KNOWN[section]:
        near = difflib.get_close_matches(name, _KNOWN[section], 1, 0.9)
        if near:
            yield Ignored(
                path, line, f"is not a setting that systemd knows, but {near[0]} is", near[0]
            )


def ignored_lines(path: str, text: str) -> Iterator[Ignored]:
    """Find the lines that systemd ignores because of their section or their name."""
    section = None
    for line in text.replace("\\\n", " ").split("\n"):
        line = line.strip(_BLANKS)  # noqa: PLW2901
        if not line or line.startswith(("#", ";")):
            continue
        if header := re.fullmatch(r"\[(.*)\]", line):
            section = header[1]
            kind = "Socket" if ".socket" in path else "Service"
            if section not in _SECTIONS and not section.startswith("X-"):
                near = (difflib.get_close_matches(section, _SECTIONS, 1, 0.7) or [""])[0]
                right = f"[{near}]" if near else ""
                yield Ignored(path, line, "is not a section that systemd knows", right)
            elif section in ("Socket", "Service") and section != kind and "/" in path:
                yield Ignored(path, line, _FOREIGN.format(kind.lower(), section.lower()))
        elif section is None:
            yield Ignored(path, line, "precedes the first section, such as [Service]")
        elif section in _SECTIONS and (wrong := list(_misplaced(path, section, line))):
            yield from wrong
        elif section in _SECTIONS and re.match(r"[a-z]\w*\s*=", line):
            yield Ignored(
                path, line, "is not a setting that systemd knows (names are case-sensitive)"
            )


def _settings(texts: Sequence[str], wanted: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in texts:
        section = ""
        for line in text.replace("\\\n", " ").split("\n"):
            if line.startswith(("#", ";")):
                continue
            name, equals, value = line.partition("=")
            if header := re.fullmatch(r"\[(\w+)\]", line.strip(_BLANKS)):
                section = header[1]
            elif section == wanted and equals:
                key = name.strip(_BLANKS)
                values = found[key] = found.pop(key, [])  # order names by last assignment
                if value.strip(_BLANKS):
                    values.append(value.strip(_BLANKS))
                else:
                    values.clear()
    return found


def _last_of_each(paths: Sequence[str]) -> list[str]:
    """Keep only the last mention of each file. This does not change the resulting variables."""
    return list(reversed(dict.fromkeys(reversed(paths))))


def _comments(unit: Unit, contents: Mapping[str, Assignments]) -> Iterator[tuple[str, Comment]]:
    """Yield the comments in the values of the variables that ExecStart= uses."""
    for name in dict.fromkeys(re.findall(r"\$\{?(\w+)", unit.setting("ExecStart"))):
        paths = [path for path in unit.environment_files if path in contents]
        used = next((path for path in reversed(paths) if name in contents[path].values), "")
        if used and name in contents[used].comments:
            yield used, contents[used].comments[name]


def _unused(unit: Unit, contents: Mapping[str, Assignments]) -> dict[str, str]:
    """Return the variables that ExecStart= does not use, each with its environment file.

    In braces, the options would be a single argument.
    """
    found: dict[str, str] = {}
    for name, use in ((environment.OPTIONS, ""), (environment.UPSTREAM, "{?")):
        for path in unit.environment_files:
            is_set = path in contents and name in contents[path].values
            if is_set and not re.search(rf"\${use}{name}\b", unit.setting("ExecStart")):
                found[name] = path
    return found


def _variables(words: Sequence[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words if "=" in word)


def _split_value(unit: Unit, name: str, value: str) -> list[str]:
    """Split the value of a variable. systemd accepts an unterminated quote."""
    try:
        return split_words(value)
    except ValueError as error:
        if name not in unit.assignments.values:
            raise
        unit.assignments.problems.append(f"in {name}, {error}")
        return value.split()


def split_words(text: str) -> list[str]:
    """Split text as shlex.split() does, but in linear time.

    Raises:
        ValueError: a quote is unterminated, or a backslash is the last character.
    """
    words: list[list[str]] = []
    in_word = False
    position = 0
    while position < len(text):
        part = _PART.match(text, position)
        if part is None:
            raise ValueError("a quote is unterminated, or the last character is a backslash")
        position = part.end()
        kind = part.lastgroup or ""
        if kind == "blanks":
            in_word = False
            continue
        if not in_word:
            words.append([])
            in_word = True
        value = part[kind]
        words[-1].append(re.sub(r'\\(["\\])', r"\1", value) if kind == "double" else value)
    return ["".join(parts) for parts in words]


def _expand(unit: Unit, command: str) -> None:
    """Expand `$NAME` into separate words. Expand `${NAME}` and specifiers within a word.

    Some variables and specifiers were probably intended for the filter, such as $EMAIL. They are
    not expanded here, but are listed in `replaced`, because systemd would expand them
    (systemd.service(5), systemd.unit(5)).

    Raises:
        ValueError: the command line is longer than `LARGEST_COMMAND`.
    """
    words: list[str] = []
    replaced: dict[str, None] = {}
    left = LARGEST_COMMAND
    specifiers = _SPECIFIERS | _name_specifiers(unit.name)

    def limited(text: str) -> str:
        nonlocal left
        left -= len(text)
        if left < 0:
            raise ValueError(_TOO_LONG)
        return text

    def part(found: re.Match[str]) -> str:
        if found["escaped"]:
            return "$"
        name = found["name"]
        is_of_filter = name in FILTER_VARIABLES and name not in unit.environment
        if is_of_filter or (not name and found["specifier"] not in specifiers):
            replaced[found[0]] = None
            return found[0]
        return limited(unit.environment.get(name, "")) if name else specifiers[found["specifier"]]

    for word in split_words(limited(command).lstrip("-@:+!")):
        if alone := re.fullmatch(r"\$(\w+)", word):
            words += _split_value(unit, alone[1], limited(unit.environment.get(alone[1], "")))
        else:
            words.append(_REPLACED.sub(part, word))
    unit.words = tuple(words)
    unit.replaced = tuple(replaced)


def expanded_words(unit: Unit, command: str) -> tuple[str, ...]:
    """Expand a command line as if it were the unit's ExecStart=, and return its words.

    Raises:
        ValueError: a quote is unterminated, or the command line is too long.
    """
    other = replace(unit)
    _expand(other, command)
    return other.words


_REPLACED = re.compile(
    r"(?P<escaped>\$\$) | \$\{(?P<name>\w+)\} | %(?P<specifier>.?)", re.DOTALL | re.VERBOSE
)


def _name_specifiers(name: str) -> dict[str, str]:
    """Return the specifiers derived from the unit's name. A template is treated as instance "1"."""
    if name.partition(".")[0].endswith("@"):
        name = name.replace("@.", "@1.", 1)
    whole = name.rpartition(".")[0] or name
    prefix, _, instance = whole.partition("@")
    last = prefix.rpartition("-")[2]
    return dict(
        zip("nNpPiIj", (name, whole, prefix, prefix, instance, instance, last), strict=True)
    )


def quoted(words: Sequence[str]) -> str:
    """Format a command line for ExecStart=. `parse` is the inverse function."""
    return " ".join(_quoted(word.replace("$", "$$").replace("%", "%%")) for word in words)


def _quoted(word: str) -> str:
    if re.fullmatch(r"[\w@%+=:,./$\[\]-]+", word, re.ASCII):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
