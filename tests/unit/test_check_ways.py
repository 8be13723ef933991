"""postprox-check: names and addresses on the route through the filter, and their corrections."""

from __future__ import annotations

from dataclasses import replace

import pytest

from postprox.check.findings import Finding
from postprox.check.fixes import plan
from postprox.check.postconf import host_names, parse
from postprox.check.routes import listening_proxy, spawned_proxies, upstream
from postprox.check.rules import judge
from postprox.check.setup import Setup
from postprox.check.unit import SocketUnit, Unit
from postprox.check.unit_rules import socket_owner
from tests.unit.checking import FRONT, PROXY, SEEN, found

BEHIND = "127.0.0.1:10026 inet n - n - - smtpd -o x=y\n"
HOSTS = "127.0.0.0/8"
OWN = "smtpd_proxy_filter =\n", "content_filter =\n", f"smtpd_authorized_xforward_hosts = {HOSTS}\n"
BASE = f"compatibility_level = 3.6\nsmtpd_proxy_options = speed_adjust\nmynetworks = {HOSTS}\n"
BEFORE = f"{BASE}smtpd_proxy_filter = 127.0.0.1:10025\n"
AFTER = f"{BASE}content_filter = scan:[127.0.0.1]:10025\nsmtp_send_xforward_command = yes\n"
SCAN = "scan unix - - n - 20 smtp\n"
SCAN_OWN = "scan/unix/smtp_send_xforward_command = yes\n"
UP = PROXY.replace(" up", " 127.0.0.1:10026")
BARE = "receive_override_options=no_address_mappings"
UNMAPPED = "receive_override_options = no_address_mappings\n"


def own(name: str = "127.0.0.1:10026", *more: str) -> str:
    return "".join(f"{name}/inet/{line}" for line in (*OWN, *more))


def findings_in(
    main: str,
    master: str = FRONT + UP + BEHIND,
    overrides: str = "",
    hosts: str = "",
    is_upstream_missing: bool = False,
) -> list[Finding]:
    configuration = replace(parse(main, master, overrides or own()), hosts=host_names(hosts))
    proxies = list(spawned_proxies(configuration))
    seen = replace(SEEN, upstream_missing=is_upstream_missing)
    return judge(Setup(configuration, proxies, dict.fromkeys(proxies, seen)))


def test_correct_route_is_not_reported() -> None:
    assert findings_in(BEFORE) == []
    assert findings_in(AFTER, FRONT + UP + BEHIND + SCAN, own("127.0.0.1:10026", UNMAPPED)) == []


@pytest.mark.parametrize(
    ("filter_name", "hosts", "protocols", "is_reported"),
    [
        ("localhost", "::1 localhost ip6-localhost\n127.0.1.1 vm\n", "all", True),
        ("localhost", "127.0.0.1 localhost\n::1 localhost\n", "all", False),
        ("localhost", "127.0.0.1 localhost\n::1 localhost\n", "ipv4", False),
        ("localhost", "#127.0.0.1 localhost\n", "all", False),
        ("VM", "127.0.1.1 vm.test vm # 127.0.0.1\n", "all", True),
        ("vm", "127.0.0.1 localhost vm\n", "all", False),
    ],
)
def test_host_name_of_filter_is_resolved_with_etc_hosts(
    filter_name: str, hosts: str, protocols: str, is_reported: bool
) -> None:
    main = f"{BEFORE}inet_protocols = {protocols}\n".replace("127.0.0.1:", f"{filter_name}:")
    remedies = [each.remedy for each in findings_in(main, hosts=hosts) if each.name == "wrong-port"]
    assert remedies == ["postconf -e smtpd_proxy_filter=127.0.0.1:10025"] * is_reported


def test_remedy_adds_address_to_service_for_filtered_mail() -> None:
    main = f"{BEFORE}inet_interfaces = 192.0.2.5\n"
    master = FRONT + UP + BEHIND.replace("127.0.0.1:", "")
    (finding,) = findings_in(main, master, own("10026"), is_upstream_missing=True)
    assert finding.name == "no-upstream"
    assert "postconf -M '127.0.0.1:10026/inet=127.0.0.1:10026 inet n " in finding.remedy
    assert "postprox" not in finding.remedy


