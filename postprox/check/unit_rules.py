"""Problems with a unit's settings that prevent systemd from running the proxy as intended.

Rule: each check is a pure function.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import shlex
from collections.abc import Iterator, Sequence

from ..core.options import Options, parse
from . import correction, environment, fixes, sandbox
from .facts import ProxyFacts
from .findings import Fault
from .fixes import Edit
from .routes import Proxy, arguments
from .scripts import shell_command
from .setup import Setup
from .unit import Ignored, Unit, expanded_words

#: Settings that prevent the service from working, each with the wrong values, the correct value and
#: the effect.
_STOPPING = (
    ("Type", ("forking", "oneshot", "dbus"), "notify", "systemd considers the service failed"),
    ("RemainAfterExit", ("1", "yes", "true", "on"), "no", "systemd does not restart the service"),
    ("RootDirectory", None, "", "the proxy's programs do not exist there"),
    ("RootImage", None, "", "the proxy's programs do not exist there"),
)
#: The symbolic networks of systemd.resource-control(5).
_NETWORKS = {
    "any": ("0.0.0.0/0", "::/0"),
    "localhost": ("127.0.0.0/8", "::1/128"),
    "link-local": ("169.254.0.0/16", "fe80::/64"),
}
#: The groups of system calls that the proxy and its filter need (`systemd-analyze syscall-filter`),
#: and some of the calls in each group.
_CALL_GROUPS = ("@basic-io", "@file-system", "@io-event", "@network-io", "@process", "@signal")
_CALLS = (
    *("accept4", "bind", "clone", "clone3", "connect", "execve", "fork", "kill", "openat", "read"),
    *("recvfrom", "sendto", "socket", "unlink", "vfork", "wait4", "write"),
)
#: The minimum similarity to a variable at which a name is probably a misspelling of it.
_SIMILAR = 0.75
_ALL_CALLS = ("@default", "@system-service", "@known")


def hiding(proxy: Proxy, wanted: Options, facts: ProxyFacts) -> Iterator[Fault]:
    """Report an old unit without a usable filter that hides another unit of the same name."""
    unit, seen = proxy.unit, facts.filter
    if unit is None or not unit.hidden_path or seen is None or seen.sought_name:
        return
    program = seen.missing_command.program if seen.missing_command else ""
    is_scanner = program in shell_command.SCANNERS
    if seen.exists and not is_scanner:
        return
    missing = f"requires {program}, which does not exist" if is_scanner else "does not exist"
    path = shlex.quote(unit.path)
    yield Fault(
        "filter",
        unit.name,
        f"{unit.path} hides {unit.hidden_path}, and its filter {seen.path} {missing}; all "
        f"mail {'is deferred' if wanted.reject else 'passes unfiltered'}",
        (
            fixes.run(f"mv {path} {path}.old"),
            fixes.run(f"systemctl daemon-reload; systemctl restart {unit.name}"),
        ),
    )


def settings(proxy: Proxy) -> Iterator[Fault]:
    """Report settings that prevent the service from working."""
    unit = proxy.unit
    if unit is None:
        return
    for name, wrong, right, effect in _STOPPING:
        value = unit.setting(name)
        if value and value != "/" and (wrong is None or value in wrong):
            yield Fault(
                "unit-setting",
                proxy.where,
                f"{name}={value}: {effect}; all mail is deferred (451)",
                (fixes.set_setting(unit, name, right),),
            )
    if unit.socket and (unit.socket.accept or not unit.socket.listen):
        name, right = ("Accept", "no") if unit.socket.accept else ("ListenStream", _stream(proxy))
        yield Fault(
            "unit-setting",
            unit.socket.name,
            f"{name} of the socket is wrong; systemd does not pass a listening TCP socket to the "
            "proxy, so all mail is deferred (451)",
            (fixes.set_setting(unit.socket, name, right),),
        )


def families(proxy: Proxy) -> Iterator[Fault]:
    """Report a unit that forbids the address families for TCP or for notifications to systemd."""
    unit = proxy.unit
    texts = unit.settings.get("RestrictAddressFamilies", []) if unit else []
    if unit is None or not texts:
        return
    allowed, denied = _allowed(texts)
    needed: dict[str, tuple[str, ...]] = {"TCP": ("AF_INET", "AF_INET6")}
    if unit.setting("Type") == "notify" or unit.setting("WatchdogSec"):
        needed["notifications for systemd"] = ("AF_UNIX",)
    for use, names in needed.items():
        if any((n in allowed) if allowed is not None else (n not in denied) for n in names):
            continue
        kept = sorted(allowed or []) if allowed is not None else []
        new = " ".join(dict.fromkeys([*kept, "AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"]))
        yield Fault(
            "unit-setting",
            proxy.where,
            f"RestrictAddressFamilies={' '.join(texts)}: the proxy cannot use {use}; all mail is "
            "deferred (451)",
            (fixes.set_setting(unit, "RestrictAddressFamilies", new),),
        )
        return


def _allowed(texts: Sequence[str]) -> tuple[set[str] | None, set[str]]:
    """Return the allowed items of a list setting (None if all are allowed) and the denied items.

    The first value of the setting determines whether the list allows or denies.
    """
    if texts[0].startswith("~"):
        denied: set[str] = set()
        for text in texts:
            items = set(text.lstrip("~").split())
            denied = denied | items if text.startswith("~") else denied - items
        return None, denied
    allowed: set[str] = set()
    for text in texts:
        items = set(text.lstrip("~").split()) - {"none"}
        allowed = allowed - items if text.startswith("~") else allowed | items
    return allowed, set()


def system_calls(proxy: Proxy) -> Iterator[Fault]:
    """Report a SystemCallFilter= with which the kernel kills the proxy or its filter."""
    unit = proxy.unit
    texts = unit.settings.get("SystemCallFilter", []) if unit else []
    if unit is None or not texts:
        return
    refused = " ".join(text[1:] for text in texts if text.startswith("~"))
    removed = {item.partition(":")[0] for item in refused.split()}
    added = {item for text in texts if not text.startswith("~") for item in text.split()}
    missing = sorted(removed & {*_CALL_GROUPS, *_CALLS, *_ALL_CALLS})
    if not texts[0].startswith("~") and not added & {*_ALL_CALLS}:
        # If the list names individual system calls, they may include all calls of a missing group.
        is_known = all(item.startswith("@") for item in added)
        missing += [name for name in _CALL_GROUPS if name not in added] if is_known else []
    if missing:
        yield Fault(
            "unit-setting",
            proxy.where,
            f"SystemCallFilter={' '.join(texts)}: the kernel kills the proxy or its filter, "
            f"because they need {missing[0]}; all mail is deferred (451)",
            (fixes.set_setting(unit, "SystemCallFilter", "@system-service"),),
        )


def executable_paths(proxy: Proxy, facts: ProxyFacts) -> Iterator[Fault]:
    """Report a unit that cannot execute the proxy, the filter, its interpreter or the shell."""
    unit = proxy.unit
    seen = facts.filter
    paths = [facts.program.path, "/bin/sh", "/usr/bin/sh"]
    paths += [seen.path, seen.interpreter] if seen else []
    for path in filter(None, paths):
        if unit and (setting := sandbox.forbidding_setting(unit, path)):
            yield Fault(
                "unit-setting",
                proxy.where,
                f"{setting}={' '.join(unit.settings[setting])}: the unit cannot execute {path}; "
                "all mail is deferred (451) or passes unfiltered",
                (fixes.set_setting(unit, setting, ""),),
            )
            return


def working_directory(proxy: Proxy, facts: ProxyFacts) -> Iterator[Fault]:
    """Report a working directory that the proxy's user cannot enter."""
    unit = proxy.unit
    path = unit.setting("WorkingDirectory") if unit else ""
    if unit is None or not path or path.startswith("-"):
        return
    hiding = sandbox.hiding_setting(unit, path) if path.startswith("/") else ""
    if not path.startswith(("/", "~", "%")):
        problem = "must be an absolute path"
    elif hiding:
        problem = f"the unit hides the directory ({hiding})"
    elif facts.closed_working_directory:
        problem = f"user {proxy.user} cannot enter {facts.closed_working_directory}"
    else:
        return
    yield Fault(
        "failing",
        proxy.where,
        f"WorkingDirectory={path}: {problem}, so systemd does not start the service; all mail is "
        "deferred (451)",
        (fixes.set_setting(unit, "WorkingDirectory", ""),),
    )


