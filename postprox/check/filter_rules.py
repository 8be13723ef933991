"""Problems with the filter's file, interpreter and contents.

Rule: each check is a pure function.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import PurePosixPath

from ..core.options import Options
from . import correction, failure_rules, fixes, mistake_rules, sandbox
from .environment import OPTIONS
from .facts import MissingCommand, ProgramFacts, ProxyFacts
from .filter_effects import effect_of_failure, effect_of_lost_reply
from .findings import Fault
from .fixes import Edit
from .proxy_rules import cannot_run, is_home, set_filter
from .routes import FilterStage, Proxy, arguments
from .scripts import message_flow, pipelines, shell_command
from .scripts.mistake import Kind
from .setup import Setup
from .unit import Unit, split_words

_OWN = "/usr/local/bin/mail-filter"
#: The interpreter for each file name extension.
_LANGUAGES = {".py": "python3", ".pl": "perl", ".rb": "ruby"}
#: Unit settings that can replace files, so that the filter sees other files than the check.
_OTHER_FILES = (
    *("RootDirectory", "RootImage", "BindPaths", "BindReadOnlyPaths", "MountImages"),
    *("ExtensionImages", "ExtensionDirectories", "PassEnvironment"),
)
#: Programs that need their set-user-ID bit to run another program.
_SET_USER_ID = ("sudo", "doas", "su", "pkexec")
#: A filter command that consists of a single sudo or doas command.
_OTHER_USER = re.compile(
    r"(/\S*/)?(sudo|doas)(\s+-n)?\s+-u\s+(?P<user>[\w.-]+)(\s+-n)?(\s+--)?\s+"
    r"(?P<command>[^-\s][^;&|()]*)"
)


def no_filter(proxy: Proxy, wanted: Options) -> Iterator[Fault]:
    """Report a proxy without a filter."""
    if not (wanted.command or "").strip():
        strict = [] if wanted.strict else ["--strict"]
        missing, reason = [*strict, "-c", _OWN], ""
        for text in proxy.unit.assignments.earlier.get(OPTIONS, ()) if proxy.unit else ():
            words = _words(text)
            added = correction.missing_options(words, arguments(proxy.words))
            if "-c" in added or "--command" in added:
                missing = [*added, *(word for word in strict if word not in added)]
                reason = f" ({OPTIONS} is set more than once, and only the last line has an effect)"
        edit = fixes.add_arguments(proxy, *missing)
        if proxy.unit and OPTIONS in proxy.unit.assignments.hidden:
            reason = f" ({OPTIONS} follows a comment that ends with a backslash, so systemd reads "
            reason += "it as part of the comment)"
            edit = _without_backslash(proxy.unit)
        yield Fault(
            "no-filter",
            proxy.where,
            f"-c is missing{reason}; all mail passes unfiltered",
            (edit,),
        )
    elif shell_command.does_nothing(wanted.command or ""):
        text = (wanted.command or "").lstrip("# \t")
        yield Fault(
            "no-filter",
            proxy.where,
            f"the filter command {wanted.command!r} always succeeds; all mail passes unfiltered",
            (set_filter(proxy, wanted, text if "/" in text[:1] and "true" not in text else _OWN),),
        )


def _without_backslash(unit: Unit) -> Edit:
    """Return a command that removes the backslashes at the end of comments."""
    script = r"s/^\([ \t]*[#;].*[^\]\)\\*$/\1/"
    file = shlex.quote(unit.options_file)
    return fixes.run(f"sed -i '{script}' {file}; systemctl restart {unit.name}")


def _words(text: str) -> list[str]:
    """Split the value of a variable as systemd does."""
    try:
        return split_words(text)
    except ValueError:
        return []


def exit_status(proxy: Proxy, wanted: Options) -> Iterator[Fault]:
    """Report a shell command that hides the filter's exit status."""
    command = wanted.command or ""
    kept = shell_command.without_lost_status(command)
    hidden = command[len(kept) :].strip()
    if kept != command:
        kept = shell_command.without_lost_reply(kept)
        yield Fault(
            "exit-status",
            proxy.where,
            f"{hidden!r} at the end of the filter command replaces the "
            "filter's exit status; all mail passes unfiltered",
            (set_filter(proxy, wanted, kept),),
        )


def lost_reply(proxy: Proxy, wanted: Options, facts: ProxyFacts) -> Iterator[Fault]:
    """Report a filter whose reply does not reach standard error, from which the proxy reads it."""
    command = wanted.command or ""
    effect = effect_of_lost_reply(wanted)
    kept = shell_command.without_lost_reply(command)
    seen = facts.filter
    if kept != command and shell_command.without_lost_status(command) == command:
        yield Fault(
            "lost-reply",
            proxy.where,
            f"the filter command redirects standard error, from which the proxy reads the filter's "
            f"reply; {effect}: {command}",
            (set_filter(proxy, wanted, kept),),
        )
    elif seen and seen.reply_line and ">" not in command:
        lines = ";".join(rf"{n}s/\b(echo|printf)\b/>\&2 &/" for n in seen.reply_lines)
        yield Fault(
            "lost-reply",
            proxy.where,
            f"the filter {seen.path} prints its reply to standard output, but the proxy reads it "
            f"from standard error (>&2); {effect}: {seen.reply_line}",
            (fixes.run(f"sed -E -i {shlex.quote(lines)} {shlex.quote(seen.path)}"),),
        )


