"""A mail site with the recipe's files, word for word, in a Postfix of the tests' own.

The rest of the site is what the README expects of any: users who log in, OpenDKIM as milter of
every service, a virtual alias, an archive that gets a copy of everything.
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
#: `own` is a service of the site itself that uses the second proxy.
NAMES = ("smtp", "own", *ADDRESSES.values())

#: An external client that neither Postfix nor the signer knows.
OUTSIDE = "192.0.2.1"
ALIAS, ARCHIVE, BOB, CAROL = (f"{name}@mail.test" for name in ("info", "archive", "bob", "carol"))

SITE = f"""
smtpd_milters = inet:{{signer}}
non_smtpd_milters = inet:{{signer}}
milter_default_action = tempfail
virtual_alias_maps = inline:{{{{ {{{{ {ALIAS} = {BOB}, {CAROL} }}}} }}}}
always_bcc = {ARCHIVE}
"""

#: How a service gives its mail to the second proxy.
SECOND = {
    BEFORE: "-o smtpd_proxy_filter={second proxy} -o smtpd_milters=",
    AFTER: "-o content_filter=scan:{second proxy} -o smtpd_milters=",
}

Edit = Callable[[str], str]


class Besides(NamedTuple):
    """Additions to the recipe's configuration."""

    #: Lines of main.cf, for every service.
    main: str = ""
    #: Options of the services that the tests' client uses, so that it can.
    front: str = ""


NOTHING = Besides()


def unchanged(text: str) -> str:
    """The README's text as it is."""
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
    """The README's text with other names in the place of its own, and nothing else changed."""
    for printed, own in mapping.items():
        text = re.sub(printed, own, text)
    return text


@dataclass(frozen=True)
class Recipe:
    """A running site. `send` is mail from outside, `submit` that of an authenticated user."""

    mode: str
    postfix: Postfix
    installation: Installation

    def send(self, content: bytes, recipient: str, sender: str = "alice@mail.test") -> Reply:
        """Send a message from outside, as if it were one of ours."""
        with connect_from(self.postfix.addresses["smtp"], OUTSIDE) as session:
            return session.transact(sender, [recipient], content)

    def submit(self, service: str, content: bytes, recipient: str) -> Reply:
        """Send a message as an authenticated user does, at either submission service."""
        server = self.postfix.addresses[service]
        with login.log_in(server, wrapped=service == "submissions") as session:
            return session.transact("alice@mail.test", [recipient], content)

    def arrivals(self, recipient: str, subject: str) -> list[bytes]:
        """Every message with the subject that the recipient has, once nothing is under way."""
        self.postfix.wait_quiet()
        title = f"\nSubject: {subject}\n".encode()
        return [content for content in self.postfix.delivered(recipient) if title in content]

    def arrival(self, recipient: str, subject: str) -> bytes:
        """The one message with the subject that the recipient has."""
        (content,) = self.arrivals(recipient, subject)
        return content


def scanning_filter(scanner: Scanner) -> str:
    """The README's filter, with the address of the tests' clamd."""
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
    """Follow the README: one of its two modes, one of its two ways to run the proxy.

    `edit` changes its text, to see what goes wrong then.
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
    """All that can be appended to master.cf."""
    spawned = readme.spawned() if proxy == SPAWNED else ""
    parts = (readme.master_cf(mode, part) for part in ("", "users", "submission"))
    return spawned + "".join(parts)


def unit_command() -> str:
    """The command line of the packaged unit, with the options of its file."""
    packaging = readme.README.parent / "packaging"
    files = {"/etc/default/postprox": (packaging / "postprox.default").read_text()}
    return shlex.join(
        unit.parse("postprox", [(packaging / "postprox.service").read_text()], files).words
    )


@contextlib.contextmanager
def listening_proxy(line: str, address: Address, installation: Installation) -> Iterator[None]:
    """Run the unit's command line as systemd does, with a socket that is open already."""
    with socket.create_server(address) as listener:
        proxy = subprocess.Popen(
            activated(*shlex.split(line)),
            stdin=listener.fileno(),
            user=USER,
            group=GROUP,
            extra_groups=[],
            cwd="/",
            # systemd gives it a /tmp of its own.
            env={"PATH": os.defpath},
        )
        try:
            yield
        finally:
            proxy.terminate()
            proxy.wait(PATIENCE)
