"""Edits to the Postfix configuration or a unit, and the commands that make these edits.

Rule: this module creates only text and executes nothing. Each command can be pasted into a shell
and contains all edits to its target, so no command undoes another command's edits (`Plan`).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..core.options import Options, UsageError, parse
from . import environment
from .environment import Comment
from .findings import Fault, Finding
from .postconf import Configuration, Service, join_words, split_words
from .routes import FilterStage, Proxy, Route, arguments, without_wrappers
from .source_text import Correction
from .unit import DROP_IN, SocketUnit, Unit, quoted
from .unit import split_words as split_values

#: The transport to the proxy in examples/postfix/after-queue.master.cf, without the name column.
SCAN = (
    "smtp -o syslog_name=postfix/scan -o smtp_send_xforward_command=yes "
    "-o disable_mime_output_conversion=yes -o smtp_line_length_limit=0 -o smtp_generic_maps= "
    "-o smtp_header_checks= -o smtp_mime_header_checks= -o smtp_nested_header_checks= "
    "-o smtp_body_checks= -o smtp_tls_security_level=none -o smtp_tls_wrappermode=no "
    "-o smtp_tls_policy_maps= -o smtp_fallback_relay="
)

#: Settings that are lists. An empty value removes the earlier items. systemd reports an empty value
#: of most other settings as an error.
_LISTS = re.compile(
    r"Exec|Listen|Environment|IPAddress|RestrictA|RestrictNetwork|SocketBind|SupplementaryGroups"
    r"|SystemCallFilter|TemporaryFileSystem|\w+Paths$|\w+Directory$"
)


def is_list(name: str) -> bool:
    """Return whether a unit's setting is a list, so that each assignment adds to it."""
    return bool(_LISTS.match(name))


@dataclass(frozen=True)
class Main:
    """A parameter in main.cf."""

    name: str


@dataclass(frozen=True)
class Own:
    """A parameter for one service in master.cf."""

    service: Service
    name: str


@dataclass(frozen=True)
class Column:
    """A column of a service in master.cf, such as `command`.

    The column `service` contains the service's name.
    """

    service: Service
    name: str


@dataclass(frozen=True)
class Setting:
    """A setting in a unit's drop-in."""

    unit: Unit | SocketUnit
    name: str
    #: True for ExecStart= with variables that systemd expands.
    has_variables: bool = False


@dataclass(frozen=True)
class Rewritten:
    """A unit's options file whose text must be replaced as a whole."""

    proxy: Proxy


@dataclass(frozen=True)
class Words:
    """The command line of a proxy that neither master.cf nor a unit starts."""

    proxy: Proxy


@dataclass(frozen=True)
class Shell:
    """A command that is independent of all other commands."""

    command: str


Place = Main | Own | Column | Setting | Rewritten | Words | Shell


@dataclass(frozen=True)
class Edit:
    """A target, and a function that maps the target's current text to its new text."""

    place: Place
    change: Callable[[str], str]


def run(command: str) -> Edit:
    """Run a command that does not change the configuration."""
    return Edit(Shell(command), lambda old: old)


def correct(configuration: Configuration, correction: Correction) -> Edit:
    """Correct lines of main.cf or master.cf."""
    return run(_correction(configuration, correction))


def _correction(configuration: Configuration, correction: Correction) -> str:
    path = shlex.quote(f"{configuration.corrected}/{correction.file}")
    locale = "LC_ALL=C " if "\\x" in correction.script else ""
    return f"{locale}sed -E -i {shlex.quote(correction.script)} {path}"


def set_main(name: str, value: str) -> Edit:
    """Set a parameter in main.cf."""
    return Edit(Main(name), lambda _: value)


def set_own(service: Service, name: str, value: str) -> Edit:
    """Set a parameter for one service in master.cf."""
    return Edit(Own(service, name), lambda _: value)


