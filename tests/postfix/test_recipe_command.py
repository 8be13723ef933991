"""Runs the commands that `postprox-check --recipe` prints for many sites, and checks each site.

Each site is a configuration of Postfix without a proxy, as the real postconf(1) prints it.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from .instance import MASTER_CF, PROGRAMS, public_directory
from .test_check import Said
from .test_options_file import Site
from .test_sites import AMAVIS as RUNNING_AMAVIS
from .test_sites import START_AMAVIS, tried

pytestmark = pytest.mark.usefixtures("needs_postfix")

MAIN = """
compatibility_level = 3.6
smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination
"""
SMTP = "smtp inet n - n - - smtpd\n"
SIGNER = "smtpd_milters = inet:127.0.0.1:8891\n"
SUBMISSION = """\
submission inet n - n - - smtpd -o syslog_name=postfix/submission -o smtpd_sasl_auth_enable=yes
    -o smtpd_tls_security_level=encrypt -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
    -o smtpd_recipient_restrictions=
"""
SMTPS = SUBMISSION.replace("submission ", "smtps ").replace("encrypt", "may")
AMAVIS_MAIN = "content_filter = amavis:[127.0.0.1]:10024\n"
AMAVIS = """\
amavis unix - - n - 2 smtp -o smtp_send_xforward_command=yes
127.0.0.1:10025 inet n - n - - smtpd -o content_filter= -o mynetworks=127.0.0.0/8
    -o smtpd_recipient_restrictions=permit_mynetworks,reject
    -o receive_override_options=no_header_body_checks,no_unknown_recipient_checks
"""
#: A filter other than postprox, which the check does not recognise.
OTHER = (
    "not checked: the server that listens on 127.0.0.1:10024 (specify --unit FILE or\n"
    "  -- COMMAND LINE)\n"
)
POSTSCREEN = """\
smtp inet n - n - 1 postscreen
smtpd pass - - n - - smtpd
dnsblog unix - - n - 0 dnsblog
tlsproxy unix - - n - 0 tlsproxy
"""


class Case(NamedTuple):
    """The contents of a site's main.cf and master.cf."""

    main: str = ""
    master: str = SMTP
    #: The output of the check after the commands.
    unchecked: str = ""


CASES = {
    "plain": Case(),
    "IPv6 only": Case("inet_protocols = ipv6\n"),
    "a signer for all": Case(SIGNER),
    "a signer and submission": Case(SIGNER, SMTP + SUBMISSION),
    "a signer, submission and smtps": Case(SIGNER, SMTP + SUBMISSION + SMTPS),
    "submission without a signer": Case("", SMTP + SUBMISSION),
    "a signer at submission only": Case(
        "", SMTP + f"{SUBMISSION}    -o {SIGNER}".replace(" = ", "=")
    ),
    "two signers": Case(
        SIGNER, SMTP + SUBMISSION + f"{SMTPS}    -o smtpd_milters=unix:/run/other.sock\n"
    ),
    "AUTH for all": Case("smtpd_sasl_auth_enable = yes\n" + SIGNER, SMTP + SUBMISSION),
    "amavis": Case(AMAVIS_MAIN, SMTP + AMAVIS, OTHER),
    "amavis without mappings": Case(
        AMAVIS_MAIN + "receive_override_options = no_address_mappings\n", SMTP + AMAVIS, OTHER
    ),
    "amavis at smtp only": Case(
        "", f"{SMTP[:-1]} -o content_filter=amavis:[127.0.0.1]:10024\n" + AMAVIS, OTHER
    ),
    "amavis before the queue": Case(
        "smtpd_proxy_filter = 127.0.0.1:10024\n",
        SMTP + AMAVIS.replace("content_filter=", "smtpd_proxy_filter="),
        OTHER,
    ),
    "postscreen": Case(SIGNER, POSTSCREEN),
    "a used port": Case("", SMTP + "127.0.0.1:10027 inet n - n - - smtpd -o content_filter=\n"),
    "a used transport": Case("", SMTP + "scan unix - - n - - smtp\n"),
    "TLS wrapper mode": Case(
        "smtpd_tls_wrappermode = yes\nsmtpd_tls_security_level = encrypt\n",
        f"{SMTP[:-1]} -o smtpd_tls_wrappermode=no -o smtpd_tls_security_level=may\n",
    ),
    "HAProxy in front": Case("smtpd_upstream_proxy_protocol = haproxy\n"),
    "strict restrictions": Case(
        "smtpd_client_restrictions = permit_sasl_authenticated, reject\n"
        "smtpd_data_restrictions = reject\nsmtpd_helo_restrictions = reject\n"
    ),
    "limits for one client": Case(
        "smtpd_client_message_rate_limit = 10\nsmtpd_client_event_limit_exceptions = 192.0.2.1\n"
        "smtpd_client_connection_count_limit = 5\n"
    ),
    "many processes": Case("default_process_limit = 400\n", SMTP + SUBMISSION),
    "few processes": Case("default_process_limit = 10\n", "smtp inet n - n - 300 smtpd\n"),
    "unlimited processes": Case("", "smtp inet n - n - 0 smtpd\n"),
    "short time limits": Case(
        "smtpd_timeout = 10s\nsmtp_data_done_timeout = 30s\ncommand_time_limit = 30s\n",
        f"{SMTP[:-1]} -o smtpd_proxy_timeout=20s\n",
    ),
    "TLS for all deliveries": Case(
        "smtp_tls_security_level = encrypt\nsmtp_tls_wrappermode = yes\n"
        "smtp_fallback_relay = [127.0.0.1]:26\nsmtp_header_checks = regexp:/etc/postfix/h\n"
    ),
    "large messages at submission": Case(
        "", SMTP + f"{SUBMISSION}    -o message_size_limit=99999999\n"
    ),
    "old TLS parameters": Case(
        "smtpd_enforce_tls = yes\nsmtp_enforce_tls = yes\n",
        f"{SMTP[:-1]} -o smtpd_enforce_tls=no\n",
    ),
    "a service without a filter": Case(
        "", SMTP + "127.0.0.1:2525 inet n - n - - smtpd -o smtpd_proxy_filter= -o content_filter=\n"
    ),
    "no copies": Case("receive_override_options = no_address_mappings\n"),
}
#: The sites for the listening proxy, with a different port and number of sessions.
LISTENING = (
    *("plain", "IPv6 only", "a signer and submission", "amavis", "a used port", "many processes"),
    *("few processes", "unlimited processes", "no copies"),
)
STUBS = ("postfix", "useradd", "install", "systemctl")


