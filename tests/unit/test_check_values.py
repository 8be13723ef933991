"""postprox-check: numbers, master.cf columns and addresses, as Postfix parses them."""

from __future__ import annotations

import pytest

from postprox.check import values
from postprox.check.facts import ProgramFacts, ProxyFacts
from postprox.check.postconf import parse
from postprox.check.routes import (
    Endpoint,
    Proxy,
    next_hop,
    proxy_filter,
    spawned_proxies,
)
from postprox.check.rules import judge
from postprox.check.setup import Setup
from tests.unit.checking import FRONT, MAIN, PROXY, found, names

QUIET = names(found())

# Numbers that Postfix rejects

REFUSED = ["", " ", "10MB", "ten", "1.5", "0x10", "\u00b2", "\u0663", "1 2", "9" * 5000]


@pytest.mark.parametrize("text", REFUSED)
@pytest.mark.parametrize(
    "name",
    [
        *values.NUMBERS,
        *values.TIMES,
        "scan_destination_concurrency_limit",
    ],
)
def test_number_rejected_by_postfix_is_reported(name: str, text: str) -> None:
    (finding,) = (each for each in found(f"{name} = {text}\n") if each.name == "number")
    assert (finding.level, finding.where) == (2, "main.cf")
    assert f"{name} = " in finding.problem
    assert finding.remedy.startswith(f"postconf -e {name}=")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("message_size_limit", "0"),
        ("message_size_limit", "-1"),
        ("message_size_limit", "+10240000"),
        ("message_size_limit", str(2**63 - 1)),
        ("default_process_limit", "0" * 5000 + "7"),
        ("default_destination_concurrency_limit", str(2**31 - 1)),
        ("smtpd_proxy_timeout", "100s"),
        ("smtpd_proxy_timeout", "100sec"),
        ("smtp_data_done_timeout", "7"),
        ("smtp_data_done_timeout", "24h"),
        ("myhostname", "10MB"),
    ],
)
def test_number_accepted_by_postfix_is_not_reported(name: str, text: str) -> None:
    assert "number" not in names(found(f"{name} = {text}\n"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("default_process_limit", "0"),
        ("default_process_limit", "-1"),
        ("smtpd_proxy_timeout", "-1"),
        ("default_process_limit", str(2**31)),
        ("message_size_limit", str(2**63)),
        ("smtpd_proxy_timeout", "0"),
        ("smtpd_proxy_timeout", "3551w"),
        ("smtpd_proxy_timeout", "10x"),
    ],
)
def test_number_out_of_range_is_reported(name: str, text: str) -> None:
    assert "number" in names(found(f"{name} = {text}\n"))


@pytest.mark.parametrize("text", REFUSED)
@pytest.mark.parametrize("name", ["default_process_limit", "smtpd_proxy_timeout"])
def test_check_uses_default_instead_of_rejected_number(name: str, text: str) -> None:
    assert names(found(f"{name} = {text}\n")) == QUIET | {"number"}


def test_invalid_number_in_service_parameter_is_reported() -> None:
    (finding,) = (
        each
        for each in found(overrides="smtp/inet/smtpd_proxy_timeout = soon\n")
        if each.name == "number"
    )
    assert finding.where == "master.cf, smtp/inet"
    assert finding.remedy == "postconf -P smtp/inet/smtpd_proxy_timeout=100s"


@pytest.mark.parametrize("limit", ["ten", "\u00b2", "-5", "9" * 5000])
def test_process_limit_rejected_by_postfix_is_reported(limit: str) -> None:
    (finding,) = (
        each
        for each in found(master=FRONT.replace(" 20 ", f" {limit} ") + PROXY)
        if each.name == "number"
    )
    assert finding.where == "master.cf, smtp/inet"
    assert finding.remedy == "postconf -F smtp/inet/process_limit=-"


# Columns of master.cf that prevent spawn(8) from running


@pytest.mark.parametrize(
    ("columns", "wrong"),
    [
        ("n n n", []),
        ("n n y", ["chroot"]),
        ("n - n", ["unprivileged"]),
        ("n y n", ["unprivileged"]),
        ("- n n", ["private"]),
        ("y - y", ["private", "unprivileged", "chroot"]),
        ("n n -", []),
    ],
)
def test_invalid_columns_in_spawn_service_are_reported(columns: str, wrong: list[str]) -> None:
    findings = found(master=FRONT + PROXY.replace("n n n", columns))
    remedies = [each.remedy for each in findings if each.name == "columns"]
    commands = [f"postconf -F 127.0.0.1:10025/inet/{name}=n" for name in wrong]
    assert remedies == (["; ".join(commands)] if wrong else [])