@pytest.mark.parametrize("private", ["n", "-"])
def test_wrong_type_of_service_for_filtered_mail_is_corrected(private: str) -> None:
    assert "10026 inet n" in BEHIND
    master = FRONT + UP + BEHIND.replace("10026 inet n", f"10026 unix {private}")
    overrides = own().replace("/inet/", "/unix/")
    (finding,) = findings_in(BEFORE, master, overrides, is_upstream_missing=True)
    commands = ["postconf -F 127.0.0.1:10026/unix/private=n"] * (private == "-")
    commands.append("postconf -F 127.0.0.1:10026/unix/type=inet")
    assert (finding.name, finding.remedy) == ("no-upstream", "; ".join(commands))


def test_remedy_moves_service_to_address_of_permitted_hosts() -> None:
    master = FRONT + UP + BEHIND.replace("127.0.0.1", "[::1]")
    (finding,) = findings_in(BEFORE, master, own("[::1]:10026"), is_upstream_missing=True)
    assert "postconf -M '127.0.0.1:10026/inet=127.0.0.1:10026 inet n " in finding.remedy
    assert "postprox" not in finding.remedy


def test_remedy_replaces_malformed_service_address_with_upstream_address() -> None:
    master = FRONT + UP + BEHIND.replace("1:10026", "1.10026")
    findings = findings_in(BEFORE, master, own("127.0.0.1.10026"), is_upstream_missing=True)
    (remedy,) = {each.remedy for each in findings}
    assert "postconf -M '127.0.0.1:10026/inet=127.0.0.1:10026 inet n " in remedy


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("Smtp", "postconf -MX Smtp/inet; postconf -M 'smtp/inet=smtp inet n - n - 20 smtpd'"),
        (
            "127.0.0.1:SMTP",
            "postconf -M '127.0.0.1:smtp/inet=127.0.0.1:smtp inet n - n - 20 smtpd'",
        ),
        ("25a", ""),
    ],
)
def test_service_with_unknown_port_is_reported(name: str, remedy: str) -> None:
    master = FRONT + UP + BEHIND + FRONT.replace("smtp ", f"{name} ", 1)
    overrides = own() + f"{name}/inet/smtpd_proxy_filter = 127.0.0.1:10025\n"
    (finding,) = (
        each for each in findings_in(BEFORE, master, overrides) if each.name == "arguments"
    )
    assert finding.remedy.endswith(remedy)
    assert bool(finding.remedy) == bool(remedy)


@pytest.mark.parametrize(
    ("target", "listener", "hosts", "is_found"),
    [
        ("localhost", "127.0.0.1", "127.0.0.1 localhost\n", True),
        ("localhost", "127.0.0.1", "::1 localhost\n127.0.0.1 localhost\n", True),
        ("localhost", "127.0.0.1", "::1 localhost\n", False),
        ("localhost", "[::1]", "127.0.0.1 localhost\n", False),
        ("127.0.0.1", "localhost", "127.0.0.1 localhost\n", True),
        ("127.0.0.1", "localhost", "::1 localhost\n", False),
    ],
)
def test_upstream_host_name_is_resolved_with_etc_hosts(
    target: str, listener: str, hosts: str, is_found: bool
) -> None:
    master = UP.replace("127.0.0.1:10026", f"{target}:10026")
    master += BEHIND.replace("127.0.0.1", listener)
    configuration = replace(parse(BEFORE, master, ""), hosts=host_names(hosts))
    (proxy,) = spawned_proxies(configuration)
    assert (upstream(configuration, proxy) is not None) == is_found