class Planned(Site):
    """A site without a proxy."""

    def prepare(self, case: Case) -> None:
        (self.etc / "main.cf").write_text(MAIN + case.main)
        (self.etc / "master.cf").write_text(case.master + MASTER_CF)
        programs = self.directory / "stubs"
        programs.mkdir()
        for name in STUBS:
            (programs / name).write_text(f'#!/bin/sh\necho "{name} $@" >> {self.directory}/told\n')
            (programs / name).chmod(0o755)

    def follow(self, *arguments: str) -> str:
        """Print the recipe and run it unchanged except for names. Return the recipe's text."""
        said = self.check("--recipe", *arguments)
        assert (said.status, said.errors) == (0, ""), said.errors
        program = re.search(r"argv=(\S+)", "".join(said.output.split("'\\\n'")))
        text = said.output.replace("'\\\n'", "")
        if program:
            text = text.replace(program[1], "/usr/local/sbin/postprox")
        environment = {"PATH": f"{self.directory}/stubs:{PROGRAMS}"}
        subprocess.run(
            ["/bin/sh", "-e"], input=self.here(text), env=environment, text=True, check=True
        )
        return said.output


@pytest.fixture
def site(needs_postfix: None) -> Iterator[Planned]:
    with public_directory("postprox-recipe-", "/var/lib") as directory:
        yield Planned(directory)


def assert_right(said: Said, case: Case, recipe: str) -> None:
    status = 3 if case.unchecked else 0
    assert said == Said(status, case.unchecked, ""), recipe


@pytest.mark.parametrize("mode", ["before-queue", "after-queue"])
@pytest.mark.parametrize("name", CASES)
def test_recipe_for_spawned_proxy_has_no_findings(site: Planned, name: str, mode: str) -> None:
    site.prepare(CASES[name])
    recipe = site.follow(mode, "--spawn")
    assert_right(site.check(), CASES[name], recipe)


@pytest.mark.parametrize("mode", ["before-queue", "after-queue"])
@pytest.mark.parametrize("name", LISTENING)
def test_recipe_for_listening_proxy_has_no_findings(site: Planned, name: str, mode: str) -> None:
    site.prepare(CASES[name])
    recipe = site.follow(mode, "--unit", str(site.unit_path))
    assert_right(site.checks(), CASES[name], recipe)