def change_main(name: str, change: Callable[[str], str]) -> Edit:
    """Change a parameter in main.cf."""
    return Edit(Main(name), change)


def change_own(service: Service, name: str, change: Callable[[str], str]) -> Edit:
    """Change a parameter for one service in master.cf."""
    return Edit(Own(service, name), change)


def set_words(service: Service, words: Sequence[str]) -> Edit:
    """Set the command of a service in master.cf."""
    return _set_command(service, lambda _: list(words))


def remove_listen(proxy: Proxy) -> Edit:
    """Remove `--listen` and `--foreground` from a proxy's arguments."""
    only = ("--foreground",)

    def change(words: Sequence[str]) -> list[str]:
        return [word for word in _with_address(list(words), "")[2:] if word not in only]

    return set_arguments(proxy, change)


def raise_own(service: Service, name: str, seconds: float) -> Edit:
    """Raise a service's time limit to this value, unless the limit is already longer."""

    def change(old: str) -> str:
        present = re.fullmatch(r"([0-9]+)s", old)
        return old if present and int(present[1]) >= seconds else f"{seconds:.0f}s"

    return Edit(Own(service, name), change)


def add_item(service: Service, name: str, item: str) -> Edit:
    """Add an item to a service's list parameter."""
    return Edit(Own(service, name), lambda old: ",".join(dict.fromkeys([*_items(old), item])))


def remove_item(service: Service, name: str, item: str) -> Edit:
    """Remove an item from a service's list parameter."""
    return Edit(
        Own(service, name), lambda old: ",".join(each for each in _items(old) if each != item)
    )


def _items(text: str) -> list[str]:
    return re.findall(r"[^,\s]+", text)


def set_field(service: Service, name: str, value: str) -> Edit:
    """Set a column of one service in master.cf."""
    return Edit(Column(service, name), lambda _: value)


def set_user(service: Service, user: str) -> Edit:
    """Set the user account under which spawn(8) runs a command."""

    def change(words: list[str]) -> list[str]:
        program, *others = (word for word in words if not word.startswith("user="))
        return [program, f"user={user}", *others]

    return _set_command(service, change)


def set_program(service: Service, program: str) -> Edit:
    """Set the Postfix program of a service."""
    return _set_command(service, lambda words: [program, *words[1:]])


def _set_command(service: Service, change: Callable[[list[str]], list[str]]) -> Edit:
    return Edit(
        Column(service, "command"),
        lambda old: join_words(tuple(change(split_words(old)))),
    )


def keep(service: Service) -> Edit:
    """Keep this service, and remove all other services with the same name."""
    return Edit(Column(service, "service"), lambda old: old)


def remove(configuration: Configuration, service: Service) -> Edit:
    """Remove a service from master.cf."""
    return run(f"{configuration.postconf} -MX {shlex.quote(service.label)}")


def stop(configuration: Configuration, proxy: Proxy) -> Edit:
    """Remove a proxy from master.cf, or disable its unit."""
    if proxy.service is not None:
        return remove(configuration, proxy.service)
    unit = proxy.unit or Unit("")
    names = [*(unit.socket.instances if unit.socket else ()), *unit.instances]
    return run(f"systemctl disable --now {shlex.join(names)}")


def add_line(configuration: Configuration, name: str, line: str) -> Edit:
    """Add a service of type unix to master.cf."""
    return run(f"{configuration.postconf} -M {shlex.quote(f'{name}/unix={name} unix {line}')}")


def add_entry(configuration: Configuration, line: str) -> Edit:
    """Add a service to master.cf."""
    name, kind = line.split()[:2]
    return run(f"{configuration.postconf} -M {shlex.quote(f'{name}/{kind}={line}')}")


def redirect(route: Route, address: str) -> Edit:
    """Set a route's address in master.cf if master.cf already sets it, or else in main.cf."""
    name = route.stage.value
    value = address
    if route.stage is FilterStage.AFTER_QUEUE:
        host, _, port = address.rpartition(":")
        value = f"{route.transport_name}:[{host.strip('[]')}]:{port}"
    return set_own(route.source, name, value) if name in route.source.own else set_main(name, value)