def written(proxy: Proxy, facts: ProxyFacts) -> Iterator[Fault]:
    """Report directories that the filter probably tries to write to, but cannot."""
    seen, unit = facts.filter, proxy.unit
    for path in seen.targets if seen else ():
        is_foreign = bool(seen and path in seen.foreign_targets)
        if unit and sandbox.is_below_made(unit, path) and not is_foreign:
            continue  # systemd gives this directory to the user, but not later files in it
        hiding = sandbox.hiding_setting(unit, path) if unit else ""
        setting = hiding or (sandbox.protecting_setting(unit, path) if unit else "")
        edits: tuple[Edit, ...] = ()
        problems = []
        if seen and path in seen.closed_targets:
            owner = ", because it belongs to root" if is_foreign else ""
            problems = [f"user {proxy.user} cannot write there{owner}"]
            edits = (_opened(proxy.user, path, path in seen.private_targets),)
            if file := seen.rotations.get(path):
                problems[0] += f", and logrotate(8) recreates it with the wrong owner ({file})"
                edits += (_rotated(proxy.user, path, file),)
        if unit and seen and hiding:
            problems.append(f"the unit hides it ({hiding})")
            edits = tuple(_relocated(unit, seen, path))
        elif unit and setting:
            problems.append(f"the unit forbids this ({setting})")
            edits = (*edits, fixes.add_path(unit, "ReadWritePaths", path))
        if problems:
            yield Fault(
                "filter-write",
                proxy.where,
                f"the filter {seen.path if seen else ''} writes to {path}, but "
                f"{' and '.join(problems)}; the data is lost, and mail may be deferred or pass "
                "unfiltered",
                edits,
            )


def _rotated(user: str, path: str, file: str) -> Edit:
    """Return an edit that makes logrotate(8) create a file with this user as its owner."""
    place = re.sub(r"[/.]", r"\\\g<0>", path)
    blank = "[[:space:]]"
    created = f"^({blank}*create{blank}+[0-7]+){blank}+[^[:space:]]+"
    script = rf"/{place}/,/}}/s/{created}/\1 {user}/"
    return fixes.run(f"sed -E -i {shlex.quote(script)} {shlex.quote(file)}")


def _relocated(unit: Unit, seen: ProgramFacts, path: str) -> Iterator[Edit]:
    """Yield the edits that move a hidden file or directory to the unit's state directory."""
    name = (unit.settings.get("StateDirectory", [""])[-1].split() or [""])[0]
    if not name or not re.fullmatch(r"[\w./-]+", f"{name}{path}"):
        return
    state = f"/var/lib/{name}"
    base = PurePosixPath(path).name
    new = f"{state}/{base}"
    yield fixes.run(f"sed -i 's,{path}\\b,{new},g' {shlex.quote(seen.path)}")
    if "." not in base:  # a directory, probably
        yield fixes.run(f"install -d -m 0700 {new} && chown --reference={state}/ {new}")


def _opened(user: str, path: str, is_private: bool) -> Edit:
    """Return a command that lets the user write to a path, or that shows its permissions."""
    target = shlex.quote(path)
    return fixes.run(f"chown {shlex.quote(user)} {target}" if is_private else f"ls -ld {target}")


def unread(proxy: Proxy, wanted: Options, facts: ProxyFacts) -> Iterator[Fault]:
    """Report a filter that runs a scanner, but never reads the message."""
    seen = facts.filter
    if seen is None or not seen.unread_line or "EMAIL" in (wanted.command or ""):
        return
    script = message_flow.with_message(seen.unread_line, seen.unread_line_number)
    path = shlex.quote(seen.path)
    command = f"sed -i {shlex.quote(script)} {path}"
    yield Fault(
        "filter",
        proxy.where,
        f"the filter {seen.path} never reads the message, which is in the file $EMAIL and not on "
        f"standard input; all mail passes unfiltered: {seen.unread_line}",
        (fixes.run(command),),
    )


#: The variables that contain only the envelope.
_ENVELOPE = re.compile(r"\$\{?(SENDER|RECIPIENTS?|RECIPIENTCOUNT|QUEUE_ID|CLIENT_NAME)\b\}?")


def chained(setup: Setup, proxy: Proxy, wanted: Options, facts: ProxyFacts) -> Iterator[Fault]:
    """Report filters that overwrite each other's changes."""
    if facts.rewriters:
        names = " and ".join(facts.rewriters)
        example = f"{setup.examples.removesuffix('/postfix')}/filters/chain.py"
        chain = "/usr/local/bin/chain.py"
        commands = [each.strip() for each in (wanted.command or "").split(" && ")]
        yield Fault(
            "lost-change",
            proxy.where,
            f"{names} both read $EMAIL and write $OUTFILE, so only the changes of the last one "
            "reach the recipients",
            (
                fixes.run(f"install -m 0755 {shlex.quote(example)} {chain}"),
                set_filter(proxy, wanted, " ".join([chain, *commands])),
            ),
        )


