"""Problems with the delivery of mail to local users.

Rule: each check is a pure function.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from . import fixes
from .findings import Fault
from .postconf import Configuration

#: The parameters that name a transport for local mail, each with a replacement value that requires
#: no other program.
TRANSPORTS = {
    "mailbox_transport": "",
    "fallback_transport": "",
    "local_transport": "local:$myhostname",
    "virtual_transport": "virtual",
}


def command(configuration: Configuration) -> Iterator[Fault]:
    """Report a mailbox_command whose program does not exist."""
    if configuration.missing_delivery:
        yield Fault(
            "value",
            "main.cf",
            f"mailbox_command runs {configuration.missing_delivery}, which does not exist; mail "
            "for local users is returned to its senders",
            (fixes.set_main("mailbox_command", ""),),
        )


def mailbox_size(configuration: Configuration) -> Iterator[Fault]:
    """Report a mailbox_size_limit below message_size_limit, with which local(8) does not run."""
    mailbox = configuration.main.get("mailbox_size_limit", "").strip()
    message = configuration.number("message_size_limit")
    if re.fullmatch("[0-9]{1,18}", mailbox) and 0 < int(mailbox) < message:
        yield Fault(
            "number",
            "main.cf",
            f"mailbox_size_limit = {mailbox} is lower than message_size_limit ({message}), so "
            "local(8) does not run; mail for local users is deferred",
            (fixes.set_main("mailbox_size_limit", "0"),),
        )


def sockets(configuration: Configuration) -> Iterator[Fault]:
    """Report transports to an LMTP server whose socket does not exist."""
    for name, path in configuration.missing_sockets.items():
        edit = fixes.set_main(name, TRANSPORTS[name])
        if configuration.is_dovecot_stopped and "dovecot" in path:
            edit = fixes.run("systemctl enable --now dovecot")
        yield Fault(
            "transport",
            "main.cf",
            f"{name} leads to the socket {path}, which does not exist; mail for local users stays "
            "in the queue",
            (edit,),
        )


def mailboxes(configuration: Configuration) -> Iterator[Fault]:
    """Report mailboxes to which local(8) cannot deliver."""
    others = ("mailbox_command", "home_mailbox", "mailbox_transport", "local_transport")
    if any(configuration.main.get(name) for name in others):
        return
    for path, owner in configuration.closed_mailboxes.items():
        place = shlex.quote(path)
        edit = f"install -d -m 2775 -g {owner} {place}"
        problem = f"the directory for mailboxes, {path}, is missing or not writable by its group"
        if path != configuration.parameter("mail_spool_directory"):
            edit = f"chown {shlex.quote(owner)} {place} && chmod u+rw {place}"
            problem = f"the mailbox {path} does not belong to its user {owner}"
        yield Fault(
            "queue",
            "main.cf",
            f"{problem}; mail for local users stays in the queue",
            (fixes.run(edit),),
        )


#: The parameters that name the certificate and key files for TLS.
TLS_FILES = ("smtpd_tls_cert_file", "smtpd_tls_key_file", "smtpd_tls_chain_files")


def certificates(configuration: Configuration) -> Iterator[Fault]:
    """Report missing certificates if smtpd(8) offers STARTTLS."""
    for name, path in configuration.missing_certificates.items():
        yield Fault(
            "starttls",
            "main.cf",
            f"{name} = {path} does not exist, so smtpd(8) answers STARTTLS with an error (454); "
            "mail from servers that use STARTTLS is delayed or refused",
            (fixes.set_main("smtpd_tls_security_level", "none"),),
        )
        return