def set_address(proxy: Proxy, address: str) -> Edit:
    """Set the address on which the proxy listens."""
    if proxy.service is not None:
        return set_field(proxy.service, "service", address)
    if proxy.unit and proxy.unit.socket:
        return set_setting(proxy.unit.socket, "ListenStream", address)
    return set_arguments(proxy, lambda words: _with_address(list(words), address))


def _with_address(words: list[str], address: str) -> list[str]:
    kept: list[str] = []
    while words:
        word = words.pop(0)
        if word in ("-l", "--listen"):
            words[:1] = []
        elif not re.match("-l|--listen=", word):
            kept.append(word)
    return ["-l", address, *kept]


def set_setting(unit: Unit | SocketUnit, name: str, value: str) -> Edit:
    """Change a setting of a unit."""
    return Edit(Setting(unit, name), lambda _: value)


def add_variable(unit: Unit, name: str, value: str) -> Edit:
    """Set a variable in the environment of a unit."""

    def change(old: str) -> str:
        others = re.sub(rf"(^|\s)([\"']?){name}=\S*?\2(?=\s|$)", "", old)
        return f"{others} {name}={value}".strip()

    return Edit(Setting(unit, "Environment"), change)


def set_command(unit: Unit, command: str) -> Edit:
    """Set ExecStart= to a command with variables that systemd expands."""
    return Edit(Setting(unit, "ExecStart", has_variables=True), lambda _: command)


def show(unit: Unit, setting: str) -> Edit:
    """Change a setting that hides files from a unit, so that the unit can access them."""
    name = setting.partition("=")[0]
    return set_setting(unit, name, {"ProtectHome": "read-only", "PrivateTmp": "no"}.get(name, ""))


def add_path(unit: Unit, name: str, path: str) -> Edit:
    """Add a path to a setting of a unit."""
    return Edit(Setting(unit, name), lambda old: " ".join(dict.fromkeys([*old.split(), path])))


def add_arguments(proxy: Proxy, *more: str) -> Edit:
    """Insert arguments before the proxy's existing arguments."""

    def change(words: Sequence[str]) -> list[str]:
        given = list(words)
        return given if given[: len(more)] == list(more) else [*more, *given]

    return set_arguments(proxy, change)


def remove_option(proxy: Proxy, name: str) -> Edit:
    """Remove a long option and its value."""

    def change(words: Sequence[str]) -> list[str]:
        pairs = zip(["", *words], words, strict=False)
        return [word for before, word in pairs if name not in (before, word.partition("=")[0])]

    return set_arguments(proxy, change)


def send_to(proxy: Proxy, address: str) -> Edit:
    """Set a proxy's HOST:PORT, which is its only positional argument."""
    old = proxy.options.target.text if proxy.options else ""
    return set_arguments(proxy, lambda words: [address if word == old else word for word in words])


def set_directory(proxy: Proxy, value: str) -> Edit:
    """Set the directory for messages. An existing `-d` option is replaced."""
    return set_arguments(proxy, lambda words: _with_directory(list(words), value))


def _with_directory(words: list[str], value: str) -> list[str]:
    old = _directory(words, Options().directory)
    # -d has several spellings. If an argument ends with the directory, append the argument's index
    # to it, to identify the argument that sets the directory. After parsing, the directory ends
    # with the index of the argument that sets it.
    marked = [
        f"{word.removesuffix(old)}{old}/{index}" if word.endswith(old) else word
        for index, word in enumerate(words)
    ]
    directory = _directory(marked, old)
    if directory == old:
        return ["-d", value, *words]
    index = int(directory.rpartition("/")[2])
    return [*words[:index], words[index].removesuffix(old) + value, *words[index + 1 :]]