def sends(setup: Setup, proxy: Proxy, wanted: Options, facts: ProxyFacts) -> Iterator[Fault]:
    """Report a pipe(8) script that reads standard input or sends the message itself."""
    unread = (Kind.UNREAD, Kind.LOST)
    kinds = (*unread, Kind.UNSENT, Kind.RESENT)
    seen, command = facts.filter, wanted.command or ""
    found = next((each for each in seen.mistakes if each.kind in kinds), None) if seen else None
    if seen is None or found is None:
        return
    kind, correction = found.kind, found.correction
    if kind != Kind.RESENT and "EMAIL" in command:
        if kind in unread:
            return
        kind, correction = Kind.RESENT, ""
    elif kind != Kind.RESENT and re.search(r"[$`*?<|]", _ENVELOPE.sub("", command)):
        return
    if kind == Kind.RESENT:
        problem = (
            "sends the message itself, although the proxy delivers each message for which the "
            "filter exits with status 0"
        )
        routes = setup.routes_to(proxy)
        is_loop = any(
            each.stage is FilterStage.AFTER_QUEUE and each.source.program == "pickup"
            for each in routes
        )
        effect = "mail is delivered twice"
        if is_loop:
            effect = "Postfix sends that copy to the filter again, so mail loops and is delivered "
            effect += "many times"
        if proxy.unit and proxy.unit.is_set("NoNewPrivileges"):
            effect = (
                f"sendmail(1) fails because of NoNewPrivileges=yes, and {effect_of_failure(wanted)}"
            )
    else:
        problem = "never reads the message, which is in the file $EMAIL and not on standard input"
        effect = "all mail passes unfiltered"
        if kind == Kind.UNSENT and not _ENVELOPE.search(command):
            effect = f"the proxy passes no arguments, and {effect_of_failure(wanted)}"
        if kind == Kind.LOST:
            effect = "the filter checks nothing, and each message loses its header and its body"
    path = shlex.quote(seen.path)
    edit = f"sed -i {shlex.quote(correction)} {path}" if correction else f"cat -n {path}"
    yield Fault(
        "filter",
        proxy.where,
        f"the filter {seen.path} {problem}; {effect}: line {found.number}: {found.line}",
        (fixes.run(edit),),
    )


def notices(setup: Setup, proxy: Proxy, facts: ProxyFacts) -> Iterator[Fault]:
    """Report a script that sends notices with sendmail(1), which the unit does not permit."""
    seen, unit = facts.filter, proxy.unit
    found = (
        next((each for each in seen.mistakes if each.kind == Kind.NOTICE), None) if seen else None
    )
    if seen is None or unit is None or found is None or not _limits_groups(unit):
        return
    group = setup.configuration.parameter("setgid_group") or "postdrop"
    is_root = unit.setting("User") in ("", "root") and not unit.dynamic_user
    if group in groups(proxy) or is_root:
        return
    # This group suffices, so the filter stays as restricted as it is.
    edits = [*_joins(unit, group)]
    queue = setup.configuration.parameter("queue_directory") or "/var/spool/postfix"
    if sandbox.protecting_setting(unit, f"{queue}/maildrop"):
        edits.append(fixes.add_path(unit, "ReadWritePaths", f"{queue}/maildrop"))
    yield Fault(
        "filter",
        proxy.where,
        f"line {found.number} of the filter {seen.path} runs sendmail(1), which cannot queue mail, "
        f"because the unit has {_limits_groups(unit)}; sendmail(1) waits, the filter exceeds its "
        f"time limit (-t), and the notice is lost: {found.line}",
        tuple(edits),
    )


def _limits_groups(unit: Unit) -> str:
    """Return the setting because of which postdrop(1) does not get its group, or ""."""
    names = ("NoNewPrivileges", "RestrictSUIDSGID", "DynamicUser")
    return next((f"{name}=yes" for name in names if unit.is_set(name)), "")


def looped(setup: Setup, proxy: Proxy, facts: ProxyFacts) -> Iterator[Fault]:
    """Report a script that sends the message with sendmail(1), if pickup(8) filters this mail."""
    kinds = (Kind.LOOPED, Kind.ECHOED, Kind.ANNOUNCED)
    seen = facts.filter
    found = next((each for each in seen.mistakes if each.kind in kinds), None) if seen else None
    sources = [route.source for route in setup.routes_to(proxy)]
    if seen is None or found is None or all(each.program != "pickup" for each in sources):
        return
    path = shlex.quote(seen.path)
    edit = (
        f"sed -i {shlex.quote(found.correction)} {path}" if found.correction else f"cat -n {path}"
    )
    effect = "sends the message with sendmail(1), and Postfix sends it to the filter again; mail "
    effect += "loops and is never delivered"
    if found.kind != Kind.LOOPED:
        effect = "includes the whole message in a notice"
        if found.kind == Kind.ANNOUNCED:
            effect = "sends a notice that contains the word for which the filter searches"
        effect += ", and Postfix sends the notice to the filter, which rejects it and sends "
        effect += "another notice, so the notices loop"
    yield Fault(
        "loop",
        proxy.where,
        f"line {found.number} of the filter {seen.path} {effect}: {found.line}",
        (fixes.run(edit),),
    )


