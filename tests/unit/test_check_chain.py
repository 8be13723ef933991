"""postprox-check: filters and checks that a change for the proxy disables."""

from __future__ import annotations

from dataclasses import replace

import pytest

from postprox.check.facts import Listener, RunningFacts
from postprox.check.findings import Finding
from postprox.check.postconf import parse
from postprox.check.routes import Endpoint, spawned_proxies
from postprox.check.rules import judge
from postprox.check.setup import Setup
from postprox.check.source_text import replaced_value
from tests.unit.checking import FRONT, SEEN
from tests.unit.test_check_ways import AFTER, BASE, BEFORE, BEHIND, SCAN, UNMAPPED, UP, own

AMAVIS = "smtp-amavis:[127.0.0.1]:10024"
AMAVIS_SERVICE = "smtp-amavis unix - - n - 20 smtp\n"
NO_MILTERS = "receive_override_options = no_milters\n"
UNCHECKED = "receive_override_options = no_header_body_checks\n"


def findings(
    main: str, master: str, *own_lines: str, earlier: str = "", overrides: str = ""
) -> list[Finding]:
    text = own("127.0.0.1:10026", *own_lines) + overrides
    configuration = replace(parse(main, master, text), replaced_filter=earlier)
    proxies = list(spawned_proxies(configuration))
    return judge(Setup(configuration, proxies, dict.fromkeys(proxies, SEEN)))


def after(earlier: str, more: str = "") -> list[Finding]:
    return findings(AFTER, FRONT + UP + BEHIND + SCAN + more, UNMAPPED, earlier=earlier)


@pytest.mark.parametrize(
    ("main", "value"),
    [
        ("content_filter = a:b\n# x\ncontent_filter=c:d\n", "a:b"),
        ("content_filter =\n  a:b\nmynetworks = x\ncontent_filter = c:d\n", "a:b"),
        ("content_filter = a:b\ncontent_filter = c:d\ncontent_filter = c:d\n", "a:b"),
        ("#content_filter = a:b\ncontent_filter = c:d\n", ""),
        ("content_filter = c:d\ncontent_filter = c:d\n", ""),
        ("content_filter = \ncontent_filter = c:d\n", ""),
        ("other_content_filter = a:b\ncontent_filter = c:d\n", ""),
        ("", ""),
    ],
)
def test_earlier_value_of_repeated_parameter_is_found(main: str, value: str) -> None:
    assert replaced_value(main, "content_filter") == value


def test_remedy_adds_replaced_filter_to_service_after_proxy() -> None:
    (finding,) = after(AMAVIS, AMAVIS_SERVICE)
    assert (finding.name, finding.level) == ("replaced-filter", 1)
    assert AMAVIS in finding.problem
    assert finding.remedy == f"postconf -P '127.0.0.1:10026/inet/content_filter={AMAVIS}'"


def test_remedy_overwrites_line_of_removed_filter() -> None:
    (finding,) = after(AMAVIS)
    assert finding.remedy == "postconf -e 'content_filter=scan:[127.0.0.1]:10025'"


def test_replaced_filter_that_is_used_elsewhere_is_not_reported() -> None:
    master = FRONT + UP + BEHIND + SCAN + AMAVIS_SERVICE
    lines = own("127.0.0.1:10026", UNMAPPED).replace(
        "content_filter =", f"content_filter = {AMAVIS}"
    )
    configuration = replace(parse(AFTER, master, lines), replaced_filter=AMAVIS)
    proxies = list(spawned_proxies(configuration))
    found = judge(Setup(configuration, proxies, dict.fromkeys(proxies, SEEN)))
    assert "replaced-filter" not in {each.name for each in found}


def test_replaced_filter_with_same_transport_is_not_reported() -> None:
    assert after("scan:[127.0.0.1]:10035") == []


@pytest.mark.parametrize("checks", ["header_checks", "body_checks"])
def test_disabled_checks_with_before_queue_filter_are_reported(checks: str) -> None:
    main = f"{BEFORE}{checks} = regexp:/etc/postfix/checks\n"
    (finding,) = findings(main, FRONT + UP + BEHIND, UNCHECKED)
    assert (finding.name, finding.level) == ("disabled-checks", 1)
    assert finding.remedy == "postconf -P 127.0.0.1:10026/inet/receive_override_options="