def _directory(words: Sequence[str], default: str) -> str:
    try:
        return parse(words).directory
    except UsageError:
        return default


def set_program_path(proxy: Proxy, path: str) -> Edit:
    """Set the path of the proxy program. An interpreter before the program is removed."""

    def changed(words: Sequence[str]) -> list[str]:
        count = len(words) - len(without_wrappers(words))
        return [*words[:count], path, *arguments(words)]

    return _set_proxy_command(proxy, changed)


def set_arguments(proxy: Proxy, change: Callable[[Sequence[str]], Sequence[str]]) -> Edit:
    """Change the arguments of a proxy."""

    def changed(words: Sequence[str]) -> list[str]:
        count = len(words) - len(arguments(words))
        return [*words[:count], *change(words[count:])]

    return _set_proxy_command(proxy, changed)


def _set_proxy_command(proxy: Proxy, change: Callable[[Sequence[str]], list[str]]) -> Edit:
    if proxy.service is not None:

        def command(words: list[str]) -> list[str]:
            start = next(index for index, word in enumerate(words) if word.startswith("argv="))
            program, *rest = change([words[start].removeprefix("argv="), *words[start + 1 :]])
            return [*words[:start], f"argv={program}", *rest]

        return _set_command(proxy.service, command)
    place = Setting(proxy.unit, "ExecStart") if proxy.unit and proxy.unit.path else Words(proxy)
    return Edit(place, lambda old: shlex.join(change(shlex.split(old))))


def write_options(proxy: Proxy, words: Sequence[str]) -> Edit:
    """Replace a unit's options file with a file that contains the arguments `words`."""
    return Edit(Rewritten(proxy), lambda _: shlex.join(words))


def rename_variable(unit: Unit, name: str, right: str) -> Edit:
    """Rename a variable in a unit's options file."""
    script = shlex.quote(f"s/^[ \\t]*{name}[ \\t]*=/{right}=/")
    commands = [f"sed -i {script} {shlex.quote(unit.options_file)}", *_restart(unit)]
    return run("; ".join(commands))


def separate_comment(unit: Unit, path: str, comment: Comment) -> tuple[Edit, ...]:
    """Move a comment in an environment file from the end of a value to a line of its own."""
    line = environment.assignment(comment.name, comment.value)
    new = f"# {comment.text}\n{line}" if comment.text else line
    mark = next(each for each in "|#,~!@%^;" if each not in comment.line + new)
    old = re.sub(r"([][\\.*^$])", r"\\\1", comment.line.rstrip())
    new = re.sub(r"([\\&])", r"\\\1", new).replace("\n", r"\n")
    script = shlex.quote(f"s{mark}^[ \\t]*{old}[ \\t\\r]*${mark}{new}{mark}")
    return tuple(map(run, [f"sed -i {script} {shlex.quote(path)}", *_restart(unit)]))


def add_user(user: str) -> Edit:
    """Create a user and a group for the proxy. A numeric user is treated as a user ID."""
    is_number = re.fullmatch("[0-9]+", user)
    return run(
        "useradd --system --user-group --no-create-home --home-dir /nonexistent "
        f"--shell /usr/sbin/nologin {f'--uid {user} postprox' if is_number else shlex.quote(user)}"
    )


def make_spool(user: str, directory: str) -> Edit:
    """Create a directory for messages."""
    name = shlex.quote(user or "postprox")
    return run(f'install -d -o {name} -g "$(id -gn {name})" -m 0700 {shlex.quote(directory)}')