def privileges(proxy: Proxy, wanted: Options) -> Iterator[Fault]:
    """Report a set-user-ID program in the filter command of a unit that disables such programs."""
    unit, command = proxy.unit, wanted.command or ""
    names = [PurePosixPath(target.program).name for target in shell_command.targets(command)]
    program = next((name for name in names if name in _SET_USER_ID), "")
    if unit is None or not program or not unit.is_set("NoNewPrivileges"):
        return
    other = _OTHER_USER.fullmatch(command)
    edits: tuple[Edit, ...] = ()
    if other and other["user"] != "root":
        values = {"User": other["user"], "DynamicUser": "no"}
        edits = tuple(fixes.set_setting(unit, name, value) for name, value in values.items())
        edits = (*edits, set_filter(proxy, wanted, other["command"]))
    yield Fault(
        "filter",
        proxy.where,
        f"{program} cannot switch users, because the unit has NoNewPrivileges=yes; the filter "
        f"cannot run, and {effect_of_failure(wanted)}; run the proxy as the user that the filter "
        "needs",
        edits,
    )


#: The macros of pipe(8), each with the expansion that has a similar value in a filter command.
_MACROS = {
    "sender": '"$SENDER"',
    "recipient": "$RECIPIENTS",
    "original_recipient": "$RECIPIENTS",
    "client_address": '"$REMOTEIP"',
    "client_helo": '"$HELO"',
    "client_hostname": '"$CLIENT_NAME"',
    "queue_id": '"$QUEUE_ID"',
}
_MACRO = re.compile(
    rf"(?P<mark>\"?)\$(?:\{{({'|'.join(_MACROS)})\}}|({'|'.join(_MACROS)})\b)(?P=mark)"
)


def macros(proxy: Proxy, wanted: Options) -> Iterator[Fault]:
    """Report the macros of pipe(8) in a filter command, which sh(1) replaces with nothing."""
    command = wanted.command or ""
    used = [found[2] or found[3] for found in _MACRO.finditer(command)]
    known = {*(proxy.unit.environment if proxy.unit else ()), *re.findall(r"\b(\w+)=", command)}
    is_set = re.search(r"\bread\b|\bfor\b|^\.\s|[;&|]\s*\.\s|\bsource\b|\beval\b|'", command)
    if not used or known & set(used) or is_set:
        return
    new = _MACRO.sub(lambda found: _MACROS[found[2] or found[3]], command)
    # The shell splits the recipients into words. They must not become names of files.
    new = f"set -f; {new}" if "$RECIPIENTS" in new and "set -f" not in new else new
    yield Fault(
        "filter",
        proxy.where,
        f"the filter command contains ${{{used[0]}}}, a macro of pipe(8); sh(1) replaces it with "
        f"nothing, so the filter lacks this argument, and mail may pass unfiltered: {command}",
        (set_filter(proxy, wanted, new),),
    )


def quotes(proxy: Proxy, wanted: Options) -> Iterator[Fault]:
    """Report typographic quotes, which the shell does not remove."""
    command = wanted.command or ""
    if any(mark in command for mark in shell_command.TYPOGRAPHIC):
        yield Fault(
            "syntax",
            proxy.where,
            f"the filter command has typographic quotes, which sh(1) does not remove; "
            f"{effect_of_failure(wanted)}: {command}",
            (
                set_filter(
                    proxy, wanted, re.sub(f"[{shell_command.TYPOGRAPHIC}]", "", command).strip()
                ),
            ),
        )


def filter_command(proxy: Proxy, wanted: Options, facts: ProxyFacts) -> Iterator[Fault]:
    """Report a missing or non-executable filter."""
    seen = facts.filter
    if seen is None:
        return
    effect = effect_of_failure(wanted)
    setting = sandbox.hiding_setting(proxy.unit, seen.path) if proxy.unit else ""
    if proxy.unit and setting and not is_home(seen.closed_directory):
        is_temporary = setting.startswith(("PrivateTmp", "DynamicUser"))
        edits: tuple[Edit, ...] = (fixes.show(proxy.unit, setting),)
        yield Fault(
            "filter",
            proxy.where,
            f"the unit hides the filter {_named(seen)} ({setting}); the filter cannot run, and "
            f"{effect}",
            _moved(proxy, wanted, seen) if is_temporary else edits,
        )
    if seen.sought_name:
        yield _not_in_path(proxy, wanted, seen)
        return
    for problem, edit in cannot_run(seen, proxy.user):
        edits = (edit,)
        if seen.has_noexec and proxy.unit:
            # A unit's own mounts keep the option until the service starts again.
            edits += (fixes.run(f"systemctl restart {proxy.unit.name}"),)
        if seen.similar and not seen.exists and not seen.closed_directory:
            problem += f", but {seen.similar} exists"  # noqa: PLW2901
            edits = (_similar(proxy, wanted, seen),)
        if is_home(seen.closed_directory):
            edits = _moved(proxy, wanted, seen)
            problem += f", and the unit hides it ({setting})" if setting else ""  # noqa: PLW2901
        yield Fault("filter", proxy.where, f"{problem}; the filter cannot run, and {effect}", edits)
    if seen.executable:
        yield from _text(proxy, wanted, seen)


def _similar(proxy: Proxy, wanted: Options, seen: ProgramFacts) -> Edit:
    """Return the edit that uses the existing file with a similar path."""
    if seen.dangling_link:
        return fixes.run(f"ln -sfn {shlex.quote(seen.similar)} {shlex.quote(seen.dangling_link)}")
    pattern = rf"(?<![\w/.-]){re.escape(seen.path)}(?![\w/.-])"
    command = re.sub(pattern, lambda _: seen.similar, wanted.command or "")
    return set_filter(proxy, wanted, command)


