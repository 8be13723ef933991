"""postprox-check: main.cf settings that the recipe's services inherit."""

from __future__ import annotations

import pytest

from postprox.check.findings import Finding
from postprox.check.postconf import parse
from postprox.check.routes import spawned_proxies
from postprox.check.rules import judge
from postprox.check.setup import Setup
from tests.unit.checking import FRONT, MAIN, PROXY, SEEN, found, names

BEHIND = "127.0.0.1:10026 inet n - n - - smtpd -o x=y\n"
TRANSPORT = "scan unix - - n - 20 smtp -o x=y\n"
BEFORE = FRONT + PROXY.replace(" up", " 127.0.0.1:10026") + BEHIND
SPEED = "smtpd_proxy_options = speed_adjust\n"
OWN = "127.0.0.1:10026/inet/smtpd_proxy_filter =\n"
XFORWARD = "127.0.0.1:10026/inet/smtpd_authorized_xforward_hosts = 127.0.0.0/8\n"
UNMAPPED = "127.0.0.1:10026/inet/receive_override_options = no_address_mappings\n"
AFTER = (
    "smtpd_proxy_filter =\ncontent_filter = scan:[127.0.0.1]:10025\n"
    "smtp_send_xforward_command = yes\n"
)


def before(line: str, own: str = "") -> list[Finding]:
    return found(f"{SPEED}{line}\n", BEFORE, OWN + XFORWARD + own)


def after(line: str, own: str = "") -> list[Finding]:
    more = "127.0.0.1:10026/inet/content_filter =\n" + UNMAPPED
    return found(f"{AFTER}{line}\n", BEFORE + TRANSPORT, OWN + XFORWARD + more + own)


def test_unchanged_recipe_causes_no_findings() -> None:
    assert before("") == after("") == []


BEHIND_THE_PROXY = {
    "smtpd_tls_wrappermode = yes": ("inherited", "no"),
    "smtpd_enforce_tls = yes": ("inherited", "no"),
    "smtpd_tls_req_ccert = yes": ("inherited", "no"),
    "smtpd_upstream_proxy_protocol = haproxy": ("inherited", ""),
    "smtpd_client_restrictions = reject": ("inherited", ""),
    "smtpd_helo_restrictions = check_helo_access hash:/h, defer": ("inherited", ""),
    "smtpd_sender_restrictions = permit_sasl_authenticated, reject": ("inherited", ""),
    "smtpd_recipient_restrictions = permit_sasl_authenticated, reject": ("inherited", ""),
    "smtpd_data_restrictions = reject": ("inherited", ""),
    "smtpd_end_of_data_restrictions = reject": ("inherited", ""),
    "smtpd_sasl_auth_enable = yes": ("inherited-risk", "no"),
    "smtpd_command_filter = pcre:/f": ("inherited-risk", ""),
    "smtpd_discard_ehlo_keyword_address_maps = cidr:/f": ("inherited-risk", ""),
}
TABLE = "smtpd_client_restrictions = check_client_access cidr:/t"


@pytest.mark.parametrize(
    ("line", "text", "is_reported"),
    [
        (TABLE, None, True),
        (TABLE, "192.0.2.0/24 OK\n0.0.0.0/0 REJECT use the gateway\n", True),
        (TABLE, "192.0.2.0/24 REJECT\n127.0.0.0/8 OK\n# 0.0.0.0/0 REJECT\n", False),
        (TABLE.replace("cidr", "hash"), "127.0.0 554 no\n", True),
        (TABLE.replace("cidr", "hash"), "a.test REJECT\n", False),
        (TABLE.replace("cidr", "pcre"), "/^1/ REJECT\n", True),
        (TABLE.replace("cidr:", "mysql:"), "", True),
        (TABLE.replace("= ", "= permit_mynetworks, "), None, False),
        (TABLE.replace("client", "sender"), "own.test REJECT\n", True),
        (TABLE.replace("client", "sender"), "own.test OK\n", False),
        (f"smtpd_restriction_classes = c\nc = {TABLE[28:]}\n{TABLE[:28]} c", None, True),
    ],
)
def test_table_that_can_refuse_filtered_mail_is_reported(
    line: str, text: str | None, is_reported: bool
) -> None:
    own = "127.0.0.1:10026/inet/mynetworks = 127.0.0.0/8\n"
    configuration = parse(f"{MAIN}{SPEED}{line}\n", BEFORE, OWN + XFORWARD + own)
    proxies = list(spawned_proxies(configuration))
    tables = {} if text is None else {"/t": text}
    setup = Setup(configuration, proxies, dict.fromkeys(proxies, SEEN), tables=tables)
    assert names(judge(setup)) == ({"inherited-risk"} if is_reported else set())