@pytest.mark.parametrize(
    "value",
    [
        *("scan[127.0.0.1]:10025", "scan:", "scan", "127.0.0.1:10025", "[127.0.0.1]:10025"),
        *("scan:[127.0.0.1:10025", "host:10025", "scan:[127.0.0.1:10025]"),
        "scan:inet:[127.0.0.1]:10025",
    ],
)
def test_malformed_content_filter_is_corrected(value: str) -> None:
    main = AFTER.replace("scan:[127.0.0.1]:10025", value)
    master = FRONT + UP + BEHIND + SCAN
    findings = findings_in(main, master, own("127.0.0.1:10026", UNMAPPED) + SCAN_OWN)
    assert {each.remedy for each in findings} == {
        "postconf -e 'content_filter=scan:[127.0.0.1]:10025'"
    }
    assert all("stays in the queue" in each.problem for each in findings)


@pytest.mark.parametrize("host", ["[::1]", "[ipv6:::1]", "[127.0.0.1]", "127.0.0.1"])
def test_host_of_content_filter_may_be_in_brackets(host: str) -> None:
    findings = findings_in(
        AFTER.replace("[127.0.0.1]", host),
        FRONT + UP + BEHIND + SCAN,
        own("127.0.0.1:10026", UNMAPPED) + SCAN_OWN,
    )
    assert not any("is not a valid filter address" in each.problem for each in findings)


def test_inet_prefix_is_accepted_for_lmtp_only() -> None:
    main = AFTER.replace("scan:", "scan:inet:")
    master, overrides = FRONT + UP + BEHIND, own("127.0.0.1:10026", UNMAPPED) + SCAN_OWN
    (finding,) = findings_in(main, master + SCAN, overrides)
    assert (finding.name, finding.level) == ("wrong-port", 2)
    assert "all mail stays in the queue" in finding.problem
    findings = findings_in(main, master + SCAN.replace("smtp", "lmtp"), overrides)
    assert "wrong-port" not in {each.name for each in findings}


PICKUP = "pickup unix n - n 60 1 pickup\n"


@pytest.mark.parametrize(
    ("master", "overrides", "name", "remedy"),
    [
        (
            FRONT + PICKUP,
            own("127.0.0.1:10026", UNMAPPED) + f"smtp/inet/{UNMAPPED}",
            "mapped-never",
            "postconf -P smtp/inet/receive_override_options=",
        ),
        (
            FRONT,
            own("127.0.0.1:10026", UNMAPPED) + f"smtp/inet/{UNMAPPED}",
            "mapped-never",
            "postconf -P 127.0.0.1:10026/inet/receive_override_options=",
        ),
        (
            FRONT + PICKUP,
            own() + f"smtp/inet/{UNMAPPED}",
            "mapped-twice",
            f"postconf -P 127.0.0.1:10026/inet/{BARE}; postconf -P smtp/inet/{BARE[:25]}",
        ),
    ],
)
def test_remedy_leaves_one_address_mapping(
    master: str, overrides: str, name: str, remedy: str
) -> None:
    (finding,) = findings_in(AFTER, master + UP + BEHIND + SCAN, overrides)
    assert (finding.name, finding.remedy) == (name, remedy)


@pytest.mark.parametrize(
    ("unmapped", "name", "commands"),
    [
        ((), "mapped-twice", [f"pickup/unix/{BARE}"]),
        (
            (UNMAPPED,),
            "mapped-never",
            ["127.0.0.1:10026/inet/receive_override_options=", f"pickup/unix/{BARE}"],
        ),
    ],
)
def test_remedy_maps_before_queue_addresses_after_filter(
    unmapped: tuple[str, ...], name: str, commands: list[str]
) -> None:
    main = AFTER + "smtpd_proxy_filter = 127.0.0.1:10025\n"
    overrides = own("127.0.0.1:10026", *unmapped)
    (finding,) = findings_in(main, FRONT + PICKUP + UP + BEHIND + SCAN, overrides)
    assert finding.name == name
    assert finding.remedy == "; ".join(f"postconf -P {command}" for command in commands)


SCREEN = "smtp inet n - y - 1 postscreen -o smtpd_proxy_filter=127.0.0.1:10025 -o postscreen_a=b\n"


