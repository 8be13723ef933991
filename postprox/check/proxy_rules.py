"""Problems with the proxy itself: its command line, user, program and message directory.

Rule: each check is a pure function.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from ..core.options import Options
from . import correction, environment, fixes, sandbox
from .facts import DirectoryFacts, ProgramFacts, ProxyFacts, SpoolFacts
from .findings import Fault
from .fixes import Edit
from .postfix_rules import add_service, sent_to
from .routes import Endpoint, Proxy, arguments, is_proxy, target_endpoint, upstream
from .setup import Setup
from .unit import Unit, split_words

#: User accounts under which spawn(8) refuses to run a command.
_REFUSED_USERS = ("root", "postfix")
#: The permission bits for group and others, and the sticky bit of shared directories such as /tmp.
_OTHERS, _STICKY = 0o077, 0o1000
#: The finding and the effect for each option whose file the proxy cannot write.
_STATUS_FILES = {
    "--metrics": ("status-file", "monitoring cannot read the state of the proxy"),
    "--pid-file": ("pid-file", "the proxy cannot start, so all mail is deferred (451)"),
}
#: The number of sessions in the recipe, and of the files that one session can store
#: (docs/operating.md, Sizing).
_SESSIONS, _COPIES = 20, 3
#: The directory of a collector, such as Prometheus' node_exporter.
_COLLECTOR = re.compile(r"textfile|exporter|prometheus|metrics|collector|postprox", re.IGNORECASE)
#: The options in the packaged options file. The filter is the last option.
_OPTIONS = environment.PACKAGED[environment.OPTIONS]
_OWN_SPOOL = "/var/spool/postprox"
#: The user in the recipe.
_OWN_USER = "postprox"
#: The program that packaging/install installs.
_OWN_PROGRAM = "/usr/local/sbin/postprox"


def command_line(setup: Setup, proxy: Proxy) -> Iterator[Fault]:
    """Report an invalid command line."""
    misplaced = [word for word in proxy.words if word.startswith("user=")]
    if proxy.service and misplaced and not proxy.user:
        name = misplaced[0].removeprefix("user=").partition(":")[0]
        yield Fault(
            "user",
            proxy.where,
            f"user={name} must precede argv=; the proxy cannot start, so all mail is deferred "
            "(451)",
            (fixes.set_user(proxy.service, name),),
        )
    elif whole := _with_earlier_lines(proxy):
        name, file = environment.OPTIONS, proxy.unit.options_file if proxy.unit else ""
        script = shlex.quote(rf"/^[ \t]*{name}[ \t]*=.*\${{*{name}/d")
        yield Fault(
            "command-line",
            proxy.where,
            f"systemd does not expand ${name} in this file, so the command line is invalid and all "
            f"mail is deferred (451): {proxy.error}; one line must contain all options",
            (
                fixes.run(f"sed -i {script} {shlex.quote(file)}"),
                fixes.set_arguments(proxy, lambda _: whole),
            ),
        )
    elif variables := _variables(proxy):
        # Arguments other than these variables may be the administrator's options and must be kept.
        is_complete = len(variables) == len(arguments(proxy.words))
        new = [*_OPTIONS.split()[:-2], "-d", _OWN_SPOOL, *_OPTIONS.split()[-2:]]
        new.append(_target(setup, proxy))
        create = fixes.make_spool(proxy.user, _OWN_SPOOL)
        yield Fault(
            "command-line",
            proxy.where,
            f"spawn(8) does not expand {variables[0]}, so all mail is deferred (451); master.cf "
            "must contain the options themselves",
            (create, fixes.set_arguments(proxy, lambda _: new)) if is_complete else (),
        )
    elif kept := _without_shell_syntax(proxy):
        yield Fault(
            "command-line",
            proxy.where,
            f"{proxy.words[len(proxy.words) - len(arguments(proxy.words)) + len(kept)]!r} has a "
            "special meaning only in a shell; the proxy rejects its command line, so all mail is "
            f"deferred (451): {proxy.error}",
            (fixes.set_arguments(proxy, lambda _: kept),),
        )
    elif is_proxy(proxy.words) and (new := _corrected(setup, proxy)):
        yield Fault(
            "command-line",
            proxy.where,
            f"the command line is invalid, so all mail is deferred (451): {proxy.error}",
            (fixes.set_arguments(proxy, lambda _: new),),
        )
    elif quoted := _quoted(proxy):
        place = "braces" if proxy.service else "quotes"
        yield Fault(
            "braces",
            proxy.where,
            f"the filter command (-c) contains spaces and must be enclosed in {place}; the proxy "
            f"rejects its command line, so all mail is deferred (451): {proxy.error}",
            (fixes.set_arguments(proxy, lambda _: quoted),),
        )
    else:
        yield Fault(
            "command-line",
            proxy.where,
            f"the command line is invalid, so all mail is deferred (451): {proxy.error}",
            _shortened(proxy),
        )


def _with_earlier_lines(proxy: Proxy) -> list[str]:
    """Return the arguments with the earlier values of $POSTPROX_OPTIONS in the options file.

    The result is empty if the options file sets POSTPROX_OPTIONS only once, or if the arguments
    would still be invalid.
    """
    name = environment.OPTIONS
    spellings = (f"${name}", f"${{{name}}}")
    words = list(arguments(proxy.words)) if is_proxy(proxy.words) else []
    earlier = proxy.unit.assignments.earlier.get(name, []) if proxy.unit else []
    if not earlier or name in earlier[0] or not {*words} & {*spellings}:
        return []
    for text in reversed(earlier):
        try:
            values = split_words(text)
        except ValueError:
            return []
        words = [each for word in words for each in (values if word in spellings else [word])]
    return words if correction.is_accepted(words) else []


def _variables(proxy: Proxy) -> list[str]:
    """Return a spawned proxy's arguments that are variables of the packaged systemd unit."""
    pattern = re.compile(rf"\$\{{?({environment.OPTIONS}|{environment.UPSTREAM})\}}?")
    words = arguments(proxy.words) if proxy.service and is_proxy(proxy.words) else ()
    return [word for word in words if pattern.fullmatch(word)]


