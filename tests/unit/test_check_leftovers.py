"""postprox-check: settings that remain from other filters, and settings for the wrong place."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from postprox.check import environment
from postprox.check.facts import (
    MissingCommand,
    ProgramFacts,
    ProxyFacts,
    RunningFacts,
    SampleRun,
    SampleRuns,
    SpoolFacts,
)
from postprox.check.filter_rules import no_filter
from postprox.check.findings import Finding
from postprox.check.fixes import Shell
from postprox.check.postconf import DEFAULTS, Configuration, parse
from postprox.check.probe import postfix_files, spool
from postprox.check.routes import Proxy, spawned_proxies
from postprox.check.rules import judge
from postprox.check.setup import Setup
from postprox.check.unit import Unit
from postprox.check.unit_rules import hiding
from postprox.core import options
from tests.unit.checking import FRONT, SEEN
from tests.unit.test_check_ways import AFTER, BEFORE, BEHIND, SCAN, UNMAPPED, UP, own

pytestmark = pytest.mark.any_account

PIPE = "spamassassin unix - n n - - pipe user=debian-spamd argv=/usr/bin/spamc\n"
CHECKS = "header_checks = regexp:/etc/postfix/header_checks\n"
TABLE = "# our mark\n/^X-Filtered:/ REJECT forged\n"


def setup_of(main: str, master: str, overrides: str, **changes: object) -> Setup:
    """Return a set-up in which the files of the proxies are correct."""
    configuration = replace(parse(main, master, overrides), **changes)  # type: ignore[arg-type]
    proxies = list(spawned_proxies(configuration))
    return Setup(configuration, proxies, dict.fromkeys(proxies, SEEN))


@pytest.mark.parametrize("reason", ["runs /usr/bin/spamc, which does not exist", ""])
def test_pipe_filter_that_cannot_run_is_reported(reason: str) -> None:
    missing = {"spamassassin/unix": reason} if reason else {}
    overrides = own("127.0.0.1:10026", UNMAPPED) + "smtp/inet/content_filter = spamassassin\n"
    master = FRONT + UP + BEHIND + SCAN + PIPE
    findings = judge(setup_of(AFTER, master, overrides, unrunnable=missing))
    remedies = [each.remedy for each in findings if each.name == "transport"]
    command = "postconf -P 'smtp/inet/content_filter=scan:[127.0.0.1]:10025'"
    assert remedies == [f"{command}; postsuper -r ALL deferred"] * bool(reason)


def test_content_filter_of_removed_program_is_removed() -> None:
    main = f"{BEFORE}content_filter = amavis:[127.0.0.1]:10024\n"
    master = FRONT + UP + BEHIND + SCAN.replace("scan", "amavis")
    overrides = own().replace("127.0.0.1:10026/inet/content_filter =\n", "")
    setup = setup_of(main, master, overrides)
    findings = judge(replace(setup, running=RunningFacts(postfix=True)))
    remedies = {each.remedy for each in findings if each.name == "wrong-port"}
    assert "postconf -e content_filter=" in remedies


@pytest.mark.parametrize(
    ("restrictions", "text", "value"),
    [
        (
            "permit_mynetworks, check_sender_access hash:/t, reject_unauth_destination",
            "a.test OK\n",
            "permit_mynetworks, reject_unauth_destination",
        ),
        ("check_helo_access hash:/t, reject", "# c\na permit\n", "reject"),
        ("reject_unauth_destination, check_sender_access hash:/t", "a.test OK\n", ""),
        ("check_sender_access hash:/t, reject_unauth_destination", "a.test REJECT\n", ""),
        ("check_client_access hash:/t, reject_unauth_destination", "192.0.2.1 OK\n", ""),
        ("check_sender_access hash:/unknown, reject_unauth_destination", "a.test OK\n", ""),
    ],
)
def test_relaying_permitted_by_sender_is_reported(restrictions: str, text: str, value: str) -> None:
    setup = setup_of(
        f"{BEFORE}smtpd_relay_restrictions = {restrictions}\n", FRONT + UP + BEHIND, own()
    )
    findings = judge(replace(setup, tables={"/t": text}))
    remedies = [each.remedy for each in findings if each.name == "open-relay"]
    expected = [f"postconf -e 'smtpd_relay_restrictions={value}'"]
    if " " not in value:
        expected = [f"postconf -e smtpd_relay_restrictions={value}"]
    assert remedies == (expected if value else [])


def refused(setup: Setup, received: str, tables: Mapping[str, str]) -> list[Finding]:
    """Return the findings if the filter changes the test message."""
    run = SampleRun(SampleRun.ORDINARY, "", "rewrite", sent="A: b\r\n\r\nc\r\n", received=received)
    samples = {proxy: SampleRuns((run,)) for proxy in setup.proxies}
    return [
        each
        for each in judge(replace(setup, samples=samples, tables=tables))
        if each.name == "inherited"
    ]


def test_header_check_that_refuses_filter_field_is_reported(tmp_path: Path) -> None:
    table = tmp_path / "checks"
    table.write_text(TABLE)
    setup = setup_of(f"{BEFORE}header_checks = regexp:{table}\n", FRONT + UP + BEHIND, own())
    (finding,) = refused(setup, "X-Filtered: yes\r\nA: b\r\n\r\nc\r\n", {str(table): TABLE})
    assert f"({table}, line 2)" in finding.problem
    command, reload = finding.commands
    assert reload == "postfix reload"
    subprocess.run(["/bin/sh", "-ec", command], check=True)
    assert table.read_text() == "# our mark\n#/^X-Filtered:/ REJECT forged\n"


@pytest.mark.parametrize(
    ("received", "text"),
    [
        ("X-Scanned: yes\r\nA: b\r\n\r\nc\r\n", TABLE),
        ("A: b\r\n\r\nX-Filtered: yes\r\n", TABLE),
        ("X-Filtered: yes\r\nA: b\r\n\r\nc\r\n", "/^X-Filtered:/ IGNORE\n"),
        ("X-Filtered: yes\r\nA: b\r\n\r\nc\r\n", "/^X-[/ REJECT\n"),
    ],
)
def test_other_header_check_is_not_reported(received: str, text: str) -> None:
    setup = setup_of(f"{BEFORE}{CHECKS}", FRONT + UP + BEHIND, own())
    assert refused(setup, received, {"/etc/postfix/header_checks": text}) == []


def test_proxy_with_the_group_of_postfix_is_reported() -> None:
    setup = setup_of(BEFORE, FRONT + UP + BEHIND, own())
    facts = dict.fromkeys(setup.proxies, replace(SEEN, has_group_of_postfix=True))
    (finding,) = judge(replace(setup, facts=facts))
    assert finding.name == "user"
    assert "usermod -g nobody nobody" in finding.remedy


def test_proxy_with_enough_capacity_is_not_reported() -> None:
    master = FRONT + UP.replace("- 20 spawn", "- 0 spawn") + BEHIND + SCAN
    configuration: Configuration = parse(AFTER, master, own("127.0.0.1:10026", UNMAPPED))
    proxies = [replace(each, capacity=200) for each in spawned_proxies(configuration)]
    findings = judge(Setup(configuration, proxies, dict.fromkeys(proxies, SEEN)))
    assert [each.name for each in findings] == []


def test_old_unit_with_missing_filter_is_reported() -> None:
    unit = Unit(
        "postprox.service", path="/etc/postprox.service", hidden_path="/usr/postprox.service"
    )
    (proxy,) = spawned_proxies(parse(BEFORE, FRONT + UP + BEHIND, own()))
    old = Proxy("u", (), (), proxy.options, "", "nobody", capacity=1, unit=unit)
    facts = ProxyFacts(
        user_exists=True,
        program=ProgramFacts("/p/postprox", exists=True),
        filter=ProgramFacts("/opt/scan", exists=False),
    )
    assert proxy.options is not None
    (fault,) = hiding(old, proxy.options, facts)
    assert "/etc/postprox.service hides /usr/postprox.service" in fault.problem
    kept = replace(facts, filter=ProgramFacts("/opt/scan", exists=True))
    assert list(hiding(old, proxy.options, kept)) == []
    scanner = MissingCommand("clamscan", 2, False, "", exists=False)
    gone = replace(facts, filter=ProgramFacts("/opt/scan", exists=True, missing_command=scanner))
    (fault,) = hiding(old, proxy.options, gone)
    assert "its filter /opt/scan requires clamscan, which does not exist" in fault.problem


@pytest.mark.parametrize(
    ("port", "own_mode", "remedies"),
    [
        ("smtp", "", ["postconf -e smtpd_tls_wrappermode=no; "]),
        ("smtp", "smtp/inet/smtpd_tls_wrappermode = no\n", []),
    ],
)
def test_wrapper_mode_for_plain_smtp_is_reported(
    port: str, own_mode: str, remedies: list[str]
) -> None:
    master = f"{FRONT}{UP}{BEHIND}465 inet n - n - 20 smtpd\n"
    main = f"{BEFORE}smtpd_tls_wrappermode = yes\n"
    overrides = f"{own()}127.0.0.1:10026/inet/smtpd_tls_wrappermode = no\n{own_mode}"
    findings = judge(setup_of(main, master, overrides))
    found = [each.remedy for each in findings if each.name == "starttls"]
    assert found == [f"{each}postconf -P 465/inet/smtpd_tls_wrappermode=yes" for each in remedies]


def test_wrapper_mode_on_port_25_is_reported() -> None:
    master = f"{FRONT}{UP}{BEHIND}465 inet n - n - 20 smtpd\n"
    mode = "smtpd_tls_wrappermode = yes\n"
    overrides = f"{own()}127.0.0.1:10026/inet/{mode.replace('yes', 'no')}465/inet/{mode}"
    findings = judge(setup_of(f"{BEFORE}{mode}", master, overrides))
    found = [each.remedy for each in findings if each.name == "starttls"]
    assert found == ["postconf -e smtpd_tls_wrappermode=no"]


@pytest.mark.parametrize("name", ["maximal_queue_lifetime", "bounce_queue_lifetime"])
def test_short_lifetime_in_the_queue_is_reported(name: str) -> None:
    overrides = own("127.0.0.1:10026", UNMAPPED)
    findings = judge(setup_of(f"{AFTER}{name} = 0\n", FRONT + UP + BEHIND + SCAN, overrides))
    assert [each.remedy for each in findings] == [f"postconf -e {name}=5d"]


def test_options_hidden_by_a_comment_are_restored(tmp_path: Path) -> None:
    file = tmp_path / "postprox"
    line = 'POSTPROX_OPTIONS="-v -c /f"\n'
    file.write_text(f"# old: -c /g \\\n{line}# kept\n")
    hidden = environment.parse(file.read_text())
    assert (hidden.values, hidden.hidden) == ({}, ("POSTPROX_OPTIONS",))
    unit = Unit("postprox.service", options_file=str(file), assignments=hidden)
    wanted = options.parse(["-l", "10025", "127.0.0.1:10026"])
    proxy = Proxy("u", (), ("postprox",), wanted, "", "nobody", capacity=1, unit=unit)
    (fault,) = no_filter(proxy, wanted)
    assert "follows a comment that ends with a backslash" in fault.problem
    (edit,) = fault.edits
    assert isinstance(edit.place, Shell)
    command, restart = edit.place.command.split("; ")
    assert restart == "systemctl restart postprox.service"
    subprocess.run(["/bin/sh", "-ec", command], check=True)
    assert environment.parse(file.read_text()).values == {"POSTPROX_OPTIONS": "-v -c /f"}
    assert file.read_text() == f"# old: -c /g \n{line}# kept\n"


def test_content_filter_without_effect_moves_behind_the_proxy() -> None:
    overrides = own() + "smtp/inet/content_filter = spamassassin\n"
    findings = judge(setup_of(BEFORE, FRONT + UP + BEHIND + PIPE, overrides))
    (commands,) = (each.commands for each in findings if each.name == "replaced-filter")
    assert commands == (
        "postconf -P 127.0.0.1:10026/inet/content_filter=spamassassin",
        "postconf -P smtp/inet/content_filter=",
    )


@pytest.mark.parametrize("command", ["spamc -e /usr/sbin/sendmail -oi ${recipient}", "spamc"])
def test_pipe_filter_whose_mail_returns_through_pickup_is_reported(command: str) -> None:
    pipe = f"spamassassin unix - n n - - pipe user=nobody argv=/usr/bin/{command}\n"
    pickup = "pickup unix n - n 60 1 pickup\n"
    main = f"{BEFORE}content_filter = spamassassin\n"
    findings = judge(setup_of(main, FRONT + UP + BEHIND + pickup + pipe, own()))
    remedies = [each.remedy for each in findings if each.name == "loop"]
    assert remedies == ["postconf -P pickup/unix/content_filter="] * ("sendmail" in command)


@pytest.mark.parametrize(
    ("line", "remedies"),
    [
        ("message_size_limit = 1000000", ["message_size_limit=10240000"]),
        ("message_size_limit = 100\nqueue_minfree = 5000", ["queue_minfree=0"]),
        ("message_size_limit = 100\nqueue_minfree = x", []),
        ("message_size_limit = 0", []),
    ],
)
def test_queue_without_space_for_a_message_is_reported(line: str, remedies: list[str]) -> None:
    setup = setup_of(f"{BEFORE}{line}\n", FRONT + UP + BEHIND, own(), free_space=1000)
    found = [each.remedy for each in judge(setup) if each.name == "spool-full"]
    assert found == [f"postconf -e {each}" for each in remedies]


def test_missing_mailbox_command_is_reported(tmp_path: Path) -> None:
    main = f"mailbox_command = {tmp_path}/procmail -a x\n"
    missing = postfix_files.missing_delivery(parse(main, "", ""))
    assert missing == f"{tmp_path}/procmail"
    (tmp_path / "procmail").touch(0o755)
    assert postfix_files.missing_delivery(parse(main, "", "")) == ""
    setup = setup_of(BEFORE, FRONT + UP + BEHIND, own(), missing_delivery=missing)
    (finding,) = judge(setup)
    assert (finding.name, finding.remedy) == ("value", "postconf -e mailbox_command=")


def test_new_user_gets_the_directory_of_the_missing_user() -> None:
    setup = setup_of(BEFORE, FRONT + UP.replace("-c /f", "-d /s -c /f") + BEHIND, own())
    seen = replace(SEEN, user_exists=False, spool=SpoolFacts(exists=True))
    findings = judge(replace(setup, facts=dict.fromkeys(setup.proxies, seen)))
    (remedy,) = (each.remedy for each in findings if each.name == "user")
    assert remedy.startswith("useradd ")
    assert remedy.endswith('install -d -o nobody -g "$(id -gn nobody)" -m 0700 /s')


def test_sandbox_of_postfix_that_closes_the_directory_is_opened() -> None:
    setup = setup_of(BEFORE, FRONT + UP.replace("-c /f", "-d /s -c /f") + BEHIND, own())
    seen = replace(SEEN, spool=SpoolFacts(exists=True, closing_unit="postfix@-.service"))
    findings = judge(replace(setup, facts=dict.fromkeys(setup.proxies, seen)))
    (finding,) = (each for each in findings if each.name == "spool")
    assert "postfix@-.service forbids Postfix and the proxy to write to /s" in finding.problem
    assert "ReadWritePaths=/s > /etc/systemd/system/postfix@-.service.d/" in finding.remedy
    assert finding.remedy.endswith("systemctl daemon-reload; systemctl restart postfix")


def test_directory_is_writable_in_the_own_namespace(tmp_path: Path) -> None:
    (tmp_path / "pid").mkdir()
    (tmp_path / "pid/master.pid").write_text(f"{os.getpid():10d}\n")
    configuration = parse(f"queue_directory = {tmp_path}\n", "", "")
    assert spool._closing_unit(configuration, tmp_path) == ""
    assert spool._closing_unit(parse("queue_directory = /x\n", "", ""), tmp_path) == ""


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("no-such-procmail -a x", "no-such-procmail"),
        ("exec /no/procmail -t", "/no/procmail"),
        ("IFS=' ' && exec /no/procmail", "/no/procmail"),
        ("sh -c true", ""),
        ("cd / && true", ""),
        ("$HOME/bin/filter", ""),
        ("", ""),
    ],
)
def test_program_of_mailbox_command_is_found_in_path(command: str, missing: str) -> None:
    assert (
        postfix_files.missing_delivery(parse(f"mailbox_command = {command}\n", "", "")) == missing
    )


def test_service_with_missing_user_or_program_cannot_run() -> None:
    entry = "{} unix - n n - 0 {} user={} argv={}\n"
    master = (
        entry.format("spf", "spawn", "no-such-user", "/bin/sh")
        + entry.format("spam", "pipe", "root:", "/no/spamc -f")
        + entry.format("right", "pipe", "root", "/bin/sh -c true")
        + entry.format("proxy", "spawn", "root", "/no/postprox up")
    )
    assert dict(postfix_files.unrunnable(parse("", master, ""))) == {
        "spf/unix": "runs a program as user no-such-user, who does not exist",
        "spam/unix": "runs /no/spamc, which does not exist",
    }


def test_configuration_that_only_root_can_read_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = tmp_path / "main.cf"
    main.touch()
    main.chmod(0o600)
    tmp_path.chmod(0o700)
    configuration = parse(BEFORE, "", "")
    monkeypatch.setenv("MAIL_CONFIG", str(tmp_path))
    closed = tuple(postfix_files.closed_files(configuration))
    assert closed == (str(tmp_path), str(main))
    (finding,) = judge(setup_of(BEFORE, FRONT + UP + BEHIND, own(), closed_files=closed))
    assert finding.name == "postdrop"
    assert finding.remedy == f"chmod a+rX {tmp_path} {main}"
    main.chmod(0o644)
    tmp_path.chmod(0o755)
    assert list(postfix_files.closed_files(configuration)) == []


def test_messages_in_default_queue_are_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "deferred/A").mkdir(parents=True)
    new.mkdir()
    monkeypatch.setitem(DEFAULTS, "queue_directory", str(old))
    configuration = parse(f"queue_directory = {new}\n", "", "")
    assert postfix_files.old_queue(configuration) == ""
    (old / "deferred/A/AB12").touch()
    assert postfix_files.old_queue(configuration) == str(old)
    assert postfix_files.old_queue(parse("", "", "")) == ""
    setup = setup_of(f"{BEFORE}queue_directory = {new}\n", FRONT + UP + BEHIND, own())
    setup = replace(setup, configuration=replace(setup.configuration, old_queue=str(old)))
    (finding,) = judge(setup)
    assert finding.name == "queue"
    (new / "deferred").mkdir()
    copied = re.search("for q in .*done", finding.remedy)
    assert copied
    subprocess.run(["/bin/sh", "-c", f"mkdir -p {old}/hold {new}/hold; {copied[0]}"], check=True)
    assert (new / "deferred/A/AB12").exists()
    assert not (old / "deferred/A/AB12").exists()


@pytest.mark.parametrize(
    ("addresses", "count"), [(("192.0.2.1", "::1"), 1), (("::1", "127.0.0.1"), 0), ((), 0)]
)
def test_localhost_without_ipv4_loopback_address_is_reported(
    addresses: tuple[str, ...], count: int
) -> None:
    master = FRONT + UP.replace("127.0.0.1:10026", "localhost:10026") + BEHIND
    hosts = {"localhost": addresses} if addresses else {}
    findings = judge(setup_of(BEFORE, master, own(), hosts=hosts))
    remedies = [each.remedy for each in findings if each.name == "no-upstream"]
    assert len(remedies) == count
    assert all(" 127.0.0.1:10026" in each for each in remedies)


@pytest.mark.parametrize(
    ("main", "overrides", "remedy"),
    [
        ("smtpd_tls_security_level = encrypt", "", "postconf -e smtpd_tls_security_level=may"),
        ("smtpd_enforce_tls = yes", "", "postconf -e smtpd_enforce_tls=no"),
        (
            "",
            "smtp/inet/smtpd_tls_security_level = encrypt",
            "postconf -P smtp/inet/smtpd_tls_security_level=may",
        ),
        ("smtpd_tls_security_level = may", "", ""),
        ("", "submission/inet/smtpd_tls_security_level = encrypt", ""),
        (
            "smtpd_tls_security_level = encrypt",
            "smtp/inet/smtpd_client_restrictions = permit_mynetworks, reject",
            "",
        ),
    ],
)
def test_required_starttls_for_mail_servers_is_corrected(
    main: str, overrides: str, remedy: str
) -> None:
    master = FRONT + "submission inet n - n - - smtpd\n" + UP + BEHIND
    kept = "127.0.0.1:10026/inet/smtpd_{}\n"
    kept = kept.format("tls_security_level = none") + kept.format("enforce_tls = no")
    own_values = f"{own()}{kept}submission/inet/smtpd_proxy_filter = 127.0.0.1:10025\n{overrides}\n"
    findings = judge(setup_of(f"{BEFORE}{main}\n", master, own_values))
    remedies = [each.remedy for each in findings if each.name == "starttls"]
    assert len(remedies) == bool(remedy)
    assert all(each.startswith(remedy) for each in remedies)
    if remedies and main.endswith("encrypt"):
        assert remedies[0].endswith("postconf -P submission/inet/smtpd_tls_security_level=encrypt")


def test_wrapper_mode_without_tls_service_is_reported_for_port_25() -> None:
    mode = "smtpd_tls_wrappermode = yes\n"
    overrides = f"{own()}127.0.0.1:10026/inet/{mode.replace('yes', 'no')}"
    for front, count in ((FRONT, 1), (FRONT.replace("smtp ", "2525 ", 1), 0)):
        values = overrides.replace("smtp/inet", "2525/inet") if not count else overrides
        findings = judge(setup_of(f"{BEFORE}{mode}", f"{front}{UP}{BEHIND}", values))
        found = [each.remedy for each in findings if each.name == "starttls"]
        assert found == ["postconf -e smtpd_tls_wrappermode=no"] * count