def ignored(proxy: Proxy) -> Iterator[Fault]:
    """Report lines and drop-ins that systemd ignores."""
    unit = proxy.unit
    for each in unit.ignored if unit else ():
        yield Fault(
            "unit-ignored",
            proxy.where,
            f"systemd ignores part of the configuration: {each.line or 'the file'} in "
            f"{each.path} {each.reason}",
            tuple(fixes.run(command) for command in [_correcting_command(each)] if command),
        )


def _correcting_command(each: Ignored) -> str:
    """Return the command that corrects an ignored line or file, or "" if none is safe."""
    path = shlex.quote(each.path)
    name = re.sub(r"[^A-Za-z]", "", each.line).capitalize()
    kind = "Socket" if ".socket" in each.path else "Service"
    key = re.escape(each.line.partition("=")[0].strip())
    if "is not a section of a" in each.reason or key in ("Requires", "BindsTo", "Requisite"):
        return ""  # the line may require a unit that does not exist
    if each.right.startswith("[") and each.line.startswith("["):
        script = rf"s/^[ \t]*\[{re.escape(each.line[1:-1])}\]/{each.right}/"
        command = f"sed -i {shlex.quote(script)} {path}"
    elif each.right.startswith("["):
        script = rf"s/^[ \t]*{key}[ \t]*=.*/{each.right}\n&\n[{each.section}]/"
        command = f"sed -i {shlex.quote(script)} {path}"
    elif each.right:
        script = rf"s/^[ \t]*{key}[ \t]*=/{each.right}=/"
        command = f"sed -i {shlex.quote(script)} {path}"
    elif not each.line:
        command = f"mv {path} {shlex.quote(each.path.removesuffix('.conf') + '.conf')}"
    elif each.line[1:-1].isalpha() and name.rstrip("s") in ("Unit", "Service", "Socket"):
        command = f"sed -i 's/^ *\\[{each.line[1:-1]}\\]/[{name.rstrip('s')}]/' {path}"
    elif "first section" in each.reason:
        command = f"grep -q '^\\[' {path} || sed -i '1i [{kind}]' {path}"
    else:
        command = f"grep -n {shlex.quote(each.line)} {path}"
    return command