def test_postscreen_without_smtpd_is_reported() -> None:
    (finding,) = findings_in(BEFORE, SCREEN + UP + BEHIND)
    assert (finding.name, finding.level) == ("postscreen", 2)
    line = "smtpd pass - - y - - smtpd -o smtpd_proxy_filter=127.0.0.1:10025"
    assert finding.remedy == f"postconf -M 'smtpd/pass={line}'"
    assert findings_in(BEFORE, f"{SCREEN}{line}\n" + UP + BEHIND) == []
    (finding,) = findings_in(BEFORE, f"{SCREEN.replace(' 1 ', ' - ')}{line}\n" + UP + BEHIND)
    assert finding.remedy == "postconf -F smtp/inet/process_limit=1"


USERS = (
    "submission inet n - n - 20 smtpd -o x=y\n"
    + UP.replace("10025 inet", "10027 inet").replace("10026", "10028")
    + BEHIND.replace("10026", "10028")
)
USERS_OWN = (
    "submission/inet/smtpd_relay_restrictions = permit_sasl_authenticated, reject\n"
    "submission/inet/smtpd_proxy_filter = 127.0.0.1:10027\n"
    + own("127.0.0.1:10028", "smtpd_milters = inet:127.0.0.1:8891\n")
    + own()
)


def test_swapped_services_for_filtered_mail_are_reported() -> None:
    master = FRONT + UP + BEHIND + USERS
    assert findings_in(BEFORE, master, USERS_OWN) == []
    (finding,) = findings_in(
        BEFORE, master.replace("/f 127.0.0.1:10028", "/f 127.0.0.1:10026"), USERS_OWN
    )
    assert finding.name == "unsigned"
    assert "-c /f 127.0.0.1:10028" in finding.remedy
    (finding,) = findings_in(
        BEFORE, master.replace("/f 127.0.0.1:10026", "/f 127.0.0.1:10028"), USERS_OWN
    )
    assert finding.name == "milters"
    assert "-c /f 127.0.0.1:10026" in finding.remedy


def test_same_milters_before_and_after_filter_are_reported() -> None:
    main = AFTER + "smtpd_milters = inet:127.0.0.1:8891\n"
    overrides = USERS_OWN.replace("proxy_filter = 127.0.0.1:10027", "proxy_filter =")
    overrides += "submission/inet/content_filter = scan:[127.0.0.1]:10027\n" + SCAN_OWN
    overrides += f"127.0.0.1:10026/inet/{UNMAPPED}127.0.0.1:10028/inet/{UNMAPPED}"
    found = findings_in(main, FRONT + UP + BEHIND + SCAN + USERS, overrides)
    (finding,) = (each for each in found if "signs it twice" in each.problem)
    assert (finding.level, finding.name) == (1, "milters")
    assert finding.remedy == "postconf -P submission/inet/smtpd_milters="


def test_milters_disabled_by_their_service_are_reported() -> None:
    overrides = own("127.0.0.1:10028", "receive_override_options = no_milters\n")
    master = FRONT + UP + BEHIND + USERS
    (finding,) = findings_in(BEFORE, master, USERS_OWN + overrides)
    assert (finding.level, finding.name) == (1, "unsigned")
    assert finding.remedy == "postconf -P 127.0.0.1:10028/inet/receive_override_options="


def test_loop_through_inherited_proxy_filter_is_reported() -> None:
    main = f"{BEFORE}content_filter = amavis:[127.0.0.1]:10024\n"
    master = FRONT + UP + BEHIND + BEHIND.replace("10026", "10030") + SCAN.replace("scan", "amavis")
    overrides = own().replace("127.0.0.1:10026/inet/content_filter =\n", "")
    overrides += "127.0.0.1:10030/inet/content_filter =\n"
    found = [each for each in findings_in(main, master, overrides) if each.name == "loop"]
    (finding,) = found
    assert (finding.level, finding.where) == (2, "master.cf, 127.0.0.1:10030/inet")
    assert finding.remedy == "postconf -P 127.0.0.1:10030/inet/smtpd_proxy_filter="
    overrides += "127.0.0.1:10030/inet/smtpd_proxy_filter =\n"
    assert "loop" not in {each.name for each in findings_in(main, master, overrides)}


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("relayhost = [127.0.0.1]:10025", "relayhost="),
        ("default_transport = smtp:[127.0.0.1]:10025", "default_transport=smtp"),
        ("relay_transport = relay:127.0.0.1:10025", "relay_transport=relay"),
    ],
)
def test_loop_of_outgoing_mail_is_reported(line: str, remedy: str) -> None:
    (finding,) = findings_in(f"{BEFORE}{line}\n", FRONT + UP + BEHIND, own())
    assert (finding.name, finding.remedy) == ("loop", f"postconf -e {remedy}")