def _without_shell_syntax(proxy: Proxy) -> list[str]:
    """Return the arguments before the first shell comment, redirection or operator.

    The result is empty if there is no such argument, or if the arguments before it are invalid.
    """
    words = list(arguments(proxy.words)) if is_proxy(proxy.words) else []
    for index, word in enumerate(words):
        if re.match(r"#|;$|&|\|$|\|\|$|[0-9&]?>", word):
            return words[:index] if correction.is_accepted(words[:index]) else []
    return []


def target(setup: Setup, proxy: Proxy, wanted: Options) -> Iterator[Fault]:
    """Report a HOST:PORT whose host cannot exist, such as `127.0.0.1;10026` or `10026`."""
    given = wanted.target
    if given.path or correction.is_host(given.host):
        return
    yield Fault(
        "command-line",
        proxy.where,
        f"HOST:PORT {given.text!r} needs a valid host, such as 127.0.0.1; the proxy cannot reach "
        "the upstream server, so all mail is deferred (451)",
        (fixes.send_to(proxy, correction.address(given.text) or _target(setup, proxy)),),
    )


def _target(setup: Setup, proxy: Proxy) -> str:
    """Return the address of the recipe's service for filtered mail."""
    behind = setup.place_for_filtered(proxy)
    return behind.name if behind and ":" in behind.name else "127.0.0.1:10026"


def _corrected(setup: Setup, proxy: Proxy) -> list[str]:
    """Return the arguments without typing errors, or [] if the intended arguments are unknown."""
    words = list(arguments(proxy.words))
    if "-l [IP:]PORT is missing" in proxy.error:
        words = ["-l", "10025", "--foreground", *words]
    return correction.corrected(words, _target(setup, proxy))


def _quoted(proxy: Proxy) -> list[str]:
    """Return the arguments with the whole filter command quoted as one word, or []."""
    if not is_proxy(proxy.words) or proxy.options is not None:
        return []
    return correction.quoted_filter(correction.plain(arguments(proxy.words)))


def _shortened(proxy: Proxy) -> tuple[Edit, ...]:
    """Return the edit that removes the words that the proxy rejects, or no edit."""
    if not is_proxy(proxy.words):
        return (fixes.run("postprox --help"),)
    kept = next(correction.without_named_word(arguments(proxy.words), proxy.error), None)
    return (fixes.set_arguments(proxy, lambda _: kept or []),) if kept else ()


def equals(proxy: Proxy, wanted: Options) -> Iterator[Fault]:
    """Report an equals sign between a short option and its value, such as `-c=/filter`."""
    for option, value, is_filter in (
        ("-c", wanted.command or "", True),
        ("-d", wanted.directory, False),
    ):
        if value.startswith("="):
            lost = "the filter cannot run" if is_filter else "the directory does not exist"
            yield Fault(
                "command-line",
                proxy.where,
                f"the equals sign in {option}{value} is part of the value; {lost}, so all mail is "
                "deferred (451) or passes unfiltered",
                (fixes.set_arguments(proxy, correction.without_equals),),
            )