def _not_in_path(proxy: Proxy, wanted: Options, seen: ProgramFacts) -> Fault:
    """Report a filter that has no directory and is not found in PATH."""
    name = seen.sought_name
    starter = "spawn(8)" if proxy.service else "systemd"
    problem = f"the filter {name} is not in {seen.sought_path}, the PATH that {starter} sets"
    edit = fixes.run(f"command -v {shlex.quote(name)}")
    if seen.elsewhere:
        problem += f", but it exists as {seen.elsewhere}"
        pattern = rf"(?<![\w/.-]){re.escape(name)}(?![\w/.-])"
        command = re.sub(pattern, lambda _: seen.elsewhere, wanted.command or "", count=1)
        edit = set_filter(proxy, wanted, command)
    problem = f"{problem}; the filter cannot run, and {effect_of_failure(wanted)}"
    return Fault("filter", proxy.where, problem, (edit,))


def _moved(proxy: Proxy, wanted: Options, seen: ProgramFacts) -> tuple[Edit, ...]:
    """Return the edits that install a copy of the filter outside the home directory."""
    if seen.is_link and not is_home(seen.path):
        path, real = shlex.quote(seen.path), shlex.quote(seen.real)
        # install(1) would follow the symbolic link.
        return (
            fixes.run(f"test ! -L {path} || {{ rm {path} && install -m 0755 {real} {path}; }}"),
        )
    path = f"/usr/local/bin/{PurePosixPath(seen.path).name}"
    command = (wanted.command or "").replace(seen.path, path)
    # -b keeps a file that already has this name.
    copy = fixes.run(f"install -b -m 0755 {shlex.quote(seen.path)} {shlex.quote(path)}")
    return copy, set_filter(proxy, wanted, command)


def _named(seen: ProgramFacts) -> str:
    return f"{seen.path}, a link to {seen.real}" if seen.real else seen.path


def _text(proxy: Proxy, wanted: Options, seen: ProgramFacts) -> Iterator[Fault]:
    """Report only the first problem in the filter's contents, as that problem can cause others."""
    effect = effect_of_failure(wanted)
    found = [*_unusable(proxy, seen, effect), *_marked(proxy, seen, effect)]
    yield from found[:1]
    if not found or found[0].name == "exit-status":
        yield from _missing_command(proxy, seen, effect)
        yield from _unreadable_files(proxy, seen, effect)
        yield from _closed_sockets(proxy, seen)
        yield from mistake_rules.mistakes(proxy, wanted, seen)
        yield from _login_variables(proxy, wanted, seen, effect)
        yield from failure_rules.failures(proxy, wanted, seen, effect)
        yield from _hidden_files(proxy, seen)


def _unreadable_files(proxy: Proxy, seen: ProgramFacts, effect: str) -> Iterator[Fault]:
    """Report a script that reads a file which its user cannot open."""
    if proxy.unit and any(name in proxy.unit.settings for name in _OTHER_FILES):
        return
    for found in seen.mistakes:
        path, user = shlex.quote(found.path), shlex.quote(proxy.user)
        edits: tuple[Edit, ...] = (fixes.run(f"ls -l {path}"),)
        problem = "which does not exist"
        result = f"sh(1) ends the filter there, and {effect}"
        if found.kind == Kind.DATA:
            result = "mail is deferred or passes unfiltered"
        if found.kind in (Kind.UNREADABLE, Kind.DATA):
            problem = f"which user {proxy.user} cannot read"
            group = f'chgrp "$(id -g {user})" {path} && ' if found.correction == "g+r" else ""
            edits = (fixes.run(f"namei -l {path}"),)
            if found.correction.startswith("group "):
                name = found.correction.removeprefix("group ")
                if name in groups(proxy):
                    continue
                edits = with_group(proxy, name) or edits
            elif found.correction:
                edits = (fixes.run(f"{group}chmod {found.correction} {path}"),)
        elif found.kind != Kind.MISSING:
            continue
        yield Fault(
            "filter",
            proxy.where,
            f"line {found.number} of the filter {seen.path} reads {found.path}, {problem}; "
            f"{result}",
            edits,
        )


def _closed_sockets(proxy: Proxy, seen: ProgramFacts) -> Iterator[Fault]:
    """Report a script with a socket to which its user cannot connect."""
    if proxy.unit and any(name in proxy.unit.settings for name in _OTHER_FILES):
        return
    for found in seen.mistakes:
        group = found.correction
        if found.kind != Kind.SOCKET or (group and group in groups(proxy)):
            continue
        shown = (fixes.run(f"namei -l {shlex.quote(found.path)}"),)
        yield Fault(
            "filter",
            proxy.where,
            f"user {proxy.user} of the filter {seen.path} cannot connect to the socket "
            f"{found.path} (line {found.number}); mail is deferred or passes unfiltered",
            (with_group(proxy, group) if group else ()) or shown,
        )


def with_group(proxy: Proxy, group: str) -> tuple[Edit, ...]:
    """Return the edits that run the filter with another group, or () if there are none."""
    if proxy.unit:
        return tuple(_joins(proxy.unit, group))
    if proxy.service and not proxy.group:
        # spawn(8) uses only this group, and no other groups of the user.
        return (fixes.set_user(proxy.service, f"{proxy.user}:{group}"),)
    return ()