def comments(proxy: Proxy) -> Iterator[Fault]:
    """Report a comment at the end of a setting, which systemd reads as part of the value."""
    unit = proxy.unit
    for name, texts in unit.settings.items() if unit else ():
        if unit is None or name.startswith(("Exec", "Environment", "Syslog")):
            continue
        texts = texts if fixes.is_list(name) else texts[-1:]  # noqa: PLW2901
        if any(re.search(r"\s#", text) for text in texts):
            is_refused = name in ("User", "Group", "SupplementaryGroups")
            kept = " ".join(re.split(r"\s#", text)[0].strip() for text in texts)
            effect = "does not start the service; all mail is deferred (451)"
            yield Fault(
                "unit-setting" if is_refused else "unit-ignored",
                proxy.where,
                f"{name}={texts[-1]}: a comment must be on a line of its own; systemd "
                f"{effect if is_refused else 'ignores the setting'}",
                (fixes.set_setting(unit, name, kept),),
            )


def socket_settings(proxy: Proxy) -> Iterator[Fault]:
    """Report settings of the socket that prevent the proxy from getting Postfix's connections."""
    unit = proxy.unit
    socket = unit.socket if unit else None
    if unit is None or socket is None:
        return
    names = [text for text in socket.listen if re.fullmatch(r"[A-Za-z][\w.-]*:\d+", text)]
    if names:
        yield Fault(
            "unit-setting",
            socket.name,
            f"ListenStream={names[0]}: systemd requires an IP address instead of a host name, so "
            "the socket unit fails; all mail is deferred (451)",
            (fixes.set_setting(socket, "ListenStream", f"127.0.0.1:{names[0].partition(':')[2]}"),),
        )
    values = {name: texts[-1] for name, texts in socket.settings.items() if texts}
    streams = list(dict.fromkeys(socket.listen))
    ports = [text.rpartition(":")[2] for text in streams]
    if len(streams) < len(socket.listen) or any(
        text in ports and ports.count(text) > 1 for text in streams
    ):
        kept = [text for text in streams if ports.count(text) < 2 or text not in ports]
        yield Fault(
            "unit-setting",
            socket.name,
            f"ListenStream={' '.join(socket.listen)}: systemd cannot listen on the same port "
            "twice, so the socket unit fails; all mail is deferred (451)",
            (fixes.set_setting(socket, "ListenStream", kept[0]),) if len(kept) == 1 else (),
        )
    denied, allowed = (
        " ".join(socket.settings.get(f"IPAddress{name}", ())).split() for name in ("Deny", "Allow")
    )
    service = values.get("Service", unit.name)
    for name, is_wrong, right in (
        ("BindToDevice", values.get("BindToDevice", "lo") not in ("", "lo"), ""),
        ("Service", service not in (unit.name, *unit.instances), unit.name),
        (
            "IPAddressDeny",
            _contains(denied, "127.0.0.1") and not _contains(allowed, "127.0.0.1"),
            "",
        ),
    ):
        if is_wrong:
            yield Fault(
                "unit-setting",
                socket.name,
                f"{name}={values[name]} in the socket unit: the proxy does not get Postfix's "
                "connections; all mail is deferred (451)",
                (fixes.set_setting(socket, name, right),),
            )


