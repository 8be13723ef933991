"""Faults of a proxy itself: its user, program, filter and spool directory.

Rule: one pure function for each finding.
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

#: spawn(8) refuses to run a command as one of these users.
_REFUSED_USERS = ("root", "postfix")
#: The permission bits of group and others, and the sticky bit of shared directories such as /tmp.
_OTHERS, _STICKY = 0o077, 0o1000


def command_line(proxy: Proxy) -> Iterator[Finding]:
    """Report a command line that the proxy refuses."""
    yield Finding(
        "command-line",
        proxy.where,
        f"all mail is refused; the command line is wrong: {proxy.error}",
        "postprox --help",
    )


def user(setup: Setup, proxy: Proxy, facts: ProxyFacts) -> Iterator[Finding]:
    """Report a missing, unknown or forbidden user."""
    if proxy.service and (not proxy.user or proxy.user in _REFUSED_USERS):
        user_is = f"cannot be {proxy.user}" if proxy.user else "is missing"
        yield Finding(
            "user",
            proxy.where,
            f"user= of spawn(8) {user_is}; the proxy cannot start, and all mail gets 451",
            fixes.set_user(setup.configuration, proxy.service, "postprox"),
        )
    elif not facts.user_exists:
        yield Finding(
            "user",
            proxy.where,
            f"user {proxy.user} does not exist; the proxy cannot start, and all mail gets 451",
            fixes.add_user(proxy.user),
        )


def columns(setup: Setup, proxy: Proxy) -> Iterator[Finding]:
    """Report columns of master.cf with which spawn(8) cannot start the proxy."""
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
            f"{', '.join(wrong)} must be n in master.cf; spawn(8) cannot start the proxy, and all "
            "mail is refused",
            "; ".join(fixes.set_field(setup.configuration, service, name, "n") for name in wrong),
        )


def program(proxy: Proxy, facts: ProxyFacts) -> Iterator[Finding]:
    """Report a missing proxy program, or one that its user cannot execute."""
    for problem, remedy in _cannot_run(facts.program, proxy.user):
        yield Finding("program", proxy.where, f"{problem}; all mail is refused", remedy)


def _cannot_run(seen: ProgramFacts, name: str) -> Iterator[tuple[str, str]]:
    path = shlex.quote(seen.path)
    if not seen.exists:
        yield f"{seen.path} does not exist", f"ls -l {path}"
    elif seen.is_directory:
        yield f"{seen.path} is a directory", f"ls -l {path}"
    elif seen.executable is False:
        yield (
            f"user {name} cannot execute {seen.path} (namei -m {path} shows the permissions)",
            f"chmod a+rx {path}",
        )


def filter_command(
    setup: Setup, proxy: Proxy, wanted: Options, facts: ProxyFacts
) -> Iterator[Finding]:
    """Report a missing filter, or one that cannot be executed."""
    if wanted.command is None:
        yield Finding(
            "no-filter",
            proxy.where,
            "-c is missing; all mail passes unfiltered",
            fixes.add_arguments(setup.configuration, proxy, "-c", "/usr/local/bin/mail-filter"),
        )
        return
    seen = facts.filter
    if seen is None:
        return
    effect = "all mail is deferred" if wanted.reject else "all mail passes unfiltered"
    for problem, remedy in _cannot_run(seen, proxy.user):
        yield Finding(
            "filter", proxy.where, f"{problem}; the filter cannot run, and {effect}", remedy
        )
    if seen.interpreter_executable is False:
        yield Finding(
            "interpreter",
            proxy.where,
            f"the filter {seen.path} requires the interpreter {seen.interpreter!r}, "
            f"which user {proxy.user} cannot execute; {effect}",
            f"head -n 1 {shlex.quote(seen.path)} | cat -A",
        )


def no_reject(setup: Setup, proxy: Proxy, wanted: Options) -> Iterator[Finding]:
    """Report a proxy that passes mail if the filter fails."""
    if wanted.command is not None and not wanted.reject:
        yield Finding(
            "no-reject",
            proxy.where,
            "-r is missing; if the filter fails, mail passes unfiltered",
            fixes.add_arguments(setup.configuration, proxy, "--strict"),
        )


def no_strict(setup: Setup, proxy: Proxy, wanted: Options) -> Iterator[Finding]:
    """Report a proxy that rejects mail if the filter crashes."""
    if wanted.command is not None and wanted.reject and not wanted.strict:
        yield Finding(
            "no-strict",
            proxy.where,
            "--strict is missing; if the filter crashes with exit status 1, mail is rejected",
            fixes.add_arguments(setup.configuration, proxy, "--strict"),
        )


def no_upstream(proxy: Proxy, wanted: Options, facts: ProxyFacts) -> Iterator[Finding]:
    """Report a missing upstream server."""
    if facts.upstream_missing:
        target = wanted.target.text
        yield Finding(
            "no-upstream",
            proxy.where,
            f"no server listens at {target}, the upstream server of the proxy; all mail gets 451",
            f"add a service {target} to master.cf as in postprox(1), POSTFIX",
        )


def spool(proxy: Proxy, wanted: Options, facts: ProxyFacts) -> Iterator[Finding]:
    """Report a missing directory for messages, or one that its user cannot write to."""
    seen = facts.spool
    if seen is None or (seen.exists and seen.writable is not False):
        return
    problem = (
        f"user {proxy.user} cannot write to {wanted.directory}, the directory for messages"
        if seen.exists
        else f"{wanted.directory}, the directory for messages, does not exist"
    )
    yield Finding(
        "spool",
        proxy.where,
        f"{problem}; all mail gets 452",
        fixes.make_spool(proxy.user, wanted.directory),
    )


def spool_open(setup: Setup, proxy: Proxy, wanted: Options, facts: ProxyFacts) -> Iterator[Finding]:
    """Report a directory for messages that is open to other users."""
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
        f"{wanted.directory}, the directory for messages, is open to other users "
        f"(mode {seen.mode:04o})",
        remedy,
    )


def spool_full(setup: Setup, proxy: Proxy, wanted: Options, facts: ProxyFacts) -> Iterator[Finding]:
    """Report a directory for messages with too little space for the largest message."""
    seen = facts.spool
    largest = setup.configuration.number("message_size_limit")
    if seen is None or not seen.exists or (seen.free >= max(largest, 1) and seen.free_files):
        return
    directory = shlex.quote(wanted.directory)
    yield Finding(
        "spool-full",
        proxy.where,
        f"{wanted.directory} has no space for a message of {largest} octets "
        f"(message_size_limit), with {seen.free} octets and {seen.free_files} files free; "
        "mail gets 452",
        f"df -h {directory}; df -i {directory}",
    )