def braces(proxy: Proxy, wanted: Options) -> Iterator[Fault]:
    """Report braces that have become part of the filter command."""
    found = re.fullmatch(r"\s*\{\s*(/.*?)\s*\}\s*", wanted.command or "")
    if found:
        yield Fault(
            "braces",
            proxy.where,
            f"the braces around {found[1]} in -c are part of the command; the filter cannot run",
            (set_filter(proxy, wanted, found[1]),),
        )


def set_filter(proxy: Proxy, wanted: Options, command: str) -> Edit:
    """Replace the filter command for every spelling of `-c`."""
    old = wanted.command or ""
    return fixes.set_arguments(
        proxy, lambda words: [re.sub(f"{re.escape(old)}$", lambda _: command, w) for w in words]
    )


def _is_refused(proxy: Proxy) -> bool:
    """Return whether spawn(8) refuses the proxy's user."""
    return proxy.service is not None and (not proxy.user or proxy.user in _REFUSED_USERS)


def _future_user(proxy: Proxy) -> str:
    """Return the proxy's user after the commands of the finding `user` have been run."""
    return _OWN_USER if _is_refused(proxy) else proxy.user


def user(proxy: Proxy, facts: ProxyFacts) -> Iterator[Fault]:
    """Report a missing, unknown or forbidden user."""
    if proxy.service and _is_refused(proxy):
        user_is = f"cannot be {proxy.user}" if proxy.user else "is missing"
        yield Fault(
            "user",
            proxy.where,
            f"user= for spawn(8) {user_is}; the proxy cannot start, so all mail is deferred (451)",
            (
                *([] if facts.has_own_user else [fixes.add_user(_OWN_USER)]),
                fixes.set_user(proxy.service, _OWN_USER),
            ),
        )
    elif proxy.unit and proxy.user == "root":
        edits: tuple[Edit, ...] = (fixes.set_setting(proxy.unit, "User", _OWN_USER),)
        if not proxy.unit.dynamic_user and not facts.has_own_user:
            edits = (fixes.add_user(_OWN_USER), *edits)
        yield Fault(
            "root",
            proxy.where,
            "the proxy and the filter run as root; a mistake in a program that reads mail gives "
            f"senders control of the machine; run them as {_OWN_USER}",
            edits,
        )
    elif not facts.user_exists:
        yield Fault(
            "user",
            proxy.where,
            f"user {proxy.user} does not exist; the proxy cannot start, so all mail is deferred "
            "(451)",
            (fixes.add_user(proxy.user), *_inherited_spool(proxy, facts)),
        )


def _inherited_spool(proxy: Proxy, facts: ProxyFacts) -> tuple[Edit, ...]:
    """Return the edit that gives the message directory of an earlier user to the new user."""
    seen, wanted = facts.spool, proxy.options
    if seen is None or wanted is None or not seen.exists or _is_shared(wanted, seen):
        return ()
    return (fixes.make_spool(proxy.user, wanted.directory),)


def group(proxy: Proxy, facts: ProxyFacts) -> Iterator[Fault]:
    """Report a primary group with which spawn(8) does not run a program."""
    if facts.has_group_of_postfix and proxy.user not in _REFUSED_USERS:
        name = shlex.quote(proxy.user)
        yield Fault(
            "user",
            proxy.where,
            f"the primary group of user {proxy.user} is the group of Postfix or of root, which "
            "spawn(8) refuses; the proxy cannot start, so all mail is deferred (451)",
            (
                fixes.run(f"getent group {name} > /dev/null || groupadd --system {name}"),
                fixes.run(f"usermod -g {name} {name}"),
            ),
        )


def columns(proxy: Proxy) -> Iterator[Fault]:
    """Report master.cf columns that prevent spawn(8) from starting the proxy."""
    service = proxy.service
    if service is None:
        return
    wrong = [
        *(["private"] if service.type == "inet" and service.private != "n" else []),
        *(["unprivileged"] if service.unprivileged != "n" else []),
        *(["chroot"] if service.is_chrooted() else []),
    ]
    if wrong:
        yield Fault(
            "columns",
            proxy.where,
            f"{', '.join(wrong)} must be n in master.cf; spawn(8) cannot start the proxy, so all "
            "mail is deferred (451)",
            tuple(fixes.set_field(service, name, "n") for name in wrong),
        )