def socket_owner(setup: Setup, proxy: Proxy) -> Iterator[Fault]:
    """Report a Unix socket to which Postfix may not connect because of its owner."""
    socket = proxy.unit.socket if proxy.unit else None
    if socket is None or not any(route.endpoint.path for route in setup.routes_to(proxy)):
        return
    values = {name: texts[-1] for name, texts in socket.settings.items() if texts}
    mode = values.get("SocketMode", "")
    owner = setup.configuration.parameter("mail_owner") or "postfix"
    is_private = re.fullmatch("[0-7]+", mode) and not int(mode, 8) & 0o022
    if is_private and values.get("SocketUser", "root") != owner:
        yield Fault(
            "unit-setting",
            socket.name,
            f"SocketMode={mode} permits only user {values.get('SocketUser') or 'root'} to connect "
            f"to the proxy, but smtpd(8) runs as {owner}; all mail is deferred (451)",
            (fixes.set_setting(socket, "SocketUser", owner),),
        )


def groups(proxy: Proxy, facts: ProxyFacts) -> Iterator[Fault]:
    """Report a group that does not exist."""
    for name, similar in facts.missing_groups:
        edit = fixes.run(f"groupadd --system {shlex.quote(name)}")
        if similar and proxy.service:
            edit = fixes.set_user(proxy.service, f"{proxy.user}:{similar}")
        elif similar and proxy.unit:
            edit = _renamed_group(proxy.unit, name, similar)
        exists = f", but {similar} exists" if similar else ""
        yield Fault(
            "user",
            proxy.where,
            f"group {name} does not exist{exists}; the proxy cannot start, so all mail is deferred "
            "(451)",
            (edit,),
        )


def _renamed_group(unit: Unit, name: str, similar: str) -> Edit:
    """Return the edit that replaces a group in the settings of a unit."""
    setting = "Group" if unit.setting("Group") == name else "SupplementaryGroups"
    names = " ".join(unit.settings[setting]).split()
    return fixes.set_setting(
        unit, setting, " ".join(similar if each == name else each for each in names)
    )


def _stream(proxy: Proxy) -> str:
    return str(proxy.endpoint) if proxy.endpoint else "127.0.0.1:10025"


def stop(proxy: Proxy) -> Iterator[Fault]:
    """Report a unit that kills running filters when the unit is stopped."""
    unit = proxy.unit
    if unit and unit.path and unit.setting("KillMode", "control-group") == "control-group":
        yield Fault(
            "unit-stop",
            proxy.where,
            "KillMode=mixed is missing; if the service is stopped, systemd kills the running "
            "filters",
            (fixes.set_setting(unit, "KillMode", "mixed"),),
        )