def groups(proxy: Proxy) -> list[str]:
    """Return the groups in the settings of a unit or a spawn(8) service."""
    if proxy.unit is None:
        return [proxy.group]
    more = " ".join(proxy.unit.settings.get("SupplementaryGroups", ())).split()
    return [proxy.unit.setting("Group"), *more]


def _joins(unit: Unit, group: str) -> Iterator[Edit]:
    """Yield the edits that add a group to the processes of a unit."""
    yield fixes.add_path(unit, "SupplementaryGroups", group)
    if unit.is_set("PrivateUsers"):
        yield fixes.set_setting(unit, "PrivateUsers", "no")


def _login_variables(
    proxy: Proxy, wanted: Options, seen: ProgramFacts, effect: str
) -> Iterator[Fault]:
    """Report a script that requires a variable which spawn(8) does not set."""
    command = wanted.command or ""
    for found in seen.mistakes:
        if found.kind != Kind.LOGIN or not proxy.service or f"{found.path}=" in command:
            continue
        value = "/nonexistent" if found.path == "HOME" else proxy.user
        result = f"the filter fails, and {effect}"
        if found.correction:  # the value in the file of the unit
            value, result = found.correction, "mail is deferred or passes unfiltered"
        yield Fault(
            "filter",
            proxy.where,
            f"line {found.number} of the filter {seen.path} requires the variable {found.path}, "
            f"which spawn(8) does not set; {result}: {found.line}",
            (set_filter(proxy, wanted, f"{found.path}={shlex.quote(value)} {command}"),),
        )


def _hidden_files(proxy: Proxy, seen: ProgramFacts) -> Iterator[Fault]:
    """Report the lines of a script that read a file which the unit hides."""
    for found in seen.mistakes:
        if found.kind != Kind.HIDDEN or proxy.unit is None:
            continue
        if setting := sandbox.hiding_setting(proxy.unit, found.path):
            kept = f"/usr/local/etc/{PurePosixPath(found.path).name}"
            script = shlex.quote(f"s,{found.path},{kept},g")
            yield Fault(
                "filter",
                proxy.where,
                f"line {found.number} of the filter {seen.path} reads {found.path}, which the unit "
                f"hides ({setting}); mail is deferred or passes unfiltered: {found.line}",
                (
                    fixes.run(
                        f"install -m 0644 {shlex.quote(found.path)} {shlex.quote(kept)} && "
                        f"sed -i {script} {shlex.quote(seen.path)}"
                    ),
                ),
            )


def _missing_command(proxy: Proxy, seen: ProgramFacts, effect: str) -> Iterator[Fault]:
    """Report a script that runs a program which is not installed."""
    missing = seen.missing_command
    if missing is None or (
        proxy.unit and any(name in proxy.unit.settings for name in _OTHER_FILES)
    ):
        return
    if proxy.unit and missing.sought_path and _lacks_programs(missing.sought_path):
        yield _short_path(proxy, proxy.unit, missing)
        return
    program, path = missing.program, shlex.quote(seen.path)
    problem = f"which user {proxy.user} cannot execute"
    command = f"chmod a+rx {shlex.quote(program)}"
    if not missing.exists:
        problem = "which does not exist"
        command = f"ls -l {shlex.quote(program)}"
    if missing.sought_path:
        problem = f"which is not in {missing.sought_path}, the PATH of the proxy"
        command = f"command -v {shlex.quote(program)}"
    if missing.replacement:
        near = "[^[:alnum:]_./-]"
        old = re.sub("[.+]", r"\\\g<0>", program)
        script = f"{missing.line}s,(^|{near}){old}($|{near}),\\1{missing.replacement}\\2,"
        command = f"sed -E -i {shlex.quote(script)} {path}"
        problem += f", but {missing.replacement} exists"
    elif missing.package:
        command = f"apt-get install -y {missing.package}"
    is_scanner = PurePosixPath(program).name in shell_command.SCANNERS
    if not missing.is_result:
        effect = "mail is deferred or passes unfiltered"
    if not missing.is_result and not is_scanner:
        effect = "the filter may fail, so mail may be deferred or pass unfiltered"
    yield Fault(
        "filter" if missing.is_result or is_scanner else "filter-command",
        proxy.where,
        f"line {missing.line} of the filter {seen.path} runs {program}, {problem}; {effect}",
        (fixes.run(command),),
    )


#: The directories for programs in systemd's default PATH.
_PROGRAMS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def _lacks_programs(search: str) -> bool:
    """Return whether a PATH contains neither /usr/bin nor /bin."""
    return not {"/usr/bin", "/bin"} & {each.rstrip("/") for each in search.split(":")}