AT_THE_TRANSPORT = {
    "smtp_tls_wrappermode = yes": ("inherited", "no"),
    "smtp_enforce_tls = yes": ("inherited", "no"),
    "smtp_fallback_relay = [192.0.2.1]": ("inherited", ""),
    "smtp_tls_policy_maps = hash:/p": ("inherited-risk", ""),
    "smtp_header_checks = pcre:/h": ("inherited-risk", ""),
    "smtp_body_checks = pcre:/b": ("inherited-risk", ""),
    "smtp_generic_maps = hash:/g": ("inherited-risk", ""),
}


@pytest.mark.parametrize("line", BEHIND_THE_PROXY)
def test_harmful_setting_of_reinjection_service_is_reported(line: str) -> None:
    name, own = BEHIND_THE_PROXY[line]
    parameter = line.partition(" ")[0]
    assert (name, f"postconf -P 127.0.0.1:10026/inet/{parameter}={own}") in {
        (finding.name, finding.remedy) for finding in before(line)
    }
    assert not {"inherited", "inherited-risk"} & {
        finding.name for finding in before(line, f"127.0.0.1:10026/inet/{parameter} = {own}\n")
    }


@pytest.mark.parametrize("line", AT_THE_TRANSPORT)
def test_harmful_setting_for_scan_transport_is_reported(line: str) -> None:
    name, own = AT_THE_TRANSPORT[line]
    parameter = line.partition(" ")[0]
    (finding,) = after(line)
    assert (finding.name, finding.remedy) == (name, f"postconf -P scan/unix/{parameter}={own}")
    assert after(line, f"scan/unix/{parameter} = {own}\n") == []


@pytest.mark.parametrize(
    "line",
    [
        "smtpd_client_restrictions = permit_mynetworks, reject",
        "smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination",
        "smtpd_recipient_restrictions = reject_unauth_destination",
        "smtpd_recipient_restrictions = permit",
        "smtpd_timeout = 300s",
        "smtpd_client_event_limit_exceptions = 127.0.0.0/8\nsmtpd_client_message_rate_limit = 9",
        "smtpd_client_message_rate_limit = 9",
        "smtpd_client_message_rate_limit = 0\nsmtpd_client_event_limit_exceptions =",
    ],
)
def test_setting_that_permits_localhost_is_not_reported(line: str) -> None:
    assert [each for each in before(line) if each.name.startswith("inherited")] == []


def test_mynetworks_without_localhost_is_reported() -> None:
    (finding,) = before(
        "mynetworks = 192.0.2.0/24\nsmtpd_relay_restrictions = permit_mynetworks, reject"
    )
    assert finding.name == "inherited"
    assert "= permit_mynetworks, reject (mynetworks = 192.0.2.0/24), which" in finding.problem
    assert "/mynetworks=127.0.0.0/8,[::1]/128" in finding.remedy


def test_client_rate_limit_is_reported() -> None:
    lines = "smtpd_client_connection_rate_limit = 1\nsmtpd_client_event_limit_exceptions ="
    (finding,) = before(lines)
    assert (finding.name, finding.level) == ("inherited", 2)


@pytest.mark.parametrize(("timeout", "names"), [("10s", ["inherited-risk"]), ("61s", [])])
def test_short_smtpd_timeout_is_reported(timeout: str, names: list[str]) -> None:
    assert [finding.name for finding in before(f"smtpd_timeout = {timeout}")] == names