def background(proxy: Proxy, wanted: Options) -> Iterator[Fault]:
    """Report a unit that runs the proxy in the background."""
    if proxy.unit and proxy.unit.path and not wanted.foreground:
        yield Fault(
            "background",
            proxy.where,
            "--foreground is missing; systemd ends the proxy as soon as its first process exits, "
            "so all mail is deferred (451)",
            (fixes.add_arguments(proxy, "--foreground"),),
        )


def network(proxy: Proxy, wanted: Options) -> Iterator[Fault]:
    """Report a unit that cannot reach its upstream server, or that Postfix cannot reach."""
    unit = proxy.unit
    if unit is None:
        return
    for name, refused, own in (
        ("PrivateNetwork", unit.is_set("PrivateNetwork"), "no"),
        ("RestrictNetworkInterfaces", _lacks_loopback(unit), ""),
        ("SocketBindDeny", _cannot_listen(unit), ""),
    ):
        if refused:
            yield _unreachable(proxy, unit, name, fixes.set_setting(unit, name, own))
    if _refuses_address(unit, wanted):
        edit = fixes.set_setting(unit, "IPAddressDeny", "")
        address = _own_address(wanted)
        if _contains(["localhost"], address):
            edit = fixes.add_path(unit, "IPAddressAllow", "localhost")
        elif unit.settings.get("IPAddressAllow"):
            edit = fixes.add_path(unit, "IPAddressAllow", address or "any")
        yield _unreachable(proxy, unit, "IPAddressDeny", edit)


def _unreachable(proxy: Proxy, unit: Unit, name: str, edit: Edit) -> Fault:
    return Fault(
        "no-upstream",
        proxy.where,
        f"the unit has no network access ({name}={' '.join(unit.settings[name])}) and cannot "
        "reach the upstream server; all mail is deferred (451)",
        (edit,),
    )


def _lacks_loopback(unit: Unit) -> bool:
    texts = unit.settings.get("RestrictNetworkInterfaces", [])
    if not texts:
        return False
    allowed, denied = _allowed(texts)
    return "lo" in denied if allowed is None else "lo" not in allowed


def _cannot_listen(unit: Unit) -> bool:
    """Return whether the proxy must open its port itself, but is not permitted to open any port."""
    denied = " ".join(unit.settings.get("SocketBindDeny", ())).split()
    return "any" in denied and not unit.settings.get("SocketBindAllow") and not unit.socket


def _own_address(wanted: Options) -> str:
    """Return the numeric address of the upstream server, or "" if it is unknown."""
    host = "127.0.0.1" if wanted.target.host == "localhost" else wanted.target.host
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return ""


def _refuses_address(unit: Unit, wanted: Options) -> bool:
    """Return whether the unit refuses the address of the upstream server or of Postfix."""
    denied = " ".join(unit.settings.get("IPAddressDeny", ())).split()
    allowed = " ".join(unit.settings.get("IPAddressAllow", ())).split()
    address = _own_address(wanted)
    if not address:
        return "any" in denied and not allowed
    return _contains(denied, address) and not _contains(allowed, address)


def _contains(networks: Sequence[str], address: str) -> bool:
    names = [name for network in networks for name in _NETWORKS.get(network, (network,))]
    for name in names:
        try:
            network = ipaddress.ip_network(name, strict=False)
        except ValueError:
            continue
        if ipaddress.ip_address(address) in network:
            return True
    return False


def missing_programs(proxy: Proxy, facts: ProxyFacts) -> Iterator[Fault]:
    """Report missing programs that systemd runs before the proxy."""
    unit = proxy.unit
    if unit and facts.missing_programs:
        path = facts.missing_programs[0]
        wrong = [n for n in ("ExecCondition", "ExecStartPre") if path in str(unit.settings.get(n))]
        yield Fault(
            "failing",
            proxy.where,
            f"{wrong[0]} runs {path}, which does not exist, so systemd does not start the service; "
            "all mail is deferred (451)",
            tuple(fixes.set_setting(unit, name, "") for name in wrong),
        )