def program(setup: Setup, proxy: Proxy, facts: ProxyFacts) -> Iterator[Fault]:
    """Report a proxy program that is missing or that the proxy's user cannot execute."""
    seen = facts.program
    effect = "all mail is deferred (451)"
    other, hint = setup.program, ""
    if is_home(seen.path) and not other:
        other, hint = _OWN_PROGRAM, f"; install postprox as {_OWN_PROGRAM} first"
    other = "" if other == seen.path else other
    setting = sandbox.hiding_setting(proxy.unit, seen.path) if proxy.unit else ""
    if proxy.unit and setting:
        edit = fixes.show(proxy.unit, setting)
        if other and is_home(seen.path):
            edit = fixes.set_program_path(proxy, other)
        problem = f"the unit hides {seen.path} ({setting})"
        yield Fault("program", proxy.where, f"{problem}; {effect}{hint}", (edit,))
    for problem, edit in cannot_run(seen, proxy.user):
        if other and (not seen.exists or is_home(seen.closed_directory)):
            edit = fixes.set_program_path(proxy, other)  # noqa: PLW2901
        yield Fault("program", proxy.where, f"{problem}; {effect}{hint}", (edit,))
    if closed := facts.closed_library:
        # A directory such as /usr/local/lib also contains files of other packages.
        mode = "-R a+rX" if "/postprox" in closed else "a+x"
        yield Fault(
            "program",
            proxy.where,
            f"user {proxy.user} cannot read {closed}, which {seen.path} requires; {effect}",
            (fixes.run(f"chmod {mode} {shlex.quote(closed)}"),) if not is_home(closed) else (),
        )


def cannot_run(seen: ProgramFacts, name: str) -> Iterator[tuple[str, Edit]]:
    """Yield the reason why a user cannot execute a program, and the suggested edit."""
    path = shlex.quote(seen.path)
    if seen.closed_directory:
        yield (
            f"user {name} cannot enter {seen.closed_directory}, which contains {_named(seen)}",
            _opened(seen.closed_directory),
        )
    elif not seen.exists:
        yield f"{_named(seen)} does not exist", fixes.run(f"ls -l {path}")
    elif seen.is_directory:
        yield f"{seen.path} is a directory", fixes.run(f"ls -l {path}")
    elif seen.has_noexec:
        edit = fixes.run(
            f'mount -o remount,exec "$(findmnt -n -o TARGET -T {path})"; '
            f'sed -E -i "\\|^[^#]\\S*\\s+$(findmnt -n -o TARGET -T {path})\\s|'
            's/,noexec\\b|\\bnoexec,//" /etc/fstab'
        )
        yield f"the file system of {seen.path} is mounted with noexec", edit
    elif seen.executable is False:
        yield f"user {name} cannot execute {seen.path}", fixes.run(f"chmod a+rx {path}")
    elif seen.readable is False:
        yield f"user {name} cannot read the script {seen.path}", fixes.run(f"chmod a+rx {path}")


def _named(seen: ProgramFacts) -> str:
    """Return the path, and its target if it contains a symbolic link."""
    is_below_closed = f"{seen.path}/".startswith(f"{seen.closed_directory.rstrip('/')}/")
    if not seen.real or (seen.closed_directory and is_below_closed):
        return seen.path
    return f"{seen.real} (the target of the link {seen.path})"


def _opened(directory: str) -> Edit:
    return fixes.run(f"chmod a+x {shlex.quote(directory)}")


def is_home(directory: str) -> bool:
    """Return whether a directory is in /root or /home and must remain private."""
    return f"{directory}/".startswith(("/root/", "/home/"))


def no_reject(proxy: Proxy, wanted: Options) -> Iterator[Fault]:
    """Report a proxy that passes mail unfiltered if the filter fails."""
    if wanted.command is not None and not wanted.reject:
        yield Fault(
            "no-reject",
            proxy.where,
            "-r is missing; if the filter fails, mail passes unfiltered",
            (fixes.add_arguments(proxy, "--strict"),),
        )


def no_strict(proxy: Proxy, wanted: Options) -> Iterator[Fault]:
    """Report a proxy that rejects mail if the filter crashes."""
    if wanted.command is not None and wanted.reject and not wanted.strict:
        yield Fault(
            "no-strict",
            proxy.where,
            "--strict is missing; if the filter crashes with exit status 1, mail is rejected",
            (fixes.add_arguments(proxy, "--strict"),),
        )