def test_recipe_is_refused_if_proxy_is_already_in_use(site: Planned) -> None:
    site.prepare(CASES["plain"])
    site.follow("before-queue", "--spawn")
    said = site.check("--recipe", "after-queue", "--spawn")
    assert (said.status, said.output) == (2, "")
    assert said.errors.startswith(
        "postprox-check: postprox is already in use (master.cf, 127.0.0.1:10025/inet)"
    )


def test_recipe_writes_missing_options_file(site: Planned) -> None:
    site.prepare(CASES["plain"])
    site.file.unlink()
    site.follow("before-queue", "--unit", str(site.unit_path))
    assert site.checks() == Said(0, "", "")


def test_recipe_preserves_administrator_options(site: Planned) -> None:
    site.prepare(CASES["a used port"])
    site.edit("-t 60", "-t 45 --max-sessions 150")
    site.follow("before-queue", "--unit", str(site.unit_path))
    text = site.file.read_text()
    assert f'POSTPROX_OPTIONS="-v --strict -t 45 --max-sessions 150 -c {site.filter}"\n' in text
    assert 'POSTPROX_UPSTREAM="127.0.0.1:10126"\n' in text


def test_missing_unit_is_an_error(site: Planned) -> None:
    site.prepare(CASES["plain"])
    said = site.check("--recipe", "before-queue", "--unit", "/nonexistent/postprox.service")
    assert (said.status, said.output) == (2, "")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--spawn",), "--spawn requires --recipe"),
        (("--recipe", "queue"), "invalid choice: 'queue'"),
        (("--recipe", "before-queue", "--json"), "--recipe cannot be combined with --json"),
        (("--recipe", "before-queue", "--spawn", "--unit", "x"), "--spawn cannot be combined with"),
    ],
)
def test_invalid_recipe_options_are_rejected(
    site: Planned, arguments: tuple[str, ...], error: str
) -> None:
    said = site.check(*arguments)
    assert (said.status, said.output) == (2, "")
    assert error in said.errors


def test_recipe_never_replaces_submission_service(site: Planned) -> None:
    own = "submission inet n - n - - smtpd -o smtpd_client_restrictions=permit_mynetworks,reject\n"
    site.prepare(Case(SIGNER, SMTP + own))
    assert "-M submission/inet" not in site.check("--recipe", "before-queue", "--spawn").output


def test_missing_filter_is_mentioned_in_recipe(site: Planned) -> None:
    site.prepare(CASES["plain"])
    site.edit('-c [^"]*', "-c /nonexistent/filter")
    printed = site.check("--recipe", "before-queue", "--unit", str(site.unit_path)).output
    first = "# First, make sure that the filter /nonexistent/filter exists and is executable.\n"
    assert first in printed


FOLLOW = """
postfix start 2>/dev/null
postprox-check --recipe {} --spawn > "$DIR/recipe"
sh -e "$DIR/recipe" 2>/dev/null
postfix stop 2>/dev/null
"""
#: The amavis replacement of test_sites, under a name other than postprox.
NAMED_AMAVIS = RUNNING_AMAVIS.replace(
    "argv=/usr/local/sbin/postprox", "argv=/usr/local/sbin/amavisd"
)
START_NAMED = f"{START_AMAVIS}ln -s postprox /usr/local/sbin/amavisd\n"


@pytest.mark.parametrize(("mode", "code"), [("before-queue", 550), ("after-queue", 250)])
def test_mail_is_filtered_if_printed_recipe_is_followed(
    tmp_path: Path, mode: str, code: int
) -> None:
    seen = tried(tmp_path, "", "", [FOLLOW.format(mode)], port=25)
    assert (seen["arrived"], seen["filtered"], seen["virus arrived"]) == (True, True, False)
    assert seen["codes"] == [250, code]


@pytest.mark.parametrize(("mode", "code"), [("before-queue", 550), ("after-queue", 250)])
def test_amavis_still_scans_mail_after_printed_recipe_is_applied(
    tmp_path: Path, mode: str, code: int
) -> None:
    steps = [START_NAMED, FOLLOW.format(mode)]
    seen = tried(tmp_path, AMAVIS_MAIN, NAMED_AMAVIS, steps, port=25)
    assert (seen["arrived"], seen["filtered"], seen["amavis"]) == (True, True, True)
    assert (seen["virus arrived"], seen["codes"]) == (False, [250, code])