def missing_units(proxy: Proxy) -> Iterator[Fault]:
    """Report units that the unit requires, but that do not exist or are masked."""
    unit = proxy.unit
    for each in unit.missing_units if unit else ():
        reason = "is masked" if each.is_masked else "does not exist"
        hint = f" ({each.near} exists)" if each.near else ""
        pattern = re.escape(each.name).replace("/", r"\/")
        names = "(Requires|BindsTo|Requisite|After|Wants)"
        script = rf"/^[ \t]*{names}[ \t]*=/s/([= \t]){pattern}([ \t]|$)/\1{each.near}\2/g"
        # A drop-in cannot remove a dependency (systemd.unit(5)).
        command = f"sed -E -i {shlex.quote(script)} {shlex.quote(each.path)}"
        if unit and unit.installed:
            sockets = list(unit.socket.instances) if unit.socket else []
            started = shlex.join([*sockets, *unit.instances])
            command += f"; systemctl daemon-reload; systemctl restart {started}"
        yield Fault(
            "failing",
            proxy.where,
            f"{each.path} requires {each.name}, which {reason}{hint}, so systemd does not start "
            "the service; all mail is deferred (451)",
            (fixes.run(command),),
        )


def missing_files(proxy: Proxy, facts: ProxyFacts) -> Iterator[Fault]:
    """Report missing files and directories that systemd requires to start the unit."""
    for path in facts.missing_paths:
        is_file = proxy.unit is not None and path in proxy.unit.environment_files
        command = "touch" if is_file else "install -d"
        yield Fault(
            "failing",
            proxy.where,
            f"{path} is required by the unit but does not exist, so systemd does not start the "
            "service; all mail is deferred (451)",
            (fixes.run(f"{command} {shlex.quote(path)}"),),
        )


def values_with_comments(proxy: Proxy) -> Iterator[Fault]:
    """Report a comment that is part of the value of a variable in an environment file."""
    unit = proxy.unit
    if unit is None:
        return
    files = unit.settings.get("EnvironmentFile", ())
    kept = [re.split(r"\s+[#;]", file)[0] for file in files]
    if unit.options_file and kept != files:
        wrong = next(file for file, path in zip(files, kept, strict=True) if file != path)
        # In a drop-in that this check writes, each setting has only one line.
        edit = fixes.set_setting(unit, "EnvironmentFile", kept[0])
        yield Fault(
            "options-file",
            proxy.where,
            f"EnvironmentFile={wrong}: a comment must be on a line of its own, so systemd does not "
            "find the file; the proxy does not get its options, so mail is deferred (451) or "
            "passes unfiltered",
            (edit,) if len(kept) == 1 else (),
        )
    for path, comment in unit.comments:
        edits = fixes.separate_comment(unit, path, comment)
        yield Fault(
            "options-file",
            f"{proxy.where}, {path}",
            f"the comment after the value of {comment.name} is part of the value, because a "
            "comment must be on a line of its own; the proxy gets wrong options, so mail is "
            "deferred (451) or passes unfiltered",
            edits,
        )


def options_file(setup: Setup, proxy: Proxy) -> Iterator[Fault]:
    """Report a unit's options file that is missing, or that systemd reads only in part."""
    unit = proxy.unit
    if unit is None or not unit.options_file:
        return
    problems = unit.assignments.problems
    name, right = environment.misnamed(unit.assignments, unit.setting("ExecStart"))
    if name and not problems:
        yield Fault(
            "options-file",
            proxy.where,
            f"{unit.options_file} sets {name}, which the unit does not use, instead of {right}; "
            "the proxy does not get its options, so mail is deferred (451) or passes unfiltered",
            (fixes.rename_variable(unit, name, right),),
        )
        return
    directory = shlex.quote(unit.options_file.rpartition("/")[0])
    edits: tuple[Edit, ...] = (fixes.write_options(proxy, _meant(setup, proxy, unit)),)
    if not unit.options_file_exists:
        problems = ["the file does not exist"]
        edits = (fixes.run(f"mkdir -p {directory}"), *edits)
    if problems:
        yield Fault(
            "options-file",
            proxy.where,
            f"{problems[0]}; the proxy does not get its options, so mail is "
            "deferred (451) or passes unfiltered",
            edits,
        )