def no_upstream(setup: Setup, proxy: Proxy, wanted: Options, facts: ProxyFacts) -> Iterator[Fault]:
    """Report a missing upstream server."""
    endpoint = target_endpoint(wanted.target)
    if facts.is_upstream_unknown and not list(target(setup, proxy, wanted)):
        text = wanted.target.text
        local = f"127.0.0.1:{endpoint.port}"
        edit = fixes.run(f"getent hosts {shlex.quote(endpoint.host)}")
        yield Fault(
            "no-upstream",
            proxy.where,
            f"the host name in {text}, the proxy's upstream address, has no IP address; all mail "
            "is deferred (451)",
            (fixes.send_to(proxy, local) if text.startswith("localhost") else edit,),
        )
        return
    if addresses := _wrong_localhost(setup, proxy, endpoint):
        yield Fault(
            "no-upstream",
            proxy.where,
            f"/etc/hosts gives localhost the address {addresses}, but the server behind the proxy "
            f"listens on 127.0.0.1:{endpoint.port}; all mail is deferred (451)",
            (fixes.send_to(proxy, f"127.0.0.1:{endpoint.port}"),),
        )
        return
    is_proxy = any(each.is_at(endpoint) for each in setup.proxies)  # that proxy may be stopped
    if facts.upstream_missing and not is_proxy:
        address, reason = wanted.target.text, _elsewhere(setup, endpoint)
        other = setup.place_for_filtered(proxy)
        edits = sent_to(setup, proxy, other) if other else (add_service(setup, proxy, address),)
        yield Fault(
            "no-upstream",
            proxy.where,
            f"no server listens on {address}, the proxy's upstream address{reason}; all mail is "
            "deferred (451)",
            edits,
        )


def _wrong_localhost(setup: Setup, proxy: Proxy, endpoint: Endpoint) -> str:
    """Return the addresses of localhost if the upstream server listens on none of them, or ""."""
    addresses = setup.configuration.hosts.get("localhost", ())
    service = upstream(setup.configuration, proxy)
    place = setup.endpoint_of(service) if service else None
    if endpoint.host != "localhost" or place is None or place.host != "127.0.0.1":
        return ""
    return "" if any(each.startswith("127.") for each in addresses) else " and ".join(addresses)


def _elsewhere(setup: Setup, endpoint: Endpoint) -> str:
    """Return an explanation if inet_interfaces gives a service with this port another address."""
    for service in setup.configuration.services:
        other = setup.endpoint_of(service)
        if other and service.name.isdigit() and other.port == endpoint.port and other.host:
            interfaces = service.parameter("inet_interfaces")
            return (
                f", because {service.label} in master.cf has no address and listens only on those "
                f"in inet_interfaces ({interfaces})"
            )
    return ""


def unexpanded_spool(proxy: Proxy, wanted: Options) -> Iterator[Fault]:
    """Report a message directory whose name is a variable."""
    if wanted.directory.startswith("$"):
        yield Fault(
            "spool",
            proxy.where,
            f"{wanted.directory} is not expanded, so the directory for messages does not exist; "
            "all mail is deferred (452)",
            _own_spool(proxy),
        )


def spool(  # noqa: C901
    proxy: Proxy, wanted: Options, facts: ProxyFacts
) -> Iterator[Fault]:
    """Report a message directory that is missing or that the proxy's user cannot write to."""
    seen = facts.spool
    name = f"{wanted.directory}, the directory for messages"
    if _is_relative(proxy, wanted):
        name += " (relative to Postfix's queue directory)"
    if proxy.unit and (setting := sandbox.hiding_setting(proxy.unit, wanted.directory)):
        directory = "/tmp" if proxy.unit.private_tmp else _OWN_SPOOL  # noqa: S108
        problem = f"the unit hides {name} ({setting})"
        edits: tuple[Edit, ...] = (fixes.set_directory(proxy, directory),)
    elif seen is None or wanted.directory.startswith("$"):
        return
    elif seen.is_file:
        problem = f"{name}, is not a directory"
        edits = (fixes.run(f"ls -ld {shlex.quote(wanted.directory)}"),)
    elif seen.closing_unit or seen.is_read_only:
        problem, edits = _read_only(wanted, seen, name)
    elif _is_closed(proxy, seen):
        problem = "" if seen.exists else f"{name}, does not exist"
        problem = problem or f"user {_future_user(proxy)} cannot write to {name}"
        edits = _private_spool(proxy, wanted, seen)
        if seen.exists and proxy.service and seen.owner == _OWN_USER != proxy.user:
            problem = f"{problem}, which belongs to user {_OWN_USER}"
            edits = (fixes.set_user(proxy.service, _OWN_USER),)
    elif seen.closed_directory:
        problem = f"user {proxy.user} cannot enter {seen.closed_directory}, which contains {name}"
        edits = (_opened(seen.closed_directory),)
        if is_home(seen.closed_directory) and seen.is_link and not is_home(wanted.directory):
            path = shlex.quote(wanted.directory)
            remove = fixes.run(f"test ! -L {path} || rm {path}")
            edits = remove, fixes.make_spool(proxy.user, wanted.directory)
        elif is_home(seen.closed_directory):
            edits = _own_spool(proxy)
    elif proxy.unit and (setting := sandbox.protecting_setting(proxy.unit, wanted.directory)):
        problem = f"the unit cannot write to {name} ({setting})"
        edits = (fixes.add_path(proxy.unit, "ReadWritePaths", wanted.directory),)
    else:
        return
    yield Fault("spool", proxy.where, f"{problem}; all mail is deferred (452)", edits)


