"""Problems with lookup tables and programs that stop Postfix's own daemons.

Rule: each check is a pure function.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from . import fixes
from .findings import Fault
from .postconf import DEFAULTS, BrokenTable, Configuration
from .setup import Setup
from .tables import refusing_checks

#: The suffix of the file that postmap(1) creates, for each type of indexed table.
INDEXES = {"hash": ".db", "btree": ".db", "cdb": ".cdb", "lmdb": ".lmdb", "dbm": ".pag"}
#: The Debian package of each type of table that is not built into Postfix.
PACKAGES = {
    name: f"postfix-{name}" for name in ("cdb", "ldap", "lmdb", "mysql", "pcre", "pgsql", "sqlite")
}
#: Parameters whose tables Postfix only reads. Postfix itself creates the tables of its caches.
_READ = re.compile(r"_maps$|_restrictions$|_domains$|_checks$|_networks$|_transport$|_controls$")
#: The queue directories that belong to the user of Postfix.
QUEUES = (
    *("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming"),
    *("maildrop", "private", "public", "saved", "trace"),
)
_OWNED = " ".join(QUEUES)
_SASL_PACKAGE = "libsasl2-modules"
_TABLE = re.compile(r"(?:^|[\s,{:])(?P<type>[a-z]+):(?P<path>/[^\s,{}]+)")


def named_tables(configuration: Configuration) -> Iterator[BrokenTable]:
    """Yield the tables that main.cf and master.cf name."""
    own = [item for service in configuration.services for item in service.own.items()]
    for name, value in [*configuration.main.items(), *own]:
        if _READ.search(name):
            for found in _TABLE.finditer(value):
                yield BrokenTable(name, found["type"], found["path"])


def broken(configuration: Configuration) -> Iterator[Fault]:
    """Report tables that Postfix cannot open. The programs that use them do not work."""
    for table in configuration.broken_tables:
        path = shlex.quote(f"{table.type}:{table.path}")
        indexer = "postalias" if table.parameter == "alias_maps" else "postmap"
        command = f"{configuration.postconf.replace('postconf', indexer, 1)} {path}"
        if not table.has_text:
            command = f"touch {shlex.quote(table.path)} && {command}"
        problem = f"{table.path}{INDEXES.get(table.type, '')} does not exist"
        if table.is_unsupported:
            problem = f"this Postfix does not support tables of type {table.type}"
            command = f"apt-get install -y {PACKAGES[table.type]}"
        yield Fault(
            "table",
            "main.cf and master.cf",
            f"{table.parameter} uses {table.type}:{table.path}, but {problem}; programs that use "
            "the table defer mail (451)",
            (fixes.run(command),),
        )


def space(configuration: Configuration) -> Iterator[Fault]:
    """Report a message_size_limit for which the queue has too little space.

    smtpd(8) requires 1.5 times message_size_limit, and queue_minfree if that is larger.
    """
    limit, free = configuration.number("message_size_limit"), configuration.free_space
    reserve = configuration.main.get("queue_minfree", "").strip()
    least = max(limit * 3 // 2, int(reserve) if re.fullmatch("[0-9]{1,18}", reserve) else 0)
    if free is not None and free < least:
        default = DEFAULTS["message_size_limit"]
        edits = [fixes.set_main("queue_minfree", "0")] if least > limit * 3 // 2 else []
        if limit * 3 // 2 > free:
            edits.append(fixes.set_main("message_size_limit", default))
        yield Fault(
            "spool-full",
            "main.cf",
            f"the queue has {free} octets free, but message_size_limit = {limit} and queue_minfree "
            f"require {least}; mail is deferred (452)",
            tuple(edits),
        )


def sasl(configuration: Configuration) -> Iterator[Fault]:
    """Report services that require SASL authentication, but cannot use it.

    Their smtpd(8) processes end with a fatal error in each session.
    """
    name, reported = "smtpd_sasl_auth_enable", set()
    for service in configuration.services:
        socket = configuration.missing_sasl.get(service.label)
        key = (socket, service.own.get(name))
        if socket is None or key in reported:
            continue
        reported.add(key)
        if not socket:
            reason = "the Cyrus SASL plug-ins are missing"
            edit = fixes.run(f"apt-get install {_SASL_PACKAGE}")
        elif configuration.is_dovecot_stopped:
            reason = f"Dovecot is not running, so its socket {socket} does not exist"
            edit = fixes.run("systemctl enable --now dovecot")
        else:
            reason = f"the socket {socket} of Dovecot does not exist"
            is_own = name in service.own
            edit = fixes.set_own(service, name, "no") if is_own else fixes.set_main(name, "no")
        is_tls_first = "yes" in service.parameter("smtpd_tls_auth_only")
        is_tls_first |= service.parameter("smtpd_tls_security_level") == "encrypt"
        when = "after STARTTLS" if is_tls_first else "at each connection"
        yield Fault(
            "sasl",
            f"master.cf, {service.label}",
            f"{name} = yes, but {reason}; smtpd(8) ends with a fatal error {when}, so it receives "
            "no mail",
            (edit,),
        )


#: Header fields that Postfix or the sender adds to each message.
_FIELDS = (
    "Received: from client.example (unknown [192.0.2.1]) by mail.test (Postfix) with ESMTP id A1",
    "From: a@example.org",
    "To: b@example.org",
    "Date: Thu, 03 Dec 2026 12:00:00 +0000",
    "Message-ID: <1@example.org>",
)
_FATES = {
    "HOLD": "stays in the hold queue",
    "DISCARD": "is lost",
    "REJECT": "is refused",
}


def checks_for_all(setup: Setup) -> Iterator[Fault]:
    """Report a line of header_checks that holds, discards or rejects all messages."""
    main = setup.configuration.main
    for check in refusing_checks(main, setup.tables):
        if not any(map(check.pattern.search, _FIELDS)):
            continue
        edits = [f"sed -i '{check.number}s/^/#/' {shlex.quote(check.path)}"]
        edits += [f"{setup.configuration.postfix} reload"]
        edits += ["postsuper -H ALL"] if check.action == "HOLD" else []
        yield Fault(
            "inherited",
            "main.cf",
            f"line {check.number} of {check.path} (header_checks) applies to each message, so all "
            f"mail {_FATES[check.action]}: {check.line}",
            tuple(map(fixes.run, edits)),
        )
        return


def foreign_interfaces(configuration: Configuration) -> Iterator[Fault]:
    """Report addresses in inet_interfaces that this machine does not have."""
    foreign = configuration.foreign_interfaces
    if foreign:
        name = "inet_interfaces"
        kept = [
            each
            for each in re.split(r"[,\s]+", configuration.parameter(name).strip())
            if each not in foreign
        ]
        has_own = any(not re.match(r"localhost|127\.|\[?::1", each) for each in kept)
        yield Fault(
            "value",
            "main.cf",
            f"{name} contains {', '.join(foreign)}, but this machine does not have this address; "
            "Postfix does not start, or does not listen there",
            (fixes.set_main(name, ", ".join(kept) if has_own else "all"),),
        )


def pipe_loops(configuration: Configuration) -> Iterator[Fault]:
    """Report a filter of pipe(8) that sends mail with sendmail(1), if pickup(8) uses it too."""
    name = "content_filter"
    for service in (each for each in configuration.services if each.program == "pickup"):
        value = service.parameter(name)
        transport = configuration.transport(value.partition(":")[0])
        if transport and transport.program == "pipe" and "sendmail" in " ".join(transport.words):
            yield Fault(
                "loop",
                f"master.cf, {service.label}",
                f"{name} = {value} also applies to the mail that {transport.label} sends with "
                "sendmail(1); mail loops until it is returned to its sender",
                (fixes.set_own(service, name, ""),),
            )


def unrunnable_filters(configuration: Configuration) -> Iterator[Fault]:
    """Report a content filter that pipe(8) cannot start."""
    name = "content_filter"
    for service in configuration.services:
        transport = service.parameter(name).partition(":")[0]
        reason = configuration.unrunnable.get(f"{transport}/unix", "")
        if not reason or service.program not in ("smtpd", "pickup", "qmqpd"):
            continue
        value = configuration.main.get(name, "")
        other = value if name in service.own and not value.startswith(f"{transport}:") else ""
        is_own = name in service.own
        yield Fault(
            "transport",
            f"master.cf, {service.label}",
            f"{name} = {transport} {reason}; all its mail stays in the queue",
            (
                fixes.set_own(service, name, other) if is_own else fixes.set_main(name, ""),
                # Messages in the queue keep the filter with which they arrived.
                fixes.run("postsuper -r ALL deferred"),
            ),
        )


def _old_queue(configuration: Configuration, old: str) -> Fault:
    """Report messages in the default queue directory, which is not in use."""
    new = shlex.quote(configuration.parameter("queue_directory"))
    moved = f"cp -a {old}/$q/. {new}/$q/ && find {old}/$q -type f -delete"
    names = "maildrop incoming active deferred hold"
    return Fault(
        "queue",
        "main.cf",
        f"queue_directory is {new}, but {old} still contains messages; Postfix does not deliver "
        "them",
        (
            fixes.run(f"{configuration.postfix} stop; for q in {names}; do {moved}; done"),
            fixes.run(f"{configuration.postfix} start; sleep 1; postqueue -f"),
        ),
    )


def programs(configuration: Configuration) -> Iterator[Fault]:
    """Report programs that local users cannot use, because their group or mode is wrong."""
    if configuration.closed_programs:
        names = " and ".join(configuration.closed_programs)
        group = shlex.quote(configuration.parameter("setgid_group") or "postdrop")
        paths = shlex.join(configuration.closed_programs)
        yield Fault(
            "postdrop",
            "main.cf",
            f"{names} must belong to the group in setgid_group and have the set-group-ID bit; mail "
            "from local users is not accepted",
            (fixes.run(f"chgrp {group} {paths} && chmod 2755 {paths}"),),
        )
    if configuration.is_queue_in_memory:
        queue = configuration.parameter("queue_directory")
        place, kept = shlex.quote(queue), shlex.quote(f"{queue}.kept")
        script = shlex.quote(rf"s|^[^#]\S*\s+{queue}\s+tmpfs|#&|")
        yield Fault(
            "queue",
            "main.cf",
            f"the queue ({queue}) is on a tmpfs, so mail that Postfix has accepted is lost at each "
            "reboot",
            (
                fixes.run(f"{configuration.postfix} stop; cp -a {place}/. {kept}"),
                fixes.run(f"umount {place} && cp -a {kept}/. {place}"),
                fixes.run(f"sed -E -i {script} /etc/fstab; {configuration.postfix} start"),
            ),
        )
    if configuration.closed_files:
        paths = shlex.join(configuration.closed_files)
        yield Fault(
            "postdrop",
            "main.cf",
            f"ordinary users cannot read {' and '.join(configuration.closed_files)}, which "
            "sendmail(1) and postdrop(1) require; mail from local users and programs is not "
            "accepted",
            (fixes.run(f"chmod a+rX {paths}"),),
        )
    if foreign := configuration.foreign_directories:
        owner = shlex.quote(configuration.parameter("mail_owner") or "postfix")
        queue = shlex.quote(configuration.parameter("queue_directory"))
        yield Fault(
            "queue",
            "main.cf",
            f"the queue directories {', '.join(foreign)} do not belong to user {owner}, so Postfix "
            "cannot use them; mail is not delivered, or Postfix does not start",
            (fixes.run(f"cd {queue} && chown -R {owner} {' '.join(foreign)}"),),
        )
    if configuration.closed_directories:
        names = " and ".join(configuration.closed_directories)
        group = shlex.quote(configuration.parameter("setgid_group") or "postdrop")
        queue = shlex.quote(configuration.parameter("queue_directory"))
        yield Fault(
            "postdrop",
            "main.cf",
            f"{names} must belong to the group in setgid_group; mail from local users and programs "
            "is not accepted",
            (
                fixes.run(f"chown root: {queue}; cd {queue} && chown postfix {_OWNED}"),
                fixes.run(f"chgrp {group} {queue}/maildrop {queue}/public"),
                fixes.run(f"chmod 1730 {queue}/maildrop; chmod 2710 {queue}/public"),
            ),
        )
    if old := configuration.old_queue:
        yield _old_queue(configuration, old)