def unused_variables(proxy: Proxy) -> Iterator[Fault]:
    """Report an ExecStart= without the variables that contain the filter or HOST:PORT."""
    unit = proxy.unit
    command = _with_variables(proxy, unit) if unit and unit.unused else ""
    if unit is None or not command:
        return
    reason = proxy.error.partition(";")[0]
    name, effect = "command-line", f"{reason}; all mail is deferred (451)"
    variables = list(unit.unused)
    if proxy.options:
        if (proxy.options.command or "").strip():
            return
        name, effect = "no-filter", "-c is missing; all mail passes unfiltered"
        variables = [environment.OPTIONS]
    elif f"${{{environment.OPTIONS}}}" in unit.setting("ExecStart"):
        effect = "systemd passes options in braces as a single argument; all mail is deferred (451)"
        variables = [environment.OPTIONS]
    yield Fault(
        name,
        proxy.where,
        f"ExecStart does not contain {' and '.join(f'${each}' for each in variables)}, so the "
        f"proxy does not get all options in {next(iter(unit.unused.values()))}: {effect}",
        (fixes.set_command(unit, command),),
    )


def _with_variables(proxy: Proxy, unit: Unit) -> str:
    """Return ExecStart= with the missing variables, or "" if adding them does not correct it."""
    words = unit.setting("ExecStart").split(" ")
    options, upstream = (f"${name}" for name in (environment.OPTIONS, environment.UPSTREAM))
    for index, word in enumerate(words):
        found = re.fullmatch(r"\$\{?(\w+)\}?", word)
        if found and (found[1] in unit.unused or found[1] not in unit.environment):
            # A variable that is not set is probably misspelt.
            near = difflib.get_close_matches(found[1].upper(), unit.unused, 1, _SIMILAR)
            words[index] = f"${near[0]}" if near else word
    try:
        given = expanded_words(unit, options)
        if environment.OPTIONS in unit.unused and options not in words:
            target = proxy.options.target.text if proxy.options else upstream
            places = [index for index, word in enumerate(words) if word in (target, upstream)]
            # If an option is given twice, the last one has an effect.
            is_apart = correction.missing_options(given, arguments(proxy.words)) == [*given]
            first = len(words) - len(arguments(words))
            words.insert(places[-1] if places and is_apart else first, options)
        for command in (" ".join(words), " ".join([*words, upstream])):
            new = arguments(expanded_words(unit, command))
            if correction.is_accepted(new) and parse(new).command:
                return command
    except ValueError:
        pass
    return ""


def _meant(setup: Setup, proxy: Proxy, unit: Unit) -> list[str]:
    """Return the arguments that the file was probably meant to contain, or the defaults."""
    behind = setup.place_for_filtered(proxy)
    target = behind.name if behind else environment.PACKAGED[environment.UPSTREAM]
    likely = unit.assignments.likely
    words = [*likely.get(environment.OPTIONS, "").split(), likely.get(environment.UPSTREAM, target)]
    front = ["-l", "10025"]
    for new in (
        correction.corrected([*front, *words], target),
        correction.quoted_filter([*front, *words]),
    ):
        if "-c" in new:
            return new[len(front) :]
    return [*environment.PACKAGED[environment.OPTIONS].split(), target]


def replaced(proxy: Proxy) -> Iterator[Fault]:
    """Report a part of the filter command that systemd replaces."""
    if proxy.unit and proxy.unit.replaced:
        part = proxy.unit.replaced[0]
        yield Fault(
            "replaced",
            proxy.where,
            f"systemd replaces {part} in ExecStart or does not load the unit; to pass {part} to "
            f"the filter, write {part[0]}{part}",
            (fixes.set_arguments(proxy, lambda words: words),),
        )


def exec_start(proxy: Proxy) -> Iterator[Fault]:
    """Report a unit with more than one ExecStart=."""
    unit = proxy.unit
    if unit and len(unit.settings.get("ExecStart", ())) > 1 and unit.setting("Type") != "oneshot":
        yield Fault(
            "exec-start",
            proxy.where,
            "ExecStart is set twice without an empty ExecStart= in between, so systemd does not "
            "load the unit; all mail is deferred (451)",
            (fixes.set_arguments(proxy, lambda words: words),),
        )