def _read_only(wanted: Options, seen: SpoolFacts, name: str) -> tuple[str, tuple[Edit, ...]]:
    """Return the problem with a read-only directory, and the edits that correct it."""
    directory = shlex.quote(wanted.directory)
    if not seen.closing_unit:
        command = f'mount -o remount,rw "$(findmnt -n -o TARGET -T {directory})"'
        return f"{name}, is on a file system that is mounted read-only", (fixes.run(command),)
    folder = f"/etc/systemd/system/{seen.closing_unit}.d"
    line = shlex.quote(f"ReadWritePaths={wanted.directory}")
    commands = (
        f"mkdir -p {folder}",
        f"printf '%s\\n' '[Service]' {line} > {folder}/zz-postprox-check.conf",
        "systemctl daemon-reload; systemctl restart postfix",
    )
    problem = f"{seen.closing_unit} forbids Postfix and the proxy to write to {name}"
    return problem, tuple(map(fixes.run, commands))


def _is_closed(proxy: Proxy, seen: SpoolFacts) -> bool:
    """Return whether the directory is missing or the proxy's user cannot write to it.

    If spawn(8) refuses the proxy's user, check the recipe's user instead.
    """
    if seen.exists and _is_refused(proxy):
        return seen.owner != _OWN_USER and not seen.mode & 0o002
    return not seen.exists or (seen.writable is False and not seen.closed_directory)


def _is_relative(proxy: Proxy, wanted: Options) -> bool:
    """Return whether the directory depends on the working directory, which spawn(8) sets."""
    return proxy.service is not None and not wanted.directory.startswith("/")


def _is_shared(wanted: Options, seen: SpoolFacts) -> bool:
    """Return whether other programs would lose access if only the proxy could use the directory."""
    is_used = bool(seen.mode & _STICKY) or seen.has_foreign_files
    return is_used and (seen.is_link or wanted.directory != _OWN_SPOOL)


def _private_spool(proxy: Proxy, wanted: Options, seen: SpoolFacts) -> tuple[Edit, ...]:
    """Return the edits that give the proxy a directory that only its user can access."""
    is_dangling = seen.is_link and not seen.exists
    if _is_relative(proxy, wanted):
        return _own_spool(proxy)
    if not _is_shared(wanted, seen) and not is_dangling:
        return (fixes.make_spool(_future_user(proxy), wanted.directory), *_at_boot(proxy, wanted))
    if seen.is_link:
        # install(1) follows symbolic links, so it would change the shared directory.
        path = shlex.quote(wanted.directory)
        remove = fixes.run(f"test ! -L {path} || rm {path}")
        return remove, fixes.make_spool(_future_user(proxy), wanted.directory)
    return _own_spool(proxy)


def _own_spool(proxy: Proxy) -> tuple[Edit, ...]:
    """Return the edits that create the recipe's spool directory and let the proxy use it."""
    create = fixes.make_spool(_future_user(proxy), _OWN_SPOOL)
    move = fixes.set_directory(proxy, _OWN_SPOOL)
    if proxy.unit and sandbox.protecting_setting(proxy.unit, _OWN_SPOOL):
        return create, move, fixes.add_path(proxy.unit, "ReadWritePaths", _OWN_SPOOL)
    return create, move