def test_service_with_a_single_process_is_reported() -> None:
    front = FRONT.replace("- 20 smtpd", "- 1 smtpd")
    (finding,) = findings_in(BEFORE, front + UP + BEHIND, own())
    assert finding.name == "process-limit"
    assert finding.remedy == "postconf -F smtp/inet/process_limit=20"


def test_relayhost_on_another_port_is_no_loop() -> None:
    main = f"{BEFORE}relayhost = [127.0.0.1]:10030\n"
    assert findings_in(main, FRONT + UP + BEHIND, own()) == []


def test_proxy_that_sends_to_itself_causes_one_finding() -> None:
    master = FRONT + UP.replace("10026", "10025") + BEHIND
    (finding,) = findings_in(BEFORE, master, is_upstream_missing=True)
    assert finding.name == "loop"
    assert "-c /f 127.0.0.1:10026" in finding.remedy


@pytest.mark.parametrize(
    ("interfaces", "service", "is_named"),
    [
        ("192.0.2.1", "10026", True),
        ("192.0.2.1", "10027", False),
        ("192.0.2.1", "192.0.2.1:10026", False),
    ],
)
def test_missing_upstream_report_names_inet_interfaces(
    interfaces: str, service: str, is_named: bool
) -> None:
    master = FRONT + UP + BEHIND.replace("127.0.0.1:10026", service)
    main = f"{BEFORE}inet_interfaces = {interfaces}\n"
    found = findings_in(main, master, is_upstream_missing=True)
    (problem,) = (each.problem for each in found if each.name == "no-upstream")
    reason = f", because {service}/inet in master.cf has no address and listens only on those in "
    assert (f"{reason}inet_interfaces ({interfaces}); all mail" in problem) == is_named


def test_private_inet_service_is_reported() -> None:
    (finding,) = findings_in(BEFORE, FRONT + UP + BEHIND.replace("inet n", "inet y"))
    assert finding.name == "columns"
    assert finding.remedy == "postconf -F 127.0.0.1:10026/inet/private=n"


def test_missing_service_for_mail_from_outside_is_reported() -> None:
    (finding,) = findings_in(BEFORE, UP + BEHIND)
    assert finding.name == "no-way"
    assert finding.remedy == "postconf -M 'smtp/inet=smtp inet n - n - - smtpd'"


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        ("127.0.0.1:10026.inet", "postconf -e master_service_disable="),
        ("qmqp/inet, 127.0.0.1:10026/inet", "postconf -e master_service_disable=qmqp/inet"),
        ("127.0.0.1:10025/inet", "postconf -e master_service_disable="),
        ("!smtp/inet inet", ""),
        ("inet", "postconf -e master_service_disable="),
        ("unix-dgram, inet", "postconf -e master_service_disable=unix-dgram"),
        ("smtp/inet", "postconf -e master_service_disable="),
        ("inet smtp/inet", "postconf -e master_service_disable="),
        ("smtp.inet", "postconf -e master_service_disable="),
        ("!127.0.0.1:10026/inet 127.0.0.1:10026/inet", None),
        ("unix", None),
    ],
)
def test_disabled_service_on_route_is_reported(value: str, remedy: str | None) -> None:
    findings = findings_in(f"{BEFORE}master_service_disable = {value}\n")
    if remedy is None:
        assert findings == []
        return
    assert {(each.name, each.level) for each in findings} == {("no-upstream", 2)}
    exceptions = "!127.0.0.1:10025/inet,!127.0.0.1:10026/inet,!smtp/inet,inet"
    remedy = remedy or f"postconf -e 'master_service_disable={exceptions}'"
    assert {each.remedy for each in findings} == {remedy}
    changed = remedy.partition("master_service_disable=")[2].strip("'")
    assert findings_in(f"{BEFORE}master_service_disable = {changed}\n") == []


