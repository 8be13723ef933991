"""A mail site with the recipe's unchanged files in a private Postfix.

The site also has authenticated users, OpenDKIM as a milter for every service, a virtual alias, and
an archive that receives a copy of every message.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from postprox.check import unit
from tests.support.client import Reply
from tests.support.proxies import activated

from . import login, readme
from .client import connect_from
from .instance import PATIENCE, Address, Postfix, public_directory
from .proxies import GROUP, USER, Installation
from .scanner import Scanner
from .signer import running_signer

BEFORE, AFTER = readme.BEFORE, readme.AFTER
SPAWNED, LISTENING = "spawned", "listening"

#: The addresses in the recipe's files, and their names in the tests.
ADDRESSES = {
    "127.0.0.1:10025": "proxy",
    "127.0.0.1:10026": "filtered",
    "127.0.0.1:10027": "second proxy",
    "127.0.0.1:10028": "signed",
    "127.0.0.1:8891": "signer",
    "submission": "submission",
    "submissions": "submissions",
}
#: `own` is a service for the site's own mail, which uses the second proxy.
NAMES = ("smtp", "own", *ADDRESSES.values())

#: The address of an external client, which is local neither to Postfix nor to the signer.
OUTSIDE = "192.0.2.1"
ALIAS, ARCHIVE, BOB, CAROL = (f"{name}@mail.test" for name in ("info", "archive", "bob", "carol"))

SITE = f"""
smtpd_milters = inet:{{signer}}
non_smtpd_milters = inet:{{signer}}
milter_default_action = tempfail
virtual_alias_maps = inline:{{{{ {{{{ {ALIAS} = {BOB}, {CAROL} }}}} }}}}
always_bcc = {ARCHIVE}
"""

#: The options of a service that sends its mail to the second proxy.
SECOND = {
    BEFORE: "-o smtpd_proxy_filter={second proxy} -o smtpd_milters=",
    AFTER: "-o content_filter=scan:{second proxy} -o smtpd_milters=",
}

Edit = Callable[[str], str]


class Besides(NamedTuple):
    """Additions to the recipe's configuration."""

    #: Additional lines of main.cf.
    main: str = ""
    #: Options of the services to which the test client connects.
    front: str = ""


NOTHING = Besides()


def unchanged(text: str) -> str:
    """Return the README's text unchanged."""
    return text


def own_names(launcher: Path, mail_filter: Path, spool: Path) -> dict[str, str]:
    """Return the users and paths in the README as regular expressions, with replacements."""
    return {
        r"\buser=postprox\b": f"user={USER}",
        r"/usr/local/sbin/postprox\b": str(launcher),
        r"/usr/local/bin/mail-filter\b": str(mail_filter),
        r"/var/spool/postprox\b": str(spool),
    }


def own_places(addresses: Mapping[str, Address]) -> dict[str, str]:
    """Return the addresses in the README as regular expressions, with replacements."""
    mapping = {r"-l 10025\b": f"-l {addresses['proxy']}"}
    for printed, name in ADDRESSES.items():
        address = addresses[name]
        host, colon, port = printed.partition(":")
        if colon:
            mapping[rf"\[{host}\]:{port}\b"] = f"[{address.host}]:{address.port}"
            mapping[rf"(?<![\d.]){host}:{port}\b"] = str(address)
        else:
            mapping[rf"(?m)^{printed}(?= inet )"] = str(address)
    return mapping


def renamed(text: str, mapping: Mapping[str, str]) -> str:
    """Replace only the names in the README's text. Return the result."""
    for printed, own in mapping.items():
        text = re.sub(printed, own, text)
    return text