def status_files(proxy: Proxy, wanted: Options, facts: ProxyFacts) -> Iterator[Fault]:
    """Report a --metrics or --pid-file file that the unit or its user cannot write to."""
    unit = proxy.unit
    for option, path in (("--metrics", wanted.metrics), ("--pid-file", wanted.pid_file)):
        if unit is None or not path or not unit.path:
            continue
        directory = path.rpartition("/")[0] or "/"
        seen = facts.status_directories.get(directory, DirectoryFacts(exists=True))
        hiding = sandbox.hiding_setting(unit, directory)
        setting = hiding or sandbox.protecting_setting(unit, directory)
        if setting:
            writers = "the unit and its user" if seen.writable is False else "the unit"
            problem = f"{writers} cannot write to {path} ({option}, {setting})"
        elif not seen.exists:
            problem = f"the directory of {path} ({option}) does not exist"
        elif seen.writable is False:
            problem = f"user {proxy.user} cannot write to {path} ({option})"
        else:
            continue
        problem += f"; {_STATUS_FILES[option][1]}"
        edits = _writable(proxy, directory, facts)
        is_foreign = bool(hiding) or directory in ("/run", "/var/run") or not edits
        if name := _runtime_name(proxy, directory, seen):
            edits = [fixes.add_path(unit, "RuntimeDirectory", name)]
            if "@" in unit.name:
                # Without this setting, an instance that stops removes the other instances' files.
                edits.append(fixes.set_setting(unit, "RuntimeDirectoryPreserve", "yes"))
        elif is_foreign and unit.paths("RuntimeDirectory"):
            yield _in_runtime_directory(proxy, option, path, problem)
            continue
        elif setting:
            edits = [*edits, fixes.add_path(unit, "ReadWritePaths", directory)]
        shown = [fixes.run(f"ls -ld {shlex.quote(directory)}")]
        yield Fault(_STATUS_FILES[option][0], proxy.where, problem, tuple(edits or shown))


def _runtime_name(proxy: Proxy, directory: str, seen: DirectoryFacts) -> str:
    """Return the value of RuntimeDirectory= for a directory below /run, or "".

    /run is empty after each boot, so systemd must create the directory. systemd would also change
    the owner of another program's directory.
    """
    parent = next((each for each in ("/run/", "/var/run/") if directory.startswith(each)), "")
    is_own = not seen.exists or seen.owner == proxy.user
    return directory.removeprefix(parent) if parent and is_own else ""


def _writable(proxy: Proxy, directory: str, facts: ProxyFacts) -> list[Edit]:
    """Return the edits that permit the proxy's user to write to a directory.

    Return no edits if the directory should not belong to the proxy's user.
    """
    seen = facts.status_directories.get(directory, DirectoryFacts(exists=True))
    if facts.is_user_temporary:
        return []
    if seen.writable is not False:
        return [fixes.run(_make_directory(proxy.user, directory))]
    # If root owns a collector's directory, its other writers run as root, so a new owner does not
    # affect them.
    if seen.owner == "root" and _COLLECTOR.search(directory):
        return [fixes.run(f"chown {shlex.quote(proxy.user)} {shlex.quote(directory)}")]
    return []


def _in_runtime_directory(proxy: Proxy, option: str, path: str, problem: str) -> Fault:
    """Report a status file that is written to the unit's own directory instead."""
    unit = proxy.unit or Unit("")
    name = unit.paths("RuntimeDirectory")[0].replace("%N", unit.name.removesuffix(".service"))
    new = f"/run/{name}/{path.rpartition('/')[2]}"
    hint = ", which the collector must then read" if option == "--metrics" else ""
    return Fault(
        _STATUS_FILES[option][0],
        proxy.where,
        f"{problem}; the unit's own directory is /run/{name}{hint}",
        (
            fixes.set_arguments(
                proxy,
                lambda words: [
                    word.removesuffix(path) + new if word in (path, f"{option}={path}") else word
                    for word in words
                ],
            ),
        ),
    )


def _make_directory(user: str, directory: str) -> str:
    """Return the command that creates a directory unless it exists."""
    name, path = shlex.quote(user or "postprox"), shlex.quote(directory)
    return f"test -d {path} || install -d -o {name} -m 0755 {path}"


def spool_open(proxy: Proxy, wanted: Options, facts: ProxyFacts) -> Iterator[Fault]:
    """Report a message directory that other users can read."""
    seen = facts.spool
    if seen is None or not seen.exists or not seen.mode & _OTHERS:
        return
    edits: tuple[Edit, ...] = (fixes.run(f"chmod 0700 {shlex.quote(wanted.directory)}"),)
    if _is_shared(wanted, seen):
        edits = _private_spool(proxy, wanted, seen)
    yield Fault(
        "spool-open",
        proxy.where,
        f"{wanted.directory}, the directory for messages, is open to other users "
        f"(mode {seen.mode:04o})",
        edits,
    )