def test_finding_names_disabled_port_25_service() -> None:
    first, *_ = findings_in(f"{BEFORE}master_service_disable = inet\n")
    assert "listen on smtp/inet; no mail arrives from outside" in first.problem


@pytest.mark.parametrize(
    ("main", "master", "value"),
    [
        (BEFORE, "submission inet n - n - 9 smtpd\n", "smtp/inet"),
        (
            AFTER,
            "pickup unix n - n 60 1 pickup\n",
            "!127.0.0.1:10025/inet !127.0.0.1:10026/inet inet",
        ),
    ],
)
def test_intentionally_closed_port_25_is_not_reported(main: str, master: str, value: str) -> None:
    overrides = own("127.0.0.1:10026", *([BARE.replace("=", " = ") + "\n"] * (main is AFTER)))
    master = FRONT + UP + BEHIND + SCAN + master
    assert findings_in(f"{main}master_service_disable = {value}\n", master, overrides) == []


CLEANUP = "cleanup unix n - y - 0 cleanup\n"


def test_missing_cleanup_service_is_reported() -> None:
    master = FRONT + UP + BEHIND + CLEANUP
    overrides = own("127.0.0.1:10026", "cleanup_service_name = cleanup-out\n")
    (finding,) = findings_in(BEFORE, master, overrides)
    assert (finding.name, finding.level) == ("value", 2)
    assert finding.remedy == "postconf -P 127.0.0.1:10026/inet/cleanup_service_name=cleanup"
    assert findings_in(BEFORE, f"{master}{CLEANUP.replace(' ', '-out ', 1)}", overrides) == []


def test_missing_cleanup_service_before_queue_is_reported() -> None:
    main = f"{AFTER}cleanup_service_name = cleanup-in\n"
    master = FRONT + UP + BEHIND + SCAN + CLEANUP
    overrides = own("127.0.0.1:10026", UNMAPPED) + SCAN_OWN
    overrides += "127.0.0.1:10026/inet/cleanup_service_name = cleanup\n"
    (finding,) = findings_in(main, master, overrides)
    assert finding.remedy == "postconf -P smtp/inet/cleanup_service_name=cleanup"
    overrides = own("127.0.0.1:10026", "cleanup_service_name = cleanup\n")
    main = f"{BEFORE}cleanup_service_name = cleanup-in\n"
    assert findings_in(main, master, overrides) == []


@pytest.mark.parametrize(
    ("user", "mode", "is_reported"),
    [
        ("root", "0600", True),
        ("", "0600", True),
        ("vscan", "0644", True),
        ("postfix", "0600", False),
        ("root", "0660", False),
        ("root", "0666", False),
        ("root", "", False),
    ],
)
def test_socket_that_smtpd_cannot_open_is_reported(user: str, mode: str, is_reported: bool) -> None:
    configuration = parse(f"{BASE}smtpd_proxy_filter = unix:private/p.sock\n", FRONT + BEHIND, "")
    path = "/var/spool/postfix/private/p.sock"
    settings = {"SocketUser": [user], "SocketMode": [mode]}
    socket = SocketUnit("p.socket", (path,), settings={k: v for k, v in settings.items() if v[0]})
    proxy = listening_proxy(Unit("p.service", ("postprox", "-c", "/f", "up"), socket=socket))
    findings = plan(configuration, list(socket_owner(Setup(configuration, [proxy], {}), proxy)))
    assert [each.name for each in findings] == ["unit-setting"] * is_reported
    assert all("'[Socket]' SocketUser=postfix >" in each.remedy for each in findings)