class Plan:
    """The edits for all problems, and the commands for each problem."""

    def __init__(
        self, configuration: Configuration, faults: Sequence[Fault], units: Sequence[Unit] = ()
    ) -> None:
        self._configuration = configuration
        self._units = units
        self._postconf = configuration.postconf
        self._values: dict[Place, str] = {}
        for edit in (edit for fault in faults for edit in fault.edits):
            old = self._values.get(edit.place)
            self._values[edit.place] = edit.change(
                self._current(edit.place) if old is None else old
            )

    def finding(self, fault: Fault) -> Finding:
        """Return the finding for a problem, with its commands."""
        commands = dict.fromkeys(
            command for edit in fault.edits for command in self._commands(edit.place)
        )
        if any(re.match(rf"{re.escape(self._postconf)} -[FPM]", each) for each in commands):
            # postconf(1) writes back the whole entry, so first correct the text that it misreads.
            first = [_correction(self._configuration, each) for each in self._unseparated()]
            commands = dict.fromkeys([*first, *commands])
        files = [self._options_file(edit.place) for edit in fault.edits]
        where = ", ".join(dict.fromkeys([fault.where, *filter(None, files)]))
        return Finding(fault.name, where, fault.problem, tuple(commands))

    def _unseparated(self) -> list[Correction]:
        """Return the corrections that are needed only for postconf(1)."""
        return [each for each in self._configuration.corrections if not each.problem]

    def _current(self, place: Place) -> str:
        text = ""
        match place:
            case Main(name):
                text = self._configuration.parameter(name)
            case Own(service, name):
                text = service.parameter(name)
            case Column(service, name):
                text = service.column(name)
            case Setting(Unit(words=words), "ExecStart"):
                text = shlex.join(words)
            case Setting(Unit(settings=settings), name):
                text = " ".join(settings.get(name, ()))
            case Words(proxy):
                text = shlex.join(proxy.words)
        return text

    def _commands(self, place: Place) -> Iterator[str]:
        match place:
            case Shell(command):
                yield command
            case Main(name):
                yield f"{self._postconf} -e {shlex.quote(f'{name}={self._values[place]}')}"
            case Rewritten(proxy):
                yield from _written(proxy, self._values[place])
            case Setting(Unit() as unit, "ExecStart") if values := self._variables(unit):
                if self._moved(unit):
                    yield from self._drop_in(unit)
                    values = {
                        n: v for n, v in values.items() if unit.assignments.values.get(n) != v
                    }
                if values:
                    yield from _changed(unit, values)
            case Setting(unit, _):
                yield from self._drop_in(unit)
            case Words():
                yield self._values[place]
            case Own(service, name) | Column(service, name):
                yield from self._service_commands(service, name, isinstance(place, Own))

    def _service_commands(self, service: Service, name: str, is_own: bool) -> Iterator[str]:
        columns = {p.name: self._values[p] for p in self._places(Column) if p.service is service}
        own = {p.name: self._values[p] for p in self._places(Own) if p.service is service}
        if {"service", "command"} & columns.keys():
            command = columns.get("command", service.column("command"))
            columns["command"] = _with_parameters(command, own)
            own = {}
        if "service" in columns:
            # The edit that changes the name also removes the entry with the old name. Other edits
            # must not remove the entry with the old name, because it may now belong to another
            # service.
            if not is_own and name == "service":
                yield f"{self._postconf} -MX {shlex.quote(service.label)}"
            yield f"{self._postconf} -M {shlex.quote(_line(service, columns))}"
        elif is_own and own:
            yield f"{self._postconf} -P {shlex.quote(f'{service.label}/{name}={own[name]}')}"
        else:
            field = "command" if is_own else name
            value = columns[field]
            yield f"{self._postconf} -F {shlex.quote(f'{service.label}/{field}={value}')}"

    def _places(self, kind: type[Own] | type[Column]) -> Iterator[Own | Column]:
        return (place for place in self._values if isinstance(place, kind))

    def _options_file(self, place: Place) -> str:
        """Return the environment file that an edit changes, or "" if it changes no such file."""
        match place:
            case Rewritten(Proxy(unit=Unit(options_file=file))):
                return file
            case Setting(Unit() as unit, "ExecStart") if self._variables(unit):
                return unit.options_file
        return ""

    def _variables(self, unit: Unit) -> dict[str, str]:
        """Return the variables of the options file for the new command line.

        The result is empty if the unit has no options file, or if its command line cannot be split
        into these variables.
        """
        is_edited = Setting(unit, "ExecStart") in self._values
        return {} if not is_edited or self._needs_own_values(unit) else self._new_variables(unit)

    def _new_variables(self, unit: Unit) -> dict[str, str]:
        value = self._values.get(Setting(unit, "ExecStart"), shlex.join(unit.words))
        return _variables(unit, shlex.split(value)) if value and unit.options_file else {}

    def _needs_own_values(self, unit: Unit) -> bool:
        """Return whether another unit uses the same options file, but needs other values."""
        shared = [each for each in self._units if each.options_file == unit.options_file]
        own, others = self._new_variables(unit), map(self._new_variables, shared)
        return bool(own) and any(other and other != own for other in others)

    def _moved(self, unit: Unit) -> str:
        """Return ExecStart= with the new program and the unit's variables.

        The result is "" if the program does not change.
        """
        program, *fixed = unit.settings["ExecStart"][0].split()
        new = shlex.split(self._values[Setting(unit, "ExecStart")])[0]
        return "" if new == program else " ".join([new, *fixed])

    def _with_own_values(self, unit: Unit) -> str:
        """Return ExecStart= with new values in place of the variables that must change."""
        text = self._moved(unit) or unit.settings["ExecStart"][0]
        for name, value in self._new_variables(unit).items():
            if unit.assignments.values.get(name) != value:
                text = text.replace(f"${name}", quoted(split_values(value)))
        return text

    def _drop_in(self, unit: Unit | SocketUnit) -> Iterator[str]:
        section = "[Socket]" if isinstance(unit, SocketUnit) else "[Service]"
        lines: list[str] = []
        for place, value in self._values.items():
            if isinstance(place, Setting) and place.unit is unit:
                is_command = place.name == "ExecStart" and not place.has_variables
                text = quoted(shlex.split(value)) if is_command else value
                if is_command and isinstance(unit, Unit) and self._variables(unit):
                    text = self._moved(unit)
                    if not text:
                        continue
                elif is_command and isinstance(unit, Unit) and self._needs_own_values(unit):
                    text = self._with_own_values(unit)
                reset = [f"{place.name}="] if not text or is_list(place.name) else []
                lines += [*reset, *([f"{place.name}={text}"] if text else [])]
        # The earlier settings of this drop-in remain in effect.
        names = {line.partition("=")[0] for line in lines}
        earlier = [line for line in unit.written if line.partition("=")[0] not in names]
        lines = [section, *earlier, *lines]
        directory = shlex.quote(unit.drop_ins)
        yield f"mkdir -p {directory}"
        yield f"printf '%s\\n' {shlex.join(lines)} > {directory}/{DROP_IN}"
        if unit.installed:
            yield "systemctl daemon-reload"
            # A socket cannot be restarted while its service is using it.
            stopped = [each.replace(".socket", ".service") for each in unit.instances]
            if isinstance(unit, SocketUnit):
                yield f"systemctl stop {shlex.join(stopped)}"
            yield f"systemctl restart {shlex.join(unit.instances)}"