def _short_path(proxy: Proxy, unit: Unit, missing: MissingCommand) -> Fault:
    """Report a unit whose PATH replaces the default PATH instead of extending it."""
    own = re.sub(r"\$\{?PATH\}?", "", missing.sought_path)  # systemd does not expand variables
    path = ":".join([*filter(None, own.split(":")), *_PROGRAMS])
    edit = fixes.add_variable(unit, "PATH", path)
    if file := unit.variable_files.get("PATH"):
        script = f"s,^[ \t]*PATH=.*,PATH={path},"
        command = f"sed -i {shlex.quote(script)} {shlex.quote(file)}"
        edit = fixes.run(f"{command}; systemctl restart {unit.name}")
    return Fault(
        "filter",
        proxy.where,
        f"PATH={missing.sought_path} in the unit contains neither /usr/bin nor /bin, so the filter "
        f"cannot run programs such as {missing.program}; mail is deferred or passes unfiltered",
        (edit,),
    )


def _unusable(proxy: Proxy, seen: ProgramFacts, effect: str) -> Iterator[Fault]:
    """Report a file that is not a script or program for this machine."""
    path = shlex.quote(seen.path)
    if seen.is_blank:
        yield Fault(
            "no-filter",
            proxy.where,
            f"the filter {seen.path} contains no commands; all mail passes unfiltered",
            (fixes.run(f"ls -l {path}"),),
        )
    elif seen.is_foreign:
        yield Fault(
            "filter",
            proxy.where,
            f"the filter {seen.path} is compiled for another processor architecture; {effect}",
            (fixes.run(f"file {path}; uname -m"),),
        )
    elif seen.is_utf16:
        yield Fault(
            "byte-order-mark",
            proxy.where,
            f"the filter {seen.path} is encoded in UTF-16 and cannot run; {effect}",
            (
                fixes.run(
                    f'case "$(head -c 2 {path} | od -An -tx1)" in *ff*) '
                    f"iconv -f UTF-16 -t UTF-8 {path} > {path}.utf-8; "
                    f"cat {path}.utf-8 > {path}; rm {path}.utf-8 ;; esac"
                ),
            ),
        )
    elif seen.is_displaced:
        yield Fault(
            "interpreter",
            proxy.where,
            f"the #! of the filter {seen.path} is not at the beginning of the file, so sh(1) runs "
            f"the filter; {effect}",
            (fixes.run(f"sed -i -e '/[^[:space:]]/,$!d' {path}; sed -i '1s/^[ \\t]*//' {path}"),),
        )


def _marked(proxy: Proxy, seen: ProgramFacts, effect: str) -> Iterator[Fault]:
    """Report a script with the wrong encoding, interpreter or syntax."""
    path = shlex.quote(seen.path)
    if seen.has_mark:
        yield Fault(
            "byte-order-mark",
            proxy.where,
            f"the filter {seen.path} begins with a byte order mark, so its first line has no "
            f"effect; {effect}",
            (fixes.run(f"LC_ALL=C sed -i '1s/^\\xef\\xbb\\xbf//' {path}"),),
        )
    elif seen.has_crlf:
        yield Fault(
            "line-ends",
            proxy.where,
            f"the filter {seen.path} has CR LF line endings; it cannot run, and {effect}",
            (fixes.run(f"sed -i -e 's/\\r$//' -e 's/\\r/\\n/g' {path}"),),
        )
    elif seen.interpreter_executable is False:
        yield Fault(
            "interpreter",
            proxy.where,
            f"the filter {seen.path} requires the interpreter {seen.interpreter!r}, "
            f"which user {proxy.user} cannot execute; {effect}",
            (_first_line(seen),),
        )
    elif seen.language and seen.replacement:
        head = seen.first_line or "no #! line"
        yield Fault(
            "interpreter",
            proxy.where,
            f"the filter {seen.path} seems to be written for {seen.language}, but has {head}, so "
            f"sh(1) runs it; {effect}",
            (_new_first_line(seen, f"#!/usr/bin/env {seen.language}"),),
        )
    elif seen.bash_feature and seen.replacement and (seen.syntax_error or _is_fatal(seen)):
        yield Fault(
            "interpreter",
            proxy.where,
            f"the filter {seen.path} requires bash ({seen.bash_feature!r}), but sh(1) runs it; "
            f"{_effect_of_feature(seen, effect)}",
            (_new_first_line(seen, _with_arguments(seen)),),
        )
    elif seen.joined_arguments:
        yield Fault(
            "interpreter",
            proxy.where,
            f"the first line of the filter {seen.path} contains the arguments "
            f"{seen.joined_arguments!r}; the kernel passes them as one argument, which "
            f"{seen.interpreter} refuses; {effect}",
            (_joined(seen),),
        )
    elif not seen.interpreter and (name := _LANGUAGES.get(PurePosixPath(seen.path).suffix)):
        yield Fault(
            "interpreter",
            proxy.where,
            f"the filter {seen.path} has no #! line and is run by sh(1); {effect}",
            (fixes.run(f"sed -i '1i #!/usr/bin/env {name}' {path}"),),
        )
    elif seen.syntax_error:
        yield Fault(
            "syntax",
            proxy.where,
            f"the filter {seen.path} has a syntax error; {effect}: {seen.syntax_error}",
            (fixes.run(f"{seen.interpreter or '/bin/sh'} -n {path}"),),
        )
    elif seen.lost_status:
        yield Fault(
            "exit-status",
            proxy.where,
            f"{seen.lost_status!r}, the last line of the filter {seen.path}, hides the scanner's "
            "exit status; all mail passes unfiltered",
            (_without_lost_status(seen),),
        )