@pytest.mark.parametrize(
    ("main", "master"), [(BEFORE, FRONT + UP), (AFTER, FRONT.replace("- 20", "- -") + UP + SCAN)]
)
def test_loop_through_public_service_causes_single_finding(main: str, master: str) -> None:
    master = master.replace("127.0.0.1:10026", "127.0.0.1")
    main += "smtpd_tls_security_level = encrypt\nsmtp_tls_security_level = none\n"
    findings = findings_in(main, master + BEHIND)
    assert [each.name for each in findings if "127.0.0.1:10026" in each.remedy] == ["loop"]
    assert not [each for each in findings if each.name in ("xforward", "starttls")]
    # Without a service for filtered mail, the remedy adds one, and port 25 still filters mail.
    (finding,) = [each for each in findings_in(main, master) if each.name == "loop"]
    added, changed = finding.commands
    assert added.startswith("sed -n '/^127.0.0.1:10026/,$ { s/^127.0.0.1:10026/127.0.0.1:10026/")
    assert ("after" if "content_filter" in main else "before") in added
    assert changed.endswith(" -c /f 127.0.0.1:10026'")
    taken = "10026 unix - - - - - smtp\n127.0.0.2:10026 inet n - n - - discard\n"
    (finding,) = [each for each in findings_in(main, master + taken) if each.name == "loop"]
    assert finding.commands[1].endswith(" -c /f 127.0.0.1:10027'")


def test_remedy_breaks_loop_through_local_service() -> None:
    findings = findings_in(BEFORE, FRONT + UP + BEHIND, "127.0.0.1:10026/inet/x = y\n")
    remedies = {each.name: each.remedy for each in findings}
    assert remedies["loop"] == "postconf -P 127.0.0.1:10026/inet/smtpd_proxy_filter="
    assert "xforward" in remedies


def test_mail_loop_keeps_remedy_for_double_mapping() -> None:
    main = f"{AFTER}smtpd_proxy_filter = 127.0.0.1:10025\n"
    master = FRONT + "pickup unix n - n 60 1 pickup\n" + UP + BEHIND + SCAN
    overrides = own().replace("127.0.0.1:10026/inet/content_filter =\n", "")
    findings = findings_in(main, master, overrides + SCAN_OWN)
    assert {each.name: each.remedy for each in findings} == {
        "loop": "postconf -P 127.0.0.1:10026/inet/content_filter=",
        "mapped-twice": "postconf -P pickup/unix/receive_override_options=no_address_mappings",
    }


@pytest.mark.parametrize(
    ("behind", "source", "added"),
    [
        ("", "", "postconf -P submission/inet/receive_override_options=no_address_mappings"),
        (UNMAPPED, "", ""),
        ("", f"submission/inet/{UNMAPPED}", ""),
    ],
)
def test_redirected_mail_is_mapped_once(behind: str, source: str, added: str) -> None:
    master = FRONT + UP + BEHIND + SCAN + FRONT.replace("smtp ", "submission ", 1)
    more = "submission/inet/smtpd_proxy_filter =\n"
    more += "submission/inet/content_filter = scan:[127.0.0.1]:10026\n"
    overrides = own("127.0.0.1:10026", *([behind] if behind else [])) + SCAN_OWN + more + source
    findings = [each for each in findings_in(BEFORE, master, overrides) if each.name == "no-way"]
    redirect = "postconf -P 'submission/inet/content_filter=scan:[127.0.0.1]:10025'"
    assert [each.remedy for each in findings] == ["; ".join(filter(None, [redirect, added]))]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("smtp_tls_security_level = encrypt", "starttls"),
        ("smtp_tls_wrappermode = yes", "inherited"),
        ("smtp_generic_maps = hash:/g", "inherited-risk"),
    ],
)
def test_transport_of_all_outgoing_mail_is_not_changed(line: str, name: str) -> None:
    main = f"{AFTER.replace('scan:', 'smtp:')}{line}\n"
    scan = "scan/unix/smtp_tls_security_level = none\nscan/unix/smtp_tls_wrappermode = no\n"
    overrides = own("127.0.0.1:10026", BARE.replace("=", " = ") + "\n") + scan + SCAN_OWN
    master = FRONT + UP + BEHIND + SCAN + "smtp unix - - n - - smtp\n"
    overrides += "scan/unix/smtp_generic_maps =\n"
    (finding,) = findings_in(main, master, overrides)
    assert finding.name == name
    assert finding.remedy == "postconf -e 'content_filter=scan:[127.0.0.1]:10025'"
    assert findings_in(main.replace("smtp:[", "scan:["), master, overrides) == []