def _variables(unit: Unit, words: Sequence[str]) -> dict[str, str]:
    """Return the values of the unit's variables that result in this command line.

    The result is {} if no values result in it.
    """
    commands = unit.settings.get("ExecStart", [])
    program, *fixed = commands[0].split() if len(commands) == 1 else [""]
    names = [f"${name}" for name in (environment.OPTIONS, environment.UPSTREAM)]
    literal, own = fixed[:-2], list(words[1:])
    if fixed[-2:] != names or re.search(r"[$%'\"\\]", program + "".join(literal)):
        return {}
    for start in range(len(own) - len(literal) + 1):
        if own[start : start + len(literal)] == literal:
            return _split(literal, [*own[:start], *own[start + len(literal) :]])
    return {}


def _split(fixed: Sequence[str], words: Sequence[str]) -> dict[str, str]:
    """Split arguments into the options and the required HOST:PORT."""
    for index in reversed(range(len(words))):
        others = [*words[:index], *words[index + 1 :]]
        try:
            parse([*fixed, *others])
        except UsageError as error:
            if str(error).startswith("HOST:PORT is missing"):
                return {
                    environment.UPSTREAM: words[index],
                    environment.OPTIONS: environment.joined(others),
                }
    return {}


def _changed(unit: Unit, values: dict[str, str]) -> Iterator[str]:
    """Return commands that set variables in the options file.

    A line that already sets one of the variables is replaced.
    """
    changed = {n: v for n, v in values.items() if unit.assignments.values.get(n) != v}
    is_simple = unit.options_file_exists and not unit.assignments.problems
    if not is_simple or unit.assignments.multiline & changed.keys():
        yield _file(unit, values)
    else:
        file = shlex.quote(unit.options_file)
        for name, value in changed.items():
            line = environment.assignment(name, value)
            if name not in unit.assignments.values:
                yield f"printf '\\n%s\\n' {shlex.quote(line)} >> {file}"
                continue
            mark = next(each for each in "|#,~!@^;" if each not in line)
            new = re.sub(r"([\\&])", r"\\\1", line)
            script = shlex.quote(f"s{mark}^[ \\t]*{name}[ \\t]*=.*{mark}{new}{mark}")
            yield f"sed -i {script} {file}"
    yield from _restart(unit)


