"""What can be wrong with a proxy by itself: its user, program, filter and spool directory.

Rule: one pure function for each thing that can be wrong.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from ..core.options import Options
from . import fixes
from .facts import ProgramFacts, ProxyFacts
from .findings import Finding
from .routes import Proxy
from .setup import Setup

#: Users that spawn(8) refuses to run a command as.
_REFUSED_USERS = ("root", "postfix")
#: The permission bits of others, and the one that makes a directory everybody's, as /tmp is.
_OTHERS, _STICKY = 0o077, 0o1000


def command_line(proxy: Proxy) -> Iterator[Finding]:
    """Its arguments are wrong."""
    yield Finding(
        "command-line",
        proxy.where,
        f"the command line is wrong, and all mail is refused: {proxy.error}",
        "postprox --help",
    )


def user(setup: Setup, proxy: Proxy, facts: ProxyFacts) -> Iterator[Finding]:
    """There is no such user, or none is named."""
    if proxy.service and (not proxy.user or proxy.user in _REFUSED_USERS):
        yield Finding(
            "user",
            proxy.where,
            f"spawn(8) starts nothing as {proxy.user or 'nobody in particular'}: all mail gets 451",
            fixes.set_user(setup.configuration, proxy.service, "postprox"),
        )
    elif not facts.user_exists:
        yield Finding(
            "user",
            proxy.where,
            f"there is no user {proxy.user}: nothing is started, and all mail gets 451",
            fixes.add_user(proxy.user),
        )


def columns(setup: Setup, proxy: Proxy) -> Iterator[Finding]:
    """Postfix runs spawn(8) so that it cannot start the proxy."""
    service = proxy.service
    if service is None:
        return
    wrong = [
        *(["private"] if service.type == "inet" and service.private != "n" else []),
        *(["unprivileged"] if service.unprivileged != "n" else []),
        *(["chroot"] if service.is_chrooted() else []),
    ]
    if wrong:
        yield Finding(
            "columns",
            proxy.where,
            f"spawn(8) starts nothing unless {', '.join(wrong)} in master.cf is n: "
            "all mail is refused",
            "; ".join(fixes.set_field(setup.configuration, service, name, "n") for name in wrong),
        )


def program(proxy: Proxy, facts: ProxyFacts) -> Iterator[Finding]:
    """The proxy itself is not there, or its user may not run it."""
    for problem, remedy in _cannot_run(facts.program, proxy.user):
        yield Finding("program", proxy.where, f"all mail is refused: {problem}", remedy)


def _cannot_run(seen: ProgramFacts, name: str) -> Iterator[tuple[str, str]]:
    path = shlex.quote(seen.path)
    if not seen.exists:
        yield f"there is no {seen.path}", f"ls -l {path}"
    elif seen.is_directory:
        yield f"{seen.path} is a directory", f"ls -l {path}"
    elif seen.executable is False:
        yield (
            f"user {name} may not run {seen.path} (namei -m {path} shows why)",
            f"chmod a+rx {path}",
        )


def filter_command(
    setup: Setup, proxy: Proxy, wanted: Options, facts: ProxyFacts
) -> Iterator[Finding]:
    """There is no filter, or it cannot be run."""
    if wanted.command is None:
        yield Finding(
            "no-filter",
            proxy.where,
            "there is no -c: all mail passes unfiltered",
            fixes.add_arguments(setup.configuration, proxy, "-c", "/usr/local/bin/mail-filter"),
        )
        return
    seen = facts.filter
    if seen is None:
        return
    fate = "all mail waits" if wanted.reject else "all mail passes unfiltered"
    for problem, remedy in _cannot_run(seen, proxy.user):
        yield Finding("filter", proxy.where, f"{fate}, for want of the filter: {problem}", remedy)
    if seen.interpreter_executable is False:
        yield Finding(
            "interpreter",
            proxy.where,
            f"{fate}: the filter {seen.path} is to be run by {seen.interpreter!r}, "
            f"which user {proxy.user} cannot run",
            f"head -n 1 {shlex.quote(seen.path)} | cat -A",
        )


def no_reject(setup: Setup, proxy: Proxy, wanted: Options) -> Iterator[Finding]:
    """Mail passes a filter that is broken."""
    if wanted.command is not None and not wanted.reject:
        yield Finding(
            "no-reject",
            proxy.where,
            "there is no -r: while the filter is broken, mail passes unfiltered",
            fixes.add_arguments(setup.configuration, proxy, "--strict"),
        )


def no_strict(setup: Setup, proxy: Proxy, wanted: Options) -> Iterator[Finding]:
    """A crash of the filter rejects mail."""
    if wanted.command is not None and wanted.reject and not wanted.strict:
        yield Finding(
            "no-strict",
            proxy.where,
            "there is no --strict: a filter that crashes with status 1 has mail rejected for good",
            fixes.add_arguments(setup.configuration, proxy, "--strict"),
        )


def no_upstream(proxy: Proxy, wanted: Options, facts: ProxyFacts) -> Iterator[Finding]:
    """Nobody takes what the proxy passes on."""
    if facts.nobody_upstream:
        target = wanted.target.text
        yield Finding(
            "no-upstream",
            proxy.where,
            f"nothing listens at {target}, where it passes mail on to: all mail gets 451",
            f"a service {target} in master.cf, as in postprox(1), POSTFIX",
        )


def spool(proxy: Proxy, wanted: Options, facts: ProxyFacts) -> Iterator[Finding]:
    """The directory for messages is not there, or its user may not write to it."""
    seen = facts.spool
    if seen is None or (seen.exists and seen.writable is not False):
        return
    problem = (
        f"user {proxy.user} may not write to {wanted.directory}"
        if seen.exists
        else f"there is no directory {wanted.directory}"
    )
    yield Finding(
        "spool",
        proxy.where,
        f"{problem}, for the messages: all mail gets 452",
        fixes.make_spool(proxy.user, wanted.directory),
    )


def spool_open(setup: Setup, proxy: Proxy, wanted: Options, facts: ProxyFacts) -> Iterator[Finding]:
    """Other users see the directory for messages."""
    seen = facts.spool
    if seen is None or not seen.exists or not seen.mode & _OTHERS:
        return
    remedy = f"chmod 0700 {shlex.quote(wanted.directory)}"
    if seen.mode & _STICKY:
        own = "/var/spool/postprox"
        remedy = (
            f"{fixes.make_spool(proxy.user, own)}; "
            f"{fixes.set_directory(setup.configuration, proxy, wanted, own)}"
        )
    yield Finding(
        "spool-open",
        proxy.where,
        f"messages are stored in {wanted.directory}, which is open to other users "
        f"(mode {seen.mode:04o})",
        remedy,
    )


def spool_full(setup: Setup, proxy: Proxy, wanted: Options, facts: ProxyFacts) -> Iterator[Finding]:
    """A message of the largest size that Postfix takes has no room."""
    seen = facts.spool
    largest = setup.configuration.number("message_size_limit")
    if seen is None or not seen.exists or (seen.free >= max(largest, 1) and seen.free_files):
        return
    directory = shlex.quote(wanted.directory)
    yield Finding(
        "spool-full",
        proxy.where,
        f"{wanted.directory} has no room for a message of {largest} octets "
        f"(message_size_limit): {seen.free} octets and {seen.free_files} files are free; "
        "mail gets 452",
        f"df -h {directory}; df -i {directory}",
    )