def spool_boot(proxy: Proxy, wanted: Options, facts: ProxyFacts) -> Iterator[Fault]:
    """Report a message directory that the proxy cannot use after the next boot."""
    seen, own = facts.spool, "/etc/tmpfiles.d/"
    if seen is None or not seen.exists or not proxy.user:
        return
    # A tmpfiles.d line must not make the proxy the owner of a shared directory such as /tmp
    # (`spool_open`).
    if not wanted.directory.startswith("/") or _is_shared(wanted, seen):
        return
    name = f"{wanted.directory}, the directory for messages,"
    words = [*seen.boot_line.split(), *["-"] * 6][:6]
    owner = "root" if words[3] == "-" else words[3]
    is_kept = owner == proxy.user or re.match("[:0-9]|.*%", owner)
    edit = _boot_edit(proxy, wanted, words[5])
    if seen.boot_line and not is_kept:
        problem = f"systemd-tmpfiles(8) gives {name} to {owner} at each boot ({seen.boot_file})"
        edit = _corrected_line(proxy, seen) if seen.boot_file.startswith(own) else edit
    elif seen.lost_by.endswith(".conf"):
        problem = f"systemd-tmpfiles(8) removes {name} at each boot ({seen.lost_by})"
    elif seen.lost_by.endswith("fstab"):
        problem = f"{name} is an empty file system owned by root after each boot ({seen.lost_by})"
    elif seen.lost_by:
        problem = f"{name} is below {seen.lost_by}, which is empty after each boot"
    else:
        return
    yield Fault(
        "spool-boot",
        proxy.where,
        f"{problem}; after that, all mail is deferred (452)",
        (edit,),
    )


def _corrected_line(proxy: Proxy, seen: SpoolFacts) -> Edit:
    """Return a command that corrects the owner and mode in a line of tmpfiles.d(5)."""
    kind, path, *rest = seen.boot_line.split()
    words = [kind, path, "0700", proxy.user, proxy.group or proxy.user, *rest[3:]]
    old = re.sub(r"[][\\.*^$|]", r"\\\g<0>", seen.boot_line)
    new = re.sub(r"[\\&|]", r"\\\g<0>", " ".join(words))
    return fixes.run(f"sed -i {shlex.quote(f's|^{old}$|{new}|')} {shlex.quote(seen.boot_file)}")


def _boot_edit(proxy: Proxy, wanted: Options, age: str) -> Edit:
    """Return a command that lets systemd-tmpfiles(8) create the message directory at each boot."""
    line = f"d {wanted.directory} 0700 {proxy.user} {proxy.group or proxy.user} {age}"
    # If several lines name the same path, systemd-tmpfiles(8) uses the one from the file whose
    # name sorts first.
    file = shlex.quote(f"/etc/tmpfiles.d/00{wanted.directory.rstrip('/').replace('/', '-')}.conf")
    return fixes.run(f"mkdir -p /etc/tmpfiles.d; echo {shlex.quote(line)} > {file}")


def _at_boot(proxy: Proxy, wanted: Options) -> tuple[Edit, ...]:
    """Return the edit that recreates a message directory below /run at each boot."""
    is_below_run = sandbox.is_below(wanted.directory, ("/run", "/var/run", "/dev/shm"))  # noqa: S108
    return (_boot_edit(proxy, wanted, "-"),) if is_below_run and proxy.user else ()


def spool_full(setup: Setup, proxy: Proxy, wanted: Options, facts: ProxyFacts) -> Iterator[Fault]:
    """Report a message directory without enough space for the largest message."""
    seen = facts.spool
    largest = setup.configuration.number("message_size_limit")
    if seen is None or not seen.exists or (seen.free >= max(largest, 1) and seen.free_files):
        return
    directory = shlex.quote(wanted.directory)
    edits = [fixes.run(f"df -h {directory}; df -i {directory}")]
    if seen.is_tmpfs and seen.free_files:
        size = f"{_SESSIONS * _COPIES * max(largest, 1) // 2**20 + 1}m"
        pattern = rf"^([^#]\S*\s+{re.escape(wanted.directory)}\s+tmpfs\s+.*)\bsize=[^, \t]*"
        edits = [
            fixes.run(f"mount -o remount,size={size} {directory}"),
            fixes.run(f"sed -E -i {shlex.quote(f's|{pattern}|{chr(92)}1size={size}|')} /etc/fstab"),
        ]
    yield Fault(
        "spool-full",
        proxy.where,
        f"{wanted.directory} has only {seen.free} octets and {seen.free_files} inodes free, too "
        f"few for a message of {largest} octets (message_size_limit); mail is deferred (452)",
        tuple(edits),
    )