PIPED = (
    "postprox unix - n n - 10 pipe flags=Rq user=nobody null_sender= argv=/p/postprox -c /f up\n"
)


def test_pipe_proxy_is_replaced_by_other_proxy() -> None:
    main = f"{BASE}content_filter = postprox:dummy\n"
    overrides = own("127.0.0.1:10026", BARE.replace("=", " = ") + "\n") + SCAN_OWN
    (finding,) = findings_in(main, FRONT + UP + BEHIND + SCAN + PIPED, overrides)
    assert (finding.name, finding.level) == ("transport", 2)
    assert "all mail bounces" in finding.problem
    assert finding.remedy == (
        "postconf -e 'content_filter=scan:[127.0.0.1]:10025'; postconf -MX postprox/unix"
    )


def test_only_proxy_is_moved_from_pipe_to_spawn() -> None:
    main = f"{BASE}content_filter = postprox:dummy\n"
    (finding,) = findings_in(main, FRONT + BEHIND + PIPED)
    entry = "127.0.0.1:10025 inet n n n - 20 spawn user=nobody argv=/p/postprox -c /f up"
    assert f"postconf -M '127.0.0.1:10025/inet={entry}'" in finding.commands
    assert any(each.startswith("postconf -M 'scan/unix=scan unix") for each in finding.commands)
    assert "postconf -e 'content_filter=scan:[127.0.0.1]:10025'" in finding.commands
    assert finding.commands[-1] == "postconf -MX postprox/unix"


def test_remedy_replaces_pipe_service_named_scan() -> None:
    main = f"{BASE}content_filter = scan:dummy\n"
    (finding,) = findings_in(main, FRONT + BEHIND + PIPED.replace("postprox unix", "scan unix"))
    assert any(each.startswith("postconf -M 'scan/unix=scan unix") for each in finding.commands)
    assert "postconf -MX scan/unix" not in finding.commands


def test_soft_bounce_is_reported() -> None:
    (finding,) = found("soft_bounce = yes\n")
    assert (finding.name, finding.remedy) == ("no-reject", "postconf -e soft_bounce=no")
    assert found("soft_bounce = no\n") == []


def test_quotation_marks_in_filter_address_are_reported() -> None:
    main = f'{BASE}content_filter = "scan:[127.0.0.1]:10025"\n'
    overrides = own("127.0.0.1:10026", BARE.replace("=", " = ") + "\n") + SCAN_OWN
    (finding,) = findings_in(main, FRONT + UP + BEHIND + SCAN, overrides)
    assert finding.name == "no-way"
    assert "the quotation marks are part of the value of content_filter" in finding.problem
    assert finding.problem.endswith("mail stays in the queue")


@pytest.mark.parametrize(
    ("restrictions", "is_reported"),
    [
        ("permit_mynetworks,reject", False),
        ("permit_sasl_authenticated,reject", False),
        ("permit_mynetworks", True),
    ],
)
def test_service_that_refuses_strangers_is_not_counted(
    restrictions: str, is_reported: bool
) -> None:
    master = FRONT.replace("20 smtpd", "- smtpd") + "submission inet n - n - - smtpd\n"
    own = f"submission/inet/smtpd_client_restrictions = {restrictions}\n"
    findings = found("smtpd_proxy_options = speed_adjust\n", master + PROXY, own)
    assert any(each.name == "process-limit" for each in findings) == is_reported