def test_disabled_checks_are_not_reported_after_queue() -> None:
    main = f"{AFTER}header_checks = regexp:/etc/postfix/checks\n"
    options = UNMAPPED.replace("mappings", "mappings,no_header_body_checks")
    assert findings(main, FRONT + UP + BEHIND + SCAN, options) == []


def test_override_without_configured_checks_is_not_reported() -> None:
    assert findings(BEFORE, FRONT + UP + BEHIND, UNCHECKED) == []


def test_loop_and_double_mapping_are_reported_together() -> None:
    master = FRONT + UP + "127.0.0.1:10026 inet n - n - - smtpd\n" + SCAN
    lines = own().replace("127.0.0.1:10026/inet/content_filter =\n", "")
    configuration = parse(AFTER, master, lines)
    proxies = list(spawned_proxies(configuration))
    found = judge(Setup(configuration, proxies, dict.fromkeys(proxies, SEEN)))
    assert {"loop", "mapped-twice"} <= {each.name for each in found}


USERS = f"{BASE}smtpd_milters = unix:/run/opendkim/opendkim.sock\n"
USERS_FRONT = "submission inet n - n - 20 smtpd\n"


def for_users(main: str, running: RunningFacts | None = None) -> list[Finding]:
    """Return the findings for a proxy for users' mail, behind which the recipe's milter signs."""
    lines = (
        "127.0.0.1:10026/inet/smtpd_milters = inet:127.0.0.1:8891\n"
        "submission/inet/smtpd_proxy_filter = 127.0.0.1:10025\n"
        "submission/inet/smtpd_milters =\n"
        "submission/inet/smtpd_sasl_auth_enable = yes\n"
        "submission/inet/smtpd_relay_restrictions = permit_sasl_authenticated,reject\n"
    )
    configuration = parse(main, USERS_FRONT + UP + BEHIND, own() + lines)
    proxies = list(spawned_proxies(configuration))
    facts = dict.fromkeys(proxies, SEEN)
    found = judge(Setup(configuration, proxies, facts, running=running))
    return [each for each in found if each.name == "no-milter"]


def test_recipe_milter_is_reported_if_site_has_another_milter() -> None:
    (finding,) = for_users(USERS)
    assert finding.level == 2
    remedy = "postconf -P 127.0.0.1:10026/inet/smtpd_milters=unix:/run/opendkim/opendkim.sock"
    assert finding.remedy == remedy


def test_recipe_milter_beside_other_milters_is_not_reported() -> None:
    assert for_users(f"{BASE}smtpd_milters = inet:localhost:11332\n") == []


@pytest.mark.parametrize(
    ("listeners", "is_reported"),
    [((), True), ((Listener(Endpoint("127.0.0.1", 8891)),), False)],
)
def test_milter_without_listener_is_reported(
    listeners: tuple[Listener, ...], is_reported: bool
) -> None:
    assert len(for_users(BASE, RunningFacts(postfix=True, listeners=listeners))) == is_reported


@pytest.mark.parametrize("milter", ["inet:localhost:11332", "unix:/run/clamav/milter.ctl"])
def test_scanning_milter_before_queue_is_reported(milter: str) -> None:
    (finding,) = findings(f"{BEFORE}smtpd_milters = {milter}\n", FRONT + UP + BEHIND, NO_MILTERS)
    assert (finding.name, finding.level) == ("unscanned", 1)
    assert finding.remedy == "postconf smtpd_milters smtpd_proxy_filter"


def test_scanning_milter_after_queue_is_not_reported() -> None:
    main = f"{AFTER}smtpd_milters = inet:localhost:11332\n"
    options = UNMAPPED.replace("mappings", "mappings,no_milters")
    assert findings(main, FRONT + UP + BEHIND + SCAN, options) == []


def test_remedy_replaces_transport_smtp_with_transport_scan() -> None:
    main = AFTER.replace("scan:", "smtp:").replace("smtp_send_xforward_command = yes\n", "")
    master = FRONT + UP + BEHIND + "smtp unix - - n - 20 smtp\n"
    (finding,) = [each for each in findings(main, master, UNMAPPED) if each.name == "xforward"]
    assert "postconf -M 'scan/unix=scan unix - - n - " in finding.remedy
    assert finding.remedy.endswith("postconf -e 'content_filter=scan:[127.0.0.1]:10025'")