@pytest.mark.parametrize("name", ["smtpd_recipient_limit", "message_size_limit"])
def test_limit_that_is_lower_behind_filter_is_reported(name: str) -> None:
    (finding,) = before(f"{name} = 5000", f"127.0.0.1:10026/inet/{name} = 50\n")
    assert (finding.name, finding.remedy) == (
        "inherited-risk",
        f"postconf -P 127.0.0.1:10026/inet/{name}=5000",
    )
    assert before(f"{name} = 5000") == []


def test_size_limit_raised_by_service_is_raised_globally() -> None:
    (finding,) = before("", "smtp/inet/message_size_limit = 50000000\n")
    assert finding.remedy == "postconf -e message_size_limit=50000000"


SASL = "smtpd_sasl_auth_enable = yes\n"


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("relay_restrictions = permit_sasl_authenticated, reject_unauth_destination", "relay"),
        ("relay_restrictions = permit_sasl_authenticated, defer_unauth_destination", "relay"),
        (
            "recipient_restrictions = permit_sasl_authenticated, reject_unauth_destination",
            "recipient",
        ),
        ("relay_restrictions = permit_mynetworks, reject_unauth_destination", ""),
        ("relay_restrictions = reject_unauth_destination", ""),
    ],
)
def test_refusal_of_outgoing_mail_from_users_is_reported(line: str, name: str) -> None:
    findings = before(f"{SASL}smtpd_{line}", "127.0.0.1:10026/inet/smtpd_sasl_auth_enable = no\n")
    own = "permit_mynetworks,reject" if name == "relay" else ""
    commands = [each.remedy for each in findings if each.name == "inherited-risk"]
    expected = f"postconf -P 127.0.0.1:10026/inet/smtpd_{name}_restrictions={own}"
    assert commands == ([expected] if name else [])


@pytest.mark.parametrize(
    ("limit", "exceptions", "is_reported"),
    [("10", "192.0.2.1", True), ("50", "", False), ("0", "", False), ("10", "127.0.0.1", False)],
)
def test_per_client_connection_limit_is_reported(
    limit: str, exceptions: str, *, is_reported: bool
) -> None:
    findings = before(
        f"smtpd_client_connection_count_limit = {limit}\n"
        f"smtpd_client_event_limit_exceptions = {exceptions}"
    )
    assert ["inherited-risk"] * is_reported == [each.name for each in findings]


UTF8 = "/inet/smtputf8_enable = no\n"


@pytest.mark.parametrize(
    ("line", "own", "is_reported"),
    [
        ("", f"127.0.0.1:10026{UTF8}", True),
        ("smtputf8_enable = no", "smtp/inet/smtputf8_enable = yes\n", True),
        ("smtputf8_enable = no", "", False),
        ("compatibility_level = 0", f"127.0.0.1:10026{UTF8}", False),
        ("", f"smtp{UTF8}127.0.0.1:10026{UTF8}", False),
        ("", f"smtp{UTF8}", False),
    ],
)
def test_disabled_smtputf8_after_filter_is_reported(line: str, own: str, is_reported: bool) -> None:
    for findings in (before(line, own), after(line, own)):
        relevant = [each for each in findings if "SMTPUTF8" in each.problem]
        assert [each.name for each in relevant] == ["inherited-risk"] * is_reported
        assert all(
            each.remedy == "postconf -P 127.0.0.1:10026/inet/smtputf8_enable=yes"
            for each in relevant
        )


@pytest.mark.parametrize(
    ("line", "is_reported"),
    [
        ("smtpd_sender_restrictions = reject_non_fqdn_sender", True),
        ("smtpd_sender_restrictions = permit_mynetworks, reject_non_fqdn_sender", False),
    ],
)
def test_sender_restriction_for_local_mail_is_reported(line: str, is_reported: bool) -> None:
    pickup = "pickup unix n - n 60 1 pickup\n"
    own = "127.0.0.1:10026/inet/content_filter =\n" + OWN + XFORWARD + UNMAPPED
    findings = found(f"{SPEED}{AFTER}{line}\n", BEFORE + TRANSPORT + pickup, own)
    assert [each.name for each in findings] == ["inherited-risk"] * is_reported
    remedy = "postconf -P 127.0.0.1:10026/inet/smtpd_sender_restrictions="
    assert [each.remedy for each in findings] == [remedy] * is_reported
    assert before(line) == []