@dataclass(frozen=True)
class Recipe:
    """A running site. `send` sends external mail, `submit` sends mail of an authenticated user."""

    mode: str
    postfix: Postfix
    installation: Installation

    def send(self, content: bytes, recipient: str, sender: str = "alice@mail.test") -> Reply:
        """Send a message from an external client, by default with a local sender address."""
        with connect_from(self.postfix.addresses["smtp"], OUTSIDE) as session:
            return session.transact(sender, [recipient], content)

    def submit(self, service: str, content: bytes, recipient: str) -> Reply:
        """Send a message as an authenticated user of a submission service."""
        server = self.postfix.addresses[service]
        with login.log_in(server, wrapped=service == "submissions") as session:
            return session.transact("alice@mail.test", [recipient], content)

    def arrivals(self, recipient: str, subject: str) -> list[bytes]:
        """Wait until the queue is empty. Return the recipient's messages with the subject."""
        self.postfix.wait_quiet()
        title = f"\nSubject: {subject}\n".encode()
        return [content for content in self.postfix.delivered(recipient) if title in content]

    def arrival(self, recipient: str, subject: str) -> bytes:
        """Wait until the queue is empty. Return the recipient's only message with the subject."""
        (content,) = self.arrivals(recipient, subject)
        return content


def scanning_filter(scanner: Scanner) -> str:
    """Return the README's filter, with the test scanner's configuration."""
    return re.sub(
        r"(?m)^clamdscan ", f"clamdscan --config-file={scanner.config} ", readme.filter_script()
    )


@contextlib.contextmanager
def running_recipe(
    mode: str,
    proxy: str,
    script: str,
    edit: Edit = unchanged,
    besides: Besides = NOTHING,
) -> Iterator[Recipe]:
    """Follow the README for a queue mode (before or after) and a way to run the proxy.

    `edit` changes the README's text, so that a test can show the effect of the change.
    """
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(public_directory("postprox-recipe-"))
        installation = Installation(directory)
        mail_filter = installation.executable("mail-filter", script)
        names = own_names(installation.launcher, mail_filter, installation.spool)
        stack.enter_context(login.running_users(directory))

        def named(text: str, addresses: Mapping[str, Address]) -> str:
            return renamed(edit(text), names | own_places(addresses))

        def services(addresses: Mapping[str, Address]) -> str:
            return (
                f"{addresses['smtp']} inet n - n - - smtpd {besides.front}\n"
                f"{addresses['own']} inet n - n - - smtpd {besides.front}"
                f" {SECOND[mode].format(**addresses)}\n"
                f"{named(master_cf(mode, proxy), addresses)}"
            )

        def settings(addresses: Mapping[str, Address]) -> str:
            site = SITE.format(**addresses) + login.SETTINGS.format(dir=directory)
            return site + named(besides.main + readme.main_cf(mode), addresses)

        postfix = stack.enter_context(Postfix(directory, NAMES, services, settings))
        stack.enter_context(running_signer(directory, postfix.addresses["signer"]))
        if proxy == LISTENING:
            line = named(unit_command(), postfix.addresses)
            stack.enter_context(listening_proxy(line, postfix.addresses["proxy"], installation))
        yield Recipe(mode, postfix, installation)


def master_cf(mode: str, proxy: str) -> str:
    """Return all lines that the README appends to master.cf."""
    spawned = readme.spawned() if proxy == SPAWNED else ""
    parts = (readme.master_cf(mode, part) for part in ("", "users", "submission"))
    return spawned + "".join(parts)


def unit_command() -> str:
    """Return the packaged unit's command line with the options from its options file."""
    packaging = readme.README.parent / "packaging"
    files = {"/etc/default/postprox": (packaging / "postprox.default").read_text()}
    return shlex.join(
        unit.parse("postprox", [(packaging / "postprox.service").read_text()], files).words
    )


@contextlib.contextmanager
def listening_proxy(line: str, address: Address, installation: Installation) -> Iterator[None]:
    """Run the unit's command line with an open listening socket, as systemd does."""
    with socket.create_server(address) as listener:
        proxy = subprocess.Popen(
            activated(*shlex.split(line)),
            stdin=listener.fileno(),
            user=USER,
            group=GROUP,
            extra_groups=[],
            cwd="/",
            # TMPDIR is unset, because systemd gives the service a private /tmp.
            env={"PATH": os.defpath},
        )
        try:
            yield
        finally:
            proxy.terminate()
            proxy.wait(PATIENCE)