@pytest.mark.parametrize(
    ("level", "chrooted"), [("0", True), ("1", False), ("2", False), ("3.6", False)]
)
def test_default_chroot_depends_on_compatibility_level(level: str, chrooted: bool) -> None:
    main = f"compatibility_level = {level}\n"
    master = FRONT + PROXY.replace("n n n", "n n -")
    assert ("columns" in names(found(main, master))) == chrooted


# LMTP transports

SCAN = """\
smtpd_proxy_filter =
content_filter = scan:[127.0.0.1]:10025
lmtp_send_xforward_command = yes
"""
LMTP = "scan unix - - n - 20 lmtp -o lmtp_generic_maps=\n"


def test_lmtp_transport_is_reported() -> None:
    (finding,) = (each for each in found(SCAN, LMTP + FRONT + PROXY) if each.name == "lmtp")
    assert (finding.level, finding.where) == (2, "master.cf, 127.0.0.1:10025/inet")
    command = "smtp -o lmtp_generic_maps= -o smtp_send_xforward_command=yes"
    assert finding.remedy == f"postconf -F 'scan/unix/command={command}'"


def test_lmtp_transport_is_checked_only_against_lmtp_parameters() -> None:
    main = f"{SCAN}smtp_tls_security_level = encrypt\nsmtp_data_done_timeout = 1\n"
    assert "smtp_" not in "".join(
        each.problem for each in found(main, LMTP + FRONT + PROXY) if "lmtp_" not in each.problem
    )


# Address formats


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("10025", Endpoint("localhost", 10025)),
        (":10025", Endpoint("localhost", 10025)),
        ("inet:10025", Endpoint("localhost", 10025)),
        ("INET::10025", Endpoint("localhost", 10025)),
        ("smtp", Endpoint("localhost", 25)),
        ("127.0.0.1:10025", Endpoint("127.0.0.1", 10025)),
        ("inet:localhost:10025", Endpoint("localhost", 10025)),
        ("[127.0.0.1]:10025", Endpoint("127.0.0.1", 10025)),
        ("[::1]:10025", Endpoint("::1", 10025)),
        ("[ipv6:::1]:10025", Endpoint("::1", 10025)),
        ("::1:10025", Endpoint("::1", 10025)),
        ("unix:private/proxy", Endpoint("", 0, "/queue/private/proxy")),
        ("unix:/run/proxy", Endpoint("", 0, "/run/proxy")),
        ("127.0.0.1:nosuchport", None),
        ("mail.example", None),
        ("[::1]", None),
        ("127.0.0.1:", None),
        ("127.0.0.1:99999", None),
    ],
)
def test_smtpd_proxy_filter_is_resolved(text: str, place: Endpoint | None) -> None:
    assert proxy_filter(text, "/queue") == place


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("127.0.0.1:10025", Endpoint("127.0.0.1", 10025)),
        ("inet:[::1]:10025", Endpoint("::1", 10025)),
        ("[127.0.0.1]:submission", Endpoint("127.0.0.1", 587)),
        ("unix:private/proxy", Endpoint("", 0, "/queue/private/proxy")),
        ("mail.example", Endpoint("mail.example", 25)),
        ("127.0.0.1:nosuchport", None),
        (":10025", None),
        ("", None),
    ],
)
def test_next_hop_of_content_filter_is_resolved(text: str, place: Endpoint | None) -> None:
    assert next_hop(text, "/queue") == place


@pytest.mark.parametrize(
    ("here", "listener", "reached"),
    [
        ("127.0.0.1", "0.0.0.0", True),
        ("localhost", "::", True),
        ("::1", "::", True),
        ("::1", "0.0.0.0", False),
        ("127.0.0.1", "*", True),
        ("192.0.2.1", "0.0.0.0", False),
    ],
)
def test_wildcard_listener_matches_address(here: str, listener: str, reached: bool) -> None:
    assert Endpoint(here, 25).is_at(Endpoint(listener, 25)) == reached


def test_user_name_is_quoted_in_remedy() -> None:
    facts = ProxyFacts(user_exists=False, program=ProgramFacts("/p/postprox", exists=True))
    master = FRONT + PROXY.replace("nobody", "a;reboot")
    configuration = parse(MAIN, master, "")
    proxies: list[Proxy] = list(spawned_proxies(configuration))
    findings = judge(Setup(configuration, proxies, dict.fromkeys(proxies, facts)))
    (remedy,) = (finding.remedy for finding in findings if finding.name == "user")
    assert remedy.endswith(" 'a;reboot'")
