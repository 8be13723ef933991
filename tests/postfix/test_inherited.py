"""The recipe's services are not affected by common settings in main.cf.

Without the recipe's overriding option, each setting does harm: mail is refused or deferred, the
filter does not receive the client's address, or the signature is missing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.support.peers import connected

from .client import connect_from, message, unix
from .recipe import (
    AFTER,
    BEFORE,
    BOB,
    CAROL,
    OUTSIDE,
    SPAWNED,
    Besides,
    Edit,
    Recipe,
    running_recipe,
)
from .signer import is_signed

pytestmark = pytest.mark.usefixtures("needs_postfix")

#: Records the client address that the filter received in each message.
MARK = '{ echo "X-Remote: $REMOTEIP"; cat "$EMAIL"; } > "$OUTFILE"\n'


class Setting(NamedTuple):
    """Lines of main.cf, and the option by which the recipe overrides them."""

    main: str
    option: str
    mode: str = BEFORE


SETTINGS = {
    "TLS wrapper mode": Setting("smtpd_tls_wrappermode = yes", "smtpd_tls_wrappermode=no"),
    "PROXY protocol": Setting(
        "smtpd_upstream_proxy_protocol = haproxy", "smtpd_upstream_proxy_protocol="
    ),
    "AUTH without Dovecot": Setting(
        "smtpd_sasl_auth_enable = yes\nsmtpd_sasl_path = /nonexistent", "smtpd_sasl_auth_enable=no"
    ),
    "command filter": Setting(
        "smtpd_command_filter = regexp:{{!/^(EHLO|MAIL|RCPT|DATA|RSET|QUIT)/ UNKNOWN}}",
        "smtpd_command_filter=",
    ),
    "EHLO keywords": Setting(
        "smtpd_discard_ehlo_keywords = xforward", "smtpd_discard_ehlo_keywords="
    ),
    "EHLO keywords by address": Setting(
        "smtpd_discard_ehlo_keyword_address_maps = static:xforward",
        "smtpd_discard_ehlo_keyword_address_maps=",
    ),
    "connection rate": Setting(
        "smtpd_client_connection_rate_limit = 1\nsmtpd_client_event_limit_exceptions =\n"
        "smtpd_authorized_xclient_hosts =",
        "smtpd_client_event_limit_exceptions=127.0.0.0/8",
    ),
    "recipient limit": Setting("smtpd_recipient_limit = 1", "smtpd_recipient_limit=100000"),
    "milters by address": Setting("smtpd_milter_maps = static:DISABLE", "smtpd_milter_maps="),
    "TLS wrapper mode of smtp(8)": Setting(
        "smtp_tls_wrappermode = yes\nsmtp_tls_security_level = encrypt",
        "smtp_tls_wrappermode=no",
        AFTER,
    ),
    "TLS policy of smtp(8)": Setting(
        "smtp_tls_policy_maps = static:encrypt", "smtp_tls_policy_maps=", AFTER
    ),
    "header checks of smtp(8)": Setting(
        "smtp_header_checks = regexp:{{/^Subject:.*/ REPLACE Subject: changed}}",
        "smtp_header_checks=",
        AFTER,
    ),
    "body checks of smtp(8)": Setting(
        "smtp_body_checks = regexp:{{/^bye/ REPLACE changed}}", "smtp_body_checks=", AFTER
    ),
}

#: The services to which the test client connects must not have the settings above.
FRONT = """
    -o smtpd_tls_wrappermode=no -o smtpd_upstream_proxy_protocol= -o smtpd_sasl_auth_enable=no
    -o smtpd_command_filter= -o smtpd_discard_ehlo_keywords=
    -o smtpd_discard_ehlo_keyword_address_maps= -o smtpd_recipient_limit=1000
    -o smtpd_client_event_limit_exceptions=static:all
    -o smtpd_authorized_xclient_hosts=127.0.0.0/8