def _written(proxy: Proxy, arguments_text: str) -> Iterator[str]:
    """Return the commands that replace the options file."""
    unit = proxy.unit or Unit("")
    words = shlex.split(arguments_text)
    yield _file(unit, _split([], words))
    yield from _restart(unit)


def _file(unit: Unit, values: dict[str, str]) -> str:
    others = {n: v for n, v in unit.assignments.values.items() if "\n" not in v}
    lines = [environment.assignment(name, value) for name, value in {**others, **values}.items()]
    path = shlex.quote(unit.options_file)
    # A backslash at the end of a comment would make the next line part of the comment.
    comments = f"\"$(grep -s '^[#;].*[^\\]$' {path})\"" if unit.assignments.has_comments else ""
    words = " ".join(filter(None, (comments, shlex.join(lines))))
    return f"printf '%s\\n' {words} > {path}"


def _restart(unit: Unit) -> Iterator[str]:
    if unit.installed:
        yield f"systemctl restart {shlex.join(unit.instances)}"


def _with_parameters(command: str, own: dict[str, str]) -> str:
    """Set parameters in the command of a service in master.cf."""
    program, *words = split_words(command)
    kept: list[str] = []
    while words:
        word = words.pop(0)
        if word == "-o" and words and words[0].partition("=")[0].strip() in own:
            words.pop(0)
        else:
            kept.append(word)
    added = [word for name, value in own.items() for word in ("-o", f"{name}={value}")]
    return join_words((program, *kept, *added))


def _line(service: Service, columns: dict[str, str]) -> str:
    """Return the argument of `postconf -M` that sets these columns of a service."""
    names = ("service", "type", "private", "unprivileged", "chroot", "wakeup", "process_limit")
    values = [columns.get(name, service.column(name)) for name in names]
    line = " ".join([*values, columns["command"]])
    return f"{values[0]}/{values[1]}={line}"


def plan(
    configuration: Configuration, faults: Iterable[Fault], units: Sequence[Unit] = ()
) -> list[Finding]:
    """Return one finding for each problem. `units` are the units of all proxies."""
    found = list(faults)
    made = Plan(configuration, found, units)
    return [made.finding(fault) for fault in found]