def _without_lost_status(seen: ProgramFacts) -> Edit:
    """Return a command that edits the script so that the scanner's exit status is no longer hidden.

    If the scanner is neither in the last line nor in the line before it, the command only prints
    the file.
    """
    path = shlex.quote(seen.path)
    if not seen.lost_status_line:
        return fixes.run(f"cat -n {path}")
    if not re.search(r"(true|:|exit\s+0)\s*;?\s*$", seen.lost_status):
        script = pipelines.without_sink(seen.lost_status_line)
        return fixes.run(f"sed -E -i {shlex.quote(script)} {path}")
    end = r"(true|:|exit[ \t]+0)[ \t]*;?[ \t]*$"
    script = rf"{seen.lost_status_line}{{/^[ \t]*{end}/d;s/[ \t]*(\|\||;)[ \t]*{end}//}}"
    return fixes.run(f"sed -E -i {shlex.quote(script)} {path}")


def _is_fatal(seen: ProgramFacts) -> bool:
    """Return whether sh(1) fails at run time, although it can parse the script."""
    return bool(
        re.search(r"pipefail|\[\[|\$\{|declare|mapfile|readarray|shopt|source", seen.bash_feature)
    )


def _effect_of_feature(seen: ProgramFacts, effect: str) -> str:
    """Return the effect on mail if sh(1) runs a script that requires bash.

    sh(1) exits after a syntax error, an unknown option or an invalid expansion. After an unknown
    command, such as `[[`, sh(1) continues, so the script can still exit with status 0.
    """
    is_unknown = re.search(r"\[\[|declare|mapfile|readarray|shopt|source", seen.bash_feature)
    is_mixed = is_unknown and not seen.syntax_error and "deferred" in effect
    return "mail passes unfiltered or is deferred" if is_mixed else effect


def _with_arguments(seen: ProgramFacts) -> str:
    """Return the first line with the replacement interpreter and the same arguments."""
    rest = seen.first_line.removeprefix("#!").strip().partition(" ")
    name = seen.replacement
    arguments = rest[2].strip()
    if rest[0].endswith("/env"):
        arguments = re.sub(r"^(-S\s+)?\S+\s*", "", arguments)
    return f"#!{name} {arguments}".strip()


def _new_first_line(seen: ProgramFacts, line: str) -> Edit:
    """Return a command that replaces the #! line, or inserts one if it is missing."""
    path = shlex.quote(seen.path)
    text = line.replace("\\", "\\\\").replace("&", r"\&").replace("|", r"\|")
    if seen.first_line:
        return fixes.run(f"sed -i {shlex.quote(f'1s|.*|{text}|')} {path}")
    return fixes.run(f"sed -i {shlex.quote(f'1s|^|{text}' + chr(92) + 'n|')} {path}")


def _first_line(seen: ProgramFacts) -> Edit:
    """Return a command that adds -S to `#!/usr/bin/env NAME OPTION`.

    For any other first line, the command only shows the line.
    """
    path = shlex.quote(seen.path)
    if " " in seen.interpreter:
        return fixes.run(f"sed -i '1s|/env |/env -S |' {path}")
    if seen.replacement and seen.first_line:
        return _new_first_line(seen, _with_arguments(seen))
    return fixes.run(f"head -n 1 {path} | cat -A")


def _joined(seen: ProgramFacts) -> Edit:
    """Return a command that joins the options in the first line, such as `-e -u`.

    For other arguments, the command only shows the line.
    """
    path = shlex.quote(seen.path)
    words = seen.joined_arguments.split()
    name = PurePosixPath(seen.interpreter).name
    if not name.startswith("python") and re.fullmatch(
        r"(-[aefuvxnbC]+\s+)*(-[aefuvxnbC]*o\s+\w+\s*|-[aefuvxnbC]+\s*)+", seen.joined_arguments
    ):
        head = "\\n".join((f"#!{seen.interpreter}", f"set {seen.joined_arguments}"))
        script = shlex.quote(f"1s|.*|{head}|")
        return fixes.run(f"sed -i {script} {path}")
    if not all(re.fullmatch("-[A-Za-z]+", word) for word in words):
        return fixes.run(f"head -n 1 {path} | cat -A")
    new = "-" + "".join(word[1:] for word in words)
    old = "[ \\t]+".join(words)
    return fixes.run(f"sed -E -i '1s/{old}[ \\t]*$/{new}/' {path}")


def command_syntax(proxy: Proxy, wanted: Options, facts: ProxyFacts) -> Iterator[Fault]:
    """Report a filter command that the shell cannot parse."""
    if facts.command_error:
        yield Fault(
            "syntax",
            proxy.where,
            f"sh(1) cannot parse the filter command (-c): {facts.command_error}; "
            f"{effect_of_failure(wanted)}",
            (fixes.run(f"/bin/sh -n -c {shlex.quote(wanted.command or '')}"),),
        )


def filter_open(proxy: Proxy, facts: ProxyFacts) -> Iterator[Fault]:
    """Report a filter that every user can change or replace."""
    if facts.filter and facts.filter.open_paths:
        paths = " ".join(map(shlex.quote, facts.filter.open_paths))
        yield Fault(
            "filter-open",
            proxy.where,
            f"every user can change or replace the filter {facts.filter.path} (mode of {paths})",
            (fixes.run(f"chmod o-w {paths}"),),
        )