"""


def passes(site: Recipe, service: str) -> bool:
    """Return whether mail sent to the service is delivered, filtered and signed as expected."""
    arrived = []
    for number in (1, 2):
        content = message(f"{service} {number}")
        with connect_from(site.postfix.addresses[service], OUTSIDE) as session:
            reply = session.transact("alice@mail.test", [BOB, CAROL], content)
        if reply[0] != 250:
            return False
        arrived += [
            delivered.endswith(unix(content))
            and f"\nX-Remote: {OUTSIDE}\n".encode() in delivered
            and is_signed(delivered) == (service == "own")
            for delivered in site.arrivals(BOB, f"{service} {number}")
        ]
    return arrived == [True, True]


@pytest.fixture(scope="module", params=[BEFORE, AFTER])
def site(request: pytest.FixtureRequest) -> Iterator[Recipe]:
    """A site whose main.cf contains all of the settings."""
    besides = Besides("\n".join(setting.main for setting in SETTINGS.values()) + "\n", FRONT)
    with running_recipe(request.param, SPAWNED, MARK, besides=besides) as running:
        yield running


@pytest.mark.parametrize("service", ["smtp", "own"])
def test_mail_is_delivered_despite_global_settings(site: Recipe, service: str) -> None:
    assert passes(site, service)


def without(option: str) -> Edit:
    """Return an edit that removes an option from the recipe and shortens a timeout."""

    def edit(text: str) -> str:
        return text.replace(f" -o {option}", " ").replace(" = 100s", " = 4s")

    return edit


@pytest.mark.parametrize("name", SETTINGS)
def test_omitted_option_exposes_service_to_global_setting(name: str) -> None:
    main, option, mode = SETTINGS[name]
    besides = Besides(f"{main}\n", FRONT)
    with running_recipe(mode, SPAWNED, MARK, without(option), besides) as own:
        assert not all(passes(own, service) for service in ("smtp", "own"))


FALLBACK = Besides("smtp_fallback_relay = [127.0.0.1]:10026\n")


def no_proxy(text: str) -> str:
    """Replace the proxy with a command that fails."""
    return text.replace("argv=/usr/local/sbin/postprox", "argv=/bin/false")


def test_fallback_relay_is_not_used_if_proxy_fails() -> None:
    with running_recipe(AFTER, SPAWNED, MARK, no_proxy, FALLBACK) as own:
        own.send(message("waits"), BOB)
        own.postfix.wait_log("postfix/scan.*status=deferred")
        assert own.arrivals(BOB, "waits") == []


def test_inherited_fallback_relay_receives_unfiltered_mail() -> None:
    def edit(text: str) -> str:
        return no_proxy(text).replace(" -o smtp_fallback_relay=\n", "\n")

    with running_recipe(AFTER, SPAWNED, MARK, edit, FALLBACK) as own:
        own.send(message("unfiltered"), BOB)
        assert len(own.arrivals(BOB, "unfiltered")) == 1


#: The test client is not exempt from the limits, like an unknown client.
STRANGER = Besides("smtpd_client_event_limit_exceptions =\nsmtpd_authorized_xclient_hosts =\n")
COUNT_LIMIT = "smtpd_client_connection_count_limit = 10\n"


def greetings(site: Recipe, number: int) -> list[bytes]:
    """Open *number* connections at once. Return the code of each greeting."""
    with contextlib.ExitStack() as stack:
        address = site.postfix.addresses["smtp"]
        peers = [stack.enter_context(connected(address, 30)) for _ in range(number)]
        return [peer.line()[:3] for peer in peers]


def test_client_is_limited_to_ten_connections() -> None:
    with running_recipe(BEFORE, SPAWNED, MARK, besides=STRANGER) as own:
        assert sorted(greetings(own, 11)) == [b"220"] * 10 + [b"421"]


def test_more_than_ten_connections_are_accepted_if_count_limit_is_removed() -> None:
    def edit(text: str) -> str:
        return text.replace(COUNT_LIMIT, "")

    with running_recipe(BEFORE, SPAWNED, MARK, edit, STRANGER) as own:
        assert greetings(own, 11) == [b"220"] * 11
